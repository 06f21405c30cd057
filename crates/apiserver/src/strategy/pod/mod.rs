//! Pod and PodTemplate: the rules of what runs, also of the templates in every workload.

mod containers;
pub(crate) mod defaults;
mod env;
mod probes;
pub(crate) mod qos;
pub(super) mod resources;
pub(super) mod scheduling;
mod security;
mod subresources;
mod update;
pub(crate) mod validation;
pub(super) mod volumes;

use apimachinery::field::Path;
use serde_json::{Value, json};

use super::walk::list;
use super::{Generation, Status, Strategy, empty_status};

/// Rules of Pods.
pub(super) static POD: Strategy = Strategy {
    default: defaults::pod,
    prepare_create,
    validate: validation::validate_pod,
    validate_new: validation::validate_new_pod,
    validate_update: update::validate,
    subresources: subresources::ALL,
    status: Status::Fresh(empty_status),
    generation: Generation::Spec,
    delete_returns_object: true,
    graceful_delete: true,
    ..Strategy::PLAIN
};

/// Rules of PodTemplates.
pub(super) static POD_TEMPLATE: Strategy = Strategy {
    default: |template| {
        if let Some(template) = template.as_object_mut() {
            defaults::template(template);
        }
    },
    validate: |template, errors| {
        let body = template.get("template").unwrap_or(&Value::Null);
        validation::validate_template(body, &Path::new("template"), errors);
    },
    generation: Generation::Spec,
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// A new Pod is Pending, whatever the client says.
fn prepare_create(pod: &mut Value) {
    let mut status = json!({"phase": "Pending", "qosClass": qos::class(pod)});
    if !list(pod, &["spec", "schedulingGates"]).is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    pod["status"] = status;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_pod_is_pending_and_has_a_class() {
        let mut pod =
            json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Running"}});
        POD.ready_create(&mut pod);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
        assert_eq!(pod["metadata"]["generation"], 1);
    }

    #[test]
    fn a_gated_pod_says_so_from_the_start() {
        let mut pod = json!({"spec": {"schedulingGates": [{"name": "x"}], "containers": []}});
        POD.ready_create(&mut pod);
        assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
    }

    #[test]
    fn status_writes_change_status_only() {
        let old = json!({"metadata": {"name": "a", "generation": 1, "ownerReferences": [{"uid": "u"}]}, "spec": {"x": 1},
            "status": {"qosClass": "Burstable", "phase": "Pending"}});
        let mut new =
            json!({"metadata": {"name": "a", "labels": {"a": "b"}}, "spec": {"x": 2}, "status": {"phase": "Running"}});
        POD.ready_change("status", &mut new, &old);
        assert_eq!(
            new,
            json!({"metadata": {"name": "a", "labels": {"a": "b"}, "generation": 1, "ownerReferences": [{"uid": "u"}]},
                "spec": {"x": 1}, "status": {"phase": "Running", "qosClass": "Burstable"}})
        );
    }
}
