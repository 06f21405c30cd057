//! A set of field paths, and its `fieldsV1` form.
//!
//! Source of the operations: `structured-merge-diff/v6/fieldpath/set.go` and `serialize.go`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};

use super::path::{PathElement, PathError};

/// A set of paths. A path may be in it without those it starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// No node is neither a member nor has members below.
    nodes: BTreeMap<PathElement, Node>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    below: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    /// From paths of plain field names: `&[&["metadata", "name"], &["status"]]`.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(&path.iter().map(|name| PathElement::field(name)).collect::<Vec<_>>());
        }
        set
    }

    /// Whether no path is in the set.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a path. The empty path stands for the whole object, which nobody owns.
    pub fn insert(&mut self, path: &[PathElement]) {
        if let [first, rest @ ..] = path {
            let node = self.nodes.entry(first.clone()).or_default();
            if rest.is_empty() {
                node.member = true
            } else {
                node.below.insert(rest)
            }
        }
    }

    /// Whether exactly this path is in the set.
    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.has_member(last),
            [first, rest @ ..] => self.below(first).is_some_and(|set| set.has(rest)),
        }
    }

    /// Whether the path of this one element is in the set.
    pub(super) fn has_member(&self, element: &PathElement) -> bool {
        self.nodes.get(element).is_some_and(|node| node.member)
    }

    /// The paths that start with `element`, without it; `None` when there are none.
    pub(super) fn below(&self, element: &PathElement) -> Option<&Self> {
        self.nodes
            .get(element)
            .map(|node| &node.below)
            .filter(|below| !below.is_empty())
    }

    /// Paths of either.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        for (element, theirs) in &other.nodes {
            match self.nodes.entry(element.clone()) {
                Entry::Vacant(entry) => drop(entry.insert(theirs.clone())),
                Entry::Occupied(mut entry) => {
                    let node = entry.get_mut();
                    node.member |= theirs.member;
                    node.below = std::mem::take(&mut node.below).union(&theirs.below);
                }
            }
        }
        self
    }

    /// Paths of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let both = self.nodes.iter().filter_map(|(element, ours)| {
            let theirs = other.nodes.get(element)?;
            let node = Node {
                member: ours.member && theirs.member,
                below: ours.below.intersection(&theirs.below),
            };
            (!node.is_empty()).then(|| (element.clone(), node))
        });
        Self { nodes: both.collect() }
    }

    /// Paths of this set that are not in `other`. A path below a path of `other` stays.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let left = self.nodes.iter().filter_map(|(element, ours)| {
            let node = match other.nodes.get(element) {
                None => ours.clone(),
                Some(theirs) => Node {
                    member: ours.member && !theirs.member,
                    below: ours.below.difference(&theirs.below),
                },
            };
            (!node.is_empty()).then(|| (element.clone(), node))
        });
        Self { nodes: left.collect() }
    }

    /// Paths of this set that are neither in `other` nor below one of its paths.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        let left = self.nodes.iter().filter_map(|(element, ours)| {
            let node = match other.nodes.get(element) {
                None => ours.clone(),
                Some(theirs) if theirs.member => return None,
                Some(theirs) => Node {
                    member: ours.member,
                    below: ours.below.recursive_difference(&theirs.below),
                },
            };
            (!node.is_empty()).then(|| (element.clone(), node))
        });
        Self { nodes: left.collect() }
    }

    /// Every path: an object's own members first, then what is below them.
    pub fn for_each(&self, visit: &mut impl FnMut(&[PathElement])) {
        self.walk(&mut Vec::new(), visit);
    }

    fn walk(&self, prefix: &mut Vec<PathElement>, visit: &mut impl FnMut(&[PathElement])) {
        for (element, _) in self.nodes.iter().filter(|(_, node)| node.member) {
            prefix.push(element.clone());
            visit(prefix);
            prefix.pop();
        }
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            node.below.walk(prefix, visit);
            prefix.pop();
        }
    }

    /// The set with each node made anew: whether it is a member, and what is below.
    pub(super) fn map(&self, mut make: impl FnMut(&PathElement, bool, &Self) -> (bool, Self)) -> Self {
        let nodes = self.nodes.iter().map(|(element, node)| {
            let (member, below) = make(element, node.member, &node.below);
            (element.clone(), Node { member, below })
        });
        Self {
            nodes: nodes.filter(|(_, node)| !node.is_empty()).collect(),
        }
    }

    /// The `fieldsV1` object.
    pub fn to_fields_v1(&self) -> Value {
        let mut out = Map::new();
        for (element, node) in &self.nodes {
            let mut inner = Map::new();
            // A member without anything below is `{}`; with something below it needs the dot to say so.
            if node.member && !node.below.is_empty() {
                inner.insert(".".to_owned(), Value::Object(Map::new()));
            }
            if let Value::Object(below) = node.below.to_fields_v1() {
                inner.extend(below);
            }
            out.insert(element.serialize(), Value::Object(inner));
        }
        Value::Object(out)
    }

    /// Reads a `fieldsV1` object. Depth is bounded by the JSON parser's.
    pub fn from_fields_v1(fields: &Value) -> Result<Self, PathError> {
        let mut set = Self::default();
        for (name, inner) in fields
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| *name != ".")
        {
            let Some(element) = PathElement::parse(name)? else {
                continue;
            };
            let below = Self::from_fields_v1(inner)?;
            let member = below.is_empty() || inner.get(".").is_some();
            let node = set.nodes.entry(element).or_default();
            node.member |= member;
            node.below = std::mem::take(&mut node.below).union(&below);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::path::{Scalar, print};
    use super::*;

    fn set(fields: Value) -> FieldSet {
        FieldSet::from_fields_v1(&fields).unwrap()
    }

    #[test]
    fn the_wire_form_has_every_kind_of_element_in_order() {
        let fields = json!({
            "f:metadata": {"f:finalizers": {".": {}, "v:\"a<b\"": {}}},
            "f:spec": {"f:ports": {
                "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}},
                "i:3": {},
            }, "f:replicas": {}},
        });
        let set = set(fields);
        assert_eq!(
            set.to_fields_v1().to_string(),
            r#"{"f:metadata":{"f:finalizers":{".":{},"v:\"a\\u003cb\"":{}}},"f:spec":{"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}},"i:3":{}},"f:replicas":{}}}"#
        );
        let mut paths = Vec::new();
        set.for_each(&mut |path| paths.push(print(path)));
        assert_eq!(
            paths,
            [
                ".metadata.finalizers",
                ".metadata.finalizers[=\"a<b\"]",
                ".spec.replicas",
                ".spec.ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.ports[3]",
                ".spec.ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ]
        );
    }

    #[test]
    fn elements_of_the_future_are_dropped_and_rubbish_is_refused() {
        assert!(set(json!({"x:new": {}})).is_empty());
        for rubbish in [
            json!({"f": {}}),
            json!({"k:[]": {}}),
            json!({"v:{": {}}),
            json!({"i:x": {}}),
            json!({"é": {}}),
        ] {
            assert!(FieldSet::from_fields_v1(&rubbish).is_err(), "{rubbish}");
        }
    }

    #[test]
    fn differences_treat_parents_and_children_apart() {
        let parent = set(json!({"f:a": {}}));
        let child = set(json!({"f:a": {"f:b": {}}}));
        assert_eq!(child.difference(&parent), child);
        assert_eq!(parent.difference(&child), parent);
        assert!(child.recursive_difference(&parent).is_empty());
        assert!(child.intersection(&parent).is_empty());
        assert!(
            parent
                .clone()
                .union(&child)
                .has(&[PathElement::field("a"), PathElement::field("b")])
        );
    }

    fn any_element() -> impl Strategy<Value = PathElement> {
        prop_oneof![
            "[a-c]".prop_map(|name| PathElement::field(&name)),
            (0..3_usize).prop_map(PathElement::Index),
            "[a-c]".prop_map(|text| PathElement::Value(Scalar(text.into()))),
            (0..3_i64).prop_map(|n| PathElement::Key(vec![("k".into(), Scalar(n.into()))])),
        ]
    }

    fn any_set() -> impl Strategy<Value = FieldSet> {
        prop::collection::vec(prop::collection::vec(any_element(), 1..4), 0..8).prop_map(|paths| {
            let mut set = FieldSet::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn a_written_set_is_read_back(a in any_set()) {
            let text = a.to_fields_v1().to_string();
            prop_assert_eq!(FieldSet::from_fields_v1(&serde_json::from_str(&text).unwrap()).unwrap(), a);
        }

        #[test]
        fn sets_obey_the_laws(a in any_set(), b in any_set()) {
            prop_assert_eq!(a.clone().union(&b), b.clone().union(&a));
            prop_assert_eq!(a.intersection(&b), b.intersection(&a));
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert!(a.difference(&b).intersection(&b).is_empty());
            prop_assert!(a.difference(&a).is_empty());
            b.for_each(&mut |path| assert!(!a.difference(&b).has(path)));
        }
    }
}
