//! Merges what is applied into what is there. Source: `structured-merge-diff/v6/typed/merge.go`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::path::PathElement;
use super::typed::{Shape, Type};

/// `applied` laid over `live`: nothing is removed, leaves of `applied` win, and where `applied` changes a list its order
/// wins too. `None` when nothing is left to say.
pub(super) fn merge(live: Option<&Value>, applied: Option<&Value>, r#type: Type<'_>) -> Option<Value> {
    // A value that changes its form takes the new one.
    let shape = applied.or(live).map(|value| r#type.shape(value))?;
    match shape {
        Shape::Map { atomic: false } => {
            let (old, new) = (live.and_then(Value::as_object), applied.and_then(Value::as_object));
            if old.is_none_or(Map::is_empty) && new.is_none_or(Map::is_empty) {
                return applied.or(live).cloned();
            }
            let mut out = Map::new();
            for (name, value) in old.into_iter().flatten() {
                let applied = new.and_then(|new| new.get(name));
                if let Some(value) = merge(Some(value), applied, r#type.entry_or_deduced(name).0) {
                    out.insert(name.clone(), value);
                }
            }
            for (name, value) in new.into_iter().flatten() {
                if old.is_none_or(|old| !old.contains_key(name))
                    && let Some(value) = merge(None, Some(value), r#type.entry_or_deduced(name).0)
                {
                    out.insert(name.clone(), value);
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        Shape::List { atomic: false } => {
            let old = live.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let new = applied.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            if old.is_empty() && new.is_empty() {
                return applied.or(live).cloned();
            }
            let out = items(old, new, r#type);
            (!out.is_empty()).then_some(Value::Array(out))
        }
        Shape::Scalar | Shape::Map { atomic: true } | Shape::List { atomic: true } => applied.or(live).cloned(),
    }
}

/// Items of both, each once: in the order of `new`, with what only `old` has kept between its old neighbours.
fn items(old: &[Value], new: &[Value], r#type: Type<'_>) -> Vec<Value> {
    let identify = |list: &[Value]| -> Vec<PathElement> {
        list.iter()
            .enumerate()
            .map(|(index, item)| r#type.identify_or_index(index, item))
            .collect()
    };
    let (old_ids, new_ids) = (identify(old), identify(new));
    // Items of `old` that cannot be told apart are not merged with anything.
    let mut old_items: BTreeMap<&PathElement, Option<&Value>> = BTreeMap::new();
    for (id, item) in old_ids.iter().zip(old) {
        old_items
            .entry(id)
            .and_modify(|first| *first = None)
            .or_insert(Some(item));
    }
    let new_items: BTreeMap<&PathElement, &Value> = new_ids.iter().zip(new).collect();
    let mut shared: VecDeque<&PathElement> = new_ids.iter().filter(|id| old_items.contains_key(id)).collect();
    let mut next_shared = shared.pop_front();
    let mut merged: BTreeSet<&PathElement> = BTreeSet::new();
    let mut out = Vec::with_capacity(old.len().max(new.len()));
    let inner = r#type.items();
    let merge_one = |id: &PathElement| merge(old_items.get(id).copied().flatten(), new_items.get(id).copied(), inner);

    let (mut left, mut right) = (0, 0);
    while left < old_ids.len() || right < new_ids.len() {
        if left < old_ids.len() && right < new_ids.len() {
            let id = &old_ids[left];
            if *id == new_ids[right] {
                merged.insert(id);
                out.extend(merge_one(id));
                left += 1;
                right += 1;
                next_shared = shared.pop_front();
                continue;
            }
            if new_items.contains_key(id) && next_shared.is_some_and(|next| next != id) {
                // Shared, but it is another's turn.
                left += 1;
                continue;
            }
        }
        if left < old_ids.len() {
            let id = &old_ids[left];
            if !new_items.contains_key(id) {
                out.extend(merge(Some(&old[left]), None, inner));
                left += 1;
                continue;
            }
            if merged.contains(id) {
                left += 1;
            }
        }
        if right < new_ids.len() {
            let id = &new_ids[right];
            merged.insert(id);
            out.extend(merge_one(id));
            right += 1;
            if next_shared == Some(id) {
                next_shared = shared.pop_front();
            }
        }
    }
    out
}
