//! APIService.

use serde_json::Value;

use super::cell::{age, condition, name};
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::{at, text};

pub(super) static API_SERVICE: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Service", "Who serves the version."),
        Column::text("Available", "Whether it is being served."),
        AGE,
    ],
    cells: |service, now| {
        let server = at(service, &["spec", "service"]).map_or_else(
            || "Local".to_owned(),
            |target| format!("{}/{}", text(target, &["namespace"]), text(target, &["name"])),
        );
        vec![
            name(service),
            server.into(),
            available(service).into(),
            age(service, now),
        ]
    },
};

fn available(service: &Value) -> String {
    let Some(condition) = condition(service, "Available") else {
        return "Unknown".to_owned();
    };
    match text(condition, &["status"]) {
        "True" => "True".to_owned(),
        status => format!("{status} ({})", text(condition, &["reason"])),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    #[test]
    fn a_version_is_local_or_somebodys() {
        let local = json!({"metadata": {"name": "v1.apps"}, "status": {"conditions": [{"type": "Available", "status": "True"}]}});
        assert_eq!(row(&API_SERVICE, &local)[..3], ["v1.apps", "Local", "True"]);
        let remote = json!({"spec": {"service": {"namespace": "m", "name": "adapter"}},
            "status": {"conditions": [{"type": "Available", "status": "False", "reason": "MissingEndpoints"}]}});
        assert_eq!(
            row(&API_SERVICE, &remote)[1..3],
            ["m/adapter", "False (MissingEndpoints)"]
        );
    }
}
