//! Strategic merge patch: a merge patch that knows which lists have items with names.
//!
//! Source: `apimachinery/pkg/util/strategicpatch/patch.go` (`mergeMap` and below), 1.36, as the server uses it. Where a
//! schema says nothing (unknown fields, free-form data) maps merge and lists are replaced; upstream refuses there.

use serde_json::{Map, Value};

use super::{Error, ErrorKind};
use crate::schema::Schema;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";

/// Merges `patch` into `target`, an object of `schema`. On an error `target` may be changed in part: patch a copy.
pub fn apply(target: &mut Value, patch: &Value, schema: Schema<'_>) -> Result<(), Error> {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => merge_map(target, patch.clone(), Some(schema)),
        _ => Err(Error::new(ErrorKind::Malformed, "invalid JSON document")),
    }
}

fn merge_map(
    target: &mut Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: Option<Schema<'_>>,
) -> Result<(), Error> {
    match patch
        .get(DIRECTIVE)
        .map(|directive| directive.as_str().unwrap_or_default())
    {
        None => {}
        Some("replace") => {
            patch.shift_remove(DIRECTIVE);
            *target = patch;
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some(other) => return Err(unknown_directive(other, &patch)),
    }
    retain_keys(target, &mut patch)?;
    merge_ordered_lists(target, &mut patch, schema)?;
    for (key, value) in patch {
        let (name, deletes_items) = match list_of(&key, DELETE_FROM_PRIMITIVE_LIST) {
            Some(name) => (
                name.ok_or_else(|| malformed("invalid patch format of primitive list"))?,
                true,
            ),
            None => (key.as_str(), false),
        };
        if value.is_null() {
            target.shift_remove(name);
            continue;
        }
        let field = schema.and_then(|schema| schema.entry(name));
        let strategy = field.map(Schema::patch_strategy).unwrap_or_default();
        match (target.get_mut(name), value) {
            (Some(Value::Object(old)), Value::Object(new)) if !strategy.replace => merge_map(old, new, field)?,
            (Some(Value::Object(old)), Value::Object(new)) => *old = new,
            (Some(Value::Array(old)), Value::Array(new)) => {
                if strategy.merge || deletes_items {
                    *old = merge_list(std::mem::take(old), new, field, deletes_items)?;
                } else {
                    *old = new;
                }
            }
            // What is there is of another type, or not there: the patch's value as it is.
            (_, _) if deletes_items => {}
            (_, mut new) => {
                if matches!(new, Value::Object(_) | Value::Array(_)) {
                    discard_nulls(&mut new);
                }
                match without_directives(new) {
                    Some(new) => drop(target.insert(name.to_owned(), new)),
                    None => drop(target.shift_remove(name)),
                }
            }
        }
    }
    Ok(())
}

/// `$retainKeys: [a, b]`: fields not named go.
fn retain_keys(target: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), Error> {
    let Some(keys) = patch.shift_remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let format = || malformed("invalid patch format of retainKeys");
    let Value::Array(keys) = keys else { return Err(format()) };
    let retained = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    for (name, value) in patch.iter() {
        let directive = name.starts_with(DELETE_FROM_PRIMITIVE_LIST) || name.starts_with(SET_ELEMENT_ORDER);
        if !value.is_null() && !directive && !retained(name) {
            return Err(format());
        }
    }
    target.retain(|name, _| retained(name));
    Ok(())
}

/// Lists that come with `$setElementOrder/NAME`: merged, then brought into that order, items that only the server has
/// kept near their old neighbours. Takes both the directive and the list out of `patch`.
fn merge_ordered_lists(
    target: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    schema: Option<Schema<'_>>,
) -> Result<(), Error> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(SET_ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let format = || malformed("invalid patch format of setElementOrder list");
        let name = list_of(&directive, SET_ELEMENT_ORDER).flatten().ok_or_else(format)?;
        let Some(Value::Array(order)) = patch.shift_remove(&directive) else {
            return Err(wrong_type("list"));
        };
        let field = schema.and_then(|schema| schema.field(name));
        let strategy = field.map(Schema::patch_strategy).unwrap_or_default();
        let merge_key = field.and_then(Schema::patch_merge_key);
        let old = match target.get_mut(name) {
            None | Some(Value::Null) => None,
            Some(Value::Array(old)) => Some(std::mem::take(old)),
            Some(_) => return Err(wrong_type("list")),
        };
        let new = match patch.shift_remove(name) {
            None => None,
            Some(Value::Array(new)) => Some(new),
            Some(_) => return Err(wrong_type("list")),
        };
        check_order(new.as_deref().unwrap_or_default(), &order, merge_key)?;
        let server_order = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => new.into_iter().filter_map(without_directives).collect(),
            (Some(old), Some(new)) if strategy.merge => merge_list(old, new, field, false)?,
            (Some(_), Some(new)) => new,
        };
        let (ours, servers) = partition(merged, &order, merge_key)?;
        let merged = interleave(servers, ours, &server_order, &order, merge_key);
        target.insert(name.to_owned(), Value::Array(merged));
    }
    Ok(())
}

/// The items of the patch must be in the order that the directive gives.
fn check_order(patch: &[Value], order: &[Value], merge_key: Option<&str>) -> Result<(), Error> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let is_deleted = |item: &&Value| item.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
    let mut items = patch
        .iter()
        .filter(|item| merge_key.is_none() || !is_deleted(item))
        .peekable();
    let mut order_left = order.iter();
    while let Some(item) = items.peek() {
        if item.get(DIRECTIVE).is_some() && order_left.len() > 0 {
            items.next();
            continue;
        }
        let Some(next) = order_left.next() else {
            let message = format!(
                "The order in patch list:\n{}\n doesn't match {SET_ELEMENT_ORDER} list:\n{}\n",
                Value::from(patch),
                Value::from(order)
            );
            return Err(Error::new(ErrorKind::Contradiction, message));
        };
        if identity(item, merge_key)? == identity(next, merge_key)? {
            items.next();
        }
    }
    Ok(())
}

fn merge_list(
    mut old: Vec<Value>,
    patch: Vec<Value>,
    list: Option<Schema<'_>>,
    deletes_items: bool,
) -> Result<Vec<Value>, Error> {
    let Some(first) = old.first().or(patch.first()) else {
        return Ok(old);
    };
    let same_type = |item: &Value| std::mem::discriminant(item) == std::mem::discriminant(first);
    if first.is_array() {
        return Err(Error::new(ErrorKind::Unprocessable, "lists of lists are not supported"));
    }
    if !old.iter().chain(&patch).all(same_type) {
        return Err(Error::new(
            ErrorKind::Contradiction,
            "list element types are not identical",
        ));
    }
    if !first.is_object() {
        if deletes_items {
            old.retain(|item| !patch.contains(item));
            return Ok(old);
        }
        let server_order = old.clone();
        let mut all = Vec::with_capacity(old.len() + patch.len());
        for item in old.into_iter().chain(patch.iter().cloned()) {
            if !all.contains(&item) {
                all.push(item);
            }
        }
        let (ours, servers) = partition(all, &patch, None)?;
        return Ok(interleave(servers, ours, &server_order, &patch, None));
    }
    let Some(merge_key) = list.and_then(Schema::patch_merge_key) else {
        return Err(Error::new(
            ErrorKind::Contradiction,
            "cannot merge lists without merge key",
        ));
    };
    let items = list.and_then(Schema::items);
    let (mut plain, mut replace) = (Vec::new(), false);
    for item in patch {
        match item
            .get(DIRECTIVE)
            .map(|directive| directive.as_str().unwrap_or_default())
        {
            None => plain.push(item),
            Some("delete") => {
                let key = identity(&item, Some(merge_key))?;
                old.retain(|item| item.get(merge_key) != Some(key));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(Error::new(
                    ErrorKind::Contradiction,
                    "merging lists cannot yet be specified in the patch",
                ));
            }
            Some(other) => return Err(unknown_directive(other, item.as_object().unwrap_or(&Map::new()))),
        }
    }
    if replace {
        plain
            .iter()
            .try_for_each(|item| identity(item, Some(merge_key)).map(drop))?;
        return Ok(plain);
    }
    let server_order = old.clone();
    for item in &plain {
        let key = identity(item, Some(merge_key))?;
        match old.iter_mut().find(|item| item.get(merge_key) == Some(key)) {
            Some(Value::Object(same)) => merge_map(same, item.as_object().cloned().unwrap_or_default(), items)?,
            _ => old.push(item.clone()),
        }
    }
    let (ours, servers) = partition(old, &plain, Some(merge_key))?;
    Ok(interleave(servers, ours, &server_order, &plain, Some(merge_key)))
}

/// What tells an item from the others: the value of its merge key, or itself.
fn identity<'v>(item: &'v Value, merge_key: Option<&str>) -> Result<&'v Value, Error> {
    let Some(key) = merge_key else { return Ok(item) };
    let Value::Object(map) = item else {
        return Err(wrong_type("map"));
    };
    map.get(key).ok_or_else(|| {
        let message = format!("map: {item} does not contain declared merge key: {key}");
        Error::new(ErrorKind::Contradiction, message)
    })
}

/// Splits into items that `by` has and items that it has not.
fn partition(items: Vec<Value>, by: &[Value], merge_key: Option<&str>) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for item in items {
        let key = identity(&item, merge_key)?;
        let found = by
            .iter()
            .any(|other| identity(other, merge_key).is_ok_and(|other| other == key));
        if found { inside.push(item) } else { outside.push(item) }
    }
    Ok((inside, outside))
}

/// Puts the server's items among ours: ours in the patch's order, the server's in the server's order, and where both
/// were on the server before, a server's item before those of ours that it stood before.
fn interleave(
    mut servers: Vec<Value>,
    mut ours: Vec<Value>,
    server_order: &[Value],
    patch_order: &[Value],
    merge_key: Option<&str>,
) -> Vec<Value> {
    let position = |order: &[Value], item: &Value| {
        let key = identity(item, merge_key).ok()?;
        order
            .iter()
            .position(|other| identity(other, merge_key).is_ok_and(|other| other == key))
    };
    ours.sort_by_key(|item| position(patch_order, item).unwrap_or(usize::MAX));
    servers.sort_by_key(|item| position(server_order, item).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(servers.len() + ours.len());
    let (mut servers, mut ours) = (servers.into_iter().peekable(), ours.into_iter().peekable());
    loop {
        let next = match (servers.peek(), ours.peek()) {
            (Some(left), Some(right)) => match (position(server_order, left), position(server_order, right)) {
                (Some(left), Some(right)) if left < right => servers.next(),
                _ => ours.next(),
            },
            (Some(_), None) => servers.next(),
            (None, _) => ours.next(),
        };
        match next {
            Some(item) => out.push(item),
            None => return out,
        }
    }
}

/// `None` for a value that is itself a directive; below, such values are dropped.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => return None,
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter_map(|(name, value)| Some((name, without_directives(value)?)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().filter_map(without_directives).collect()),
        other => other,
    })
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// For `PREFIX/NAME` the name; `Some(None)` for the prefix without a name.
fn list_of<'k>(key: &'k str, prefix: &str) -> Option<Option<&'k str>> {
    key.strip_prefix(prefix).map(|rest| rest.strip_prefix('/'))
}

fn malformed(message: &str) -> Error {
    Error::new(ErrorKind::Malformed, message)
}

fn wrong_type(expected: &str) -> Error {
    Error::new(
        ErrorKind::Contradiction,
        format!("expected a {expected}, but received another type"),
    )
}

fn unknown_directive(directive: &str, map: &Map<String, Value>) -> Error {
    let map = Value::Object(map.clone());
    Error::new(
        ErrorKind::Contradiction,
        format!("unknown patch type: {directive} in map: {map}"),
    )
}

#[cfg(test)]
mod tests;
