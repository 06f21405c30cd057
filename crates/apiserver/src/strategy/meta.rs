//! What may stand in `metadata`: names, labels, annotations, owners, finalizers; what of it an update may change.
//!
//! After k8s.io/apimachinery 0.36 `pkg/api/validation/objectmeta.go`.

use apimachinery::field::{Error, Path};
use apimachinery::gvk::GroupVersion;
use apimachinery::names::{dns1123_label, qualified_name};
use serde_json::Value;

use super::check::{self, IMMUTABLE, text_messages};
use super::names::Rule;
use super::walk::{at, flag, has, int, list, same, text};

/// Checks the metadata of a new object.
pub(crate) fn validate_create(object: &Value, namespaced: bool, rule: Rule, errors: &mut Vec<Error>) {
    let path = Path::new("metadata");
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let base = text(metadata, &["generateName"]);
    if !base.is_empty() {
        text_messages(rule.check(base, true), &path.child("generateName"), base, errors);
    }
    match text(metadata, &["name"]) {
        "" => errors.push(Error::required(&path.child("name"), "name or generateName is required")),
        name => text_messages(rule.check(name, false), &path.child("name"), name, errors),
    }
    validate(metadata, namespaced, &path, errors);
}

/// Checks the metadata of an update.
pub(crate) fn validate_update(new: &Value, old: &Value, namespaced: bool, errors: &mut Vec<Error>) {
    let path = Path::new("metadata");
    let (new, old) = (
        new.get("metadata").unwrap_or(&Value::Null),
        old.get("metadata").unwrap_or(&Value::Null),
    );
    if at(old, &["deletionTimestamp"]).is_some() {
        no_new_finalizers(new, old, &path, errors);
    }
    if let (Some(generation), Some(stored)) = (int(new, &["generation"]), int(old, &["generation"]))
        && generation < stored
    {
        errors.push(Error::invalid(
            &path.child("generation"),
            generation,
            "must not be decremented",
        ));
    }
    for key in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        if !same(new.get(key), old.get(key)) {
            let value = new.get(key).cloned().unwrap_or(Value::Null);
            errors.push(Error::invalid(&path.child(key), value, IMMUTABLE));
        }
    }
    validate(new, namespaced, &path, errors);
}

/// Checks what a PodTemplateSpec or a claim template may say in its metadata.
pub(crate) fn validate_template(owner: &Value, path: &Path, errors: &mut Vec<Error>) {
    check::labels(owner, &["metadata", "labels"], &path.child("labels"), errors);
    check::annotations(owner, &["metadata", "annotations"], &path.child("annotations"), errors);
}

fn validate(metadata: &Value, namespaced: bool, path: &Path, errors: &mut Vec<Error>) {
    match (namespaced, text(metadata, &["namespace"])) {
        (true, "") => errors.push(Error::required(&path.child("namespace"), "")),
        (true, namespace) => text_messages(dns1123_label(namespace), &path.child("namespace"), namespace, errors),
        (false, "") => {}
        (false, _) => errors.push(Error::forbidden(&path.child("namespace"), "not allowed on this type")),
    }
    if has(metadata, &["labels"]) {
        check::labels(metadata, &["labels"], &path.child("labels"), errors);
    }
    if has(metadata, &["annotations"]) {
        check::annotations(metadata, &["annotations"], &path.child("annotations"), errors);
    }
    owner_references(
        list(metadata, &["ownerReferences"]),
        &path.child("ownerReferences"),
        errors,
    );
    finalizers(list(metadata, &["finalizers"]), &path.child("finalizers"), errors);
}

/// Every owner complete, and at most one that controls.
fn owner_references(references: &[Value], path: &Path, errors: &mut Vec<Error>) {
    let mut controller: Option<String> = None;
    for reference in references {
        let (version, kind) = (text(reference, &["apiVersion"]), text(reference, &["kind"]));
        let parsed = GroupVersion::parse(version).unwrap_or_default();
        if parsed.version.is_empty() {
            errors.push(Error::invalid(
                &path.child("apiVersion"),
                version,
                "version must not be empty",
            ));
        }
        for key in ["kind", "name", "uid"] {
            if text(reference, &[key]).is_empty() {
                errors.push(Error::invalid(&path.child(key), "", "must not be empty"));
            }
        }
        if parsed.group.is_empty() && parsed.version == "v1" && kind == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(Error::invalid(path, reference.clone(), detail));
        }
        if flag(reference, &["controller"]) {
            let name = format!("{kind}/{}", text(reference, &["name"]));
            match &controller {
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and \
                         {name}"
                    );
                    errors.push(Error::invalid(path, references.to_vec(), detail));
                }
                None => controller = Some(name),
            }
        }
    }
}

fn finalizers(names: &[Value], path: &Path, errors: &mut Vec<Error>) {
    for name in names.iter().filter_map(Value::as_str) {
        text_messages(qualified_name(name), path, name, errors);
    }
    let holds = |name: &str| names.iter().any(|finalizer| finalizer == name);
    if holds("orphan") && holds("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(Error::invalid(path, names.to_vec(), detail));
    }
}

/// An object that is being deleted gets no further finalizer.
fn no_new_finalizers(new: &Value, old: &Value, path: &Path, errors: &mut Vec<Error>) {
    let known = list(old, &["finalizers"]);
    let mut added: Vec<&str> = list(new, &["finalizers"])
        .iter()
        .filter(|name| !known.contains(name))
        .filter_map(Value::as_str)
        .collect();
    if added.is_empty() {
        return;
    }
    added.sort_unstable();
    let quoted: Vec<String> = added.iter().map(|name| format!("{name:?}")).collect();
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        quoted.join(", ")
    );
    errors.push(Error::forbidden(&path.child("finalizers"), detail));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn create(metadata: Value) -> Vec<String> {
        let mut errors = Vec::new();
        validate_create(&json!({"metadata": metadata}), true, Rule::Subdomain, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_plain_object_is_fine() {
        assert!(create(json!({"name": "a", "namespace": "b", "labels": {"x": "y"}})).is_empty());
    }

    #[test]
    fn a_name_is_required_and_lower_case() {
        assert_eq!(
            create(json!({"namespace": "b"})),
            ["metadata.name: Required value: name or generateName is required"]
        );
        assert!(create(json!({"name": "A", "namespace": "b"}))[0].starts_with(
            "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case"
        ));
    }

    #[test]
    fn only_one_owner_may_control() {
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
        let errors = create(json!({"name": "a", "namespace": "b", "ownerReferences": [owner("x"), owner("y")]}));
        assert_eq!(errors.len(), 1);
        assert!(errors[0].ends_with(
            "Only one reference can have Controller set to true. Found \"true\" in references for Pod/x and Pod/y"
        ));
    }

    #[test]
    fn a_dying_object_gets_no_new_finalizer() {
        let old = json!({"metadata": {"name": "a", "namespace": "b", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!(["x.y/z"]);
        let mut errors = Vec::new();
        validate_update(&new, &old, true, &mut errors);
        assert_eq!(
            errors[0].to_string(),
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
             finalizers []string{\"x.y/z\"}"
        );
    }
}
