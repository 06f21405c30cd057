//! Drops what a schema does not declare, and says what that was.

use serde_json::Value;

use super::{Kind, Schema};

/// Removes every field of `value` that `schema` does not declare. Returns their paths, as strict field validation
/// prints them: `spec.template.spec.containers[0].imag`.
///
/// Embedded objects (`x-kubernetes-embedded-resource`) keep `apiVersion`, `kind` and `metadata`.
pub fn prune(value: &mut Value, schema: Schema<'_>) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(value, schema, &mut String::new(), &mut unknown);
    unknown
}

fn walk(value: &mut Value, schema: Schema<'_>, path: &mut String, unknown: &mut Vec<String>) {
    let here = path.len();
    match (schema.kind(), value) {
        (Kind::Object, Value::Object(map)) => {
            map.retain(|name, value| {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                let keep = if let Some(field) = schema.field(name) {
                    walk(value, field, path, unknown);
                    true
                } else if schema.preserves_unknown()
                    || (schema.embedded_resource() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata"))
                {
                    true
                } else {
                    unknown.push(path.clone());
                    false
                };
                path.truncate(here);
                keep
            });
        }
        (Kind::Map, Value::Object(map)) => {
            let Some(values) = schema.values() else { return };
            for (name, value) in map {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                walk(value, values, path, unknown);
                path.truncate(here);
            }
        }
        (Kind::List, Value::Array(list)) => {
            let Some(items) = schema.items() else { return };
            for (index, value) in list.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(value, items, path, unknown);
                path.truncate(here);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gvk::GroupVersionKind;
    use crate::schema::Schemas;
    use crate::schema::tests::built_in;

    #[test]
    fn unknown_fields_go_and_are_named() {
        let mut pod = json!({
            "kind": "Pod", "apiVersion": "v1", "foo": 1,
            "metadata": {"name": "x", "labels": {"any.key/x": "y"}, "nam": "z"},
            "spec": {"containers": [{"name": "a", "imag": "b", "resources": {"limits": {"cpu": "1"}, "x": {}}}]},
        });
        let unknown = prune(&mut pod, built_in("", "v1", "Pod"));
        assert_eq!(
            unknown,
            [
                "foo",
                "metadata.nam",
                "spec.containers[0].imag",
                "spec.containers[0].resources.x"
            ]
        );
        let expected = json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "x", "labels": {"any.key/x": "y"}},
            "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]},
        });
        assert_eq!(pod, expected);
    }

    #[test]
    fn free_form_places_keep_what_they_hold() {
        let mut revision =
            json!({"metadata": {"managedFields": [{"fieldsV1": {"f:x": {}}}]}, "data": {"a": [{"b": 1}]}});
        let before = revision.clone();
        assert!(prune(&mut revision, built_in("apps", "v1", "ControllerRevision")).is_empty());
        assert_eq!(revision, before);
    }

    #[test]
    fn a_structural_schema_prunes_as_kubernetes_does() {
        let kind = GroupVersionKind::new("lab.example", "v1", "Thing");
        let schema = json!({"type": "object", "properties": {
            "closed": {"type": "object"},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                "inner": {"type": "object", "properties": {"a": {"type": "string"}}},
            }},
            "free": {"x-kubernetes-preserve-unknown-fields": true},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        }});
        let table = Schemas::from_structural(&kind, &schema).unwrap();
        let mut thing = json!({
            "apiVersion": "lab.example/v1", "kind": "Thing", "metadata": {"name": "x", "odd": 1},
            "closed": {"a": 1},
            "open": {"a": 1, "inner": {"a": "b", "c": "d"}},
            "free": {"a": {"b": 1}},
            "embedded": {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "x": 1},
        });
        let unknown = prune(&mut thing, table.kind(&kind).unwrap());
        assert_eq!(unknown, ["metadata.odd", "closed.a", "open.inner.c", "embedded.x"]);
        assert_eq!(thing["open"], json!({"a": 1, "inner": {"a": "b"}}));
        assert_eq!(thing["free"], json!({"a": {"b": 1}}));
        assert_eq!(
            thing["embedded"],
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}})
        );
    }
}
