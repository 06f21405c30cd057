//! Deployment, ReplicaSet, StatefulSet, DaemonSet, ControllerRevision, and the old ReplicationController.

use apimachinery::gvk::GroupVersion;
use apimachinery::labels::Selector;
use serde_json::Value;

use super::cell::{NONE, age, containers, count, labels, name, selector};
use super::{AGE, CONTAINERS, Column, IMAGES, NAME, Printer, SELECTOR};
use crate::strategy::walk::{at, flag, list, text};

const TEMPLATE: [&str; 3] = ["spec", "template", "spec"];
const DESIRED: Column = Column::integer("Desired", "How many Pods there should be.");
const CURRENT: Column = Column::integer("Current", "How many Pods there are.");
const READY: Column = Column::integer("Ready", "How many Pods are ready.");
const READY_OF: Column = Column::text("Ready", "How many Pods are ready, of those there should be.");

pub(super) static DEPLOYMENT: Printer = Printer {
    columns: &[
        NAME,
        READY_OF,
        Column::text("Up-to-date", "How many Pods have the current template."),
        Column::text("Available", "How many Pods have been ready for long enough."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |deployment, now| {
        let [names, images] = containers(deployment, &TEMPLATE);
        let selector = at(deployment, &["spec", "selector"]).map(Selector::from_label_selector);
        vec![
            name(deployment),
            ready_of(deployment),
            count(deployment, &["status", "updatedReplicas"]).into(),
            count(deployment, &["status", "availableReplicas"]).into(),
            age(deployment, now),
            names,
            images,
            match selector {
                Some(Ok(selector)) => selector.to_string().into(),
                Some(Err(_)) => "<invalid>".into(),
                None => "".into(),
            },
        ]
    },
};

pub(super) static REPLICA_SET: Printer = Printer {
    columns: &[NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR],
    cells: |set, now| replicas(set, now, selector(set, &["spec", "selector"])),
};

pub(super) static REPLICATION_CONTROLLER: Printer = Printer {
    columns: &[NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR],
    cells: |controller, now| replicas(controller, now, labels(controller, &["spec", "selector"])),
};

pub(super) static STATEFUL_SET: Printer = Printer {
    columns: &[NAME, READY_OF, AGE, CONTAINERS, IMAGES],
    cells: |set, now| {
        let [names, images] = containers(set, &TEMPLATE);
        vec![name(set), ready_of(set), age(set, now), names, images]
    },
};

pub(super) static DAEMON_SET: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Desired", "On how many nodes a Pod should run."),
        Column::integer("Current", "On how many of them one does."),
        Column::integer("Ready", "On how many of them it is ready."),
        Column::integer("Up-to-date", "On how many of them it has the current template."),
        Column::integer("Available", "On how many of them it has been ready for long enough."),
        Column::text("Node Selector", "Labels of the nodes that are meant."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |set, now| {
        let [names, images] = containers(set, &TEMPLATE);
        let number = |key: &str| count(set, &["status", key]).into();
        vec![
            name(set),
            number("desiredNumberScheduled"),
            number("currentNumberScheduled"),
            number("numberReady"),
            number("updatedNumberScheduled"),
            number("numberAvailable"),
            labels(set, &["spec", "template", "spec", "nodeSelector"]).into(),
            age(set, now),
            names,
            images,
            selector(set, &["spec", "selector"]).into(),
        ]
    },
};

pub(super) static CONTROLLER_REVISION: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Controller", "Whose revision it is."),
        Column::text("Revision", "Its number."),
        AGE,
    ],
    cells: |revision, now| {
        let owners = list(revision, &["metadata", "ownerReferences"]);
        let controller = owners.iter().find(|owner| flag(owner, &["controller"])).map(|owner| {
            let group = GroupVersion::parse(text(owner, &["apiVersion"]))
                .unwrap_or_default()
                .group;
            let kind = text(owner, &["kind"]).to_lowercase();
            let kind = if group.is_empty() {
                kind
            } else {
                format!("{kind}.{group}")
            };
            format!("{kind}/{}", text(owner, &["name"]))
        });
        vec![
            name(revision),
            controller.unwrap_or_else(|| NONE.to_owned()).into(),
            count(revision, &["revision"]).into(),
            age(revision, now),
        ]
    },
};

fn ready_of(workload: &Value) -> Value {
    let (ready, desired) = (
        count(workload, &["status", "readyReplicas"]),
        count(workload, &["spec", "replicas"]),
    );
    format!("{ready}/{desired}").into()
}

fn replicas(set: &Value, now: jiff::Timestamp, selector: String) -> Vec<Value> {
    let [names, images] = containers(set, &TEMPLATE);
    vec![
        name(set),
        count(set, &["spec", "replicas"]).into(),
        count(set, &["status", "replicas"]).into(),
        count(set, &["status", "readyReplicas"]).into(),
        age(set, now),
        names,
        images,
        selector.into(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    fn workload() -> Value {
        json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"containers": [
                {"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}}},
            "status": {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2}})
    }

    #[test]
    fn workloads_print_as_kubectl_shows_them() {
        assert_eq!(
            row(&DEPLOYMENT, &workload()),
            ["web", "2/3", "1", "2", "60m", "a,b", "x:1,y:2", "app=web"]
        );
        assert_eq!(
            row(&REPLICA_SET, &workload()),
            ["web", "3", "3", "2", "60m", "a,b", "x:1,y:2", "app=web"]
        );
        assert_eq!(row(&STATEFUL_SET, &workload()), ["web", "2/3", "60m", "a,b", "x:1,y:2"]);
    }

    #[test]
    fn a_daemon_set_shows_its_nodes() {
        let set = json!({"metadata": {"name": "d"}, "status": {"desiredNumberScheduled": 1, "numberReady": 1}});
        assert_eq!(row(&DAEMON_SET, &set)[..7], ["d", "1", "0", "1", "0", "0", "<none>"]);
    }

    #[test]
    fn a_revision_names_its_controller() {
        let revision = json!({"metadata": {"name": "r", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]}, "revision": 2});
        assert_eq!(
            row(&CONTROLLER_REVISION, &revision)[..3],
            ["r", "statefulset.apps/web", "2"]
        );
    }
}
