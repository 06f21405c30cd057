//! Request bodies: JSON, YAML or protobuf into a JSON value, duplicate fields noted.

use std::fmt;

use apimachinery::status::Status;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::protobuf;

/// How an object's body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaType {
    Json,
    Yaml,
    Protobuf,
}

/// What the real server lists in its 415 answer, of which we read these.
const ACCEPTED: [&str; 3] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];

impl MediaType {
    /// From `Content-Type`; without one it is JSON.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Status> {
        match content_type(headers).as_str() {
            "" | "application/json" => Ok(Self::Json),
            "application/yaml" => Ok(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Ok(Self::Protobuf),
            _ => Err(Status::unsupported_media_type(&ACCEPTED)),
        }
    }
}

/// `Content-Type` without its parameters, lower case.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A body that has been read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) value: Value,
    /// Paths of fields that were given more than once; the last value counts.
    pub(crate) duplicates: Vec<String>,
}

/// Reads a JSON object of any kind.
pub(crate) fn decode_object(media_type: MediaType, body: &[u8]) -> Result<Decoded, Status> {
    let decoded = match media_type {
        MediaType::Json => decode_json(body)?,
        MediaType::Yaml => decode_yaml(body)?,
        MediaType::Protobuf => Decoded {
            value: decode_protobuf(body)?,
            duplicates: Vec::new(),
        },
    };
    if !decoded.value.is_object() {
        return Err(Status::bad_request("the body of the request is not an object"));
    }
    Ok(decoded)
}

/// As [`decode_object`], but an empty body is no object.
pub(crate) fn decode_optional(media_type: MediaType, body: &[u8]) -> Result<Option<Value>, Status> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    decode_object(media_type, body).map(|decoded| Some(decoded.value))
}

pub(crate) fn decode_json(body: &[u8]) -> Result<Decoded, Status> {
    let mut duplicates = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(body);
    let seed = Tracking {
        path: &mut Vec::new(),
        duplicates: &mut duplicates,
    };
    let value = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    let value =
        value.map_err(|error| Status::bad_request(format!("couldn't get version/kind; json parse error: {error}")))?;
    Ok(Decoded { value, duplicates })
}

pub(crate) fn decode_yaml(body: &[u8]) -> Result<Decoded, Status> {
    let mut duplicates = Vec::new();
    let seed = Tracking {
        path: &mut Vec::new(),
        duplicates: &mut duplicates,
    };
    let value = seed
        .deserialize(serde_yaml::Deserializer::from_slice(body))
        .map_err(|error| Status::bad_request(format!("yaml: {error}")))?;
    Ok(Decoded { value, duplicates })
}

fn decode_protobuf(body: &[u8]) -> Result<Value, Status> {
    protobuf::decode(body).map_err(|error| Status::bad_request(error.to_string()))
}

#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Index(usize),
}

/// Builds a `Value` and notes the paths of fields that come twice, which `Value`'s own reader would swallow.
struct Tracking<'a> {
    path: &'a mut Vec<Step>,
    duplicates: &'a mut Vec<String>,
}

impl Tracking<'_> {
    fn here(&self, last: &str) -> String {
        let mut text = String::new();
        for step in self.path.iter() {
            match step {
                Step::Field(name) if text.is_empty() => text.push_str(name),
                Step::Field(name) => {
                    text.push('.');
                    text.push_str(name);
                }
                Step::Index(index) => text.push_str(&format!("[{index}]")),
            }
        }
        if !text.is_empty() {
            text.push('.');
        }
        text + last
    }
}

impl<'de> DeserializeSeed<'de> for Tracking<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tracking<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            self.path.push(Step::Index(items.len()));
            let item = seq.next_element_seed(Tracking {
                path: self.path,
                duplicates: self.duplicates,
            })?;
            self.path.pop();
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(FieldName(name)) = entries.next_key()? {
            self.path.push(Step::Field(name.clone()));
            let value = entries.next_value_seed(Tracking {
                path: self.path,
                duplicates: self.duplicates,
            })?;
            self.path.pop();
            if map.contains_key(&name) {
                let path = self.here(&name);
                self.duplicates.push(path);
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

/// A key of a map. YAML has keys that are no strings; as JSON they are.
struct FieldName(String);

impl<'de> de::Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = FieldName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_str<E>(self, value: &str) -> Result<FieldName, E> {
                Ok(FieldName(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<FieldName, E> {
                Ok(FieldName(value))
            }

            fn visit_bool<E>(self, value: bool) -> Result<FieldName, E> {
                Ok(FieldName(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<FieldName, E> {
                Ok(FieldName(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<FieldName, E> {
                Ok(FieldName(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<FieldName, E> {
                Ok(FieldName(value.to_string()))
            }
        }
        deserializer.deserialize_any(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn duplicate_fields_are_named_and_the_last_one_counts() {
        let decoded = decode_json(br#"{"spec":{"a":1,"a":2,"list":[{"b":1},{"b":1,"b":2}]}}"#).unwrap();
        assert_eq!(decoded.duplicates, ["spec.a", "spec.list[1].b"]);
        assert_eq!(decoded.value, json!({"spec": {"a": 2, "list": [{"b": 1}, {"b": 2}]}}));
    }

    #[test]
    fn yaml_is_read_like_json() {
        let decoded = decode_yaml(b"kind: ConfigMap\ndata:\n  1: \"x\"\n  b: null\n").unwrap();
        assert_eq!(
            decoded.value,
            json!({"kind": "ConfigMap", "data": {"1": "x", "b": null}})
        );
    }

    #[test]
    fn what_is_not_an_object_is_a_bad_request() {
        for body in ["", "[]", "1", "{", "{}x", &"[".repeat(100_000)] {
            assert_eq!(
                decode_object(MediaType::Json, body.as_bytes()).unwrap_err().code,
                400,
                "{body:.20}"
            );
        }
        assert_eq!(decode_optional(MediaType::Json, b" ").unwrap(), None);
    }
}
