//! Brings an object of a built-in kind into the form in which Go's types would hold and print it.
//!
//! Clients rely on it: a server that stores `null`s, `1000m` or a time with an offset as they came shows up in every
//! diff. Unknown fields are left alone ([`super::prune`]); so are custom resources, which a real server stores as sent.

use serde_json::{Map, Value};

use super::{Kind, Scalar, Schema};
use crate::quantity::Quantity;
use crate::{quote, time};

/// A value of the wrong type, worded as Go's JSON decoder does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TypeMismatch {
    /// Where, as `spec.containers[0].image`.
    pub path: String,
    /// What the API answers after `… cannot be handled as a KIND: `.
    pub message: String,
}

/// Checks `value` against `schema` and rewrites it as Go's types would:
/// - null is the zero value: dropped from objects and maps of objects, `""`, `0`, `{}` inside lists and maps;
/// - lists and maps that are empty and not required are dropped (objects are kept: they are pointers);
/// - fields that Go always prints are there with their zero value ([`Schema::zero_value`]): `resources: {}`;
/// - quantities are canonical, times are UTC in whole seconds (`MicroTime`: microseconds).
pub fn conform(value: &mut Value, schema: Schema<'_>) -> Result<(), TypeMismatch> {
    let mut path = Vec::new();
    walk(value, schema, &mut path).map_err(|message| TypeMismatch {
        path: print(&path),
        message,
    })
}

/// Adds to an object the fields that Go always prints, with their zero values, but no nulls. Does not look into what is
/// there.
pub fn fill_zero_values(object: &mut Value, schema: Schema<'_>) {
    let Value::Object(map) = object else { return };
    for (name, field) in schema.fields() {
        if !map.contains_key(name)
            && let Some(zero) = field.zero_value().filter(|zero| !zero.is_null())
        {
            map.insert(name.to_owned(), zero);
        }
    }
}

enum Step {
    Name(String),
    Index(usize),
}

fn print(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Name(name) if out.is_empty() => out.push_str(name),
            Step::Name(name) => {
                out.push('.');
                out.push_str(name);
            }
            Step::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
    out
}

/// On an error `path` is left as it is: it says where.
fn walk(value: &mut Value, schema: Schema<'_>, path: &mut Vec<Step>) -> Result<(), String> {
    match (schema.kind(), &mut *value) {
        (Kind::Any | Kind::Untyped, _) => Ok(()),
        (Kind::Object, Value::Object(map)) => {
            object(map, schema, path)?;
            fill_zero_values(value, schema);
            Ok(())
        }
        (Kind::Map, Value::Object(map)) => {
            let Some(values) = schema.values() else { return Ok(()) };
            for (name, value) in map {
                zero_if_null(value, values);
                path.push(Step::Name(name.clone()));
                walk(value, values, path)?;
                path.pop();
            }
            Ok(())
        }
        (Kind::List, Value::Array(list)) => {
            let Some(items) = schema.items() else { return Ok(()) };
            for (index, value) in list.iter_mut().enumerate() {
                zero_if_null(value, items);
                path.push(Step::Index(index));
                walk(value, items, path)?;
                path.pop();
            }
            Ok(())
        }
        (Kind::Scalar(scalar), _) => self::scalar(value, scalar).map_err(|wrong| match wrong {
            Wrong::Type(go_type) => mismatch(value, path, schema, go_type),
            Wrong::Text(message) => message,
        }),
        _ => Err(mismatch(value, path, schema, &go_type(schema))),
    }
}

fn object(map: &mut Map<String, Value>, schema: Schema<'_>, path: &mut Vec<Step>) -> Result<(), String> {
    let mut result = Ok(());
    map.retain(|name, value| {
        let Some(field) = schema.field(name).filter(|_| result.is_ok()) else {
            return true;
        };
        if value.is_null() {
            return matches!(field.kind(), Kind::Any | Kind::Untyped);
        }
        path.push(Step::Name(name.clone()));
        // Field errors name the struct, so the struct's name is looked up where it is known.
        result = walk(value, field, path).map_err(|message| message.replace(STRUCT, &struct_name(schema)));
        if result.is_err() {
            return true;
        }
        path.pop();
        let empty = match (field.kind(), &*value) {
            // An empty list of managers is a request: forget them.
            (Kind::List, Value::Array(_)) if name == "managedFields" => false,
            (Kind::List, Value::Array(list)) => list.is_empty(),
            (Kind::Map, Value::Object(map)) => map.is_empty(),
            _ => false,
        };
        !empty || schema.required().any(|required| required == name)
    });
    result
}

/// Stands for the struct's name until the caller that knows it fills it in.
const STRUCT: &str = "\u{0}";

fn zero_if_null(value: &mut Value, schema: Schema<'_>) {
    if !value.is_null() {
        return;
    }
    *value = match schema.kind() {
        Kind::Object => Value::Object(Map::new()),
        Kind::Scalar(Scalar::String | Scalar::Bytes) => Value::String(String::new()),
        Kind::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Number | Scalar::IntOrString) => 0.into(),
        Kind::Scalar(Scalar::Boolean) => Value::Bool(false),
        Kind::Scalar(Scalar::Quantity) => Value::String("0".to_owned()),
        _ => return,
    };
}

enum Wrong {
    Type(&'static str),
    Text(String),
}

fn scalar(value: &mut Value, scalar: Scalar) -> Result<(), Wrong> {
    let fits = |value: &Value, min: i64, max: i64| value.as_i64().is_some_and(|n| (min..=max).contains(&n));
    match scalar {
        Scalar::String if value.is_string() => Ok(()),
        Scalar::String => Err(Wrong::Type("string")),
        Scalar::Bytes => match value.as_str() {
            Some(text) => base64(text).map_err(Wrong::Text),
            None => Err(Wrong::Type("[]uint8")),
        },
        Scalar::Int32 if fits(value, i32::MIN.into(), i32::MAX.into()) => Ok(()),
        Scalar::Int32 => Err(Wrong::Type("int32")),
        Scalar::Int64 if fits(value, i64::MIN, i64::MAX) => Ok(()),
        Scalar::Int64 => Err(Wrong::Type("int64")),
        Scalar::Number if value.is_number() => Ok(()),
        Scalar::Number => Err(Wrong::Type("float64")),
        Scalar::Boolean if value.is_boolean() => Ok(()),
        Scalar::Boolean => Err(Wrong::Type("bool")),
        Scalar::IntOrString if value.is_string() || fits(value, i32::MIN.into(), i32::MAX.into()) => Ok(()),
        Scalar::IntOrString => Err(Wrong::Type("int32")),
        Scalar::Quantity => {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Err(Wrong::Type("resource.Quantity")),
            };
            *value = Value::String(Quantity::normalize(&text).map_err(|error| Wrong::Text(error.to_string()))?);
            Ok(())
        }
        Scalar::Time | Scalar::MicroTime => {
            let Some(text) = value.as_str() else {
                return Err(Wrong::Type("string"));
            };
            let Some(at) = time::parse(text) else {
                let layout = if scalar == Scalar::Time { "" } else { ".000000" };
                let layout = format!("2006-01-02T15:04:05{layout}Z07:00");
                return Err(Wrong::Text(format!(
                    "parsing time {} as {}: cannot parse {} as \"2006\"",
                    quote::quote(text),
                    quote::quote(&layout),
                    quote::quote(text)
                )));
            };
            let printed = if scalar == Scalar::Time {
                time::format(at)
            } else {
                time::format_micro(at)
            };
            *value = Value::String(printed);
            Ok(())
        }
    }
}

fn base64(text: &str) -> Result<(), String> {
    use base64::Engine as _;
    // Go skips line breaks inside.
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    base64::engine::general_purpose::STANDARD
        .decode(joined)
        .map(|_| ())
        .map_err(|error| {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => text.len(),
            };
            format!("illegal base64 data at input byte {at}")
        })
}

fn mismatch(value: &Value, path: &[Step], schema: Schema<'_>, go_type: &str) -> String {
    let got = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        // Go names the number only when it does not fit, and its type otherwise.
        Value::Number(number) if matches!(schema.kind(), Kind::Scalar(Scalar::Int32 | Scalar::Int64)) => {
            format!("number {number}")
        }
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    };
    let names: Vec<&str> = path
        .iter()
        .filter_map(|step| match step {
            Step::Name(name) => Some(name.as_str()),
            Step::Index(_) => None,
        })
        .collect();
    if names.is_empty() {
        return format!("json: cannot unmarshal {got} into Go value of type {go_type}");
    }
    format!(
        "json: cannot unmarshal {got} into Go struct field {STRUCT}.{} of type {go_type}",
        names.join(".")
    )
}

/// `io.k8s.api.apps.v1.DeploymentSpec` → `DeploymentSpec`
fn struct_name(schema: Schema<'_>) -> String {
    let name = schema.component_name().unwrap_or_default();
    name.rsplit('.').next().unwrap_or(name).to_owned()
}

/// The Go type a place has, as its decoder names it: `v1.PodSpec`, `[]v1.Container`, `map[string]string`.
fn go_type(schema: Schema<'_>) -> String {
    match schema.kind() {
        Kind::Any | Kind::Untyped => "interface {}".to_owned(),
        Kind::Object => {
            let mut words = schema.component_name().unwrap_or_default().rsplit('.');
            let (name, package) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            format!("{package}.{name}")
        }
        Kind::Map => format!("map[string]{}", schema.values().map(go_type).unwrap_or_default()),
        Kind::List => format!("[]{}", schema.items().map(go_type).unwrap_or_default()),
        Kind::Scalar(scalar) => match scalar {
            Scalar::String => "string",
            Scalar::Bytes => "[]uint8",
            Scalar::Int32 => "int32",
            Scalar::Int64 => "int64",
            Scalar::Number => "float64",
            Scalar::Boolean => "bool",
            Scalar::Quantity => "resource.Quantity",
            Scalar::IntOrString => "intstr.IntOrString",
            Scalar::Time => "v1.Time",
            Scalar::MicroTime => "v1.MicroTime",
        }
        .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::tests::built_in;

    #[test]
    fn an_object_takes_the_form_go_would_print() {
        let mut pod = json!({
            "metadata": {
                "name": "x", "creationTimestamp": null, "labels": {}, "annotations": {"a": null},
                "deletionTimestamp": "2026-01-02T05:04:05.5+02:00", "ownerReferences": [],
            },
            "spec": {
                "containers": [{
                    "name": "c", "args": [], "env": [{"name": "e", "value": null}],
                    "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}, "requests": {"cpu": "1500m"}},
                    "ports": null,
                }],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "affinity": null,
            },
        });
        conform(&mut pod, built_in("", "v1", "Pod")).unwrap();
        let expected = json!({
            "metadata": {"name": "x", "annotations": {"a": ""}, "deletionTimestamp": "2026-01-02T03:04:05Z"},
            "status": {},
            "spec": {
                "containers": [{
                    "name": "c", "env": [{"name": "e"}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1500m"}},
                }],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        });
        assert_eq!(pod, expected);
    }

    #[test]
    fn what_go_always_prints_is_there() {
        let mut deployment = json!({"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}});
        conform(&mut deployment, built_in("apps", "v1", "Deployment")).unwrap();
        let expected = json!({
            "metadata": {},
            "spec": {
                "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {}}]}},
                "strategy": {},
            },
            "status": {},
        });
        assert_eq!(deployment, expected);
    }

    #[test]
    fn an_empty_list_that_is_required_stays() {
        let mut pod = json!({"spec": {"containers": []}});
        conform(&mut pod, built_in("", "v1", "Pod")).unwrap();
        assert_eq!(pod, json!({"metadata": {}, "spec": {"containers": []}, "status": {}}));
    }

    #[test]
    fn micro_times_and_free_form_data_are_left_their_form() {
        let mut lease = json!({"spec": {"renewTime": "2026-01-02T03:04:05.123456Z"}});
        conform(&mut lease, built_in("coordination.k8s.io", "v1", "Lease")).unwrap();
        assert_eq!(lease["spec"]["renewTime"], "2026-01-02T03:04:05.123456Z");
        let mut revision = json!({"data": {"a": null, "b": []}});
        conform(&mut revision, built_in("apps", "v1", "ControllerRevision")).unwrap();
        assert_eq!(
            revision,
            json!({"data": {"a": null, "b": []}, "metadata": {}, "revision": 0})
        );
        let mut reset = json!({"metadata": {"managedFields": []}});
        conform(&mut reset, built_in("", "v1", "ConfigMap")).unwrap();
        assert_eq!(reset, json!({"metadata": {"managedFields": []}}));
    }

    #[test]
    fn wrong_types_are_named_as_go_names_them() {
        let wrong = |mut value: Value| conform(&mut value, built_in("apps", "v1", "Deployment")).unwrap_err();
        assert_eq!(
            wrong(json!({"spec": {"replicas": "x"}})).message,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!(
            wrong(json!({"spec": {"replicas": 1.5}})).message,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        let image = wrong(json!({"spec": {"template": {"spec": {"containers": [{}, {"image": 3}]}}}}));
        assert_eq!(image.path, "spec.template.spec.containers[1].image");
        assert_eq!(
            image.message,
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.image of type \
             string"
        );
        assert_eq!(
            wrong(json!({"spec": {"template": {"spec": {"containers": {}}}}})).message,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type \
             []v1.Container"
        );
        assert_eq!(
            wrong(json!([])).message,
            "json: cannot unmarshal array into Go value of type v1.Deployment"
        );
        let cpu = json!({"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}}});
        assert!(
            wrong(cpu)
                .message
                .starts_with("quantities must match the regular expression")
        );
        let mut secret = json!({"data": {"a": "%%"}});
        let error = conform(&mut secret, built_in("", "v1", "Secret")).unwrap_err();
        assert_eq!(error.message, "illegal base64 data at input byte 0");
    }
}
