//! How one field reads in a cell: ages, counts, labels, quantities, conditions, lists cut short. Knows no kind.

use apimachinery::labels::Selector;
use apimachinery::quantity::Quantity;
use apimachinery::{duration, time};
use jiff::Timestamp;
use serde_json::Value;

use crate::strategy::walk::{self, at};

/// `text`, or `default` where it is empty.
pub(super) fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

/// The time at `path`.
pub(super) fn time(object: &Value, path: &[&str]) -> Option<Timestamp> {
    time::parse(walk::text(object, path))
}

/// How long ago the time at `path` was; `<unknown>` without one.
pub(super) fn age(object: &Value, path: &[&str], now: Timestamp) -> String {
    duration::age(time(object, path), now)
}

/// How many entries the list or map at `path` has.
pub(super) fn count(object: &Value, path: &[&str]) -> usize {
    match at(object, path) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(fields)) => fields.len(),
        _ => 0,
    }
}

/// A map of labels: `a=b,c=d`, sorted; `<none>` when empty.
pub(super) fn labels(object: &Value, path: &[&str]) -> String {
    let mut pairs: Vec<String> = walk::strings(object, path)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.sort_unstable();
    or(&pairs.join(","), "<none>").to_owned()
}

/// A `LabelSelector`; `<none>` when it selects all or nothing, `<error>` when it cannot be read.
pub(super) fn selector(object: &Value, path: &[&str]) -> String {
    match Selector::from_label_selector(at(object, path).unwrap_or(&Value::Null)) {
        Ok(selector) => or(&selector.to_string(), "<none>").to_owned(),
        Err(_) => "<error>".to_owned(),
    }
}

/// A quantity in its canonical form; 0 where it is missing.
pub(super) fn quantity(value: Option<&Value>) -> String {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return "0".to_owned();
    };
    Quantity::from_json(value).map_or_else(|_| plain(value), |quantity| quantity.to_string())
}

/// An `IntOrString`, or any scalar, without quotes.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A Go boolean pointer.
pub(super) fn optional_bool(object: &Value, path: &[&str]) -> &'static str {
    match at(object, path).and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    }
}

/// The status of the first condition of a type.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    walk::list(object, &["status", "conditions"])
        .iter()
        .find(|condition| walk::text(condition, &["type"]) == kind)
}

/// Whether the first condition of a type is true.
pub(super) fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| walk::text(condition, &["status"]) == "True")
}

/// Whether deletion has begun.
pub(super) fn is_deleting(object: &Value) -> bool {
    walk::has(object, &["metadata", "deletionTimestamp"])
}

/// At most `limit` parts, then how many were left out: `a,b,c + 2 more...`.
pub(super) fn cut<T: AsRef<str>>(parts: &[T], separator: &str, limit: usize) -> String {
    let listed: Vec<&str> = parts.iter().take(limit).map(AsRef::as_ref).collect();
    let listed = listed.join(separator);
    match parts.len().saturating_sub(limit) {
        0 => listed,
        more => format!("{listed} + {more} more..."),
    }
}

/// The addresses of a load balancer's status, sorted, each once.
pub(super) fn load_balancer(object: &Value) -> Vec<&str> {
    let mut addresses: Vec<&str> = walk::list(object, &["status", "loadBalancer", "ingress"])
        .iter()
        .map(|ingress| or(walk::text(ingress, &["ip"]), walk::text(ingress, &["hostname"])))
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
