//! `metadata`: what the server sets, what a client may not, and in which order it is written.

use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Target;

/// Fields in the order in which Go writes them; others keep their place behind.
const ORDER: [&str; 14] = [
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// A text field of the metadata, empty if it is not there.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object
        .get("metadata")
        .and_then(|metadata| metadata.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A field of the metadata, `None` if it is null.
pub(crate) fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object
        .get("metadata")
        .and_then(|metadata| metadata.get(name))
        .filter(|value| !value.is_null())
}

/// The metadata, made if it is not there.
pub(crate) fn of(object: &mut Value) -> &mut Map<String, Value> {
    let map = match object {
        Value::Object(map) => map,
        other => {
            *other = Value::Object(Map::new());
            // Just made an object.
            return of(other);
        }
    };
    let metadata = map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    match metadata {
        Value::Object(metadata) => metadata,
        _ => unreachable!("made an object above"),
    }
}

/// Sets a field, or removes it.
pub(crate) fn set(object: &mut Value, name: &str, value: Option<Value>) {
    let metadata = of(object);
    match value {
        Some(value) => {
            metadata.insert(name.to_owned(), value);
        }
        None => {
            metadata.shift_remove(name);
        }
    }
}

/// Whether the object is being deleted.
pub(crate) fn is_deleting(object: &Value) -> bool {
    field(object, "deletionTimestamp").is_some()
}

/// `metadata.finalizers`.
pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    let list = field(object, "finalizers").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Writes `metadata.finalizers`; an empty list is none.
pub(crate) fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    let list = (!finalizers.is_empty()).then(|| finalizers.iter().map(|name| Value::from(name.as_str())).collect());
    set(object, "finalizers", list);
}

/// Bumps `metadata.generation`.
pub(crate) fn next_generation(object: &mut Value) {
    let generation = field(object, "generation").and_then(Value::as_i64).unwrap_or(0);
    set(object, "generation", Some((generation + 1).into()));
}

/// A new UID.
pub(crate) fn new_uid() -> Value {
    Value::String(Uuid::new_v4().to_string())
}

/// `base` and five letters that spell no word (apimachinery `names.SimpleNameGenerator`).
pub(crate) fn generate_name(base: &str) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut name: String = base.chars().take(58).collect();
    name.extend(
        Uuid::new_v4()
            .as_bytes()
            .iter()
            .take(5)
            .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])),
    );
    name
}

/// Puts `kind` and `apiVersion` first, the metadata's fields in Go's order, and drops nulls and empty maps there.
pub(crate) fn arrange(object: &mut Value, kind: &str, api_version: &str) {
    let mut metadata = std::mem::take(of(object));
    let mut ordered = Map::with_capacity(metadata.len());
    let kept = |value: &Value| match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    };
    for name in ORDER {
        if let Some(value) = metadata.shift_remove(name).filter(kept) {
            ordered.insert(name.to_owned(), value);
        }
    }
    ordered.extend(
        metadata
            .into_iter()
            .filter(|(name, value)| name != "selfLink" && kept(value)),
    );
    let Value::Object(map) = object else { return };
    let mut arranged = Map::with_capacity(map.len() + 2);
    arranged.insert("kind".to_owned(), kind.into());
    arranged.insert("apiVersion".to_owned(), api_version.into());
    arranged.insert("metadata".to_owned(), Value::Object(ordered));
    for (name, value) in std::mem::take(map) {
        if !matches!(name.as_str(), "kind" | "apiVersion" | "metadata") {
            arranged.insert(name, value);
        }
    }
    *map = arranged;
}

/// Fills in and checks kind and version of a body.
pub(crate) fn check_type(object: &mut Value, kind: &str, api_version: &str) -> Result<(), Status> {
    let given = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (given_version, given_kind) = (given("apiVersion"), given("kind"));
    if !given_version.is_empty() && given_version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !given_kind.is_empty() && given_kind != kind {
        return Err(Status::bad_request(format!(
            "{given_kind} in version \"{api_version}\" cannot be handled as a {kind}: converting ({given_kind}) to ({kind}): unknown conversion"
        )));
    }
    object["kind"] = kind.into();
    object["apiVersion"] = api_version.into();
    Ok(())
}

/// Checks the namespace of a body against that of the request, and fills it in.
pub(crate) fn check_namespace(object: &mut Value, target: &Target) -> Result<(), Status> {
    let given = text(object, "namespace").to_owned();
    match &target.namespace {
        Some(namespace) if given.is_empty() => set(object, "namespace", Some(namespace.as_str().into())),
        Some(namespace) if *namespace != given => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Some(_) => {}
        // Upstream drops the namespace of a cluster-scoped object without a word.
        None => set(object, "namespace", None),
    }
    Ok(())
}

/// 409 for a UID that is not the object's.
pub(crate) fn uid_conflict(resource: &GroupResource, name: &str, given: &str, actual: &str) -> Status {
    let detail = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {actual}");
    Status::conflict(resource, name, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_start_with_kind_and_version() {
        let mut object = json!({"spec": {}, "metadata": {"labels": {}, "uid": "u", "creationTimestamp": null, "name": "a"}, "apiVersion": "x"});
        arrange(&mut object, "Pod", "v1");
        assert_eq!(
            object.to_string(),
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","uid":"u"},"spec":{}}"#
        );
        let mut odd = json!({"metadata": 3});
        arrange(&mut odd, "Pod", "v1");
        assert_eq!(odd.to_string(), r#"{"kind":"Pod","apiVersion":"v1","metadata":{}}"#);
    }

    #[test]
    fn generated_names_fit_a_label() {
        let name = generate_name(&"x".repeat(80));
        assert_eq!(name.len(), 63);
        assert_ne!(generate_name("a-"), generate_name("a-"));
    }
}
