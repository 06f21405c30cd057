//! What changed between two objects of one type, as sets of paths. Source: `structured-merge-diff/v6/typed/compare.go`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::field_set::FieldSet;
use super::path::PathElement;
use super::typed::{Shape, Type};

/// The difference between an old and a new object. No path is in two of the sets.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) added: FieldSet,
}

impl Comparison {
    pub(super) fn of(old: &Value, new: &Value, r#type: Type<'_>) -> Self {
        let mut comparison = Self::default();
        comparison.walk(Some(old), Some(new), r#type, &mut Vec::new());
        comparison
    }

    /// Forgets all that is in or below `fields`.
    pub(super) fn without(self, fields: &FieldSet) -> Self {
        if fields.is_empty() {
            return self;
        }
        Self {
            removed: self.removed.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            added: self.added.recursive_difference(fields),
        }
    }

    /// What is new or has a new value.
    pub(super) fn written(&self) -> FieldSet {
        self.modified.clone().union(&self.added)
    }

    fn walk(&mut self, old: Option<&Value>, new: Option<&Value>, r#type: Type<'_>, path: &mut Vec<PathElement>) {
        if old == new {
            return;
        }
        let shape = |value: Option<&Value>| value.map(|value| r#type.shape(value));
        let leaf = match (shape(old), shape(new)) {
            (Some(shape), None) | (None, Some(shape)) => self.visit(shape, old, new, r#type, path),
            (Some(before), Some(after)) if before == after => self.visit(after, old, new, r#type, path),
            // The value changed its form: once in the eyes of each.
            (Some(before), Some(after)) => {
                self.visit(before, old, new, r#type, path);
                self.visit(after, old, new, r#type, path)
            }
            (None, None) => return,
        };
        if !leaf {
            if old.is_none() {
                self.added.insert(path);
            } else if new.is_none() {
                self.removed.insert(path);
            }
        }
    }

    /// Returns whether the value was taken as a whole.
    fn visit(
        &mut self,
        shape: Shape,
        old: Option<&Value>,
        new: Option<&Value>,
        r#type: Type<'_>,
        path: &mut Vec<PathElement>,
    ) -> bool {
        match shape {
            Shape::Map { atomic: false } => {
                let (before, after) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
                if before.is_none_or(Map::is_empty) && after.is_none_or(Map::is_empty) {
                    // Keeps the difference between absent, null and empty.
                    self.leaf(old, new, path);
                    return true;
                }
                let names = before.into_iter().flatten().map(|(name, _)| name);
                let added = after.into_iter().flatten().map(|(name, _)| name);
                let added = added.filter(|name| before.is_none_or(|before| !before.contains_key(*name)));
                for name in names.chain(added) {
                    let (inner, _) = r#type.entry_or_deduced(name);
                    // What Go always prints is there, too, where its object is.
                    let zero = inner.zero_value();
                    let old = before.and_then(|map| map.get(name).or(zero.as_ref()));
                    let new = after.and_then(|map| map.get(name).or(zero.as_ref()));
                    path.push(PathElement::field(name));
                    self.walk(old, new, inner, path);
                    path.pop();
                }
                false
            }
            Shape::List { atomic: false } => {
                let before = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let after = new.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                if before.is_empty() && after.is_empty() {
                    self.leaf(old, new, path);
                    return true;
                }
                self.items(before, after, r#type, path);
                false
            }
            Shape::Scalar | Shape::Map { atomic: true } | Shape::List { atomic: true } => {
                self.leaf(old, new, path);
                true
            }
        }
    }

    fn items(&mut self, before: &[Value], after: &[Value], r#type: Type<'_>, path: &mut Vec<PathElement>) {
        // Items by identity; several with one identity are compared as one thing.
        let mut items: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for (index, item) in before.iter().enumerate() {
            items
                .entry(r#type.identify_or_index(index, item))
                .or_default()
                .0
                .push(item);
        }
        for (index, item) in after.iter().enumerate() {
            items
                .entry(r#type.identify_or_index(index, item))
                .or_default()
                .1
                .push(item);
        }
        for (element, (old, new)) in items {
            path.push(element);
            let inner = r#type.items();
            match (old.len(), new.len()) {
                (0 | 1, 0 | 1) => self.walk(old.first().copied(), new.first().copied(), inner, path),
                (0 | 1, _) => {
                    self.walk(old.first().copied(), None, inner, path);
                    self.added.insert(path);
                }
                (_, 0 | 1) => {
                    self.walk(None, new.first().copied(), inner, path);
                    self.removed.insert(path);
                }
                _ if old != new => self.modified.insert(path),
                _ => {}
            }
            path.pop();
        }
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>, path: &[PathElement]) {
        match (old, new) {
            (None, _) => self.added.insert(path),
            (_, None) => self.removed.insert(path),
            (old, new) if old != new => self.modified.insert(path),
            _ => {}
        }
    }
}
