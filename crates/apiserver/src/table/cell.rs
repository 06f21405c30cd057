//! What many cells are made of: ages, counts, selectors, container lists.

use apimachinery::labels::Selector;
use apimachinery::{duration, time};
use jiff::Timestamp;
use serde_json::Value;

use crate::strategy::walk::{at, int, list, strings, text};

/// What stands in a cell when there is nothing.
pub(super) const NONE: &str = "<none>";
/// What stands in a cell when nothing was said.
pub(super) const UNSET: &str = "<unset>";
/// What stands in a cell when nobody knows.
pub(super) const UNKNOWN: &str = "<unknown>";

/// `metadata.name`.
pub(super) fn name(object: &Value) -> Value {
    text(object, &["metadata", "name"]).into()
}

/// Time since the object was created.
pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    since(object, &["metadata", "creationTimestamp"], now).into()
}

/// The time at `path`.
pub(super) fn when(object: &Value, path: &[&str]) -> Option<Timestamp> {
    time::parse(text(object, path))
}

/// Time since the one at `path`.
pub(super) fn since(object: &Value, path: &[&str], now: Timestamp) -> String {
    duration::age(when(object, path), now)
}

/// The text at `path`, or something else when there is none.
pub(super) fn text_or(object: &Value, path: &[&str], otherwise: &str) -> Value {
    match text(object, path) {
        "" => otherwise.into(),
        found => found.into(),
    }
}

/// The number at `path`, 0 when there is none.
pub(super) fn count(object: &Value, path: &[&str]) -> i64 {
    int(object, path).unwrap_or(0)
}

/// How many items the list or map at `path` has.
pub(super) fn size(object: &Value, path: &[&str]) -> usize {
    match at(object, path) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(entries)) => entries.len(),
        _ => 0,
    }
}

/// An integer or a text, as it is written.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A quantity, `0` when there is none.
pub(super) fn quantity(object: &Value, path: &[&str]) -> String {
    at(object, path).map_or_else(|| "0".to_owned(), plain)
}

/// Names and images of the containers of a PodSpec.
pub(super) fn containers(spec: &Value, path: &[&str]) -> [Value; 2] {
    let containers = list(at(spec, path).unwrap_or(&Value::Null), &["containers"]);
    let join = |key: &str| {
        containers
            .iter()
            .map(|container| text(container, &[key]))
            .collect::<Vec<_>>()
            .join(",")
            .into()
    };
    [join("name"), join("image")]
}

/// A LabelSelector as text (`metav1.FormatLabelSelector`).
pub(super) fn selector(object: &Value, path: &[&str]) -> String {
    let Some(selector) = at(object, path) else {
        return NONE.to_owned();
    };
    match Selector::from_label_selector(selector) {
        Ok(selector) if selector.is_everything() => NONE.to_owned(),
        Ok(selector) => selector.to_string(),
        Err(_) => "<error>".to_owned(),
    }
}

/// A map of labels as text, sorted.
pub(super) fn labels(object: &Value, path: &[&str]) -> String {
    let mut pairs: Vec<String> = strings(object, path)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.sort_unstable();
    if pairs.is_empty() {
        NONE.to_owned()
    } else {
        pairs.join(",")
    }
}

/// The first `max` items, and how many more there are.
pub(super) fn first(items: &[String], max: usize, separator: &str) -> String {
    let shown = items[..items.len().min(max)].join(separator);
    match items.len().checked_sub(max) {
        Some(more) if more > 0 => format!("{shown} + {more} more..."),
        _ => shown,
    }
}

/// The `status` of a condition.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, &["status", "conditions"])
        .iter()
        .find(|condition| text(condition, &["type"]) == kind)
}
