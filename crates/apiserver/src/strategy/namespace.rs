//! Namespace, and what limits the use of one: LimitRange and ResourceQuota. After k/k `pkg/apis/core` and
//! `pkg/registry/core/namespace/strategy.go` at 1.36.

use serde_json::{Value, json};

use super::names::Rule;
use super::walk::{Object, each, ensure, ensure_at, field, list, object_mut, text};
use super::{Status, Strategy, empty_status};

/// Rules of Namespaces.
pub(super) static NAMESPACE: Strategy = Strategy {
    default: default_namespace,
    prepare_create: prepare_namespace,
    prepare_update: |new, old| keep_finalizers(new, old),
    name: Rule::Label,
    status: Status::Fresh(|| json!({"phase": "Active"})),
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// Rules of LimitRanges.
pub(super) static LIMIT_RANGE: Strategy = Strategy {
    default: default_limit_range,
    create_on_update: true,
    ..Strategy::PLAIN
};

/// Rules of ResourceQuotas.
pub(super) static RESOURCE_QUOTA: Strategy = Strategy {
    status: Status::Fresh(empty_status),
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// The label by which selectors find a namespace by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The finalizer in `spec` that holds a namespace until its content is gone.
const FINALIZER: &str = "kubernetes";

fn default_namespace(namespace: &mut Value) {
    let name = text(namespace, &["metadata", "name"]).to_owned();
    if let Some(labels) = ensure_at(namespace, &["metadata", "labels"]).filter(|_| !name.is_empty()) {
        labels.insert(NAME_LABEL.to_owned(), name.into());
    }
}

fn prepare_namespace(namespace: &mut Value) {
    // A generated name is known only now.
    default_namespace(namespace);
    let mut finalizers = list(namespace, &["spec", "finalizers"]).to_vec();
    if !finalizers.iter().any(|name| name == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    if let Some(spec) = ensure_at(namespace, &["spec"]) {
        spec.insert("finalizers".to_owned(), finalizers.into());
    }
}

/// Only `/finalize` changes `spec.finalizers`.
fn keep_finalizers(new: &mut Value, old: &Value) {
    let stored = list(old, &["spec", "finalizers"]).to_vec();
    let Some(spec) = ensure_at(new, &["spec"]) else { return };
    if stored.is_empty() {
        super::walk::drop_key(spec, "finalizers");
    } else {
        spec.insert("finalizers".to_owned(), stored.into());
    }
}

fn default_limit_range(range: &mut Value) {
    let Some(spec) = object_mut(range, &["spec"]) else {
        return;
    };
    for limit in each(spec, "limits").filter(|limit| field(limit, "type") == "Container") {
        copy_missing(limit, "max", "default");
        copy_missing(limit, "default", "defaultRequest");
        copy_missing(limit, "min", "defaultRequest");
    }
}

fn copy_missing(limit: &mut Object, from: &str, to: &str) {
    let Some(source) = limit
        .get(from)
        .and_then(Value::as_object)
        .filter(|source| !source.is_empty())
        .cloned()
    else {
        return;
    };
    let Some(target) = ensure(limit, to) else { return };
    for (name, amount) in source {
        target.entry(name).or_insert(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_namespace_is_active_and_held_by_its_content() {
        let mut namespace = json!({"metadata": {"name": "a"}});
        default_namespace(&mut namespace);
        NAMESPACE.ready_create(&mut namespace);
        assert_eq!(
            namespace,
            json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
        );
    }

    #[test]
    fn a_maximum_is_the_default_and_the_default_request() {
        let mut range =
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"memory": "1Mi"}}]}});
        default_limit_range(&mut range);
        let limit = &range["spec"]["limits"][0];
        assert_eq!(limit["default"], json!({"cpu": "1"}));
        assert_eq!(limit["defaultRequest"], json!({"cpu": "1", "memory": "1Mi"}));
    }
}
