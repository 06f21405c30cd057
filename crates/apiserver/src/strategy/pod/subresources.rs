//! What is written below a Pod: `/status`, `/ephemeralcontainers`, `/resize`. After k/k 1.36
//! `pkg/registry/core/pod/strategy.go` and `ValidatePodEphemeralContainersUpdate`, `ValidatePodResize`.

use apimachinery::field::{Error, Path};
use serde_json::Value;

use crate::strategy::Subresource;
use crate::strategy::walk::{self, at, drop_key, each, fill_zero, has, keep_old, list, object, object_mut, same, text};

use super::{qos, validation};

/// See the module.
pub(super) const ALL: &[Subresource] = &[
    Subresource {
        name: "status",
        ready: ready_status,
        validate: |_, _, _| {},
    },
    Subresource {
        name: "ephemeralcontainers",
        ready: ready_ephemeral_containers,
        validate: validate_ephemeral_containers,
    },
    Subresource {
        name: "resize",
        ready: ready_resize,
        validate: validate_resize,
    },
];

/// By this annotation the API's copy of a static Pod is known.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The class of service stays, and observed generations that an old client leaves out do too.
fn ready_status(new: &mut Value, old: &Value) {
    let (class, observed) = (
        at(old, &["status", "qosClass"]),
        at(old, &["status", "observedGeneration"]),
    );
    let Some(status) = object_mut(new, &["status"]) else {
        return;
    };
    for (key, value) in [("qosClass", class), ("observedGeneration", observed)] {
        if let Some(value) = value {
            fill_zero(status, key, value.clone());
        }
    }
    for condition in each(status, "conditions") {
        let kind = walk::field(condition, "type").to_owned();
        let stored = list(old, &["status", "conditions"])
            .iter()
            .find(|stored| text(stored, &["type"]) == kind);
        if let Some(generation) = stored.and_then(|stored| at(stored, &["observedGeneration"])) {
            fill_zero(condition, "observedGeneration", generation.clone());
        }
    }
}

fn ready_ephemeral_containers(new: &mut Value, old: &Value) {
    let containers = at(new, &["spec", "ephemeralContainers"]).cloned();
    keep_all(new, old);
    if let Some(spec) = object_mut(new, &["spec"]) {
        match containers {
            Some(containers) => {
                spec.insert("ephemeralContainers".to_owned(), containers);
            }
            None => drop_key(spec, "ephemeralContainers"),
        }
    }
}

/// One may come; none may change or go.
fn validate_ephemeral_containers(new: &Value, old: &Value, errors: &mut Vec<Error>) {
    validation::validate_pod(new, errors);
    if has(old, &["metadata", "annotations", MIRROR]) {
        *errors = vec![Error::forbidden(
            &Path::new(""),
            "static pods do not support ephemeral containers",
        )];
        return;
    }
    let path = Path::new("spec.ephemeralContainers");
    let given = list(new, &["spec", "ephemeralContainers"]);
    for stored in list(old, &["spec", "ephemeralContainers"]) {
        let name = text(stored, &["name"]);
        let what = match given.iter().find(|container| text(container, &["name"]) == name) {
            None => "removed",
            Some(container) if !same(Some(container), Some(stored)) => "changed",
            Some(_) => continue,
        };
        let detail = format!("existing ephemeral containers {name:?} may not be {what}\n");
        errors.push(Error::forbidden(&path, detail));
    }
}

const CONTAINERS: [&str; 2] = ["containers", "initContainers"];

/// Resources and resize policies of containers. Other containers than before are left for validation to find.
fn ready_resize(new: &mut Value, old: &Value) {
    if !out_of_order(new, old).is_empty() {
        return;
    }
    let given = new.get("spec").cloned().unwrap_or(Value::Null);
    keep_all(new, old);
    let Some(spec) = object_mut(new, &["spec"]) else { return };
    for containers in CONTAINERS {
        for (container, asked) in each(spec, containers).zip(list(&given, &[containers])) {
            for key in ["resources", "resizePolicy"] {
                match asked.get(key) {
                    Some(value) => {
                        container.insert(key.to_owned(), value.clone());
                    }
                    None => drop_key(container, key),
                }
            }
        }
    }
    match given.get("resources") {
        Some(resources) => {
            spec.insert("resources".to_owned(), resources.clone());
        }
        None => drop_key(spec, "resources"),
    }
}

/// CPU and memory may change where the node can do it; the class of service and the names of what is bounded may not.
fn validate_resize(new: &Value, old: &Value, errors: &mut Vec<Error>) {
    validation::validate_pod(new, errors);
    if has(old, &["metadata", "annotations", MIRROR]) {
        *errors = vec![Error::forbidden(&Path::new(""), "static pods cannot be resized")];
        return;
    }
    let path = Path::new("spec");
    if qos::class(new) != qos::class(old) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(Error::invalid(&path, text(new, &["status", "qosClass"]), detail));
    }
    // A kubelet that can resize says what a running container has.
    let running = list(old, &["status", "containerStatuses"])
        .iter()
        .find(|status| at(status, &["state", "running"]).is_some());
    if running.is_some_and(|status| at(status, &["resources"]).is_none()) {
        let detail = "Pod running on node without support for resize";
        errors.push(Error::forbidden(&path, detail));
    }
    let misplaced = out_of_order(new, old);
    if !misplaced.is_empty() {
        errors.extend(misplaced);
        return;
    }
    for containers in CONTAINERS {
        let pairs = list(new, &["spec", containers])
            .iter()
            .zip(list(old, &["spec", containers]));
        for (index, (new, old)) in pairs.enumerate() {
            let path = path.child(containers).index(index);
            resized(new, old, containers == "initContainers", &path, errors);
        }
    }
}

/// One container that may have other resources.
fn resized(new: &Value, old: &Value, init: bool, path: &Path, errors: &mut Vec<Error>) {
    let sidecar = text(old, &["restartPolicy"]) == "Always";
    if init && !sidecar {
        if !same(Some(new), Some(old)) {
            let detail = "resources for non-sidecar init containers are immutable";
            errors.push(Error::forbidden(&Path::new("spec"), detail));
        }
        return;
    }
    for (list, what) in [("requests", "requests"), ("limits", "limits")] {
        let names = |container| {
            object(container, &["resources", list])
                .into_iter()
                .flat_map(|map| map.keys())
        };
        if names(old).any(|name| !names(new).any(|other| other == name)) {
            let detail = format!("resource {what} cannot be removed");
            errors.push(Error::forbidden(&path.child("resources").child(list), detail));
        }
    }
    let fixed = |container: &Value| {
        let mut container = container.clone();
        if let Some(map) = container.as_object_mut() {
            drop_key(map, "resizePolicy");
        }
        for list in ["requests", "limits"] {
            if let Some(amounts) = object_mut(&mut container, &["resources", list]) {
                drop_key(amounts, "cpu");
                drop_key(amounts, "memory");
            }
        }
        container
    };
    if !same(Some(&fixed(new)), Some(&fixed(old))) {
        errors.push(match init {
            true => {
                let detail = "only cpu and memory resources for init or sidecar containers are mutable";
                Error::forbidden(path, detail)
            }
            false => Error::forbidden(&Path::new("spec"), "only cpu and memory resources are mutable"),
        });
    }
}

/// A resize names the same containers in the same order.
fn out_of_order(new: &Value, old: &Value) -> Vec<Error> {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    for containers in CONTAINERS {
        let path = path.child(containers);
        let (new, old) = (list(new, &["spec", containers]), list(old, &["spec", containers]));
        if new.len() != old.len() {
            let detail = format!("{containers} may not be added or removed on resize");
            errors.push(Error::forbidden(&path, detail));
            continue;
        }
        for (index, (new, old)) in new.iter().zip(old).enumerate() {
            if text(new, &["name"]) != text(old, &["name"]) {
                let detail = format!("{containers} may not be renamed or reordered on resize");
                errors.push(Error::forbidden(&path.index(index).child("name"), detail));
            }
        }
    }
    errors
}

/// All but the revision the client saw.
fn keep_all(new: &mut Value, old: &Value) {
    for key in ["spec", "status"] {
        keep_old(new, old, key);
    }
    if let (Some(metadata), Some(stored)) = (new.get_mut("metadata"), old.get("metadata")) {
        for key in [
            "deletionTimestamp",
            "generation",
            "labels",
            "annotations",
            "ownerReferences",
            "finalizers",
        ] {
            keep_old(metadata, stored, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::pod::POD;

    fn step(subresource: &str, new: &mut Value, old: &Value) -> Vec<String> {
        POD.ready_change(subresource, new, old);
        let errors = POD.validate_change(subresource, true, new, old);
        errors.iter().map(ToString::to_string).collect()
    }

    /// A Pod that is valid as it is.
    fn pod() -> Value {
        let mut pod = json!({"metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1"},
            "spec": {"containers": [{"name": "a", "image": "x:1", "resources": {"requests": {"cpu": "1"}}}]}});
        (POD.default)(&mut pod);
        POD.ready_create(&mut pod);
        pod
    }

    #[test]
    fn a_debug_container_may_come_but_not_go() {
        let debug = json!({"name": "d", "image": "x", "imagePullPolicy": "Always",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"});
        let old = pod();
        let mut new = old.clone();
        new["spec"]["ephemeralContainers"] = json!([debug]);
        new["spec"]["containers"] = json!([]);
        assert_eq!(step("ephemeralcontainers", &mut new, &old), [""; 0]);
        assert_eq!(new["spec"]["containers"], old["spec"]["containers"]);
        assert_eq!(new["metadata"]["generation"], 2);

        let mut without = old.clone();
        assert_eq!(
            step("ephemeralcontainers", &mut without, &new),
            ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"]
        );
    }

    #[test]
    fn a_resize_changes_amounts_and_nothing_else() {
        let old = pod();
        let mut new = old.clone();
        new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
        new["spec"]["containers"][0]["image"] = json!("x:2");
        assert_eq!(step("resize", &mut new, &old), [""; 0]);
        assert_eq!(new["spec"]["containers"][0]["image"], "x:1");
        assert_eq!(new["metadata"]["generation"], 2);

        let mut new = old.clone();
        new["spec"]["containers"][0]["resources"] = json!({});
        assert_eq!(
            step("resize", &mut new, &old),
            [
                "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
            ]
        );

        let mut new = old.clone();
        new["spec"]["containers"][0]["name"] = json!("other");
        assert_eq!(
            step("resize", &mut new, &old),
            ["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"]
        );
    }

    #[test]
    fn a_node_that_cannot_resize_refuses() {
        let mut old = pod();
        old["status"]["containerStatuses"] = json!([{"name": "a", "state": {"running": {}}}]);
        let mut new = old.clone();
        new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
        assert_eq!(
            step("resize", &mut new, &old),
            ["spec: Forbidden: Pod running on node without support for resize"]
        );
    }
}
