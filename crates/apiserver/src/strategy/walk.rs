//! Reads and fills JSON objects by path. What a missing, null, empty or wrongly typed field means is decided here once,
//! so that a kind's rules read like the rule.
//!
//! Go's decoder makes no difference between an absent field, `null` and (for plain fields) the zero value; neither do
//! these. Knows no kind.

use serde_json::{Map, Value};

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// The value at `path`; `None` when any part is missing or null.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter()
        .try_fold(value, |value, key| value.get(*key))
        .filter(|value| !value.is_null())
}

/// The text at `path`; empty when there is none.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at `path`.
pub(crate) fn int(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// Whether `path` holds `true`.
pub(crate) fn flag(value: &Value, path: &[&str]) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at `path`; empty when there is none.
pub(crate) fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The object at `path`.
pub(crate) fn object<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Object> {
    at(value, path).and_then(Value::as_object)
}

/// Key and text of every entry of the map of strings at `path`.
pub(crate) fn strings<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
    object(value, path).into_iter().flat_map(|map| {
        map.iter()
            .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
    })
}

/// Whether the value is what Go calls zero: null, `""`, `0`, `false`, `[]` or `{}`.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Whether the field is set to something other than zero.
pub(crate) fn has(value: &Value, path: &[&str]) -> bool {
    at(value, path).is_some_and(|value| !is_zero(value))
}

/// The value as a mutable object, if it is one.
pub(crate) fn object_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Object> {
    path.iter()
        .try_fold(value, |value, key| value.get_mut(*key))
        .and_then(Value::as_object_mut)
}

/// The object under `key`, made when it is missing or null. `None` when something else is there.
pub(crate) fn ensure<'a>(map: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), Value::Object(Object::new()));
    }
    map.get_mut(key).and_then(Value::as_object_mut)
}

/// The object under a path of keys below a value, made where it is missing.
pub(crate) fn ensure_at<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Object> {
    path.iter()
        .try_fold(value.as_object_mut()?, |map, key| ensure(map, key))
}

/// The objects of the list under `key`.
pub(crate) fn each<'a>(map: &'a mut Object, key: &str) -> impl Iterator<Item = &'a mut Object> + use<'a> {
    map.get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// The object under `key`, if there is one.
pub(crate) fn inner<'a>(map: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    map.get_mut(key).and_then(Value::as_object_mut)
}

/// Sets `key` where it is missing or null (a Go pointer's default).
pub(crate) fn fill(map: &mut Object, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), value.into());
    }
}

/// Sets `key` where it is missing or zero (the default of a plain Go field).
pub(crate) fn fill_zero(map: &mut Object, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(is_zero) {
        map.insert(key.to_owned(), value.into());
    }
}

/// The text of a field in a mutable object.
pub(crate) fn field<'a>(map: &'a Object, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Removes the key, in either kind of object; the order of the others stays.
pub(crate) fn drop_key(map: &mut Object, key: &str) {
    map.shift_remove(key);
}

/// Gives `new` the field as `old` has it: copied, or removed.
pub(crate) fn keep_old(new: &mut Value, old: &Value, key: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(key) {
        Some(value) => {
            map.insert(key.to_owned(), value.clone());
        }
        None => drop_key(map, key),
    }
}

/// Whether two fields are equal, where absent, null and empty mean the same (Go's `apiequality.Semantic`).
pub(crate) fn same(new: Option<&Value>, old: Option<&Value>) -> bool {
    match (new, old) {
        (None, None) => true,
        (Some(value), None) | (None, Some(value)) => is_nothing(value),
        (Some(new), Some(old)) => match (new, old) {
            (Value::Object(new), Value::Object(old)) => {
                new.iter().all(|(key, value)| same(Some(value), old.get(key)))
                    && old
                        .iter()
                        .all(|(key, value)| new.contains_key(key) || is_nothing(value))
            }
            (Value::Array(new), Value::Array(old)) => {
                new.len() == old.len() && new.iter().zip(old).all(|(new, old)| same(Some(new), Some(old)))
            }
            (new, old) => new == old || (is_nothing(new) && is_nothing(old)),
        },
    }
}

/// Null, `""`, `[]` or `{}`: nothing was said. (`0` and `false` may be meant.)
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_null_and_empty_are_the_same() {
        let (a, b) = (json!({"x": null, "y": {"z": []}, "n": 1}), json!({"n": 1}));
        assert!(same(Some(&a), Some(&b)));
        assert!(!same(Some(&json!({"n": 1})), Some(&json!({"n": 2}))));
        assert!(!same(Some(&json!([1])), Some(&json!([1, 2]))));
    }

    #[test]
    fn a_default_leaves_what_was_said() {
        let mut value = json!({"a": 0, "b": null, "c": ""});
        let map = value.as_object_mut().unwrap();
        fill(map, "a", 1);
        fill(map, "b", 1);
        fill_zero(map, "c", "x");
        assert_eq!(value, json!({"a": 0, "b": 1, "c": "x"}));
    }

    #[test]
    fn something_of_another_type_is_not_replaced() {
        let mut value = json!({"spec": "text"});
        assert!(ensure_at(&mut value, &["spec", "x"]).is_none());
        assert_eq!(value, json!({"spec": "text"}));
    }
}
