//! One step of a field path as `managedFields` names it: `f:name`, `k:{"name":"x"}`, `v:"text"`, `i:0`.
//!
//! Source of the forms and of the order: `structured-merge-diff/v6/fieldpath`.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

use crate::quote;

/// A step from an object, map or list to what is in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// A field or a map's entry.
    Field(Box<str>),
    /// The item of an associative list that has these fields; sorted by name.
    Key(Vec<(Box<str>, Scalar)>),
    /// An item of a set.
    Value(Scalar),
    /// An item of a list without identity.
    Index(usize),
}

/// A JSON value with a total order: numbers, strings, booleans, lists, maps, null.
#[derive(Clone, Debug)]
pub struct Scalar(pub Value);

/// Why a key of a `fieldsV1` object cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading the path element `{0}`")]
pub struct PathError(String);

impl PathElement {
    /// A field by its name.
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// Reads the serialized form. `Ok(None)` for forms of a future that we do not know; they are dropped, as upstream
    /// drops them.
    pub fn parse(text: &str) -> Result<Option<Self>, PathError> {
        let error = || PathError(text.to_owned());
        let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|_| error());
        let mut bytes = text.bytes();
        let (Some(form), Some(b':')) = (bytes.next(), bytes.next()) else {
            return Err(error());
        };
        Ok(Some(match form {
            b'f' => Self::field(&text[2..]),
            b'v' => Self::Value(Scalar(json(&text[2..])?)),
            b'i' => Self::Index(text[2..].parse().map_err(|_| error())?),
            b'k' => {
                let Value::Object(map) = json(&text[2..])? else {
                    return Err(error());
                };
                let mut fields: Vec<_> = map
                    .into_iter()
                    .map(|(name, value)| (name.into(), Scalar(value)))
                    .collect();
                fields.sort();
                Self::Key(fields)
            }
            _ => return Ok(None),
        }))
    }

    /// The serialized form.
    pub fn serialize(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.to_string(), value.0.clone()));
                format!("k:{}", quote::json(&Value::Object(fields.collect::<Map<_, _>>())))
            }
            Self::Value(value) => format!("v:{}", quote::json(&value.0)),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

impl fmt::Display for PathElement {
    /// As conflicts show it: `.name`, `[name="x"]`, `[="x"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A whole path, as conflicts show it: `.spec.containers[name="x"].image`.
pub(super) fn print(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Value::String(text) => f.write_str(&quote::quote(text)),
            other => write!(f, "{other}"),
        }
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

fn compare(a: &Value, b: &Value) -> Ordering {
    fn rank(value: &Value) -> u8 {
        match value {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a
                .as_f64()
                .unwrap_or_default()
                .total_cmp(&b.as_f64().unwrap_or_default()),
        },
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let differing = a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|order| order.is_ne());
            differing.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        // Maps are no scalars and never keys; their text is order enough.
        (Value::Object(_), Value::Object(_)) => a.to_string().cmp(&b.to_string()),
        _ => rank(a).cmp(&rank(b)),
    }
}
