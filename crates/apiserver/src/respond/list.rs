//! Lists, put together from the bytes of their objects.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::table::{self, Columns, TableOptions};
use super::{Partial, is_served_as_stored, metadata_value, served, served_value, to_bytes, with_type};
use crate::body::Body;
use crate::call::{Answer, Call};
use crate::request::Representation;
use crate::resources::Resource;
use crate::store::{Key, Object};

/// `ListMeta`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListMeta {
    pub(crate) revision: u64,
    pub(crate) continue_token: Option<String>,
    pub(crate) remaining: Option<usize>,
}

impl ListMeta {
    pub(crate) fn to_value(&self) -> Value {
        let mut meta = Map::new();
        meta.insert("resourceVersion".to_owned(), self.revision.to_string().into());
        if let Some(token) = &self.continue_token {
            meta.insert("continue".to_owned(), token.as_str().into());
        }
        if let Some(remaining) = self.remaining {
            meta.insert("remainingItemCount".to_owned(), remaining.into());
        }
        Value::Object(meta)
    }
}

/// A list of stored objects, in the form that the client wants.
pub(crate) fn list(call: &Call, resource: &Arc<Resource>, objects: Vec<(Key, Object)>, meta: &ListMeta) -> Answer {
    match call.accept.representation()? {
        Representation::Object => {
            let body = Body::pieces(pieces(resource, &objects, meta));
            Ok(with_type(StatusCode::OK, "application/json", body))
        }
        Representation::Metadata(form) => {
            let empty = to_bytes(&json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": form.api_version(),
                "metadata": meta.to_value(),
                "items": [],
            }));
            let resource = resource.clone();
            let items = objects
                .into_iter()
                .map(move |(_, object)| to_bytes(&Partial::of(&metadata_value(&resource, &object), form)));
            Ok(with_type(
                StatusCode::OK,
                "application/json",
                Body::lazy(fill(empty, items)),
            ))
        }
        Representation::Table(form) => {
            let options = TableOptions::read(&call.query, form)?;
            let columns = Columns::of(resource);
            let resource = resource.clone();
            let values = objects
                .into_iter()
                .map(move |(_, object)| served_value(&resource, &object));
            let table = table::of_list(columns, values, options, meta, call.api.now());
            Ok(with_type(StatusCode::OK, "application/json", Body::lazy(table)))
        }
    }
}

/// The pieces of `empty`, which ends with an empty array and a brace, with the array filled.
pub(super) fn fill(empty: Bytes, items: impl Iterator<Item = Bytes>) -> impl Iterator<Item = Bytes> {
    let end = empty.len() - b"]}".len();
    let (head, tail) = (empty.slice(..end), empty.slice(end..));
    let items = items.enumerate().flat_map(|(index, item)| {
        let comma = if index == 0 {
            Bytes::new()
        } else {
            Bytes::from_static(b",")
        };
        [comma, item]
    });
    std::iter::once(head).chain(items).chain(std::iter::once(tail))
}

/// A list of objects that are at hand as values.
pub(crate) fn list_value(resource: &Resource, meta: &ListMeta, items: Vec<Value>) -> Value {
    json!({
        "kind": resource.list_kind(),
        "apiVersion": resource.api_version(),
        "metadata": meta.to_value(),
        "items": items,
    })
}

/// `{"kind":"PodList","apiVersion":"v1","metadata":{…},"items":[` … `]}`. Items carry neither kind nor version.
fn pieces(resource: &Resource, objects: &[(Key, Object)], meta: &ListMeta) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(2 + 2 * objects.len());
    let head = format!(
        r#"{{"kind":"{}","apiVersion":"{}","metadata":{},"items":["#,
        resource.list_kind(),
        resource.api_version(),
        meta.to_value()
    );
    pieces.push(Bytes::from(head));
    for (index, (_, object)) in objects.iter().enumerate() {
        pieces.push(Bytes::from_static(if index == 0 { b"{" } else { b",{" }));
        pieces.push(item(resource, object));
    }
    pieces.push(Bytes::from_static(b"]}"));
    pieces
}

/// The object without its opening brace, kind and version.
fn item(resource: &Resource, object: &Object) -> Bytes {
    if is_served_as_stored(resource, object) && object.bytes.starts_with(resource.stored_head.as_bytes()) {
        return object.bytes.slice(resource.stored_head.len()..);
    }
    let Value::Object(mut map) = served_value(resource, object) else {
        return served(resource, object).slice(1..);
    };
    map.shift_remove("kind");
    map.shift_remove("apiVersion");
    to_bytes(&Value::Object(map)).slice(1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_array_is_filled_in_place() {
        let filled = |items: &[&'static str]| {
            let items = items.iter().copied().map(Bytes::from);
            let pieces = fill(Bytes::from_static(br#"{"a":[],"items":[]}"#), items);
            pieces
                .map(|piece| String::from_utf8(piece.to_vec()).unwrap())
                .collect::<String>()
        };
        assert_eq!(filled(&[]), r#"{"a":[],"items":[]}"#);
        assert_eq!(filled(&["1", "2", "3"]), r#"{"a":[],"items":[1,2,3]}"#);
    }
}
