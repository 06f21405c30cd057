//! `Node`: a structural schema compiled for what every write of a custom resource needs: defaults and validation.
//!
//! Pruning and merging work on apimachinery's table of the same schema. After k/k
//! `apiextensions-apiserver/pkg/apiserver/{schema,validation}` and kube-openapi `pkg/validation/validate` at 1.36.

mod default;
mod format;
mod validate;

use regex::Regex;
use serde_json::Value;

use crate::strategy::walk::{flag, list, object, text};

/// One place of a schema.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// `None`: any type.
    kind: Option<Type>,
    nullable: bool,
    embedded: bool,
    properties: Box<[(Box<str>, Node)]>,
    additional: Option<Box<Node>>,
    items: Option<Box<Node>>,
    required: Box<[Box<str>]>,
    default: Option<Box<Value>>,
    list: Option<ListType>,
    /// Whether there is a default here or below: most schemas have none, and need no walk.
    has_defaults: bool,
    checks: Option<Box<Checks>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
        }
    }
}

/// Lists whose items must differ.
#[derive(Debug)]
enum ListType {
    Set,
    Map(Box<[Box<str>]>),
}

/// What few places have.
#[derive(Debug, Default)]
struct Checks {
    values: Box<[Value]>,
    pattern: Option<Regex>,
    format: Box<str>,
    minimum: Option<f64>,
    exclusive_minimum: bool,
    maximum: Option<f64>,
    exclusive_maximum: bool,
    multiple_of: Option<f64>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    min_properties: Option<usize>,
    max_properties: Option<usize>,
    all_of: Box<[Node]>,
    any_of: Box<[Node]>,
    one_of: Box<[Node]>,
    not: Option<Box<Node>>,
}

impl Node {
    /// Compiles a schema that has been found structural; what is not understood constrains nothing.
    pub(crate) fn compile(schema: &Value) -> Self {
        let kind = match text(schema, &["type"]) {
            _ if flag(schema, &["x-kubernetes-int-or-string"]) => Some(Type::IntOrString),
            "object" => Some(Type::Object),
            "array" => Some(Type::Array),
            "string" => Some(Type::String),
            "integer" => Some(Type::Integer),
            "number" => Some(Type::Number),
            "boolean" => Some(Type::Boolean),
            _ => None,
        };
        let names = |field: &str| -> Box<[Box<str>]> {
            let names = list(schema, &[field]).iter().filter_map(Value::as_str);
            names.map(Into::into).collect()
        };
        let child = |field: &str| {
            let child = schema.get(field).filter(|child| child.is_object())?;
            Some(Box::new(Self::compile(child)))
        };
        let mut properties: Box<[(Box<str>, Self)]> = object(schema, &["properties"])
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.as_str().into(), Self::compile(schema)))
            .collect();
        properties.sort_by(|(a, _), (b, _)| a.cmp(b));
        let (additional, items) = (child("additionalProperties"), child("items"));
        let default = schema.get("default").cloned().map(Box::new);
        let below = |node: &Option<Box<Self>>| node.as_ref().is_some_and(|node| node.has_defaults);
        let has_defaults = properties
            .iter()
            .any(|(_, node)| node.default.is_some() || node.has_defaults)
            || below(&additional)
            || below(&items);
        Self {
            kind,
            nullable: flag(schema, &["nullable"]),
            embedded: flag(schema, &["x-kubernetes-embedded-resource"]),
            properties,
            additional,
            items,
            required: names("required"),
            default,
            list: match text(schema, &["x-kubernetes-list-type"]) {
                "set" => Some(ListType::Set),
                "map" => Some(ListType::Map(names("x-kubernetes-list-map-keys"))),
                _ => None,
            },
            has_defaults,
            checks: Checks::compile(schema).map(Box::new),
        }
    }

    fn property(&self, name: &str) -> Option<&Self> {
        let found = self
            .properties
            .binary_search_by(|(known, _)| (**known).cmp(name))
            .ok()?;
        Some(&self.properties[found].1)
    }
}

impl Checks {
    /// `None` if the schema has none of them.
    fn compile(schema: &Value) -> Option<Self> {
        const FIELDS: [&str; 16] = [
            "enum",
            "pattern",
            "format",
            "minimum",
            "maximum",
            "multipleOf",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        FIELDS.iter().find(|field| schema.get(**field).is_some())?;
        let number = |field: &str| schema.get(field).and_then(Value::as_f64);
        let count = |field: &str| {
            let count = schema.get(field).and_then(Value::as_u64)?;
            usize::try_from(count).ok()
        };
        let nodes = |field: &str| -> Box<[Node]> { list(schema, &[field]).iter().map(Node::compile).collect() };
        Some(Self {
            values: list(schema, &["enum"]).into(),
            pattern: match text(schema, &["pattern"]) {
                "" => None,
                pattern => Regex::new(pattern).ok(),
            },
            format: text(schema, &["format"]).into(),
            minimum: number("minimum"),
            exclusive_minimum: flag(schema, &["exclusiveMinimum"]),
            maximum: number("maximum"),
            exclusive_maximum: flag(schema, &["exclusiveMaximum"]),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            all_of: nodes("allOf"),
            any_of: nodes("anyOf"),
            one_of: nodes("oneOf"),
            not: schema.get("not").map(|not| Box::new(Node::compile(not))),
        })
    }
}
