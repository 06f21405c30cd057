//! PUT: a new state of an object, and what every change of an object goes through.

use apimachinery::field::{Error, Path};
use apimachinery::status::Status;
use http::StatusCode;
use serde_json::Value;

use super::rules::{self, Ownership};
use super::write::{Writing, refused};
use super::{Target, create, delete, metadata};
use crate::call::{Answer, Call};
use crate::request::WriteOptions;
use crate::respond;
use crate::store::{Action, Expect, Object, Write, WriteError};

/// How often a change that is bound to no revision is tried again.
const ATTEMPTS: usize = 5;

pub(super) async fn update(call: &Call, target: &Target) -> Answer {
    let options = WriteOptions::read(&call.query, "UpdateOptions")?;
    let writing = Writing {
        call,
        target,
        options: &options,
    };
    let body = writing.read_body().await?;
    check_name(target, &body)?;
    rules::check_conditional(target, &body)?;
    for _ in 0..ATTEMPTS {
        let current = match target.current(&call.api) {
            Ok(current) => current,
            Err(status) => return create_on_update(call, target, &options, body, status).await,
        };
        match change(&writing, &current, body.clone(), Ownership::Track).await {
            Ok(object) => return respond::object(call, &target.resource, StatusCode::OK, &object),
            Err(Refusal::Raced) if metadata::text(&body, "resourceVersion").is_empty() => {}
            Err(refusal) => return Err(refusal.status(target)),
        }
    }
    Err(target.modified())
}

async fn create_on_update(
    call: &Call,
    target: &Target,
    options: &WriteOptions,
    body: Value,
    not_found: Status,
) -> Answer {
    if !rules::of(&target.resource).create_on_update || !target.subresource.is_empty() {
        return Err(not_found);
    }
    let (target, object) = create::new_object(call, target.clone(), options, body, Ownership::Track).await?;
    respond::object(call, &target.resource, StatusCode::CREATED, &object)
}

/// The body of a PUT names the object that the path names.
pub(super) fn check_name(target: &Target, body: &Value) -> Result<(), Status> {
    let name = metadata::text(body, "name");
    if name.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    if name != target.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    Ok(())
}

/// Why a change did not happen.
pub(super) enum Refusal {
    /// Somebody else was faster.
    Raced,
    /// It may not be.
    Status(Box<Status>),
}

impl Refusal {
    pub(super) fn status(self, target: &Target) -> Status {
        match self {
            Self::Raced => target.modified(),
            Self::Status(status) => *status,
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Makes `new`, in the version of the request, the next state of the object. Answers with the state that is stored
/// then, which is `current` if nothing changes.
pub(super) async fn change(
    writing: &Writing<'_>,
    current: &Object,
    mut new: Value,
    ownership: Ownership,
) -> Result<Object, Refusal> {
    let Writing { call, target, options } = writing;
    let resource = &target.resource;
    let old = respond::served_value(resource, current);
    metadata::check_namespace(&mut new, target)?;
    let given = metadata::text(&new, "resourceVersion");
    if !given.is_empty() && given != current.revision.to_string() {
        return Err(target.modified().into());
    }
    let (given, actual) = (metadata::text(&new, "uid"), metadata::text(&old, "uid"));
    if !given.is_empty() && given != actual {
        return Err(metadata::uid_conflict(&target.group_resource(), &target.name, given, actual).into());
    }
    keep_what_only_the_server_sets(&mut new, &old);
    check_finalizers(&new, &old, target)?;
    let _allocating = match rules::is_service(resource) {
        true => Some(call.api.allocating.lock().await),
        false => None,
    };
    let (new, before) = rules::ready_update(writing, new, old, ownership).await?;
    if new == before {
        return Ok(current.clone());
    }
    if metadata::is_deleting(&new)
        && metadata::finalizers(&new).is_empty()
        && !delete::has_spec_finalizers(target, &new)
        && metadata::field(&new, "deletionGracePeriodSeconds")
            .and_then(Value::as_i64)
            .unwrap_or(0)
            == 0
    {
        return remove(call, target, current, new, options.dry_run).await;
    }
    writing
        .commit_change(current, new)
        .await
        .map_err(|error| raced(target, error))
}

fn raced(target: &Target, error: WriteError) -> Refusal {
    match error {
        WriteError::Modified(_) => Refusal::Raced,
        error => refused(target, error).into(),
    }
}

/// The last finalizer of an object that was waiting for it is gone: so is the object.
async fn remove(call: &Call, target: &Target, current: &Object, last: Value, dry_run: bool) -> Result<Object, Refusal> {
    if dry_run {
        return Ok(Object {
            revision: current.revision,
            bytes: respond::to_bytes(&last),
        });
    }
    let write = Write {
        resource: target.resource.stored_as.clone(),
        key: target.key(),
        expect: Expect::Revision(current.revision),
        action: Action::Delete(last),
    };
    call.api.write(write).await.map_err(|error| raced(target, error))
}

fn keep_what_only_the_server_sets(new: &mut Value, old: &Value) {
    for name in [
        "name",
        "generateName",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        metadata::set(new, name, metadata::field(old, name).cloned());
    }
}

fn check_finalizers(new: &Value, old: &Value, target: &Target) -> Result<(), Status> {
    if !metadata::is_deleting(old) {
        return Ok(());
    }
    let known = metadata::finalizers(old);
    let added: Vec<String> = metadata::finalizers(new)
        .into_iter()
        .filter(|name| !known.contains(name))
        .collect();
    if added.is_empty() {
        return Ok(());
    }
    let list = added
        .iter()
        .map(|name| format!("{name:?}"))
        .collect::<Vec<_>>()
        .join(", ");
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
    );
    let error = Error::forbidden(&Path::new("metadata.finalizers"), detail);
    Err(Status::invalid(&target.resource.group_kind(), &target.name, &[error]))
}
