//! DELETE: preconditions, finalizers, propagation, grace.

use apimachinery::field::{Error, Path};
use apimachinery::status::{Details, Status};
use apimachinery::time;
use http::StatusCode;
use jiff::SignedDuration;
use serde_json::Value;

use super::write::refused;
use super::{Target, metadata, rules};
use crate::call::{Answer, Call};
use crate::custom;
use crate::request::{MediaType, decode_optional, invalid_options, read_dry_run};
use crate::respond;
use crate::store::{Action, Expect, Object, Write, WriteError};
use crate::strategy;

/// How often a deletion that is bound to no revision is tried again.
const ATTEMPTS: usize = 8;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What happens to the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub(super) struct DeleteOptions {
    grace_period_seconds: Option<i64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    resource_version: Option<String>,
    pub(super) dry_run: bool,
}

impl DeleteOptions {
    /// From the body, else from the query.
    pub(super) async fn read(call: &Call) -> Result<Self, Status> {
        let body = call.body().await?;
        let media_type = match MediaType::read(&call.headers) {
            Ok(media_type) => media_type,
            // Some clients name no JSON type for a body that is not there.
            Err(_) if body.is_empty() => MediaType::Json,
            Err(status) => return Err(status),
        };
        let mut errors = Vec::new();
        let mut options = match decode_optional(media_type, &body)? {
            Some(body) => Self::from_body(&body, &mut errors)?,
            None => Self::from_query(call, &mut errors)?,
        };
        options.dry_run |= read_dry_run(call.query.all("dryRun"), &mut errors);
        if errors.is_empty() {
            Ok(options)
        } else {
            Err(invalid_options("DeleteOptions", &errors))
        }
    }

    pub(crate) fn from_body(body: &Value, errors: &mut Vec<Error>) -> Result<Self, Status> {
        let kind = body.get("kind").and_then(Value::as_str).unwrap_or_default();
        if !matches!(kind, "" | "DeleteOptions") {
            return Err(Status::bad_request(format!(
                "{kind} cannot be handled as a DeleteOptions"
            )));
        }
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let dry_run = body
            .get("dryRun")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        Ok(Self {
            grace_period_seconds: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: propagation(
                body.get("propagationPolicy").and_then(Value::as_str),
                body.get("orphanDependents").and_then(Value::as_bool),
                errors,
            ),
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            dry_run: read_dry_run(dry_run, errors),
        })
    }

    fn from_query(call: &Call, errors: &mut Vec<Error>) -> Result<Self, Status> {
        let query = &call.query;
        Ok(Self {
            grace_period_seconds: query.number("gracePeriodSeconds")?,
            propagation: propagation(
                query.text("propagationPolicy"),
                query.maybe_flag("orphanDependents"),
                errors,
            ),
            ..Self::default()
        })
    }

    /// 409 if the object is another one than the client believes.
    fn check(&self, target: &Target, object: &Value) -> Result<(), Status> {
        let differs = |what: &str, wanted: &str, actual: &str| {
            Status::conflict(
                &target.group_resource(),
                &target.name,
                format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({actual}). The \
                     object might have been deleted and then recreated"
                ),
            )
        };
        let actual = metadata::text(object, "uid");
        if let Some(uid) = self.uid.as_deref().filter(|uid| *uid != actual) {
            return Err(differs("UID", uid, actual));
        }
        let actual = metadata::text(object, "resourceVersion");
        if let Some(version) = self.resource_version.as_deref().filter(|version| *version != actual) {
            return Err(differs("ResourceVersion", version, actual));
        }
        Ok(())
    }
}

fn propagation(policy: Option<&str>, orphan: Option<bool>, errors: &mut Vec<Error>) -> Option<Propagation> {
    let path = Path::new("propagationPolicy");
    match (policy, orphan) {
        (Some(policy), Some(_)) => {
            errors.push(Error::invalid(
                &path,
                policy,
                "orphanDependents and deletionPropagation cannot be both set",
            ));
            None
        }
        (None, Some(true)) => Some(Propagation::Orphan),
        (None, Some(false)) => Some(Propagation::Background),
        (Some("Background"), None) => Some(Propagation::Background),
        (Some("Foreground"), None) => Some(Propagation::Foreground),
        (Some("Orphan"), None) => Some(Propagation::Orphan),
        (Some(other), None) => {
            errors.push(Error::not_supported(
                &path,
                other,
                &["Background", "Foreground", "Orphan"],
            ));
            None
        }
        (None, None) => None,
    }
}

/// What a deletion did.
pub(super) enum Deletion {
    /// It is gone; its last state.
    Gone(Object),
    /// It waits for its finalizers or its grace period; its state now.
    Waiting(Object),
}

impl Deletion {
    pub(super) fn object(&self) -> &Object {
        match self {
            Self::Gone(object) | Self::Waiting(object) => object,
        }
    }
}

pub(super) async fn delete(call: &Call, target: &Target) -> Answer {
    let options = DeleteOptions::read(call).await?;
    let deletion = delete_object(call, target, &options).await?;
    if returns_object(target) || matches!(deletion, Deletion::Waiting(_)) {
        return respond::object(call, &target.resource, StatusCode::OK, deletion.object());
    }
    let object = deletion.object().value();
    let details = Details {
        name: target.name.clone(),
        group: target.resource.group.clone(),
        kind: target.resource.plural.clone(),
        uid: metadata::text(&object, "uid").to_owned(),
        ..Details::default()
    };
    Ok(respond::status(&Status::success(Some(details))))
}

/// Kinds whose deletion answers with the object even when it is gone.
fn returns_object(target: &Target) -> bool {
    rules::of(&target.resource).delete_returns_object
}

/// Deletes one object, or starts to.
pub(super) async fn delete_object(call: &Call, target: &Target, options: &DeleteOptions) -> Result<Deletion, Status> {
    for _ in 0..ATTEMPTS {
        let current = target.current(&call.api)?;
        match attempt(call, target, options, &current).await? {
            Ok(deletion) => return Ok(deletion),
            Err(WriteError::Modified(_)) => {}
            Err(error) => return Err(refused(target, error)),
        }
    }
    Err(target.modified())
}

async fn attempt(
    call: &Call,
    target: &Target,
    options: &DeleteOptions,
    current: &Object,
) -> Result<Result<Deletion, WriteError>, Status> {
    let before = current.value();
    options.check(target, &before)?;
    let mut object = before.clone();
    if custom::is_definitions(&target.resource.stored_as) && !metadata::is_deleting(&object) {
        custom::mark_terminating(&mut object, &time::format(call.api.now()));
    }
    set_propagation_finalizers(&mut object, target, options);
    let grace = grace_period(&object, target, options);
    let already = metadata::is_deleting(&object);
    if let Some(grace) = grace {
        if already {
            let left = metadata::field(&object, "deletionGracePeriodSeconds")
                .and_then(Value::as_i64)
                .unwrap_or(0);
            // A second deletion may only shorten the time.
            if grace < left {
                let now = time::parse(metadata::text(&object, "deletionTimestamp")).unwrap_or_else(|| call.api.now());
                let at = now
                    .saturating_sub(SignedDuration::from_secs(left - grace))
                    .unwrap_or(now);
                metadata::set(&mut object, "deletionTimestamp", Some(time::format(at).into()));
                metadata::set(&mut object, "deletionGracePeriodSeconds", Some(grace.into()));
            }
        } else {
            let now = call.api.now();
            let at = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
            metadata::set(&mut object, "deletionTimestamp", Some(time::format(at).into()));
            metadata::set(&mut object, "deletionGracePeriodSeconds", Some(grace.into()));
            if metadata::field(&object, "generation").is_some() {
                metadata::next_generation(&mut object);
            }
        }
    }
    let grace = grace.unwrap_or(0);
    let waits = grace > 0 || !metadata::finalizers(&object).is_empty() || has_spec_finalizers(target, &object);
    if !waits {
        if options.dry_run {
            return Ok(Ok(Deletion::Gone(current.clone())));
        }
        // The last state is as it was: nobody waited for anything.
        let last = if already { object } else { before };
        return Ok(commit(call, target, current, Action::Delete(last))
            .await
            .map(Deletion::Gone));
    }
    if !already && metadata::field(&object, "deletionTimestamp").is_none() {
        metadata::set(
            &mut object,
            "deletionTimestamp",
            Some(time::format(call.api.now()).into()),
        );
        metadata::set(&mut object, "deletionGracePeriodSeconds", Some(0.into()));
        if metadata::field(&object, "generation").is_some() {
            metadata::next_generation(&mut object);
        }
    }
    let version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    mark_terminating(target, &mut object);
    metadata::arrange(&mut object, &target.resource.kind, &version);
    if object == before {
        return Ok(Ok(Deletion::Waiting(current.clone())));
    }
    if options.dry_run {
        return Ok(Ok(Deletion::Waiting(Object {
            revision: current.revision,
            bytes: respond::to_bytes(&object),
        })));
    }
    Ok(commit(call, target, current, Action::Put(object))
        .await
        .map(Deletion::Waiting))
}

async fn commit(call: &Call, target: &Target, current: &Object, action: Action) -> Result<Object, WriteError> {
    let write = Write {
        resource: target.resource.stored_as.clone(),
        key: target.key(),
        expect: Expect::Revision(current.revision),
        action,
    };
    call.api.write(write).await
}

/// Foreground and Orphan are finalizers that the garbage collector removes; they replace one another.
fn set_propagation_finalizers(object: &mut Value, target: &Target, options: &DeleteOptions) {
    // Events are nobody's owner.
    if target.resource.stored_as.resource == "events" {
        return;
    }
    let Some(propagation) = options.propagation else { return };
    let mut finalizers = metadata::finalizers(object);
    finalizers.retain(|name| name != ORPHAN && name != FOREGROUND);
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
    }
    metadata::set_finalizers(object, &finalizers);
}

/// How long the object may take to go; `None` of kinds that know no grace.
fn grace_period(object: &Value, target: &Target, options: &DeleteOptions) -> Option<i64> {
    let graceful = rules::of(&target.resource).graceful_delete;
    graceful.then(|| strategy::grace_period(object, options.grace_period_seconds))
}

/// Namespaces wait for `spec.finalizers` too.
pub(super) fn has_spec_finalizers(target: &Target, object: &Value) -> bool {
    is_namespace(target)
        && object
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .is_some_and(|f| !f.is_empty())
}

fn mark_terminating(target: &Target, object: &mut Value) {
    if is_namespace(target) {
        object["status"]["phase"] = "Terminating".into();
    }
}

fn is_namespace(target: &Target) -> bool {
    target.resource.group.is_empty() && target.resource.plural == "namespaces"
}
