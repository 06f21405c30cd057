//! Node and RuntimeClass. After k/k `pkg/registry/core/node/strategy.go` and `pkg/apis/core/v1/defaults.go` at 1.36.

use std::collections::BTreeSet;

use apimachinery::field::{Error, Path};
use apimachinery::names::{dns1123_label, label_value, qualified_name};
use serde_json::Value;

use super::check::{self, immutable, text_messages};
use super::walk::{at, drop_key, ensure_at, has, list, object, object_mut, same, text};
use super::{Status, Strategy};

/// Rules of Nodes. A kubelet registers with a status, which is kept.
pub(super) static NODE: Strategy = Strategy {
    default: default_node,
    validate: validate_node,
    validate_update: validate_node_update,
    status: Status::Kept,
    ..Strategy::PLAIN
};

/// Rules of RuntimeClasses.
pub(super) static RUNTIME_CLASS: Strategy = Strategy {
    validate: |class, errors| match text(class, &["handler"]) {
        "" => errors.push(Error::required(&Path::new("handler"), "")),
        handler => text_messages(dns1123_label(handler), &Path::new("handler"), handler, errors),
    },
    validate_update: |new, old, errors| immutable(new, old, &["handler"], errors),
    unconditional_update: false,
    create_on_update: true,
    ..Strategy::PLAIN
};

fn default_node(node: &mut Value) {
    if !has(node, &["status", "allocatable"])
        && let Some(capacity) = object(node, &["status", "capacity"]).cloned()
        && let Some(status) = object_mut(node, &["status"])
    {
        status.insert("allocatable".to_owned(), Value::Object(capacity));
    }
    if let Some(spec) = ensure_at(node, &["spec"]) {
        drop_key(spec, "configSource");
    }
}

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

fn validate_node(node: &Value, errors: &mut Vec<Error>) {
    // Upstream looks for taints in metadata.
    let path = Path::new("metadata.taints");
    let mut seen = BTreeSet::new();
    for (index, taint) in list(node, &["spec", "taints"]).iter().enumerate() {
        let path = path.index(index);
        let (key, value, effect) = (text(taint, &["key"]), text(taint, &["value"]), text(taint, &["effect"]));
        text_messages(qualified_name(key), &path.child("key"), key, errors);
        let found = label_value(value);
        if !found.is_empty() {
            errors.push(Error::invalid(&path.child("value"), value, found.join(";")));
        }
        check::required_one_of(taint, &path, "effect", &EFFECTS, errors);
        if !seen.insert((effect, key)) {
            let mut error = Error::duplicate(&path, taint.clone());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
    let ranges = list(node, &["spec", "podCIDRs"]);
    for (index, range) in ranges.iter().enumerate() {
        check::cidr(
            range.as_str().unwrap_or_default(),
            &Path::new("spec.podCIDRs").index(index),
            errors,
        );
    }
}

fn validate_node_update(new: &Value, old: &Value, errors: &mut Vec<Error>) {
    let ranges = at(old, &["spec", "podCIDRs"]);
    if ranges.is_some() && !same(at(new, &["spec", "podCIDRs"]), ranges) {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(Error::forbidden(&Path::new("spec.podCIDRs"), detail));
    }
    let provider = text(old, &["spec", "providerID"]);
    if !provider.is_empty() && provider != text(new, &["spec", "providerID"]) {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(Error::forbidden(&Path::new("spec.providerID"), detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_taint_has_a_key_and_an_effect() {
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        let mut errors = Vec::new();
        validate_node(
            &json!({"spec": {"taints": [taint, taint, {"key": "", "effect": ""}]}}),
            &mut errors,
        );
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts[0],
            "metadata.taints[1]: Duplicate value: {\"key\":\"a\",\"effect\":\"NoSchedule\"}: taints must be unique by key and \
             effect pair"
        );
        assert!(texts.contains(&"metadata.taints[2].effect: Required value".to_owned()));
    }

    #[test]
    fn a_range_of_a_node_stays() {
        let old = json!({"spec": {"podCIDRs": ["10.0.0.0/24"]}});
        let mut errors = Vec::new();
        validate_node_update(&json!({"spec": {}}), &old, &mut errors);
        assert_eq!(errors.len(), 1);
    }
}
