//! The core group, and Events under either of their names.

mod event;
mod node;
pub(super) mod pod;
mod quota;
mod service;
mod volume;

use jiff::Timestamp;
use serde_json::Value;

use super::column::{AGE, Column, NAME, containers, count, images, int, labels, shown, text};
use super::show::{self, or};
use crate::strategy::walk;

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    Some(match kind {
        "ComponentStatus" => COMPONENT_STATUS,
        "ConfigMap" => CONFIG_MAP,
        "Endpoints" => service::ENDPOINTS,
        "Event" => event::EVENT,
        "Namespace" => NAMESPACE,
        "Node" => node::NODE,
        "PersistentVolume" => volume::PERSISTENT_VOLUME,
        "PersistentVolumeClaim" => volume::PERSISTENT_VOLUME_CLAIM,
        "Pod" => pod::POD,
        "PodTemplate" => POD_TEMPLATE,
        "ReplicationController" => REPLICATION_CONTROLLER,
        "ResourceQuota" => quota::RESOURCE_QUOTA,
        "Secret" => SECRET,
        "Service" => service::SERVICE,
        "ServiceAccount" => SERVICE_ACCOUNT,
        _ => return None,
    })
}

static COMPONENT_STATUS: &[Column] = &[
    NAME,
    shown("Status", "Whether the component is healthy", health),
    shown("Message", "What the component says", |object, _| {
        healthy(object, "message")
    }),
    shown("Error", "What is wrong with the component", |object, _| {
        healthy(object, "error")
    }),
];

static CONFIG_MAP: &[Column] = &[
    NAME,
    shown("Data", "Number of entries, text and binary", |object, _| {
        (show::count(object, &["data"]) + show::count(object, &["binaryData"])).into()
    }),
    AGE,
];

static NAMESPACE: &[Column] = &[
    NAME,
    text(
        "Status",
        "Whether the namespace is in use or going away",
        &["status", "phase"],
    ),
    AGE,
];

static POD_TEMPLATE: &[Column] = &[
    NAME,
    containers(&["template", "spec", "containers"]),
    images(&["template", "spec", "containers"]),
    labels(
        "Pod Labels",
        "Labels of the template's pods",
        &["template", "metadata", "labels"],
    ),
];

static REPLICATION_CONTROLLER: &[Column] = &[
    NAME,
    int("Desired", "Number of pods wanted", &["spec", "replicas"]),
    int("Current", "Number of pods there are", &["status", "replicas"]),
    int("Ready", "Number of pods that are ready", &["status", "readyReplicas"]),
    AGE,
    containers(&["spec", "template", "spec", "containers"]).wide(),
    images(&["spec", "template", "spec", "containers"]).wide(),
    labels(
        "Selector",
        "Labels of the pods that belong to it",
        &["spec", "selector"],
    )
    .wide(),
];

static SECRET: &[Column] = &[
    NAME,
    text("Type", "What the secret is for", &["type"]),
    count("Data", "Number of entries", &["data"]).of_type("string"),
    AGE,
];

static SERVICE_ACCOUNT: &[Column] = &[NAME, AGE];

fn health(object: &Value, _: Timestamp) -> Value {
    match conditions_of(object) {
        None => "Unknown",
        Some(condition) if walk::text(condition, &["status"]) == "True" => "Healthy",
        Some(_) => "Unhealthy",
    }
    .into()
}

fn healthy(object: &Value, field: &str) -> Value {
    let said = conditions_of(object).map_or("", |condition| walk::text(condition, &[field]));
    or(said, "").into()
}

/// A ComponentStatus has its conditions at the top.
fn conditions_of(object: &Value) -> Option<&Value> {
    walk::list(object, &["conditions"])
        .iter()
        .find(|condition| walk::text(condition, &["type"]) == "Healthy")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::testing::{headings, row};

    #[test]
    fn a_config_map_counts_text_and_binary_entries() {
        let map = json!({
            "metadata": {"name": "settings", "creationTimestamp": "2026-01-02T11:55:00Z"},
            "data": {"a": "1", "b": "2"}, "binaryData": {"c": "eA=="},
        });
        assert_eq!(headings("v1", "ConfigMap"), "Name  Data  Age");
        assert_eq!(row("v1", "ConfigMap", &map), "settings  3  5m");
        let secret = json!({
            "metadata": {"name": "token", "creationTimestamp": "2026-01-02T11:59:59Z"}, "type": "Opaque", "data": {"a": ""},
        });
        assert_eq!(row("v1", "Secret", &secret), "token  Opaque  1  1s");
    }

    #[test]
    fn a_namespace_shows_its_phase() {
        let namespace = json!({"metadata": {"name": "shop"}, "status": {"phase": "Terminating"}});
        assert_eq!(row("v1", "Namespace", &namespace), "shop  Terminating  <unknown>");
    }

    #[test]
    fn a_replication_controller_shows_its_pods() {
        let controller = json!({
            "metadata": {"name": "web", "creationTimestamp": "2026-01-02T09:00:00Z"},
            "spec": {"replicas": 3, "selector": {"b": "2", "a": "1"}, "template": {"spec": {"containers": [
                {"name": "web", "image": "web:1"}, {"name": "log", "image": "log:2"}]}}},
            "status": {"replicas": 3, "readyReplicas": 1},
        });
        let expected = "web  3  3  1  3h | web,log  web:1,log:2  a=1,b=2";
        assert_eq!(row("v1", "ReplicationController", &controller), expected);
    }

    #[test]
    fn a_component_is_healthy_unhealthy_or_unknown() {
        let status = |conditions| json!({"metadata": {"name": "etcd-0"}, "conditions": conditions});
        let healthy = status(json!([{"type": "Healthy", "status": "True", "message": "ok"}]));
        assert_eq!(row("v1", "ComponentStatus", &healthy), "etcd-0  Healthy  ok  ");
        let broken = status(json!([{"type": "Healthy", "status": "False", "error": "refused"}]));
        assert_eq!(row("v1", "ComponentStatus", &broken), "etcd-0  Unhealthy    refused");
        assert_eq!(
            row("v1", "ComponentStatus", &status(json!(null))),
            "etcd-0  Unknown    "
        );
    }
}
