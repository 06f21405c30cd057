//! DELETE of a list: every object that the selectors select.

use http::StatusCode;
use serde_json::Value;

use super::Target;
use super::delete::{DeleteOptions, delete_object};
use super::selection::Selection;
use crate::call::{Answer, Call};
use crate::request::ListOptions;
use crate::respond::{self, ListMeta};

pub(super) async fn delete_collection(call: &Call, target: &Target) -> Answer {
    let list_options = ListOptions::read(&call.query)?;
    super::list::validate(&list_options, false)?;
    let selection = Selection::of(target, &list_options)?;
    let options = DeleteOptions::read(call).await?;
    let snapshot = call
        .api
        .store
        .snapshot(&target.resource.stored_as, target.namespace.as_deref());
    let mut deleted: Vec<Value> = Vec::new();
    for (key, object) in snapshot.objects {
        if !selection.matches(&target.resource, &key, &object) {
            continue;
        }
        let one = Target {
            namespace: key.namespace().map(str::to_owned),
            name: key.name().to_owned(),
            ..target.clone()
        };
        match delete_object(call, &one, &options).await {
            Ok(deletion) => deleted.push(respond::served_value(&target.resource, deletion.object())),
            // Somebody else deleted it.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    for object in &mut deleted {
        if let Some(map) = object.as_object_mut() {
            map.shift_remove("kind");
            map.shift_remove("apiVersion");
        }
    }
    let meta = ListMeta {
        revision: call.api.store.revision(),
        ..ListMeta::default()
    };
    respond::value(
        call,
        StatusCode::OK,
        &respond::list_value(&target.resource, &meta, deleted),
    )
}
