//! Reads OpenAPI v3 components and structural schemas into the compact table.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::Value;

use super::{ListType, MapType, NO_NAME, NO_RULES, NameId, Node, NodeId, PatchStrategy, Rules, Scalar, Schemas, Shape};
use crate::gvk::GroupVersionKind;

/// Why schemas cannot be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum LoadError {
    #[error("reading an OpenAPI document: {0}")]
    Json(#[from] serde_json::Error),
    #[error("schema `{from}` refers to `{to}`, which is not there")]
    Missing { from: String, to: String },
    #[error("schema `{0}` refers to itself and to nothing else")]
    Circular(String),
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    components: Components,
}

#[derive(Default, Deserialize)]
struct Components {
    #[serde(default)]
    schemas: BTreeMap<String, Raw>,
}

/// What we read of a schema; descriptions and formats for people are skipped while parsing.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Raw {
    #[serde(rename = "$ref")]
    reference: Option<String>,
    all_of: Vec<Raw>,
    r#type: Option<String>,
    format: Option<String>,
    properties: BTreeMap<String, Raw>,
    items: Option<Box<Raw>>,
    additional_properties: Option<Additional>,
    required: Vec<String>,
    default: Option<Value>,
    nullable: bool,
    #[serde(rename = "x-kubernetes-list-type")]
    list_type: Option<String>,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    list_map_keys: Vec<String>,
    #[serde(rename = "x-kubernetes-map-type")]
    map_type: Option<String>,
    #[serde(rename = "x-kubernetes-patch-merge-key")]
    merge_key: Option<String>,
    #[serde(rename = "x-kubernetes-patch-strategy")]
    strategy: Option<String>,
    #[serde(rename = "x-kubernetes-group-version-kind")]
    kinds: Vec<RawKind>,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    preserve_unknown: bool,
    #[serde(rename = "x-kubernetes-embedded-resource")]
    embedded_resource: bool,
    #[serde(rename = "x-kubernetes-int-or-string")]
    int_or_string: bool,
}

#[derive(Deserialize)]
struct RawKind {
    group: String,
    version: String,
    kind: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Additional {
    Allowed(bool),
    Values(Box<Raw>),
}

impl Raw {
    /// The component referred to, directly or as the only part of an `allOf`.
    fn referred(&self) -> Option<&str> {
        let reference = self.reference.as_deref().or(match self.all_of.as_slice() {
            [only] => only.reference.as_deref(),
            _ => None,
        });
        reference.map(|reference| reference.rsplit('/').next().unwrap_or(reference))
    }

    fn of_type(r#type: &str) -> Self {
        Self {
            r#type: Some(r#type.to_owned()),
            ..Self::default()
        }
    }
}

/// Collects schemas; references are resolved when all are there.
#[derive(Default)]
pub(super) struct Builder {
    table: Tables,
    components: BTreeMap<String, NodeId>,
    kinds: HashMap<GroupVersionKind, NodeId>,
    structural: bool,
    /// Places that refer to a component, with the component they are in.
    unresolved: Vec<(NodeId, String, String)>,
}

#[derive(Default)]
struct Tables {
    names: Vec<Box<str>>,
    by_name: HashMap<Box<str>, NameId>,
    nodes: Vec<Node>,
    fields: Vec<(NameId, NodeId)>,
    rules: Vec<Rules>,
}

impl Tables {
    fn intern(&mut self, name: &str) -> NameId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        let id = self.names.len() as NameId;
        self.names.push(name.into());
        self.by_name.insert(name.into(), id);
        id
    }

    fn push(&mut self, shape: Shape) -> NodeId {
        self.nodes.push(Node {
            shape,
            rules: NO_RULES,
            name: NO_NAME,
            preserves_unknown: false,
            embedded_resource: false,
            zero_value: false,
        });
        (self.nodes.len() - 1) as NodeId
    }
}

impl Builder {
    pub(super) fn add_document(&mut self, json: &[u8]) -> Result<(), LoadError> {
        let document: Document = serde_json::from_slice(json)?;
        self.add_components(document.components.schemas);
        Ok(())
    }

    fn add_components(&mut self, schemas: BTreeMap<String, Raw>) {
        for (name, raw) in schemas {
            if self.components.contains_key(&name) {
                continue;
            }
            let node = self.component(&name, &raw);
            for RawKind { group, version, kind } in raw.kinds {
                self.kinds.insert(GroupVersionKind { group, version, kind }, node);
            }
            self.components.insert(name, node);
        }
    }

    pub(super) fn add_structural(&mut self, kind: &GroupVersionKind, schema: &Value) -> Result<(), LoadError> {
        self.add_document(include_bytes!("object-meta.json"))?;
        self.structural = true;
        let mut root = Raw::deserialize(schema)?;
        for name in ["apiVersion", "kind"] {
            root.properties.insert(name.to_owned(), Raw::of_type("string"));
        }
        let metadata = Raw {
            reference: Some(OBJECT_META.to_owned()),
            ..Raw::default()
        };
        root.properties.insert("metadata".to_owned(), metadata);
        let node = self.place(&kind.kind, &root);
        self.kinds.insert(kind.clone(), node);
        Ok(())
    }

    /// Well-known types are told by their names: OpenAPI gives them no usable type.
    fn component(&mut self, name: &str, raw: &Raw) -> NodeId {
        let known = match name.rsplit('.').next().unwrap_or(name) {
            "Quantity" => Some(Shape::Scalar(Scalar::Quantity)),
            "IntOrString" => Some(Shape::Scalar(Scalar::IntOrString)),
            "Time" => Some(Shape::Scalar(Scalar::Time)),
            "MicroTime" => Some(Shape::Scalar(Scalar::MicroTime)),
            "RawExtension" => Some(Shape::Untyped),
            _ => None,
        };
        let node = match known.filter(|_| name.starts_with("io.k8s.apimachinery.")) {
            Some(shape) => self.table.push(shape),
            None => self.place(name, raw),
        };
        self.table.nodes[node as usize].name = self.table.intern(name);
        node
    }

    fn place(&mut self, component: &str, raw: &Raw) -> NodeId {
        // The node is made before its children, so that a component's node is the first of its nodes.
        let node = self.table.push(Shape::Any);
        let shape = match (raw.referred(), raw.r#type.as_deref()) {
            (Some(to), _) => {
                self.unresolved.push((node, component.to_owned(), to.to_owned()));
                Shape::Any
            }
            _ if raw.int_or_string => Shape::Scalar(Scalar::IntOrString),
            (None, Some("object")) => self.object(component, raw),
            (None, Some("array")) => {
                let any = Raw::default();
                Shape::List(self.place(component, raw.items.as_deref().unwrap_or(&any)))
            }
            (None, Some("string")) => Shape::Scalar(match raw.format.as_deref() {
                Some("byte") => Scalar::Bytes,
                _ => Scalar::String,
            }),
            (None, Some("integer")) => Shape::Scalar(match raw.format.as_deref() {
                Some("int32") => Scalar::Int32,
                _ => Scalar::Int64,
            }),
            (None, Some("number")) => Shape::Scalar(Scalar::Number),
            (None, Some("boolean")) => Shape::Scalar(Scalar::Boolean),
            (None, _) => Shape::Any,
        };
        let rules = self.rules(raw);
        let slot = &mut self.table.nodes[node as usize];
        slot.shape = shape;
        slot.rules = rules;
        slot.preserves_unknown = raw.preserve_unknown;
        slot.embedded_resource = raw.embedded_resource;
        slot.zero_value = !self.structural && raw.default.as_ref().is_some_and(is_zero);
        node
    }

    fn object(&mut self, component: &str, raw: &Raw) -> Shape {
        match &raw.additional_properties {
            Some(Additional::Values(values)) if raw.properties.is_empty() => {
                return Shape::Map(self.place(component, values));
            }
            Some(Additional::Allowed(true)) if raw.properties.is_empty() => {
                return Shape::Map(self.table.push(Shape::Any));
            }
            // An OpenAPI object without fields is free-form; in a structural schema it is closed, unless it says otherwise.
            _ if raw.properties.is_empty() && (!self.structural || raw.preserve_unknown) => return Shape::Any,
            _ => {}
        }
        // `BTreeMap` gives the fields sorted by name, which the lookup needs.
        let fields: Vec<_> = raw
            .properties
            .iter()
            .map(|(name, raw)| (self.table.intern(name), self.place(component, raw)))
            .collect();
        if !self.structural {
            // A list that Go must print is null when there is none.
            for (name, node) in &fields {
                let slot = &mut self.table.nodes[*node as usize];
                let required = || {
                    raw.required
                        .iter()
                        .any(|required| **required == *self.table.names[*name as usize])
                };
                slot.zero_value |= matches!(slot.shape, Shape::List(_)) && required();
            }
        }
        let first = self.table.fields.len() as u32;
        let count = fields.len() as u32;
        self.table.fields.extend(fields);
        Shape::Object { first, count }
    }

    fn rules(&mut self, raw: &Raw) -> u32 {
        let strategy = raw.strategy.as_deref().unwrap_or_default();
        let says = |word: &str| strategy.split(',').any(|s| s == word);
        let rules = Rules {
            list_type: match raw.list_type.as_deref() {
                Some("map") => Some(ListType::Map),
                Some("set") => Some(ListType::Set),
                Some(_) => Some(ListType::Atomic),
                None => None,
            },
            list_map_keys: raw.list_map_keys.iter().map(|key| self.table.intern(key)).collect(),
            map_type: raw.map_type.as_deref().map(|r#type| match r#type {
                "atomic" => MapType::Atomic,
                _ => MapType::Granular,
            }),
            merge_key: raw.merge_key.as_deref().map(|key| self.table.intern(key)),
            strategy: PatchStrategy {
                merge: says("merge"),
                replace: says("replace"),
                retain_keys: says("retainKeys"),
            },
            required: raw.required.iter().map(|name| self.table.intern(name)).collect(),
            // In the built-in kinds `{}` says only that Go's field is no pointer; see `zero_value`.
            default: raw
                .default
                .clone()
                .filter(|value| self.structural || value.as_object().is_none_or(|map| !map.is_empty()))
                .map(Box::new),
            nullable: raw.nullable,
        };
        if rules.is_empty() {
            return NO_RULES;
        }
        self.table.rules.push(rules);
        (self.table.rules.len() - 1) as u32
    }

    pub(super) fn build(mut self) -> Result<Schemas, LoadError> {
        for (node, from, to) in &self.unresolved {
            let Some(&target) = self.components.get(to) else {
                return Err(LoadError::Missing {
                    from: from.clone(),
                    to: to.clone(),
                });
            };
            self.table.nodes[*node as usize].shape = Shape::Ref(target);
        }
        for (node, from, _) in &self.unresolved {
            let mut at = *node;
            for _ in 0..=self.unresolved.len() {
                let Shape::Ref(next) = self.table.nodes[at as usize].shape else {
                    break;
                };
                at = next;
            }
            if matches!(self.table.nodes[at as usize].shape, Shape::Ref(_)) {
                return Err(LoadError::Circular(from.clone()));
            }
        }
        Ok(Schemas {
            names: self.table.names.into(),
            nodes: self.table.nodes.into(),
            fields: self.table.fields.into(),
            rules: self.table.rules.into(),
            components: self
                .components
                .into_iter()
                .map(|(name, node)| (name.into(), node))
                .collect(),
            kinds: self.kinds,
        })
    }
}

/// In the built-in kinds' documents such a default says that Go's field is no pointer and is always printed.
fn is_zero(default: &Value) -> bool {
    match default {
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(value) => !value,
        _ => false,
    }
}

impl Rules {
    fn is_empty(&self) -> bool {
        self.list_type.is_none()
            && self.list_map_keys.is_empty()
            && self.map_type.is_none()
            && self.merge_key.is_none()
            && self.strategy == PatchStrategy::default()
            && self.required.is_empty()
            && self.default.is_none()
            && !self.nullable
    }
}
