//! POST to `pods/NAME/binding`: the scheduler's word where a pod runs. POST to `pods/NAME/eviction`: a polite deletion.
//!
//! Source: k/k `pkg/registry/core/pod/storage/{storage,eviction}.go`, 1.36.

use apimachinery::status::{Details, Status};
use apimachinery::time;
use http::StatusCode;
use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::request::{MediaType, WriteOptions, decode_object};
use crate::respond;
use crate::store::{Action, Expect, Write, WriteError};
use crate::verbs::delete::{DeleteOptions, delete_object};
use crate::verbs::{Target, metadata, to_stored};

const ATTEMPTS: usize = 5;

/// Gives a pod its node.
pub(super) async fn bind(call: &Call, target: &Target) -> Answer {
    let options = WriteOptions::read(&call.query, "CreateOptions")?;
    let mut binding = decode_object(MediaType::read(&call.headers)?, &call.body().await?)?.value;
    metadata::check_type(&mut binding, "Binding", "v1")?;
    let node = binding
        .pointer("/target/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if node.is_empty() {
        return Err(Status::bad_request("target.name: Required value"));
    }
    for _ in 0..ATTEMPTS {
        let current = target.current(&call.api)?;
        let mut pod = respond::served_value(&target.resource, &current);
        check(target, &pod, &binding)?;
        pod["spec"]["nodeName"] = node.as_str().into();
        copy_annotations(&mut pod, &binding);
        set_scheduled(&mut pod, &time::format(call.api.now()));
        if options.dry_run {
            return created(call);
        }
        to_stored(&target.resource, &mut pod);
        let write = Write {
            resource: target.resource.stored_as.clone(),
            key: target.key(),
            expect: Expect::Revision(current.revision),
            action: Action::Put(pod),
        };
        match call.api.store.write(write).await {
            Ok(_) => return created(call),
            Err(WriteError::Modified(_)) => {}
            Err(error) => return Err(Status::internal(error)),
        }
    }
    Err(target.modified())
}

fn check(target: &Target, pod: &Value, binding: &Value) -> Result<(), Status> {
    let conflict = |detail: String| Status::conflict(&target.group_resource(), &target.name, detail);
    let (given, actual) = (metadata::text(binding, "uid"), metadata::text(pod, "uid"));
    if !given.is_empty() && given != actual {
        return Err(metadata::uid_conflict(
            &target.group_resource(),
            &target.name,
            given,
            actual,
        ));
    }
    if metadata::is_deleting(pod) {
        return Err(conflict(format!(
            "pod {} is being deleted, cannot be assigned to a host",
            target.name
        )));
    }
    let node = pod
        .pointer("/spec/nodeName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !node.is_empty() {
        return Err(conflict(format!(
            "pod {} is already assigned to node {node:?}",
            target.name
        )));
    }
    Ok(())
}

fn copy_annotations(pod: &mut Value, binding: &Value) {
    let Some(Value::Object(given)) = metadata::field(binding, "annotations") else {
        return;
    };
    let mut all = metadata::field(pod, "annotations")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    all.extend(given.clone());
    metadata::set(pod, "annotations", Some(Value::Object(all)));
}

fn set_scheduled(pod: &mut Value, now: &str) {
    if !pod["status"].is_object() {
        pod["status"] = json!({});
    }
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let scheduled =
        json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now });
    match conditions
        .iter_mut()
        .find(|condition| condition["type"] == "PodScheduled")
    {
        Some(condition) if condition["status"] == "True" => {}
        Some(condition) => *condition = scheduled,
        None => conditions.push(scheduled),
    }
    pod["status"]["conditions"] = conditions.into();
}

/// Deletes a pod as its Eviction says. Disruption budgets are looked at when something keeps them up to date.
pub(super) async fn evict(call: &Call, target: &Target) -> Answer {
    let mut eviction = decode_object(MediaType::read(&call.headers)?, &call.body().await?)?.value;
    metadata::check_type(&mut eviction, "Eviction", "policy/v1")?;
    let mut errors = Vec::new();
    let empty = json!({});
    let mut options = DeleteOptions::from_body(eviction.get("deleteOptions").unwrap_or(&empty), &mut errors)?;
    options.dry_run |= WriteOptions::read(&call.query, "CreateOptions")?.dry_run;
    if !errors.is_empty() {
        return Err(crate::request::invalid_options("DeleteOptions", &errors));
    }
    delete_object(call, target, &options).await?;
    created(call)
}

fn created(call: &Call) -> Answer {
    let mut status = Status::success(None::<Details>);
    status.code = 201;
    respond::value(call, StatusCode::CREATED, &status.to_value())
}
