//! Namespace, ConfigMap, Secret, ServiceAccount, ResourceQuota, ComponentStatus.

use serde_json::Value;

use super::cell::{age, name, quantity, size};
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::{list, object, text};

pub(super) static NAMESPACE: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "Whether the namespace is in use or on its way out."),
        AGE,
    ],
    cells: |namespace, now| {
        vec![
            name(namespace),
            text(namespace, &["status", "phase"]).into(),
            age(namespace, now),
        ]
    },
};

pub(super) static CONFIG_MAP: Printer = Printer {
    columns: &[NAME, Column::text("Data", "Number of entries."), AGE],
    cells: |map, now| {
        vec![
            name(map),
            (size(map, &["data"]) + size(map, &["binaryData"])).into(),
            age(map, now),
        ]
    },
};

pub(super) static SECRET: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Type", "What the Secret is for."),
        Column::text("Data", "Number of entries."),
        AGE,
    ],
    cells: |secret, now| {
        vec![
            name(secret),
            text(secret, &["type"]).into(),
            size(secret, &["data"]).into(),
            age(secret, now),
        ]
    },
};

pub(super) static SERVICE_ACCOUNT: Printer = Printer {
    columns: &[NAME, AGE],
    cells: |account, now| vec![name(account), age(account, now)],
};

pub(super) static RESOURCE_QUOTA: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Request", "What is used of what may be requested."),
        Column::text("Limit", "What is used of what limits may add up to."),
        AGE,
    ],
    cells: |quota, now| {
        let mut names: Vec<&str> = object(quota, &["status", "hard"])
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect();
        names.sort_unstable();
        let (limits, requests): (Vec<&str>, Vec<&str>) =
            names.into_iter().partition(|name| name.starts_with("limits."));
        let line = |names: Vec<&str>| {
            let used = |name: &str| quantity(quota, &["status", "used", name]);
            let hard = |name: &str| quantity(quota, &["status", "hard", name]);
            names
                .iter()
                .map(|name| format!("{name}: {}/{}", used(name), hard(name)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        vec![name(quota), line(requests).into(), line(limits).into(), age(quota, now)]
    },
};

pub(super) static COMPONENT_STATUS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "Whether the component is healthy."),
        Column::text("Message", "What it says."),
        Column::text("Error", "What went wrong when it was asked."),
    ],
    cells: |component, _| {
        let healthy = list(component, &["conditions"])
            .iter()
            .find(|condition| text(condition, &["type"]) == "Healthy");
        let field = |key: &str| healthy.map(|condition| text(condition, &[key])).unwrap_or_default();
        let status = match field("status") {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        [name(component), status.into()]
            .into_iter()
            .chain([Value::from(field("message")), field("error").into()])
            .collect()
    },
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    #[test]
    fn entries_are_counted() {
        let map = json!({"metadata": {"name": "a"}, "data": {"x": "1"}, "binaryData": {"y": "eA=="}});
        assert_eq!(row(&CONFIG_MAP, &map), ["a", "2", "<unknown>"]);
        let secret = json!({"metadata": {"name": "a"}, "type": "Opaque", "data": {"x": "eA=="}});
        assert_eq!(row(&SECRET, &secret), ["a", "Opaque", "1", "<unknown>"]);
    }

    #[test]
    fn a_quota_shows_limits_apart() {
        let quota = json!({"metadata": {"name": "q"}, "status": {
            "hard": {"pods": "5", "limits.cpu": "2", "cpu": "1"}, "used": {"pods": "1", "limits.cpu": "500m"}}});
        assert_eq!(
            row(&RESOURCE_QUOTA, &quota)[1..3],
            ["cpu: 0/1, pods: 1/5", "limits.cpu: 500m/2"]
        );
    }
}
