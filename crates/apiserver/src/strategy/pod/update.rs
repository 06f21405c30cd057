//! What of a Pod may change once it is there. After k/k 1.36 `ValidatePodUpdate` and its relatives for subresources.

use apimachinery::field::{Error, Path};
use serde_json::Value;

use crate::strategy::walk::{Object, at, is_zero, keep_old, list, object_mut, same, text};
use crate::strategy::{names, walk};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
     `spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to \
     1 if it was previously negative)";

/// What is wrong with replacing `old` by `new`.
pub(crate) fn validate(new: &Value, old: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let (none, other) = (Value::Null, Value::Null);
    let (new, old) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&other));
    for containers in ["containers", "initContainers"] {
        if list(new, &[containers]).len() != list(old, &[containers]).len() {
            let detail = "pod updates may not add or remove containers";
            errors.push(Error::forbidden(&path.child(containers), detail));
            return;
        }
    }
    if !deadline(new, old, &path, errors) {
        return;
    }
    tolerations(new, old, &path.child("tolerations"), errors);
    gates(new, old, &path.child("schedulingGates"), errors);
    if same(Some(new), Some(old)) {
        return;
    }
    let mut rest = new.clone();
    restore_updatable(&mut rest, old);
    if !same(Some(&rest), Some(old)) {
        let mut changes = Vec::new();
        differences(Some(&rest), Some(old), &path, &mut changes);
        let detail = format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            changes.join("\n")
        );
        errors.push(Error::forbidden(&path, detail));
    }
}

/// Whether to go on.
fn deadline(new: &Value, old: &Value, path: &Path, errors: &mut Vec<Error>) -> bool {
    let place = path.child("activeDeadlineSeconds");
    let seconds = |spec: &Value| walk::int(spec, &["activeDeadlineSeconds"]);
    match (seconds(new), seconds(old)) {
        (Some(new), old) => {
            let found = names::range(new, 0, i64::from(i32::MAX));
            if !found.is_empty() {
                errors.extend(found.into_iter().map(|message| Error::invalid(&place, new, message)));
                return false;
            }
            if old.is_some_and(|old| old < new) {
                errors.push(Error::invalid(
                    &place,
                    new,
                    "must be less than or equal to previous value",
                ));
                return false;
            }
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(Error::invalid(&place, Value::Null, detail));
        }
        (None, None) => {}
    }
    true
}

/// A toleration that is there stays, but for how long it tolerates.
fn tolerations(new: &Value, old: &Value, path: &Path, errors: &mut Vec<Error>) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            walk::drop_key(map, "tolerationSeconds");
        }
        toleration
    };
    let given: Vec<Value> = list(new, &["tolerations"]).iter().map(without_seconds).collect();
    let kept = list(old, &["tolerations"]).iter().all(|old| {
        let old = without_seconds(old);
        given.iter().any(|new| same(Some(new), Some(&old)))
    });
    if !kept {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(Error::forbidden(path, detail));
    }
}

/// A gate is opened, never set up later.
fn gates(new: &Value, old: &Value, path: &Path, errors: &mut Vec<Error>) {
    let known = list(old, &["schedulingGates"]);
    for (index, gate) in list(new, &["schedulingGates"]).iter().enumerate() {
        let name = text(gate, &["name"]);
        if !known.iter().any(|known| text(known, &["name"]) == name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(Error::forbidden(&path.index(index).child("name"), detail));
        }
    }
}

/// Puts back what may change, so that the rest can be compared.
fn restore_updatable(new: &mut Value, old: &Value) {
    for containers in ["containers", "initContainers"] {
        let stored = list(old, &[containers]);
        let Some(given) = new.get_mut(containers).and_then(Value::as_array_mut) else {
            continue;
        };
        for (container, stored) in given.iter_mut().zip(stored) {
            keep_old(container, stored, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        keep_old(new, old, key);
    }
    let grace = |spec: &Value| walk::int(spec, &["terminationGracePeriodSeconds"]);
    if grace(old).is_some_and(|seconds| seconds < 0) && grace(new) == Some(1) {
        keep_old(new, old, "terminationGracePeriodSeconds");
    }
    // A Pod that is held back may still become choosier about its node.
    if !list(old, &["schedulingGates"]).is_empty() {
        if narrows(at(new, &["nodeSelector"]), at(old, &["nodeSelector"])) {
            keep_old(new, old, "nodeSelector");
        }
        let stored = at(old, &["affinity", "nodeAffinity"]);
        if stored.is_none()
            && let Some(affinity) = object_mut(new, &["affinity"])
        {
            walk::drop_key(affinity, "nodeAffinity");
        }
    }
}

/// Whether every entry that was there is there still.
fn narrows(new: Option<&Value>, old: Option<&Value>) -> bool {
    let empty = Object::new();
    let (new, old) = (
        new.and_then(Value::as_object),
        old.and_then(Value::as_object).unwrap_or(&empty),
    );
    old.iter()
        .all(|(key, value)| new.is_some_and(|new| new.get(key) == Some(value)))
}

/// One line for each field that differs.
fn differences(new: Option<&Value>, old: Option<&Value>, path: &Path, lines: &mut Vec<String>) {
    if same(new, old) {
        return;
    }
    match (new, old) {
        (Some(Value::Object(new)), Some(Value::Object(old))) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                differences(new.get(key), old.get(key), &path.child(key), lines);
            }
        }
        (Some(Value::Array(new)), Some(Value::Array(old))) => {
            for index in 0..new.len().max(old.len()) {
                differences(new.get(index), old.get(index), &path.index(index), lines);
            }
        }
        (new, old) => {
            let shown = |value: Option<&Value>| {
                value
                    .filter(|value| !is_zero(value))
                    .map_or_else(|| "nothing".to_owned(), Value::to_string)
            };
            lines.push(format!("  {path}: {} -> {}", shown(old), shown(new)));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}], "nodeName": "n",
            "tolerations": [{"key": "k", "operator": "Exists"}], "terminationGracePeriodSeconds": 30}});
        let mut new = old.clone();
        change(&mut new["spec"]);
        let mut errors = Vec::new();
        validate(&new, &old, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_image_may_change_and_a_toleration_may_come() {
        assert!(changed(|spec| spec["containers"][0]["image"] = json!("x:2")).is_empty());
        assert!(
            changed(|spec| spec["tolerations"] = json!([
            {"key": "k", "operator": "Exists", "tolerationSeconds": 5}, {"key": "l", "operator": "Exists"}]))
            .is_empty()
        );
        assert!(changed(|spec| spec["activeDeadlineSeconds"] = json!(5)).is_empty());
    }

    #[test]
    fn nothing_else_may_change() {
        assert_eq!(
            changed(|spec| spec["nodeName"] = json!("m")),
            [
                "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
             tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n  \
             spec.nodeName: \"n\" -> \"m\"",
            ]
        );
        assert_eq!(
            changed(|spec| spec["tolerations"] = json!([])),
            ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",]
        );
        assert_eq!(
            changed(|spec| spec["containers"] = json!([])),
            ["spec.containers: Forbidden: pod updates may not add or remove containers",]
        );
    }
}
