//! Pod templates: which are the same, and the short name of each.
//!
//! Pure. The hash is not upstream's (that one prints Go structures): it is FNV-1a over the template's canonical JSON,
//! spelled in the same alphabet. Nobody may compare it with anything but itself, and it is stable over restarts.

use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

pub(crate) const HASH_LABEL: &str = "pod-template-hash";

/// No vowels and no digits that look like letters, so that no word appears by accident.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of a template; `collisions` moves on to another one.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut bytes = canonical(template).to_string().into_bytes();
    if let Some(collisions) = collisions {
        bytes.extend(collisions.to_le_bytes());
    }
    let number = bytes.iter().fold(0x811c_9dc5_u32, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    number
        .to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

/// The same, but for the label that ReplicaSets add. Absent and empty are equal, and so are `1` and `1000m`.
pub(super) fn are_equal(a: Option<&PodTemplateSpec>, b: Option<&PodTemplateSpec>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => without_hash(a) == without_hash(b) || canonical(a) == canonical(b),
        (None, None) => true,
        _ => false,
    }
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    template
}

fn canonical(template: &PodTemplateSpec) -> Value {
    let mut value = serde_json::to_value(without_hash(template)).unwrap_or_default();
    simplify(&mut value);
    value.sort_all_objects();
    value
}

/// Members for which empty and absent mean the same: maps, and the template's metadata. Other empty structures may mean
/// something (`emptyDir: {}`).
const MAPS: &[&str] = &[
    "annotations",
    "labels",
    "limits",
    "matchLabels",
    "metadata",
    "nodeSelector",
    "overhead",
    "requests",
];

/// Drops what is empty and writes quantities in one form.
fn simplify(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                match member {
                    Value::Object(amounts) if matches!(name.as_str(), "limits" | "requests" | "overhead") => {
                        amounts.values_mut().for_each(normalize);
                    }
                    _ => simplify(member),
                }
            }
            members.retain(|name, member| match member {
                Value::Null => false,
                Value::Array(items) => !items.is_empty(),
                Value::Object(entries) => !(entries.is_empty() && MAPS.contains(&name.as_str())),
                _ => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}

fn normalize(quantity: &mut Value) {
    if let Some(normal) = quantity.as_str().and_then(|text| text.parse::<Quantity>().ok()) {
        *quantity = Value::String(normal.to_string());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(value: Value) -> PodTemplateSpec {
        serde_json::from_value(value).unwrap()
    }

    fn web(cpu: &str, labels: Value) -> PodTemplateSpec {
        template(json!({
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "web", "resources": {"requests": {"cpu": cpu}}}]},
        }))
    }

    #[test]
    fn the_hash_label_and_the_spelling_of_quantities_do_not_count() {
        let plain = web("1", json!({"app": "web"}));
        let labelled = web("1000m", json!({"app": "web", HASH_LABEL: "x"}));
        assert!(are_equal(Some(&plain), Some(&labelled)));
        assert_eq!(hash(&plain, None), hash(&labelled, None));
        let other = web("1100m", json!({"app": "web"}));
        assert!(!are_equal(Some(&plain), Some(&other)));
        assert_ne!(hash(&plain, None), hash(&other, None));
    }

    #[test]
    fn absent_and_empty_are_the_same() {
        let absent = template(json!({"spec": {"containers": []}}));
        let empty = template(json!({"metadata": {"annotations": {}}, "spec": {"containers": [], "volumes": []}}));
        assert!(are_equal(Some(&absent), Some(&empty)));
    }

    #[test]
    fn a_collision_moves_on_to_another_name() {
        let web = web("1", json!({}));
        assert_ne!(hash(&web, None), hash(&web, Some(1)));
        assert_ne!(hash(&web, Some(1)), hash(&web, Some(2)));
        assert!(hash(&web, None).bytes().all(|letter| ALPHABET.contains(&letter)));
    }
}
