//! What makes a CustomResourceDefinition valid, beyond its schemas.
//!
//! After k/k `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go` at 1.36.

use std::collections::HashSet;

use apimachinery::field::{Error, Path};
use apimachinery::names::{dns1035_label, dns1123_subdomain};
use serde_json::Value;

use super::structural;
use crate::strategy::check::{IMMUTABLE, required, required_one_of, text_messages};
use crate::strategy::walk::{at, flag, list, same, text};

pub(super) fn validate(definition: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = definition.get("spec").unwrap_or(&Value::Null);
    let (group, plural) = (text(spec, &["group"]), text(spec, &["names", "plural"]));
    let name = text(definition, &["metadata", "name"]);
    if name != format!("{plural}.{group}") {
        let detail = r#"must be spec.names.plural+"."+spec.group"#;
        errors.push(Error::invalid(&Path::new("metadata.name"), name, detail));
    }
    check_group(spec, group, &path.child("group"), errors);
    required_one_of(spec, &path, "scope", &["Cluster", "Namespaced"], errors);
    check_versions(spec, &path.child("versions"), errors);
    check_names(spec, &path.child("names"), errors);
    check_conversion(spec, &path.child("conversion"), errors);
    if flag(spec, &["preserveUnknownFields"]) {
        let detail = "must be false in order to use apiextensions.k8s.io/v1: set x-kubernetes-preserve-unknown-fields in the schema";
        errors.push(Error::invalid(&path.child("preserveUnknownFields"), true, detail));
    }
}

pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Vec<Error>) {
    let mut immutable = |keys: &[&str]| {
        if !same(at(new, keys), at(old, keys)) {
            let value = at(new, keys).cloned().unwrap_or(Value::Null);
            errors.push(Error::invalid(&Path::new(&keys.join(".")), value, IMMUTABLE));
        }
    };
    immutable(&["spec", "group"]);
    immutable(&["spec", "names", "plural"]);
    let established = list(old, &["status", "conditions"])
        .iter()
        .any(|condition| text(condition, &["type"]) == "Established" && text(condition, &["status"]) == "True");
    if established {
        immutable(&["spec", "scope"]);
        immutable(&["spec", "names", "kind"]);
    }
    let versions = list(new, &["spec", "versions"]);
    for (index, stored) in list(new, &["status", "storedVersions"]).iter().enumerate() {
        let Some(name) = stored.as_str() else { continue };
        if !versions.iter().any(|version| text(version, &["name"]) == name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            let path = Path::new("status.storedVersions").index(index);
            errors.push(Error::invalid(&path, name, detail));
        }
    }
}

fn check_group(spec: &Value, group: &str, path: &Path, errors: &mut Vec<Error>) {
    if required(spec, &Path::new("spec"), "group", "", errors).is_none() {
        return;
    }
    let messages = dns1123_subdomain(group);
    if messages.is_empty() && !group.contains('.') {
        let detail = "should be a domain with at least one dot";
        errors.push(Error::invalid(path, group, detail));
    }
    text_messages(messages, path, group, errors);
}

fn check_versions(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let versions = list(spec, &["versions"]);
    let mut seen = HashSet::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        let name = text(version, &["name"]);
        unique &= seen.insert(name);
        text_messages(dns1035_label(name), &path.child("name"), name, errors);
        check_columns(version, &path.child("additionalPrinterColumns"), errors);
        check_scale(version, &path.child("subresources").child("scale"), errors);
        check_selectable(version, &path.child("selectableFields"), errors);
        let path = path.child("schema").child("openAPIV3Schema");
        match at(version, &["schema", "openAPIV3Schema"]) {
            Some(schema) => structural::validate(schema, &path, errors),
            None => errors.push(Error::required(&path, "schemas are required")),
        }
    }
    let shown = || Value::Array(versions.to_vec());
    if !unique {
        errors.push(Error::invalid(path, shown(), "must contain unique version names"));
    }
    if versions.iter().filter(|version| flag(version, &["storage"])).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(Error::invalid(path, shown(), detail));
    }
}

fn check_columns(version: &Value, path: &Path, errors: &mut Vec<Error>) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    for (index, column) in list(version, &["additionalPrinterColumns"]).iter().enumerate() {
        let path = path.index(index);
        required(column, &path, "name", "", errors);
        required_one_of(column, &path, "type", &TYPES, errors);
        required(column, &path, "jsonPath", "", errors);
    }
}

fn check_scale(version: &Value, path: &Path, errors: &mut Vec<Error>) {
    let Some(scale) = at(version, &["subresources", "scale"]) else {
        return;
    };
    for (field, roots, needed) in [
        ("specReplicasPath", &[".spec."][..], true),
        ("statusReplicasPath", &[".status."], true),
        ("labelSelectorPath", &[".spec.", ".status."], false),
    ] {
        let value = text(scale, &[field]);
        if value.is_empty() {
            if needed {
                errors.push(Error::required(&path.child(field), ""));
            }
            continue;
        }
        if !roots.iter().any(|root| value.starts_with(root)) || value.contains('[') {
            let roots: Vec<&str> = roots.iter().map(|root| root.trim_end_matches('.')).collect();
            let detail = format!("should be a json path under {}", roots.join(" or "));
            errors.push(Error::invalid(&path.child(field), value, detail));
        }
    }
}

/// At most eight simple paths that the schema declares as scalars.
fn check_selectable(version: &Value, path: &Path, errors: &mut Vec<Error>) {
    let fields = list(version, &["selectableFields"]);
    if fields.len() > 8 {
        errors.push(Error::too_many(path, fields.len(), 8));
    }
    let mut seen = HashSet::new();
    for (index, field) in fields.iter().enumerate() {
        let place = path.index(index).child("jsonPath");
        let Some(text) = required(field, &path.index(index), "jsonPath", "", errors).and_then(Value::as_str) else {
            continue;
        };
        if !seen.insert(text) {
            errors.push(Error::duplicate(&place, text));
            continue;
        }
        let schema = at(version, &["schema", "openAPIV3Schema"]).unwrap_or(&Value::Null);
        let found = text.strip_prefix('.').and_then(|text| {
            text.split('.')
                .try_fold(schema, |at, name| at.get("properties")?.get(name))
        });
        match found.map(|schema| self::text(schema, &["type"])) {
            Some("string" | "boolean" | "integer") => {}
            Some(_) => {
                let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                errors.push(Error::invalid(&place, text, detail));
            }
            None => {
                let detail = "is an invalid path: does not refer to a valid field";
                errors.push(Error::invalid(&place, text, detail));
            }
        }
    }
}

fn check_names(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let names = spec.get("names").unwrap_or(&Value::Null);
    for field in ["plural", "singular", "kind", "listKind"] {
        let name = text(names, &[field]);
        if name.is_empty() {
            if field != "singular" {
                errors.push(Error::required(&path.child(field), ""));
            }
            continue;
        }
        let mixed = matches!(field, "kind" | "listKind");
        let messages = if mixed {
            dns1035_label(&name.to_ascii_lowercase())
        } else {
            dns1035_label(name)
        };
        for message in messages {
            let detail = match mixed {
                true => format!("may have mixed case, but should otherwise match: {message}"),
                false => message,
            };
            errors.push(Error::invalid(&path.child(field), name, detail));
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in list(names, &[field]).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            text_messages(dns1035_label(name), &path.child(field).index(index), name, errors);
        }
    }
    let kind = text(names, &["kind"]);
    if !kind.is_empty() && kind == text(names, &["listKind"]) {
        let detail = "kind and listKind may not be the same";
        errors.push(Error::invalid(&path.child("listKind"), kind, detail));
    }
}

fn check_conversion(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let Some(conversion) = spec.get("conversion").filter(|conversion| !conversion.is_null()) else {
        return;
    };
    required_one_of(conversion, path, "strategy", &["None", "Webhook"], errors);
    let webhook = at(conversion, &["webhook"]);
    match (text(conversion, &["strategy"]), webhook) {
        ("Webhook", None) => {
            let detail = "required when strategy is set to Webhook";
            errors.push(Error::required(&path.child("webhookClientConfig"), detail));
        }
        ("None", Some(_)) => {
            let detail = "should not be set when strategy is not set to Webhook";
            errors.push(Error::forbidden(&path.child("webhook"), detail));
        }
        _ => {}
    }
}
