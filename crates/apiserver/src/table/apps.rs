//! Deployment, ReplicaSet, StatefulSet, DaemonSet, ControllerRevision.

use apimachinery::gvk::GroupVersion;
use apimachinery::labels::Selector;
use jiff::Timestamp;
use serde_json::Value;

use super::column::{AGE, Column, NAME, containers, images, int, labels, selector, shown};
use crate::strategy::walk::{self, at};

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    Some(match kind {
        "ControllerRevision" => CONTROLLER_REVISION,
        "DaemonSet" => DAEMON_SET,
        "Deployment" => DEPLOYMENT,
        "ReplicaSet" => REPLICA_SET,
        "StatefulSet" => STATEFUL_SET,
        _ => return None,
    })
}

const READY: Column = shown("Ready", "Pods that are ready, of those wanted", ready);
const CONTAINERS: Column = containers(&["spec", "template", "spec", "containers"]).wide();
const IMAGES: Column = images(&["spec", "template", "spec", "containers"]).wide();
const SELECTOR: Column = selector(
    "Selector",
    "Labels of the pods that belong to it",
    &["spec", "selector"],
)
.wide();

static DEPLOYMENT: &[Column] = &[
    NAME,
    READY,
    int(
        "Up-to-date",
        "Pods of the current template",
        &["status", "updatedReplicas"],
    )
    .of_type("string"),
    int(
        "Available",
        "Pods that have been ready long enough",
        &["status", "availableReplicas"],
    )
    .of_type("string"),
    AGE,
    CONTAINERS,
    IMAGES,
    // A deployment alone shows nothing for an empty selector.
    shown("Selector", "Labels of the pods that belong to it", deployment_selector).wide(),
];

static REPLICA_SET: &[Column] = &[
    NAME,
    int("Desired", "Pods wanted", &["spec", "replicas"]),
    int("Current", "Pods there are", &["status", "replicas"]),
    int("Ready", "Pods that are ready", &["status", "readyReplicas"]),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

static STATEFUL_SET: &[Column] = &[NAME, READY, AGE, CONTAINERS, IMAGES];

static DAEMON_SET: &[Column] = &[
    NAME,
    int(
        "Desired",
        "Nodes that should run a pod",
        &["status", "desiredNumberScheduled"],
    ),
    int(
        "Current",
        "Nodes that run a pod and should",
        &["status", "currentNumberScheduled"],
    ),
    int("Ready", "Pods that are ready", &["status", "numberReady"]),
    int(
        "Up-to-date",
        "Pods of the current template",
        &["status", "updatedNumberScheduled"],
    ),
    int(
        "Available",
        "Pods that have been ready long enough",
        &["status", "numberAvailable"],
    ),
    labels(
        "Node Selector",
        "Labels of the nodes that should run a pod",
        &["spec", "template", "spec", "nodeSelector"],
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

static CONTROLLER_REVISION: &[Column] = &[
    NAME,
    shown("Controller", "The object whose revision it is", controller),
    int("Revision", "Its number", &["revision"]).of_type("string"),
    AGE,
];

fn ready(object: &Value, _: Timestamp) -> Value {
    let ready = walk::int(object, &["status", "readyReplicas"]).unwrap_or_default();
    let wanted = walk::int(object, &["spec", "replicas"]).unwrap_or_default();
    format!("{ready}/{wanted}").into()
}

fn deployment_selector(deployment: &Value, _: Timestamp) -> Value {
    let selector = at(deployment, &["spec", "selector"]).unwrap_or(&Value::Null);
    Selector::from_label_selector(selector)
        .map_or_else(|_| "<invalid>".to_owned(), |selector| selector.to_string())
        .into()
}

fn controller(revision: &Value, _: Timestamp) -> Value {
    let owners = walk::list(revision, &["metadata", "ownerReferences"]);
    let Some(owner) = owners.iter().find(|owner| walk::flag(owner, &["controller"])) else {
        return "<none>".into();
    };
    let kind = GroupVersion::parse(walk::text(owner, &["apiVersion"]))
        .unwrap_or_default()
        .with_kind(walk::text(owner, &["kind"]))
        .group_kind();
    format!("{}/{}", kind.to_string().to_lowercase(), walk::text(owner, &["name"])).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::{headings, row};

    fn workload(status: &Value) -> Value {
        json!({
            "metadata": {"name": "web", "creationTimestamp": "2026-01-02T11:51:15Z"},
            "spec": {"replicas": 3,
                "selector": {"matchLabels": {"app": "web"}, "matchExpressions":
                    [{"key": "tier", "operator": "In", "values": ["b", "a"]}]},
                "template": {"spec": {"containers": [
                    {"name": "web", "image": "web:1"}, {"name": "log", "image": "log:2"}]}}},
            "status": status,
        })
    }

    #[test]
    fn a_deployment_rolls_out() {
        assert_eq!(
            headings("apps/v1", "Deployment"),
            "Name  Ready  Up-to-date  Available  Age | Containers  Images  Selector"
        );
        let status = json!({"replicas": 4, "updatedReplicas": 2, "readyReplicas": 3, "availableReplicas": 3});
        assert_eq!(
            row("apps/v1", "Deployment", &workload(&status)),
            "web  3/3  2  3  8m45s | web,log  web:1,log:2  app=web,tier in (a,b)"
        );
        assert_eq!(
            row("apps/v1", "Deployment", &workload(&json!({}))),
            "web  0/3  0  0  8m45s | web,log  web:1,log:2  app=web,tier in (a,b)"
        );
    }

    #[test]
    fn a_replica_set_and_a_stateful_set() {
        let status = json!({"replicas": 3, "readyReplicas": 1});
        assert_eq!(
            row("apps/v1", "ReplicaSet", &workload(&status)),
            "web  3  3  1  8m45s | web,log  web:1,log:2  app=web,tier in (a,b)"
        );
        assert_eq!(
            row("apps/v1", "StatefulSet", &workload(&status)),
            "web  1/3  8m45s | web,log  web:1,log:2"
        );
    }

    #[test]
    fn a_daemon_set_counts_nodes() {
        let status = json!({"desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberReady": 1,
            "updatedNumberScheduled": 2, "numberAvailable": 1});
        let mut set = workload(&status);
        set["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
        assert_eq!(
            row("apps/v1", "DaemonSet", &set),
            "web  2  2  1  2  1  disk=ssd  8m45s | web,log  web:1,log:2  app=web,tier in (a,b)"
        );
    }

    #[test]
    fn a_revision_names_its_controller() {
        let revision = json!({"metadata": {"name": "web-1", "ownerReferences":
            [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "web", "controller": true}]}, "revision": 2});
        assert_eq!(
            row("apps/v1", "ControllerRevision", &revision),
            "web-1  daemonset.apps/web  2  <unknown>"
        );
    }

    #[test]
    fn an_unreadable_selector_does_not_hide_the_row() {
        let mut web = workload(&json!({}));
        web["spec"]["selector"] = json!({"matchLabels": {"not a key": "x"}});
        assert!(row("apps/v1", "Deployment", &web).ends_with("<invalid>"));
        assert!(row("apps/v1", "ReplicaSet", &web).ends_with("<error>"));
    }
}
