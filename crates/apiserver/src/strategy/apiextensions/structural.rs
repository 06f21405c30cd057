//! Which schemas are structural: every place has a type, and what only judges values declares nothing.
//!
//! After k/k `apiextensions-apiserver/pkg/apiserver/schema/{validation,complete}.go` at 1.36.

use apimachinery::field::{Error, Path};
use serde_json::Value;

use crate::custom::Node;
use crate::strategy::walk::{at, flag, list, object, text};

/// A schema deeper than this is refused: nobody wrote it by hand.
const MAX_DEPTH: usize = 100;
const NOT_SUPPORTED: [&str; 7] = [
    "$ref",
    "id",
    "additionalItems",
    "patternProperties",
    "definitions",
    "dependencies",
    "$schema",
];

/// Checks the schema of a version.
pub(super) fn validate(schema: &Value, path: &Path, errors: &mut Vec<Error>) {
    match text(schema, &["type"]) {
        "object" => {}
        "" => errors.push(Error::required(&path.child("type"), "must not be empty at the root")),
        other => errors.push(Error::invalid(&path.child("type"), other, "must be object at the root")),
    }
    if flag(schema, &["nullable"]) {
        errors.push(Error::forbidden(
            &path.child("nullable"),
            "nullable cannot be true at the root",
        ));
    }
    if let Some(metadata) = at(schema, &["properties", "metadata"]) {
        check_metadata(metadata, &path.child("properties").key("metadata"), errors);
    }
    node(schema, path, Place::Root, 0, errors);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
}

fn node(schema: &Value, path: &Path, place: Place, depth: usize, errors: &mut Vec<Error>) {
    if depth > MAX_DEPTH {
        errors.push(Error::invalid(path, Value::Null, "the schema is nested too deeply"));
        return;
    }
    forbidden(schema, path, errors);
    let free = flag(schema, &["x-kubernetes-int-or-string"]) || flag(schema, &["x-kubernetes-preserve-unknown-fields"]);
    let kind = text(schema, &["type"]);
    if kind.is_empty() && !free && place != Place::Root {
        let what = if place == Place::Item {
            "array items"
        } else {
            "object fields"
        };
        let detail = format!("must not be empty for specified {what}");
        errors.push(Error::required(&path.child("type"), detail));
    }
    const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(Error::not_supported(&path.child("type"), kind, &TYPES));
    }
    if flag(schema, &["x-kubernetes-embedded-resource"]) && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(Error::invalid(&path.child("type"), kind, detail));
    }
    check_pattern(schema, path, errors);
    check_list_type(schema, kind, path, errors);
    check_default(schema, path, errors);
    if let Some(properties) = object(schema, &["properties"]) {
        for (name, field) in properties {
            node(
                field,
                &path.child("properties").key(name),
                Place::Field,
                depth + 1,
                errors,
            );
        }
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(false)) => {
            let detail = "additionalProperties cannot be set to false";
            errors.push(Error::forbidden(&path.child("additionalProperties"), detail));
        }
        Some(values @ Value::Object(_)) => {
            if object(schema, &["properties"]).is_some_and(|properties| !properties.is_empty()) {
                let detail = "additionalProperties and properties are mutual exclusive";
                errors.push(Error::forbidden(&path.child("additionalProperties"), detail));
            }
            node(
                values,
                &path.child("additionalProperties"),
                Place::Field,
                depth + 1,
                errors,
            );
        }
        _ => {}
    }
    match schema.get("items") {
        Some(items @ Value::Object(_)) => node(items, &path.child("items"), Place::Item, depth + 1, errors),
        None if kind == "array" => errors.push(Error::required(&path.child("items"), "must be specified")),
        _ => {}
    }
    let int_or_string = flag(schema, &["x-kubernetes-int-or-string"]);
    for junctor in ["allOf", "anyOf", "oneOf"] {
        for (index, part) in list(schema, &[junctor]).iter().enumerate() {
            let path = path.child(junctor).index(index);
            // `anyOf: [{type: integer}, {type: string}]` beside int-or-string is how generators write it.
            value_validation(part, &path, int_or_string, depth + 1, errors);
        }
    }
    if let Some(part) = at(schema, &["not"]) {
        value_validation(part, &path.child("not"), false, depth + 1, errors);
    }
}

/// Below `allOf`, `anyOf`, `oneOf` and `not` values are judged and nothing is declared.
fn value_validation(schema: &Value, path: &Path, typed: bool, depth: usize, errors: &mut Vec<Error>) {
    if depth > MAX_DEPTH {
        return;
    }
    forbidden(schema, path, errors);
    check_pattern(schema, path, errors);
    let empty = "must be empty to be structural";
    for field in ["type", "title", "description"] {
        let allowed = text(schema, &[field]).is_empty() || (typed && field == "type");
        if !allowed {
            errors.push(Error::forbidden(&path.child(field), empty));
        }
    }
    for field in ["default", "additionalProperties"] {
        if at(schema, &[field]).is_some() {
            errors.push(Error::forbidden(
                &path.child(field),
                "must be undefined to be structural",
            ));
        }
    }
    for field in [
        "nullable",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
    ] {
        if flag(schema, &[field]) {
            errors.push(Error::forbidden(&path.child(field), "must be false to be structural"));
        }
    }
    for (name, field) in object(schema, &["properties"]).into_iter().flatten() {
        value_validation(field, &path.child("properties").key(name), false, depth + 1, errors);
    }
    if let Some(items) = at(schema, &["items"]) {
        value_validation(items, &path.child("items"), false, depth + 1, errors);
    }
    for junctor in ["allOf", "anyOf", "oneOf"] {
        for (index, part) in list(schema, &[junctor]).iter().enumerate() {
            value_validation(part, &path.child(junctor).index(index), typed, depth + 1, errors);
        }
    }
    if let Some(part) = at(schema, &["not"]) {
        value_validation(part, &path.child("not"), false, depth + 1, errors);
    }
}

fn forbidden(schema: &Value, path: &Path, errors: &mut Vec<Error>) {
    for field in NOT_SUPPORTED {
        if at(schema, &[field]).is_some() {
            errors.push(Error::forbidden(
                &path.child(field),
                format!("{field} is not supported"),
            ));
        }
    }
    if flag(schema, &["uniqueItems"]) {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(Error::forbidden(&path.child("uniqueItems"), detail));
    }
}

fn check_pattern(schema: &Value, path: &Path, errors: &mut Vec<Error>) {
    let pattern = text(schema, &["pattern"]);
    if !pattern.is_empty()
        && let Err(error) = regex::Regex::new(pattern)
    {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(Error::invalid(&path.child("pattern"), pattern, detail));
    }
}

/// A default must be allowed where it stands.
fn check_default(schema: &Value, path: &Path, errors: &mut Vec<Error>) {
    let Some(default) = at(schema, &["default"]) else {
        return;
    };
    let path = path.child("default");
    for error in Node::compile(schema).validate(default, None) {
        let path = match error.path.as_str() {
            "" => path.clone(),
            below => path.child(below),
        };
        errors.push(Error { path, ..error });
    }
}

fn check_list_type(schema: &Value, kind: &str, path: &Path, errors: &mut Vec<Error>) {
    let list_type = text(schema, &["x-kubernetes-list-type"]);
    let keys_path = path.child("x-kubernetes-list-map-keys");
    let keys = list(schema, &["x-kubernetes-list-map-keys"]);
    if list_type.is_empty() {
        if !keys.is_empty() {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            errors.push(Error::required(&path.child("x-kubernetes-list-type"), detail));
        }
        return;
    }
    const TYPES: [&str; 3] = ["atomic", "map", "set"];
    let type_path = path.child("x-kubernetes-list-type");
    if !TYPES.contains(&list_type) {
        errors.push(Error::not_supported(&type_path, list_type, &TYPES));
    }
    if kind != "array" {
        let detail = "must be array if x-kubernetes-list-type is specified";
        errors.push(Error::invalid(&path.child("type"), kind, detail));
    }
    if list_type != "map" {
        if !keys.is_empty() {
            errors.push(Error::forbidden(
                &keys_path,
                "must be empty if x-kubernetes-list-type is not map",
            ));
        }
        return;
    }
    if keys.is_empty() {
        errors.push(Error::required(
            &keys_path,
            "must not be empty if x-kubernetes-list-type is map",
        ));
    }
    let required = list(schema, &["items", "required"]);
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        match at(schema, &["items", "properties", name]) {
            None => {
                let detail = "must be defined as a property of the item's schema";
                errors.push(Error::invalid(&keys_path.index(index), name, detail));
            }
            Some(field) => {
                if !required.contains(key) && at(field, &["default"]).is_none() {
                    let path = path.child("items").child("properties").key(name).child("default");
                    let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                    errors.push(Error::required(&path, detail));
                }
            }
        }
    }
}

fn check_metadata(metadata: &Value, path: &Path, errors: &mut Vec<Error>) {
    let only_names = object(metadata, &["properties"])
        .into_iter()
        .flatten()
        .all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    let other = metadata
        .as_object()
        .into_iter()
        .flatten()
        .any(|(name, value)| !matches!(name.as_str(), "type" | "properties" | "description") && !value.is_null());
    if !only_names || other {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(Error::forbidden(path, detail));
    }
}
