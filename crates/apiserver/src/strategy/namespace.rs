//! Namespace, and what limits the use of one: LimitRange and ResourceQuota. After k/k `pkg/apis/core` and
//! `pkg/registry/core/namespace/strategy.go` at 1.36.

use std::collections::BTreeSet;

use apimachinery::field::{Error, Path};
use apimachinery::names::qualified_name;
use serde_json::{Value, json};

use super::check::{immutable, text_messages};
use super::names::Rule;
use super::pod::resources;
use super::quantities::amount;
use super::walk::{Object, at, each, ensure, ensure_at, field, has, keep_old, list, object, object_mut, text};
use super::{Status, Strategy, Subresource, empty_status};

/// Rules of Namespaces.
pub(super) static NAMESPACE: Strategy = Strategy {
    default: default_namespace,
    prepare_create: prepare_namespace,
    prepare_update: |new, old| keep_finalizers(new, old),
    validate: validate_namespace,
    subresources: &[Subresource {
        name: "finalize",
        ready: |new, old| keep_old(new, old, "status"),
        validate: |new, _, errors| validate_namespace(new, errors),
    }],
    name: Rule::Label,
    status: Status::Fresh(|| json!({"phase": "Active"})),
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// Rules of LimitRanges.
pub(super) static LIMIT_RANGE: Strategy = Strategy {
    default: default_limit_range,
    validate: validate_limit_range,
    create_on_update: true,
    ..Strategy::PLAIN
};

/// Rules of ResourceQuotas.
pub(super) static RESOURCE_QUOTA: Strategy = Strategy {
    validate: |quota, errors| {
        let path = Path::new("spec.hard");
        for (name, value) in object(quota, &["spec", "hard"]).into_iter().flatten() {
            let place = || path.key(name);
            text_messages(qualified_name(name), &place(), name, errors);
            resources::quantity(name, value, &place, errors);
        }
    },
    validate_update: |new, old, errors| immutable(new, old, &["spec", "scopes"], errors),
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

fn validate_namespace(namespace: &Value, errors: &mut Vec<Error>) {
    let names = list(namespace, &["spec", "finalizers"]).iter();
    for name in names.filter_map(Value::as_str) {
        text_messages(qualified_name(name), &Path::new("spec.finalizers"), name, errors);
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

/// Lists of a LimitRange, and those that are about Containers and claims only.
const LIMIT_LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn validate_limit_range(range: &Value, errors: &mut Vec<Error>) {
    let mut types = BTreeSet::new();
    for (index, limit) in list(range, &["spec", "limits"]).iter().enumerate() {
        let path = Path::new("spec.limits").index(index);
        let kind = text(limit, &["type"]);
        text_messages(qualified_name(kind), &path.child("type"), kind, errors);
        if !types.insert(kind) {
            errors.push(Error::duplicate(&path.child("type"), kind));
        }
        if kind == "Pod" {
            for key in ["default", "defaultRequest"]
                .into_iter()
                .filter(|key| has(limit, &[key]))
            {
                errors.push(Error::forbidden(
                    &path.child(key),
                    "may not be specified when `type` is 'Pod'",
                ));
            }
        }
        if kind == "PersistentVolumeClaim" && ["min", "max"].iter().all(|key| at(limit, &[key, "storage"]).is_none()) {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.push(Error::required(&path.child("limits"), detail));
        }
        let names: BTreeSet<&str> = LIMIT_LISTS
            .iter()
            .flat_map(|key| {
                object(limit, &[key])
                    .into_iter()
                    .flatten()
                    .map(|(name, _)| name.as_str())
            })
            .collect();
        for name in names {
            limit_order(limit, name, &path, errors);
        }
    }
}

/// `min` ≤ `defaultRequest` ≤ `default` ≤ `max`, as far as they are given.
fn limit_order(limit: &Value, name: &str, path: &Path, errors: &mut Vec<Error>) {
    for (low, high, at_key, words) in [
        ("min", "max", "min", ("min value", "max value")),
        (
            "min",
            "defaultRequest",
            "defaultRequest",
            ("min value", "default request value"),
        ),
        (
            "defaultRequest",
            "max",
            "defaultRequest",
            ("default request value", "max value"),
        ),
        (
            "defaultRequest",
            "default",
            "defaultRequest",
            ("default request value", "default limit value"),
        ),
        ("min", "default", "default", ("min value", "default value")),
        ("default", "max", "default", ("default value", "max value")),
    ] {
        let quantity = |key: &str| at(limit, &[key, name]).and_then(amount);
        let (Some(small), Some(large)) = (quantity(low), quantity(high)) else {
            continue;
        };
        if small > large {
            let detail = format!("{} {small} is greater than {} {large}", words.0, words.1);
            errors.push(Error::invalid(&path.child(at_key).key(name), small.to_string(), detail));
        }
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
    fn limits_are_in_order() {
        let mut errors = Vec::new();
        let limit = json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}});
        validate_limit_range(&json!({"spec": {"limits": [limit]}}), &mut errors);
        assert_eq!(
            errors[0].to_string(),
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"
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
