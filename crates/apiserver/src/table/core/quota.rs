//! ResourceQuota: used and allowed, requests and limits apart.

use serde_json::Value;

use crate::strategy::walk;
use crate::table::column::{AGE, Column, NAME, shown};
use crate::table::show;

pub(super) static RESOURCE_QUOTA: &[Column] = &[
    NAME,
    shown("Request", "Used and allowed, of everything but limits", |quota, _| {
        used(quota, false).into()
    }),
    shown("Limit", "Used and allowed, of limits", |quota, _| {
        used(quota, true).into()
    }),
    AGE,
];

fn used(quota: &Value, limits: bool) -> String {
    let Some(hard) = walk::object(quota, &["status", "hard"]) else {
        return String::new();
    };
    let mut entries: Vec<_> = hard
        .iter()
        .filter(|(resource, _)| resource.starts_with("limits.") == limits)
        .collect();
    entries.sort_unstable_by_key(|(resource, _)| *resource);
    let shown = entries.into_iter().map(|(resource, hard)| {
        let used = show::quantity(walk::at(quota, &["status", "used", resource]));
        format!("{resource}: {used}/{}", show::quantity(Some(hard)))
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::testing::row;

    #[test]
    fn requests_and_limits_have_a_column_each() {
        let quota = json!({
            "metadata": {"name": "q", "creationTimestamp": "2026-01-02T11:00:00Z"},
            "status": {
                "hard": {"requests.cpu": "2", "pods": "10", "limits.memory": "2048Mi", "limits.cpu": "4"},
                "used": {"requests.cpu": "500m", "pods": "3", "limits.memory": "1Gi"},
            },
        });
        assert_eq!(
            row("v1", "ResourceQuota", &quota),
            "q  pods: 3/10, requests.cpu: 500m/2  limits.cpu: 0/4, limits.memory: 1Gi/2Gi  60m"
        );
    }
}
