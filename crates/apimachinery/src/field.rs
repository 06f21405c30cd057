//! Field paths and field errors: what is wrong, where, in the words of `apimachinery/pkg/util/validation/field`.

use std::fmt;

use serde_json::Value;

use crate::quote;

/// The way to a field, printed as Kubernetes prints it: `spec.containers[0].env[KEY].name`.
///
/// Cheap to make from another one; a validation walks down by `child`, `index` and `key`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    /// A path that starts at a field of the object. May hold dots.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// A field below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            Self::new(name)
        } else {
            Self(format!("{}.{name}", self.0))
        }
    }

    /// An item of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// An entry of the map at this path.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// As Kubernetes prints it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Path {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

/// What kind of wrong a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// It must be given.
    Required,
    /// It cannot be this.
    Invalid,
    /// It is of the wrong type.
    TypeInvalid,
    /// It is none of the values it may have.
    NotSupported,
    /// Another item says the same.
    Duplicate,
    /// What it names is not there.
    NotFound,
    /// It may not be given here.
    Forbidden,
    /// The text is too long.
    TooLong,
    /// The list has too many items.
    TooMany,
    /// The list has too few items.
    TooFew,
    /// The server could not tell.
    Internal,
}

impl ErrorKind {
    /// The cause reason in a `Status`: `FieldValueRequired`, …
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TooFew => "FieldValueTooFew",
            Self::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::NotFound => "Not found",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::TooFew => "Too few",
            Self::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

/// One thing wrong at one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What kind of wrong.
    pub kind: ErrorKind,
    /// Where.
    pub path: Path,
    /// What was there; `None` when it is not to be shown.
    pub value: Option<Value>,
    /// More about it; may be empty.
    pub detail: String,
}

impl Error {
    fn new(kind: ErrorKind, path: &Path, value: Option<Value>, detail: impl Into<String>) -> Self {
        Self {
            kind,
            path: path.clone(),
            value,
            detail: detail.into(),
        }
    }

    /// The field must be given; `detail` may be empty.
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Required, path, None, detail)
    }

    /// The field cannot be `value`.
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, path, Some(value.into()), detail)
    }

    /// The field's value has the wrong type.
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::TypeInvalid, path, Some(value.into()), detail)
    }

    /// The field has to be one of `supported`, which are listed in the order given (upstream: sorted).
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = supported.iter().map(|s| quote::quote(s)).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(ErrorKind::NotSupported, path, Some(value.into()), detail)
    }

    /// Another item has the same value.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorKind::Duplicate, path, Some(value.into()), "")
    }

    /// What the field names is not there.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorKind::NotFound, path, Some(value.into()), "")
    }

    /// The field may not be given here.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, path, None, detail)
    }

    /// The text has more than `max` bytes.
    pub fn too_long(path: &Path, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::new(
            ErrorKind::TooLong,
            path,
            None,
            format!("may not be more than {max} {unit}"),
        )
    }

    /// The list has `actual` items and may have `max`.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::new(
            ErrorKind::TooMany,
            path,
            Some(actual.into()),
            format!("must have at most {max} {unit}"),
        )
    }

    /// The server could not tell, for the reason in `detail`.
    pub fn internal(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, path, None, detail)
    }

    /// The message without the path: `Invalid value: "x": must be …`.
    pub fn body(&self) -> String {
        let mut body = self.kind.words().to_owned();
        if let Some(value) = self.value.as_ref().filter(|_| self.kind.shows_value()) {
            body.push_str(": ");
            body.push_str(&match value {
                Value::String(text) => quote::quote(text),
                other => quote::json(other),
            });
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

impl std::error::Error for Error {}

/// Several errors as one text, each once: `[a, b]`, or without brackets when there is only one.
pub fn join(errors: &[Error]) -> String {
    let mut seen: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    match seen.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_is_printed_as_kubernetes_does() {
        let path = Path::new("spec")
            .child("containers")
            .index(0)
            .child("env")
            .key("KEY")
            .child("name");
        assert_eq!(path.to_string(), "spec.containers[0].env[KEY].name");
        assert_eq!(Path::root().child("spec").as_str(), "spec");
    }

    #[test]
    fn bodies_are_worded_as_kubernetes_words_them() {
        let path = Path::new("spec.x");
        for (error, expected) in [
            (Error::required(&path, ""), "spec.x: Required value"),
            (Error::required(&path, "say it"), "spec.x: Required value: say it"),
            (
                Error::invalid(&path, "a\"b", "must be c"),
                "spec.x: Invalid value: \"a\\\"b\": must be c",
            ),
            (
                Error::invalid(&path, 3, "too small"),
                "spec.x: Invalid value: 3: too small",
            ),
            (
                Error::invalid(&path, json!({"a": [1]}), "no"),
                "spec.x: Invalid value: {\"a\":[1]}: no",
            ),
            (
                Error::invalid(&path, Value::Null, "no"),
                "spec.x: Invalid value: null: no",
            ),
            (
                Error::not_supported(&path, "q", &["A", "B"]),
                "spec.x: Unsupported value: \"q\": supported values: \"A\", \"B\"",
            ),
            (Error::duplicate(&path, "a"), "spec.x: Duplicate value: \"a\""),
            (Error::not_found(&path, "a"), "spec.x: Not found: \"a\""),
            (Error::forbidden(&path, "immutable"), "spec.x: Forbidden: immutable"),
            (
                Error::too_long(&path, 63),
                "spec.x: Too long: may not be more than 63 bytes",
            ),
            (
                Error::too_many(&path, 5, 3),
                "spec.x: Too many: 5: must have at most 3 items",
            ),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn several_errors_are_listed_once_each() {
        let one = Error::required(&Path::new("a"), "");
        let two = Error::required(&Path::new("b"), "");
        assert_eq!(
            join(&[one.clone(), two, one.clone()]),
            "[a: Required value, b: Required value]"
        );
        assert_eq!(join(&[one.clone(), one]), "a: Required value");
    }
}
