//! PATCH: JSON patch, merge patch, strategic merge patch, server-side apply.

use apimachinery::field::{Error, Path};
use apimachinery::status::Status;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::update::{Refusal, change};
use super::write::Writing;
use super::{Target, metadata};
use crate::call::{Answer, Call};
use crate::request::{WriteOptions, content_type, decode_json, invalid_options};
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
            PatchType::Apply => return Err(Status::unsupported_media_type(&PatchType::ACCEPTED[..3])),
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

    /// The object after the patch.
    pub(super) fn applied(&self, object: &Value) -> Result<Value, Status> {
        let mut patched = object.clone();
        match self.of {
            PatchType::Json => {
                let operations: json_patch::Patch = serde_json::from_value(self.body.clone())
                    .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
                json_patch::patch(&mut patched, &operations).map_err(|_| Status::unprocessable_patch())?;
            }
            // SEAM: strategic merge comes with `patch::strategic`.
            PatchType::Merge | PatchType::Strategic | PatchType::Apply => json_patch::merge(&mut patched, &self.body),
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
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let current = target.current(&call.api)?;
        let object = respond::served_value(&target.resource, &current);
        let mut patched = patch.applied(&object)?;
        metadata::check_type(&mut patched, &target.resource.kind, &target.resource.api_version())?;
        super::update::check_name(target, &patched)?;
        match change(&writing, &current, patched).await {
            Ok(object) => return respond::object(call, &target.resource, StatusCode::OK, &object),
            Err(Refusal::Raced) => last = Some(Refusal::Raced),
            Err(refusal) => return Err(refusal.status(target)),
        }
    }
    Err(last.unwrap_or(Refusal::Raced).status(target))
}
