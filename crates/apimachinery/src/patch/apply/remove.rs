//! Takes paths out of an object. Source: `structured-merge-diff/v6/typed/remove.go`.

use serde_json::{Map, Value};

use super::field_set::FieldSet;
use super::path::PathElement;
use super::typed::{Shape, Type};

/// `value` without the fields and items of `paths`; `None` when nothing is left. A map or list that loses all its
/// entries stays, empty: it was not named itself.
pub(super) fn remove(value: &Value, paths: &FieldSet, r#type: Type<'_>) -> Option<Value> {
    match (r#type.shape(value), value) {
        (Shape::List { atomic: false }, Value::Array(list)) if !list.is_empty() => {
            let (mut out, mut touched) = (Vec::with_capacity(list.len()), false);
            for (index, item) in list.iter().enumerate() {
                let element = r#type.identify_or_index(index, item);
                if paths.has_member(&element) {
                    continue;
                }
                match paths.below(&element) {
                    Some(below) => {
                        touched = true;
                        out.push(remove(item, below, r#type.items()).unwrap_or_else(|| emptied(item)));
                    }
                    None => out.push(item.clone()),
                }
            }
            (!out.is_empty() || touched).then_some(Value::Array(out))
        }
        (Shape::Map { atomic: false }, Value::Object(map)) if !map.is_empty() => {
            let (mut out, mut touched) = (Map::new(), false);
            for (name, value) in map {
                let element = PathElement::field(name);
                if paths.has_member(&element) {
                    continue;
                }
                let kept = match paths.below(&element) {
                    Some(below) => {
                        touched = true;
                        remove(value, below, r#type.entry_or_deduced(name).0).unwrap_or_else(|| emptied(value))
                    }
                    None => value.clone(),
                };
                out.insert(name.clone(), kept);
            }
            (!out.is_empty() || touched).then_some(Value::Object(out))
        }
        (Shape::Scalar, value) => Some(value.clone()),
        _ => None,
    }
}

fn emptied(value: &Value) -> Value {
    match value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    }
}
