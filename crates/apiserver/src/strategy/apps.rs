//! Deployment, ReplicaSet, StatefulSet, DaemonSet, ControllerRevision, and the old ReplicationController.
//!
//! After k/k `pkg/apis/apps/{v1/defaults.go,validation}` and `pkg/apis/core` at 1.36.

use serde_json::{Value, json};

use super::pod::defaults::template;
use super::walk::{at, each, ensure, ensure_at, field, fill, fill_zero, inner, object, same};
use super::{Generation, Status, Strategy, empty_status};

/// Rules of Deployments.
pub(super) static DEPLOYMENT: Strategy = Strategy {
    default: default_deployment,
    status: Status::Fresh(empty_status),
    generation: Generation::SpecAndAnnotations,
    ..Strategy::PLAIN
};

/// Rules of ReplicaSets.
pub(super) static REPLICA_SET: Strategy = Strategy {
    default: default_replica_set,
    status: Status::Fresh(|| json!({"replicas": 0})),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// Rules of StatefulSets.
pub(super) static STATEFUL_SET: Strategy = Strategy {
    default: default_stateful_set,
    status: Status::Fresh(|| json!({"replicas": 0, "availableReplicas": 0})),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// Rules of DaemonSets.
pub(super) static DAEMON_SET: Strategy = Strategy {
    default: default_daemon_set,
    prepare_create: |set| set_template_generation(set, 1),
    prepare_update: move_template_generation,
    status: Status::Fresh(
        || json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}),
    ),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// Rules of ControllerRevisions.
pub(super) static CONTROLLER_REVISION: Strategy = Strategy::PLAIN;

/// Rules of ReplicationControllers.
pub(super) static REPLICATION_CONTROLLER: Strategy = Strategy {
    default: default_replication_controller,
    status: Status::Fresh(|| json!({"replicas": 0})),
    generation: Generation::Spec,
    orphans_dependents: true,
    ..Strategy::PLAIN
};

fn default_deployment(deployment: &mut Value) {
    let Some(spec) = ensure_at(deployment, &["spec"]) else {
        return;
    };
    fill(spec, "replicas", 1);
    template(spec);
    if let Some(strategy) = ensure(spec, "strategy") {
        fill_zero(strategy, "type", "RollingUpdate");
        if field(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = ensure(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
    }
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
}

fn default_replica_set(set: &mut Value) {
    let Some(spec) = ensure_at(set, &["spec"]) else { return };
    fill(spec, "replicas", 1);
    template(spec);
}

fn default_stateful_set(set: &mut Value) {
    let Some(spec) = ensure_at(set, &["spec"]) else { return };
    fill(spec, "replicas", 1);
    template(spec);
    for claim in each(spec, "volumeClaimTemplates") {
        // Go writes the claim's type because the controller makes objects of the templates.
        fill_zero(claim, "apiVersion", "v1");
        fill_zero(claim, "kind", "PersistentVolumeClaim");
        super::storage::default_claim(claim);
    }
    fill(spec, "serviceName", "");
    fill_zero(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = ensure(spec, "updateStrategy") {
        if field(strategy, "type").is_empty() {
            strategy.insert("type".to_owned(), "RollingUpdate".into());
            ensure(strategy, "rollingUpdate");
        }
        if field(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = inner(strategy, "rollingUpdate")
        {
            fill(rolling, "partition", 0);
        }
    }
    fill(spec, "revisionHistoryLimit", 10);
    if let Some(policy) = ensure(spec, "persistentVolumeClaimRetentionPolicy") {
        fill_zero(policy, "whenDeleted", "Retain");
        fill_zero(policy, "whenScaled", "Retain");
    }
}

fn default_daemon_set(set: &mut Value) {
    let Some(spec) = ensure_at(set, &["spec"]) else { return };
    template(spec);
    if let Some(strategy) = ensure(spec, "updateStrategy") {
        fill_zero(strategy, "type", "RollingUpdate");
        if field(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = ensure(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
    }
    fill(spec, "revisionHistoryLimit", 10);
}

fn default_replication_controller(controller: &mut Value) {
    if let Some(spec) = ensure_at(controller, &["spec"]) {
        fill(spec, "replicas", 1);
        template(spec);
    }
    let Some(labels) = object(controller, &["spec", "template", "metadata", "labels"]).cloned() else {
        return;
    };
    if labels.is_empty() {
        return;
    }
    for path in [["spec"].as_slice(), &["metadata"]] {
        let key = if path == ["spec"] { "selector" } else { "labels" };
        if let Some(owner) = ensure_at(controller, path) {
            fill_zero(owner, key, Value::Object(labels.clone()));
        }
    }
}

/// `spec.templateGeneration` is no field of apps/v1: upstream keeps it in this annotation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn set_template_generation(set: &mut Value, generation: i64) {
    if let Some(annotations) = ensure_at(set, &["metadata", "annotations"]) {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string().into());
    }
}

fn move_template_generation(new: &mut Value, old: &Value) {
    let stored = at(old, &["metadata", "annotations", TEMPLATE_GENERATION]).and_then(Value::as_str);
    let stored: i64 = stored.and_then(|text| text.parse().ok()).unwrap_or(1);
    let changed = !same(at(new, &["spec", "template"]), at(old, &["spec", "template"]));
    set_template_generation(new, stored + i64::from(changed));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_deployment_gets_every_default() {
        let mut value = json!({"spec": {"selector": {}, "template": {"spec": {"containers": []}}}});
        default_deployment(&mut value);
        let spec = &value["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        assert_eq!(
            (&spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
            (&json!(10), &json!(600))
        );
        assert_eq!(spec["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    }

    #[test]
    fn annotations_move_the_generation_of_a_deployment_only() {
        let old = json!({"metadata": {"generation": 3}, "spec": {"replicas": 1}});
        let mut new = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"replicas": 1}});
        DEPLOYMENT.ready_update(&mut new, &old);
        assert_eq!(new["metadata"]["generation"], 4);
        REPLICA_SET.ready_update(&mut new, &old);
        assert_eq!(new["metadata"]["generation"], 3);
    }

    #[test]
    fn a_daemon_set_counts_its_templates() {
        let mut set = json!({"metadata": {}, "spec": {"template": {"a": 1}}});
        DAEMON_SET.ready_create(&mut set);
        assert_eq!(set["metadata"]["annotations"][TEMPLATE_GENERATION], "1");
        let old = set.clone();
        set["spec"]["template"]["a"] = json!(2);
        DAEMON_SET.ready_update(&mut set, &old);
        assert_eq!(set["metadata"]["annotations"][TEMPLATE_GENERATION], "2");
    }
}
