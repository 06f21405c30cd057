//! What a kind looks like: fields, lists and maps with their merge rules, from OpenAPI v3 or a CRD's structural schema.
//!
//! Owns the compact table (`Schemas`) and the cursor that walks it (`Schema`). A table of all built-in kinds takes some
//! hundred kilobytes, where the documents take six megabytes: no descriptions, each name once. Must not know how patches
//! use the rules; validation of values beyond their JSON type is not here either.

mod conform;
mod openapi;
mod prune;

use std::collections::HashMap;
use std::fmt;

use serde_json::{Map, Value};

pub use conform::{TypeMismatch, conform, fill_zero_values};
pub use openapi::LoadError;
pub use prune::prune;

use crate::gvk::GroupVersionKind;

/// A table of schemas, walked by [`Schema`].
#[derive(Debug, Default)]
pub struct Schemas {
    names: Box<[Box<str>]>,
    nodes: Box<[Node]>,
    /// Fields of all objects, each object's sorted by name.
    fields: Box<[(NameId, NodeId)]>,
    rules: Box<[Rules]>,
    components: HashMap<Box<str>, NodeId>,
    kinds: HashMap<GroupVersionKind, NodeId>,
}

type NameId = u32;
type NodeId = u32;

/// One place in a schema. What few places have is in `rules`.
#[derive(Clone, Copy, Debug)]
struct Node {
    shape: Shape,
    /// Index into `Schemas::rules`, or `NO_RULES`.
    rules: u32,
    /// The component's name, or `NO_NAME`.
    name: NameId,
    preserves_unknown: bool,
    embedded_resource: bool,
    zero_value: bool,
}

const NO_RULES: u32 = u32::MAX;
const NO_NAME: NameId = NameId::MAX;

#[derive(Clone, Copy, Debug)]
enum Shape {
    Untyped,
    Any,
    Scalar(Scalar),
    Object { first: u32, count: u32 },
    Map(NodeId),
    List(NodeId),
    Ref(NodeId),
}

#[derive(Debug, Default)]
struct Rules {
    list_type: Option<ListType>,
    list_map_keys: Box<[NameId]>,
    map_type: Option<MapType>,
    merge_key: Option<NameId>,
    strategy: PatchStrategy,
    required: Box<[NameId]>,
    default: Option<Box<Value>>,
    nullable: bool,
}

/// What kind of value a place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything, taken as a whole (`RawExtension`).
    Untyped,
    /// Anything; maps in it merge by their keys (an object without declared fields, a value without a type).
    Any,
    /// A leaf.
    Scalar(Scalar),
    /// Declared fields.
    Object,
    /// Free keys, values of one schema.
    Map,
    /// Items of one schema.
    List,
}

/// What a leaf holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Text, an enum, …
    String,
    /// Base64.
    Bytes,
    /// 32 bits.
    Int32,
    /// 64 bits.
    Int64,
    /// Floating point.
    Number,
    /// True or false.
    Boolean,
    /// `resource.Quantity`: text or number.
    Quantity,
    /// `intstr.IntOrString`
    IntOrString,
    /// `metav1.Time`: RFC 3339, whole seconds.
    Time,
    /// `metav1.MicroTime`: RFC 3339, microseconds.
    MicroTime,
}

/// How two versions of a list come together (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    Atomic,
    /// As a set of scalars.
    Set,
    /// Item by item, told apart by [`Schema::list_map_keys`].
    Map,
}

/// How two versions of a map or object come together (`x-kubernetes-map-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapType {
    /// Entry by entry.
    Granular,
    /// As a whole.
    Atomic,
}

/// How a strategic merge patch treats a place (`x-kubernetes-patch-strategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// A list is merged by its merge key, or as a set of scalars.
    pub merge: bool,
    /// The patch's value takes the place of the old one.
    pub replace: bool,
    /// A patch may say which fields to keep.
    pub retain_keys: bool,
}

/// A place in a schema. Cheap to copy; borrowed from its table.
#[derive(Clone, Copy)]
pub struct Schema<'a> {
    table: &'a Schemas,
    /// The place itself, which may add rules to what it refers to.
    site: NodeId,
    /// What it refers to.
    target: NodeId,
}

impl Schemas {
    /// From OpenAPI v3 documents (`/openapi/v3/…`) as JSON text. Components that several documents define are the same
    /// in all of them; the first one counts.
    pub fn from_openapi<'d>(documents: impl IntoIterator<Item = &'d [u8]>) -> Result<Self, LoadError> {
        let mut builder = openapi::Builder::default();
        for document in documents {
            builder.add_document(document)?;
        }
        builder.build()
    }

    /// From a version's `openAPIV3Schema` of a CRD. `metadata` becomes Kubernetes' `ObjectMeta`.
    pub fn from_structural(kind: &GroupVersionKind, schema: &Value) -> Result<Self, LoadError> {
        let mut builder = openapi::Builder::default();
        builder.add_structural(kind, schema)?;
        builder.build()
    }

    /// The schema of a kind.
    pub fn kind(&self, kind: &GroupVersionKind) -> Option<Schema<'_>> {
        self.kinds.get(kind).map(|&node| self.at(node))
    }

    /// The schema of a component by its full name, as `io.k8s.api.core.v1.PodSpec`.
    pub fn component(&self, name: &str) -> Option<Schema<'_>> {
        self.components.get(name).map(|&node| self.at(node))
    }

    /// Every kind in the table.
    pub fn kinds(&self) -> impl Iterator<Item = &GroupVersionKind> {
        self.kinds.keys()
    }

    /// How many places the table describes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the table describes nothing.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn at(&self, site: NodeId) -> Schema<'_> {
        let mut target = site;
        // The builder refuses cycles of nothing but references.
        while let Shape::Ref(next) = self.node(target).shape {
            target = next;
        }
        Schema {
            table: self,
            site,
            target,
        }
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    fn name(&self, id: NameId) -> &str {
        &self.names[id as usize]
    }
}

impl<'a> Schema<'a> {
    fn shape(self) -> Shape {
        self.table.node(self.target).shape
    }

    fn rules(self, node: NodeId) -> Option<&'a Rules> {
        self.table.rules.get(self.table.node(node).rules as usize)
    }

    /// The first rule found at the place itself or at what it refers to.
    fn rule<T>(self, get: impl Fn(&'a Rules) -> Option<T>) -> Option<T> {
        self.rules(self.site)
            .and_then(&get)
            .or_else(|| self.rules(self.target).and_then(&get))
    }

    /// What kind of value is here.
    pub fn kind(self) -> Kind {
        match self.shape() {
            Shape::Untyped => Kind::Untyped,
            Shape::Any => Kind::Any,
            Shape::Scalar(scalar) => Kind::Scalar(scalar),
            Shape::Object { .. } => Kind::Object,
            Shape::Map(_) => Kind::Map,
            Shape::List(_) => Kind::List,
            // `at` has walked to the end of the references.
            Shape::Ref(_) => Kind::Any,
        }
    }

    /// The component's name, when this place is or refers to one: `io.k8s.api.core.v1.PodSpec`.
    pub fn component_name(self) -> Option<&'a str> {
        let name = self.table.node(self.target).name;
        (name != NO_NAME).then(|| self.table.name(name))
    }

    /// A declared field of an object.
    pub fn field(self, name: &str) -> Option<Schema<'a>> {
        let fields = self.field_slice();
        let found = fields.binary_search_by(|(id, _)| self.table.name(*id).cmp(name)).ok()?;
        Some(self.table.at(fields[found].1))
    }

    /// The declared fields of an object, sorted by name.
    pub fn fields(self) -> impl Iterator<Item = (&'a str, Schema<'a>)> {
        let table = self.table;
        self.field_slice()
            .iter()
            .map(|&(name, node)| (table.name(name), table.at(node)))
    }

    fn field_slice(self) -> &'a [(NameId, NodeId)] {
        match self.shape() {
            Shape::Object { first, count } => &self.table.fields[first as usize..(first + count) as usize],
            _ => &[],
        }
    }

    /// What a list holds.
    pub fn items(self) -> Option<Schema<'a>> {
        match self.shape() {
            Shape::List(items) => Some(self.table.at(items)),
            _ => None,
        }
    }

    /// What a map's entries hold.
    pub fn values(self) -> Option<Schema<'a>> {
        match self.shape() {
            Shape::Map(values) => Some(self.table.at(values)),
            _ => None,
        }
    }

    /// The schema below `key` of an object or map: the declared field, else what a map's entries hold.
    pub fn entry(self, key: &str) -> Option<Schema<'a>> {
        self.field(key).or_else(|| self.values())
    }

    /// How two versions of this list come together. Without a list type, a strategic merge's rule says it.
    pub fn list_type(self) -> ListType {
        self.rule(|rules| rules.list_type).unwrap_or_else(|| {
            match (self.patch_strategy().merge, self.patch_merge_key()) {
                (true, Some(_)) => ListType::Map,
                (true, None) => ListType::Set,
                (false, _) => ListType::Atomic,
            }
        })
    }

    /// The fields that tell this list's items apart.
    pub fn list_map_keys(self) -> impl Iterator<Item = &'a str> + Clone {
        let table = self.table;
        let keys = self.rule(|rules| (!rules.list_map_keys.is_empty()).then_some(&rules.list_map_keys[..]));
        let fallback = if keys.is_none() && self.list_type() == ListType::Map {
            self.patch_merge_key()
        } else {
            None
        };
        keys.unwrap_or_default()
            .iter()
            .map(|&id| table.name(id))
            .chain(fallback)
    }

    /// How two versions of this map or object come together.
    pub fn map_type(self) -> MapType {
        self.rule(|rules| rules.map_type).unwrap_or(MapType::Granular)
    }

    /// The field by which a strategic merge patch finds items of this list.
    pub fn patch_merge_key(self) -> Option<&'a str> {
        self.rule(|rules| rules.merge_key).map(|id| self.table.name(id))
    }

    /// How a strategic merge patch treats this place.
    pub fn patch_strategy(self) -> PatchStrategy {
        self.rule(|rules| (rules.strategy != PatchStrategy::default()).then_some(rules.strategy))
            .unwrap_or_default()
    }

    /// Whether fields that are not declared are kept (`x-kubernetes-preserve-unknown-fields`, free-form objects).
    pub fn preserves_unknown(self) -> bool {
        matches!(self.kind(), Kind::Any | Kind::Untyped)
            || self.table.node(self.target).preserves_unknown
            || self.table.node(self.site).preserves_unknown
    }

    /// Whether this is an object of its own, with `apiVersion`, `kind` and `metadata` (`x-kubernetes-embedded-resource`).
    pub fn embedded_resource(self) -> bool {
        self.table.node(self.target).embedded_resource
    }

    /// The value an absent field stands for. At the place only: what it refers to has none.
    pub fn default(self) -> Option<&'a Value> {
        self.rules(self.site).and_then(|rules| rules.default.as_deref())
    }

    /// What Go prints here when nothing was given: `{}`, `""`, `0`, `false`, or null for a list, where the field is no
    /// pointer and not left out when empty; `None` elsewhere, and in custom resources.
    pub fn zero_value(self) -> Option<Value> {
        if !self.table.node(self.site).zero_value {
            return None;
        }
        match self.kind() {
            Kind::Object => {
                let mut object = Value::Object(Map::new());
                fill_zero_values(&mut object, self);
                Some(object)
            }
            Kind::Scalar(Scalar::String) => Some("".into()),
            Kind::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Number) => Some(0.into()),
            Kind::Scalar(Scalar::Boolean) => Some(false.into()),
            Kind::List => Some(Value::Null),
            _ => None,
        }
    }

    /// Whether null is a value of its own here.
    pub fn nullable(self) -> bool {
        self.rule(|rules| rules.nullable.then_some(())).is_some()
    }

    /// The fields an object must have.
    pub fn required(self) -> impl Iterator<Item = &'a str> {
        let table = self.table;
        let names = self
            .rules(self.target)
            .map(|rules| &rules.required[..])
            .unwrap_or_default();
        names.iter().map(|&id| table.name(id))
    }
}

impl fmt::Debug for Schema<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema")
            .field("kind", &self.kind())
            .field("component", &self.component_name())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::LazyLock;

    use serde_json::json;

    use super::*;

    /// A few built-in kinds, cut out of a real server's OpenAPI v3 (see testdata/README.md).
    pub(crate) static BUILT_IN: LazyLock<Schemas> =
        LazyLock::new(|| Schemas::from_openapi([&include_bytes!("testdata/openapi-v3.json")[..]]).unwrap());

    pub(crate) fn built_in(group: &str, version: &str, kind: &str) -> Schema<'static> {
        BUILT_IN.kind(&GroupVersionKind::new(group, version, kind)).unwrap()
    }

    #[test]
    fn merge_rules_are_found_at_the_place_and_at_what_it_refers_to() {
        let spec = built_in("apps", "v1", "Deployment").field("spec").unwrap();
        assert!(spec.field("strategy").unwrap().patch_strategy().retain_keys);
        assert_eq!(spec.field("selector").unwrap().map_type(), MapType::Atomic);
        assert_eq!(spec.field("replicas").unwrap().kind(), Kind::Scalar(Scalar::Int32));

        let pod = spec.field("template").unwrap().field("spec").unwrap();
        let containers = pod.field("containers").unwrap();
        assert_eq!(containers.list_type(), ListType::Map);
        assert_eq!(containers.list_map_keys().collect::<Vec<_>>(), ["name"]);
        assert_eq!(containers.patch_merge_key(), Some("name"));
        let container = containers.items().unwrap();
        assert_eq!(container.component_name(), Some("io.k8s.api.core.v1.Container"));
        assert_eq!(container.required().collect::<Vec<_>>(), ["name"]);
        let ports = container.field("ports").unwrap();
        assert_eq!(ports.list_map_keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
        assert_eq!(ports.patch_merge_key(), Some("containerPort"));
        assert_eq!(
            ports.items().unwrap().field("protocol").unwrap().default(),
            Some(&json!("TCP"))
        );
        let limits = container.field("resources").unwrap().field("limits").unwrap();
        assert_eq!(limits.values().unwrap().kind(), Kind::Scalar(Scalar::Quantity));
        assert_eq!(pod.field("nodeSelector").unwrap().map_type(), MapType::Atomic);
        assert!(pod.field("nope").is_none());

        let metadata = built_in("", "v1", "Pod").field("metadata").unwrap();
        assert_eq!(metadata.field("finalizers").unwrap().list_type(), ListType::Set);
        assert_eq!(
            metadata.field("creationTimestamp").unwrap().kind(),
            Kind::Scalar(Scalar::Time)
        );
        let claim = built_in("", "v1", "PersistentVolume")
            .field("spec")
            .unwrap()
            .field("claimRef")
            .unwrap();
        assert_eq!(claim.map_type(), MapType::Granular, "the place overrides the component");
    }

    #[test]
    fn a_structural_schema_gets_kubernetes_metadata() {
        let kind = GroupVersionKind::new("lab.example", "v1", "Thing");
        let schema = json!({
            "type": "object",
            "properties": {
                "metadata": {"type": "object"},
                "spec": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {
                        "size": {"x-kubernetes-int-or-string": true},
                        "parts": {
                            "type": "array",
                            "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["id"],
                            "items": {"type": "object", "properties": {"id": {"type": "string"}}},
                        },
                        "free": {"type": "object", "additionalProperties": {"type": "integer"}},
                    },
                },
            },
        });
        let table = Schemas::from_structural(&kind, &schema).unwrap();
        let root = table.kind(&kind).unwrap();
        assert_eq!(
            root.field("metadata").unwrap().field("finalizers").unwrap().list_type(),
            ListType::Set
        );
        assert_eq!(root.field("apiVersion").unwrap().kind(), Kind::Scalar(Scalar::String));
        let spec = root.field("spec").unwrap();
        assert!(spec.preserves_unknown());
        assert_eq!(spec.field("size").unwrap().kind(), Kind::Scalar(Scalar::IntOrString));
        assert_eq!(spec.field("parts").unwrap().list_map_keys().collect::<Vec<_>>(), ["id"]);
        assert_eq!(
            spec.field("free").unwrap().values().unwrap().kind(),
            Kind::Scalar(Scalar::Int64)
        );
    }

    #[test]
    fn a_broken_document_is_refused() {
        let load = |text: &str| {
            Schemas::from_openapi([text.as_bytes()])
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        assert!(load("{").starts_with("reading an OpenAPI document"));
        assert_eq!(
            load(r##"{"components":{"schemas":{"A":{"$ref":"#/components/schemas/B"}}}}"##),
            "schema `A` refers to `B`, which is not there"
        );
        assert_eq!(
            load(r##"{"components":{"schemas":{"A":{"$ref":"#/components/schemas/A"}}}}"##),
            "schema `A` refers to itself and to nothing else"
        );
    }
}
