//! POST: a new object.

use apimachinery::field::{Error, Path};
use apimachinery::status::Status;
use apimachinery::time;
use http::StatusCode;
use serde_json::Value;

use super::rules::{self, Ownership};
use super::write::{Writing, refused};
use super::{Target, metadata};
use crate::call::{Answer, Call};
use crate::request::WriteOptions;
use crate::respond;
use crate::store::{Object, WriteError};

/// How often a generated name may be taken already.
const ATTEMPTS: usize = 8;

pub(super) async fn create(call: &Call, target: Target) -> Answer {
    let options = WriteOptions::read(&call.query, "CreateOptions")?;
    let body = Writing {
        call,
        target: &target,
        options: &options,
    }
    .read_body()
    .await?;
    let (target, object) = new_object(call, target, &options, body, Ownership::Track).await?;
    respond::object(call, &target.resource, StatusCode::CREATED, &object)
}

/// Creates `body`, an object of the target's kind in the version of the request.
pub(super) async fn new_object(
    call: &Call,
    mut target: Target,
    options: &WriteOptions,
    mut body: Value,
    ownership: Ownership,
) -> Result<(Target, Object), Status> {
    if target
        .resource
        .custom
        .as_ref()
        .is_some_and(|custom| custom.is_terminating())
    {
        let mut status = Status::method_not_supported(&target.group_resource(), "create");
        "create not allowed while custom resource definition is terminating".clone_into(&mut status.message);
        return Err(status);
    }
    let given = metadata::text(&body, "name").to_owned();
    if !target.name.is_empty() && !given.is_empty() && target.name != given {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            target.name
        )));
    }
    if target.name.is_empty() {
        target.name = given;
    }
    metadata::check_namespace(&mut body, &target)?;
    if !metadata::text(&body, "resourceVersion").is_empty() {
        let mut status = Status::internal("");
        "resourceVersion should not be set on objects to be created".clone_into(&mut status.message);
        (status.reason, status.details) = (None, None);
        return Err(status);
    }
    let base = metadata::text(&body, "generateName").to_owned();
    if target.name.is_empty() && base.is_empty() {
        let error = Error::required(&Path::new("metadata.name"), "name or generateName is required");
        return Err(Status::invalid(&target.resource.group_kind(), "", &[error]));
    }
    let generated = target.name.is_empty();
    // From here to the write nobody else may take an address.
    let _allocating = match rules::is_service(&target.resource) {
        true => Some(call.api.allocating.lock().await),
        false => None,
    };
    for _ in 0..ATTEMPTS {
        if generated {
            target.name = metadata::generate_name(&base);
        }
        let writing = Writing {
            call,
            target: &target,
            options,
        };
        let object = prepare(call, &target, body.clone(), ownership);
        let object = rules::ready_create(&writing, object, ownership).await?;
        match writing.commit_new(object).await {
            Ok(object) => return Ok((target, object)),
            Err(WriteError::Exists) if generated => {}
            Err(error) => return Err(refused(&target, error)),
        }
    }
    Err(Status::generate_name_conflict(&target.group_resource(), &target.name))
}

/// The metadata of a new object: what only the server sets.
fn prepare(call: &Call, target: &Target, mut object: Value, ownership: Ownership) -> Value {
    let now = call.api.now();
    metadata::set(&mut object, "name", Some(target.name.as_str().into()));
    metadata::set(&mut object, "uid", Some(metadata::new_uid()));
    metadata::set(&mut object, "creationTimestamp", Some(time::format(now).into()));
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
    ] {
        metadata::set(&mut object, field, None);
    }
    if ownership == Ownership::Track {
        metadata::set(&mut object, "managedFields", None);
    }
    object
}
