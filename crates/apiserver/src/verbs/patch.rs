//! PATCH: JSON patch, merge patch, strategic merge patch, server-side apply.

use apimachinery::field::{Error, Path};
use apimachinery::patch;
use apimachinery::schema::Schema;
use apimachinery::status::{Reason, Status};
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::rules::{self, Known, Ownership};
use super::update::{Refusal, change};
use super::write::Writing;
use super::{Target, create, metadata};
use crate::call::{Answer, Call};
use crate::request::{WriteOptions, content_type, decode_json, decode_yaml, invalid_options};
use crate::respond;

/// How often a patch is tried on a newer state.
const ATTEMPTS: usize = 5;
/// A JSON patch has at most this many operations.
const MAX_OPERATIONS: usize = 10_000;

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchType {
    const ACCEPTED: [&str; 4] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];

    pub(super) fn read(call: &Call) -> Result<Self, Status> {
        match content_type(&call.headers).as_str() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => Err(Status::unsupported_media_type(&Self::ACCEPTED)),
        }
    }
}

/// A patch that has been read.
pub(super) struct Patch {
    pub(super) of: PatchType,
    pub(super) body: Value,
}

impl Patch {
    pub(super) async fn read(call: &Call, options: &WriteOptions) -> Result<Self, Status> {
        let of = PatchType::read(call)?;
        if of != PatchType::Apply && options.force.is_some() {
            let error = Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch");
            return Err(invalid_options("PatchOptions", &[error]));
        }
        let body: Bytes = call.body().await?;
        let body = match of {
            PatchType::Apply => {
                decode_yaml(&body)
                    .map_err(|status| Status::bad_request(format!("error decoding YAML: {}", status.message)))?
                    .value
            }
            _ => {
                decode_json(&body)
                    .map_err(|status| Status::bad_request(status.message))?
                    .value
            }
        };
        match (&body, of) {
            (Value::Array(operations), PatchType::Json) if operations.len() > MAX_OPERATIONS => {
                return Err(Status::too_large_because(format!(
                    "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                    operations.len()
                )));
            }
            (Value::Array(_), PatchType::Json)
            | (Value::Object(_), PatchType::Merge | PatchType::Strategic | PatchType::Apply) => {}
            _ => {
                return Err(Status::bad_request(
                    "the patch is neither an object nor, for a JSON patch, a list of operations",
                ));
            }
        }
        Ok(Self { of, body })
    }

    /// The object after the patch. Without a schema a strategic merge is a plain one.
    pub(super) fn applied(&self, object: &Value, schema: Option<Schema<'_>>) -> Result<Value, Status> {
        let mut patched = object.clone();
        match (self.of, schema) {
            (PatchType::Json, _) => patch::json::apply(&mut patched, &self.body)?,
            (PatchType::Strategic, Some(schema)) => patch::strategic::apply(&mut patched, &self.body, schema)?,
            _ => patch::merge::apply(&mut patched, &self.body)?,
        }
        if !patched.is_object() {
            return Err(Status::unprocessable_patch());
        }
        Ok(patched)
    }
}

pub(super) async fn patch(call: &Call, target: &Target) -> Answer {
    let options = WriteOptions::read(&call.query, "PatchOptions")?;
    let patch = Patch::read(call, &options).await?;
    let writing = Writing {
        call,
        target,
        options: &options,
    };
    if patch.of == PatchType::Apply {
        return apply(&writing, &patch.body).await;
    }
    if patch.of == PatchType::Strategic && target.resource.custom.is_some() {
        let [json, merge, _, apply] = PatchType::ACCEPTED;
        return Err(Status::unsupported_media_type(&[json, merge, apply]));
    }
    let known = Known::load(call, &target.resource).await?;
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let current = target.current(&call.api)?;
        let object = respond::served_value(&target.resource, &current);
        let mut patched = patch.applied(&object, known.schema())?;
        metadata::check_type(&mut patched, &target.resource.kind, &target.resource.api_version())?;
        super::update::check_name(target, &patched)?;
        match change(&writing, &current, patched, Ownership::Track).await {
            Ok(object) => return respond::object(call, &target.resource, StatusCode::OK, &object),
            Err(Refusal::Raced) => last = Some(Refusal::Raced),
            Err(refusal) => return Err(refusal.status(target)),
        }
    }
    Err(last.unwrap_or(Refusal::Raced).status(target))
}

/// Server-side apply: the object is made if it is not there.
async fn apply(writing: &Writing<'_>, config: &Value) -> Answer {
    let Writing { call, target, options } = writing;
    if options.field_manager.is_empty() {
        let error = Error::required(&Path::new("fieldManager"), "is required for apply patch");
        return Err(invalid_options("PatchOptions", &[error]));
    }
    let known = Known::load(call, &target.resource).await?;
    let mut config = config.clone();
    known.prune(writing, &mut config)?;
    let schema = known
        .schema()
        .ok_or_else(|| Status::unsupported_media_type(&PatchType::ACCEPTED[..3]))?;
    let api_version = target.resource.api_version();
    let reset = rules::reset_fields(target);
    let force = options.force.unwrap_or(false);
    let mut last = target.modified();
    for _ in 0..ATTEMPTS {
        let writer = rules::writer(writing, &options.field_manager, &api_version, &reset, call.api.now());
        let current = match target.current(&call.api) {
            Ok(current) => current,
            Err(not_found) if !target.subresource.is_empty() => return Err(not_found),
            Err(_) => {
                let object = patch::apply::apply(None, &config, schema, &writer, force)?;
                match create::new_object(call, (*target).clone(), options, object, Ownership::Applied).await {
                    Ok((_, object)) => return respond::object(call, &target.resource, StatusCode::CREATED, &object),
                    Err(status) if status.is(Reason::AlreadyExists) => continue,
                    Err(status) => return Err(status),
                }
            }
        };
        let live = respond::served_value(&target.resource, &current);
        let object = patch::apply::apply(Some(&live), &config, schema, &writer, force)?;
        super::update::check_name(target, &object)?;
        match change(writing, &current, object, Ownership::Applied).await {
            Ok(object) => return respond::object(call, &target.resource, StatusCode::OK, &object),
            Err(Refusal::Raced) => last = target.modified(),
            Err(refusal) => return Err(refusal.status(target)),
        }
    }
    Err(last)
}
