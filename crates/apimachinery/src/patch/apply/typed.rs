//! A schema as server-side apply sees it, and the walks over one value: checking it, naming its fields.
//!
//! Source: `structured-merge-diff/v6/typed` and `kube-openapi/pkg/schemaconv`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::field_set::FieldSet;
use super::path::{PathElement, Scalar};
use crate::quote;
use crate::schema::{self, Kind, ListType, MapType, Schema};

/// How a place merges.
#[derive(Clone, Copy)]
pub(super) enum Type<'a> {
    /// As its schema says.
    Schema(Schema<'a>),
    /// No schema: maps merge by key, lists are taken as a whole.
    Deduced,
    /// No schema: everything is taken as a whole.
    Untyped,
}

/// What a value is, in the eyes of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Scalar,
    /// `atomic`: taken as a whole.
    List {
        atomic: bool,
    },
    /// `atomic`: taken as a whole.
    Map {
        atomic: bool,
    },
}

impl<'a> Type<'a> {
    pub(super) fn of(schema: Schema<'a>) -> Self {
        match schema.kind() {
            Kind::Any => Self::Deduced,
            Kind::Untyped => Self::Untyped,
            _ => Self::Schema(schema),
        }
    }

    /// How `value` is treated here. A schema decides alone; without one the value does.
    pub(super) fn shape(self, value: &Value) -> Shape {
        let untyped = matches!(self, Self::Untyped);
        match self {
            Self::Schema(schema) => match schema.kind() {
                Kind::Object | Kind::Map => Shape::Map {
                    atomic: schema.map_type() == MapType::Atomic,
                },
                Kind::List => Shape::List {
                    atomic: schema.list_type() == ListType::Atomic,
                },
                _ => Shape::Scalar,
            },
            Self::Deduced | Self::Untyped => match value {
                Value::Array(_) => Shape::List { atomic: true },
                // Null may be anything; upstream tries the map first.
                Value::Object(_) | Value::Null => Shape::Map { atomic: untyped },
                _ => Shape::Scalar,
            },
        }
    }

    /// The type below `name` and whether it is a declared field. `None`: the schema has no such field.
    pub(super) fn entry(self, name: &str) -> Option<(Self, bool)> {
        let Self::Schema(schema) = self else {
            return Some((self, false));
        };
        match schema.kind() {
            Kind::Object => match schema.field(name) {
                Some(field) => Some((Self::of(field), true)),
                None if schema.preserves_unknown() || schema.fields().next().is_none() => Some((Self::Deduced, false)),
                None => None,
            },
            _ => schema.values().map(|values| (Self::of(values), false)),
        }
    }

    /// Like [`Self::entry`], for objects that are known to fit.
    pub(super) fn entry_or_deduced(self, name: &str) -> (Self, bool) {
        self.entry(name).unwrap_or((Self::Deduced, false))
    }

    /// What Go prints for a field that was not given, if it does.
    pub(super) fn zero_value(self) -> Option<Value> {
        match self {
            Self::Schema(schema) => schema.zero_value(),
            Self::Deduced | Self::Untyped => None,
        }
    }

    /// The type of a list's items.
    pub(super) fn items(self) -> Self {
        match self {
            Self::Schema(schema) => schema.items().map_or(Self::Untyped, Self::of),
            // Lists without a schema are atomic and so is all in them.
            Self::Deduced | Self::Untyped => Self::Untyped,
        }
    }

    /// What tells an item of this associative list from the others.
    pub(super) fn identify(self, item: &Value) -> Result<PathElement, String> {
        let Self::Schema(schema) = self else {
            return Err("invalid indexing of non-associative list".to_owned());
        };
        if schema.list_type() == ListType::Set {
            return match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(PathElement::Value(Scalar(scalar.clone()))),
            };
        }
        let item = match item {
            Value::Object(item) => item,
            Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
            _ => return Err("associative list with keys may not have non-map elements".to_owned()),
        };
        let default = |name: &str| {
            schema
                .items()
                .and_then(|items| items.field(name))
                .and_then(Schema::default)
        };
        let mut fields: Vec<(Box<str>, Scalar)> = schema
            .list_map_keys()
            .filter_map(|name| Some((name.into(), Scalar(item.get(name).or_else(|| default(name))?.clone()))))
            .collect();
        if fields.is_empty() {
            let keys: Vec<String> = schema.list_map_keys().map(quote::quote).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default \
                 values for any key fields)",
                keys.join(" ")
            ));
        }
        fields.sort();
        Ok(PathElement::Key(fields))
    }

    /// Like [`Self::identify`], for lists that are known to fit; what does not is known by its place.
    pub(super) fn identify_or_index(self, index: usize, item: &Value) -> PathElement {
        self.identify(item).unwrap_or(PathElement::Index(index))
    }
}

/// What of `value` does not fit its type, each as `.path: reason`.
pub(super) fn check(value: &Value, r#type: Type<'_>, allow_duplicates: bool) -> Vec<String> {
    let mut errors = Vec::new();
    check_at(value, r#type, allow_duplicates, &mut Vec::new(), &mut errors);
    errors
}

fn check_at(
    value: &Value,
    r#type: Type<'_>,
    allow_duplicates: bool,
    path: &mut Vec<PathElement>,
    errors: &mut Vec<String>,
) {
    let wrong = |path: &[PathElement], reason: String| format!("{}: {reason}", super::path::print(path));
    match (r#type.shape(value), value) {
        (_, Value::Null) => {}
        (Shape::Scalar, value) => {
            if let Type::Schema(schema) = r#type
                && let Some(reason) = wrong_scalar(value, schema)
            {
                errors.push(wrong(path, reason));
            }
        }
        (Shape::Map { .. }, Value::Object(map)) => {
            for (name, value) in map {
                path.push(PathElement::field(name));
                match r#type.entry(name) {
                    Some((r#type, _)) => check_at(value, r#type, allow_duplicates, path, errors),
                    None => errors.push(wrong(path, "field not declared in schema".to_owned())),
                }
                path.pop();
            }
        }
        (Shape::List { atomic }, Value::Array(list)) => {
            let mut seen = BTreeSet::new();
            for (index, item) in list.iter().enumerate() {
                let element = if atomic {
                    PathElement::Index(index)
                } else {
                    match r#type.identify(item) {
                        Ok(element) => element,
                        Err(reason) => {
                            errors.push(wrong(path, format!("element {index}: {reason}")));
                            return;
                        }
                    }
                };
                if !seen.insert(element.clone()) && !allow_duplicates {
                    errors.push(wrong(path, format!("duplicate entries for key {element}")));
                }
                path.push(element);
                check_at(item, r#type.items(), allow_duplicates, path, errors);
                path.pop();
            }
        }
        (Shape::Map { .. }, other) => errors.push(wrong(path, format!("expected map, got {}", go_value(other)))),
        (Shape::List { .. }, other) => errors.push(wrong(path, format!("expected list, got {}", go_value(other)))),
    }
}

fn wrong_scalar(value: &Value, schema: Schema<'_>) -> Option<String> {
    let Kind::Scalar(scalar) = schema.kind() else {
        return None;
    };
    match scalar {
        schema::Scalar::Int32 | schema::Scalar::Int64 | schema::Scalar::Number if !value.is_number() => {
            let got = match value {
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                Value::Array(_) => "[]interface {}",
                _ => "map[string]interface {}",
            };
            Some(format!("expected numeric (int or float), got {got}"))
        }
        schema::Scalar::String | schema::Scalar::Bytes if !value.is_string() => Some(format!(
            "expected string, got &value.valueUnstructured{{Value:{value}}}"
        )),
        schema::Scalar::Boolean if !value.is_boolean() => Some(format!("expected boolean, got {}", go_value(value))),
        _ if value.is_array() || value.is_object() => Some(format!("expected any scalar, got {}", go_value(value))),
        _ => None,
    }
}

/// As upstream prints a value it did not expect: Go's view of a pointer to it.
fn go_value(value: &Value) -> String {
    match value {
        Value::String(text) => format!("&{{{text}}}"),
        other => format!("&{{{other}}}"),
    }
}

/// Every leaf and every item that `value` mentions.
pub(super) fn field_set(value: &Value, r#type: Type<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    collect(value, r#type, &mut Vec::new(), &mut set);
    set
}

fn collect(value: &Value, r#type: Type<'_>, path: &mut Vec<PathElement>, set: &mut FieldSet) {
    match (r#type.shape(value), value) {
        (Shape::Scalar | Shape::List { atomic: true } | Shape::Map { atomic: true }, _) => set.insert(path),
        (Shape::Map { atomic: false }, Value::Object(map)) => {
            for (name, value) in map {
                let (r#type, declared) = r#type.entry_or_deduced(name);
                path.push(PathElement::field(name));
                collect(value, r#type, path, set);
                let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                if empty || !declared {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (Shape::List { atomic: false }, Value::Array(list)) => {
            let elements: Vec<_> = list
                .iter()
                .enumerate()
                .map(|(index, item)| r#type.identify_or_index(index, item))
                .collect();
            for (index, (element, item)) in elements.iter().zip(list).enumerate() {
                path.push(element.clone());
                // Of items that cannot be told apart only the item itself is named, not what is in it.
                let duplicate = elements
                    .iter()
                    .enumerate()
                    .any(|(other, e)| other != index && e == element);
                if !duplicate {
                    collect(item, r#type.items(), path, set);
                }
                set.insert(path);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Adds every declared field on the way to a path of `set`: for `.a.b.c` also `.a`, when it is a field and no entry.
pub(super) fn with_named_fields(set: &FieldSet, r#type: Option<Type<'_>>) -> FieldSet {
    set.map(|element, member, below| {
        let (named, inner) = match (element, r#type) {
            (PathElement::Field(name), Some(r#type)) if !is_list(r#type) => match r#type.entry(name) {
                Some((inner, declared)) => (declared, Some(inner)),
                None => (false, None),
            },
            (PathElement::Key(_), Some(r#type)) if !is_object(r#type) => (false, Some(r#type.items())),
            _ => (false, None),
        };
        (member || (named && !below.is_empty()), with_named_fields(below, inner))
    })
}

fn is_list(r#type: Type<'_>) -> bool {
    matches!(r#type, Type::Schema(schema) if !matches!(schema.kind(), Kind::Object | Kind::Map))
}

fn is_object(r#type: Type<'_>) -> bool {
    matches!(r#type, Type::Schema(schema) if schema.kind() != Kind::List)
}

/// Where the schema takes a place as a whole, but `fields` has paths below it, the place itself is put in their stead.
pub(super) fn reconcile(fields: &mut FieldSet, r#type: Type<'_>) {
    *fields = reconciled(fields, r#type);
}

fn reconciled(fields: &FieldSet, r#type: Type<'_>) -> FieldSet {
    fields.map(|element, member, below| {
        if below.is_empty() {
            return (member, FieldSet::default());
        }
        let inner = match element {
            PathElement::Field(name) if !is_list(r#type) => r#type.entry(name).map(|(inner, _)| inner),
            PathElement::Field(_) => None,
            _ if !is_object(r#type) => Some(r#type.items()),
            _ => None,
        };
        let Some(Type::Schema(schema)) = inner else {
            return (member, below.clone());
        };
        let atomic = match schema.kind() {
            Kind::Object | Kind::Map => schema.map_type() == MapType::Atomic,
            Kind::List => schema.list_type() == ListType::Atomic,
            _ => false,
        };
        if atomic {
            (true, FieldSet::default())
        } else {
            (member, reconciled(below, Type::Schema(schema)))
        }
    })
}
