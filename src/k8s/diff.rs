//! Whether a live object already says what a manifest says, field by field. Pure.
//!
//! Server-side apply is declarative, so what has to be compared is known: every field of the manifest must have its
//! value, and no field that this manager applied before may be left that the manifest no longer has. Everything else
//! in the live object is somebody else's.

use apimachinery::quantity::Quantity;
use serde_json::{Map, Value};

/// The differences, a line each: `spec.replicas: 1 → 3`. Empty when an apply would change nothing.
pub fn differences(live: &Value, want: &Value, manager: &str) -> Vec<String> {
    let mut found = Vec::new();
    compare(live, want, "", &mut found);
    let entries = live
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    for entry in entries
        .iter()
        .filter(|entry| entry["manager"] == manager && entry["operation"] == "Apply")
    {
        if let Some(fields) = entry["fieldsV1"].as_object() {
            removed(fields, want, "", &mut found);
        }
    }
    found
}

fn compare(live: &Value, want: &Value, path: &str, found: &mut Vec<String>) {
    match (live, want) {
        (Value::Object(live), Value::Object(want)) => {
            for (name, value) in want {
                let path = join(path, name);
                match live.get(name) {
                    Some(present) => compare(present, value, &path, found),
                    None if empty(value) => {}
                    None => found.push(format!("{path}: set to {}", shown(value))),
                }
            }
        }
        (Value::Array(live), Value::Array(want)) => compare_lists(live, want, path, found),
        (live, want) if same(live, want) => {}
        (live, want) => found.push(format!("{path}: {} → {}", shown(live), shown(want))),
    }
}

fn compare_lists(live: &[Value], want: &[Value], path: &str, found: &mut Vec<String>) {
    if live.len() == want.len() {
        for (index, (live, want)) in live.iter().zip(want).enumerate() {
            compare(live, want, &format!("{path}[{index}]"), found);
        }
        return;
    }
    // Lists of different lengths: others may have added items, where items have names.
    let key = ["name", "containerPort", "port", "key", "mountPath", "type", "ip"]
        .into_iter()
        .find(|key| live.iter().chain(want).all(|item| item.get(key).is_some()));
    match key {
        Some(key) => {
            for item in want {
                let path = format!("{path}[{key}={}]", shown(&item[key]));
                match live.iter().find(|present| present[key] == item[key]) {
                    Some(present) => compare(present, item, &path, found),
                    None => found.push(format!("{path}: added")),
                }
            }
        }
        None if want.iter().all(|item| live.contains(item)) && want.iter().all(Value::is_string) => {}
        None => found.push(format!("{path}: {} items → {}", live.len(), want.len())),
    }
}

/// Fields that this manager owns and the manifest no longer has. The notation is that of `fieldsV1`.
fn removed(fields: &Map<String, Value>, want: &Value, path: &str, found: &mut Vec<String>) {
    for (field, below) in fields {
        let (next, path) = if let Some(name) = field.strip_prefix("f:") {
            (want.get(name), join(path, name))
        } else if let Some(keys) = field.strip_prefix("k:") {
            let keys: Value = serde_json::from_str(keys).unwrap_or_default();
            let item = want
                .as_array()
                .and_then(|items| items.iter().find(|item| has_keys(item, &keys)));
            (item, format!("{path}{keys}"))
        } else if let Some(value) = field.strip_prefix("v:") {
            let value: Value = serde_json::from_str(value).unwrap_or_default();
            let item = want
                .as_array()
                .and_then(|items| items.iter().find(|item| **item == value));
            (item, format!("{path}[{}]", shown(&value)))
        } else {
            continue;
        };
        match (next, below.as_object().filter(|below| !below.is_empty())) {
            (Some(next), Some(below)) => removed(below, next, &path, found),
            (None, _) => found.push(format!("{path}: removed")),
            (Some(_), None) => {}
        }
    }
}

/// Whether a list item is the one with these keys. A key that the manifest leaves to its default (a port's protocol)
/// does not tell items apart.
fn has_keys(item: &Value, keys: &Value) -> bool {
    let keys = keys.as_object();
    keys.is_some_and(|keys| {
        keys.iter()
            .all(|(key, value)| item.get(key).is_none_or(|present| present == value))
    })
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(empty),
        _ => false,
    }
}

/// Equal, or the same quantity, or a number and its text.
fn same(live: &Value, want: &Value) -> bool {
    if live == want || (empty(live) && empty(want)) {
        return true;
    }
    if live.is_boolean() || want.is_boolean() {
        return false;
    }
    match (Quantity::from_json(live), Quantity::from_json(want)) {
        (Ok(live), Ok(want)) => live == want,
        _ => false,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => "{…}".to_owned(),
        Value::Array(_) => "[…]".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn live() -> Value {
        json!({
            "metadata": {"name": "a", "labels": {"app": "a"}, "managedFields": [
                {"manager": "k8slab", "operation": "Apply", "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:app": {}}},
                    "f:spec": {"f:replicas": {}, "f:paused": {}, "f:template": {"f:spec": {"f:containers": {
                        "k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:resources": {}, "f:ports": {
                            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}},
                }},
                {"manager": "hpa", "operation": "Update", "fieldsV1": {"f:spec": {"f:minReadySeconds": {}}}},
            ]},
            "spec": {"replicas": 3, "paused": true, "minReadySeconds": 1, "template": {"spec": {"containers": [{
                "name": "c", "image": "x:1", "resources": {"requests": {"cpu": "500m"}},
                "ports": [{"containerPort": 80, "protocol": "TCP"}], "terminationMessagePath": "/dev/termination-log"}]}}},
        })
    }

    fn want() -> Value {
        json!({
            "metadata": {"name": "a", "labels": {"app": "a"}},
            "spec": {"replicas": 3, "paused": true, "template": {"spec": {"containers": [{
                "name": "c", "image": "x:1", "resources": {"requests": {"cpu": "0.5"}}, "ports": [{"containerPort": 80}]}]}}},
        })
    }

    #[test]
    fn defaults_and_other_spellings_are_no_difference() {
        assert_eq!(differences(&live(), &want(), "k8slab"), [""; 0]);
    }

    #[test]
    fn changed_added_and_removed_fields_are_named() {
        let mut want = want();
        want["spec"]["replicas"] = 1.into();
        want["spec"]["strategy"] = json!({"type": "Recreate"});
        want["spec"].as_object_mut().unwrap().remove("paused");
        want["spec"]["template"]["spec"]["containers"][0]["image"] = "x:2".into();
        want["spec"]["template"]["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "d"}));
        assert_eq!(
            differences(&live(), &want, "k8slab"),
            [
                "spec.replicas: 3 → 1",
                "spec.strategy: set to {…}",
                "spec.template.spec.containers[name=c].image: x:1 → x:2",
                "spec.template.spec.containers[name=d]: added",
                "spec.paused: removed",
            ]
        );
    }

    #[test]
    fn a_boolean_is_no_number_and_null_is_nothing() {
        assert!(!same(&json!(true), &json!("true")));
        assert!(same(&json!("8080"), &json!(8080)));
        assert_eq!(differences(&json!({}), &json!({"a": null, "b": {}}), "x"), [""; 0]);
    }
}
