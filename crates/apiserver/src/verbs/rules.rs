//! What every write goes through between the client's body and the store: unknown fields, defaults, admission, the
//! kind's rules, allocation, validation, field ownership.
//!
//! Owns the order (k/k `apiserver/pkg/registry/rest/{create,update}.go`). The rules themselves are `strategy`'s,
//! `admission`'s, `allocation`'s and apimachinery's. Works on the stored version of an object.

use std::sync::Arc;

use apimachinery::field::{Error, Path};
use apimachinery::gvk::GroupVersionKind;
use apimachinery::patch::apply::{FieldSet, Writer, keep_times, track_update};
use apimachinery::schema::{Schema, Schemas, conform, prune};
use apimachinery::status::Status;
use apimachinery::time;
use jiff::Timestamp;
use serde_json::Value;

use super::write::{Writing, to_stored};
use super::{Target, metadata};
use crate::admission::{Operation, Request, admit};
use crate::allocation;
use crate::call::Call;
use crate::resources::Resource;
use crate::strategy::{self, Strategy, strategy};

/// Who is to be written down as the owner of what changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// The manager of this request, for what it changed.
    Track,
    /// Server-side apply has written it already.
    Applied,
}

/// The rules of the kind that is stored for this resource.
pub(super) fn of(resource: &Resource) -> &'static Strategy {
    if resource.custom.is_some() {
        return strategy::custom(resource.has_status());
    }
    strategy(&stored_kind(resource))
}

fn stored_kind(resource: &Resource) -> GroupVersionKind {
    match resource.conversion {
        Some(conversion) => GroupVersionKind::new(conversion.stored.0, conversion.stored.1, &resource.kind),
        None => resource.gvk(),
    }
}

/// The schemas that describe the request's version of the resource.
pub(super) struct Known {
    schemas: Arc<Schemas>,
    kind: GroupVersionKind,
}

impl Known {
    pub(super) async fn load(call: &Call, resource: &Resource) -> Result<Self, Status> {
        Ok(Self {
            schemas: call.api.schemas(resource).await?,
            kind: resource.gvk(),
        })
    }

    pub(super) fn schema(&self) -> Option<Schema<'_>> {
        self.schemas.kind(&self.kind)
    }

    /// Drops fields that the kind does not have; tells or refuses, as the client wants.
    pub(super) fn prune(&self, writing: &Writing<'_>, object: &mut Value) -> Result<(), Status> {
        let Some(schema) = self.schema() else { return Ok(()) };
        let unknown = prune(object, schema);
        writing.report(unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect())
    }

    /// Brings the object into the form that decoding into Go's types and encoding again would give it.
    pub(super) fn conform(&self, writing: &Writing<'_>, object: &mut Value) -> Result<(), Status> {
        let Some(schema) = self.schema() else { return Ok(()) };
        if let Some(custom) = &writing.target.resource.custom {
            custom.default(object);
            return self.conform_metadata(writing, object);
        }
        conform(object, schema).map_err(|mismatch| {
            let (kind, version) = (&self.kind.kind, &writing.target.resource.version);
            Status::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: {mismatch}"
            ))
        })
    }
}

impl Known {
    /// Custom resources are stored as sent, but for what every object has.
    fn conform_metadata(&self, writing: &Writing<'_>, object: &mut Value) -> Result<(), Status> {
        let Some(schema) = self.schema().and_then(|schema| schema.field("metadata")) else {
            return Ok(());
        };
        let Some(metadata) = object.get_mut("metadata") else {
            return Ok(());
        };
        conform(metadata, schema).map_err(|mismatch| {
            let (kind, version) = (&self.kind.kind, &writing.target.resource.version);
            Status::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: {mismatch}"
            ))
        })
    }
}

/// A new object, ready for the store. Name, uid and creation time are set already.
pub(super) async fn ready_create(
    writing: &Writing<'_>,
    mut object: Value,
    ownership: Ownership,
) -> Result<Value, Status> {
    let Writing { call, target, options } = writing;
    let known = Known::load(call, &target.resource).await?;
    known.prune(writing, &mut object)?;
    known.conform(writing, &mut object)?;
    let rules = of(&target.resource);
    to_stored(&target.resource, &mut object);
    (rules.default)(&mut object);
    let request = request(call, target, Operation::Create, None, options.dry_run);
    admit(&request, &mut object, call.api.view())?;
    rules.ready_create(&mut object);
    (rules.stamp)(&mut object, None, &time::format(call.api.now()));
    if is_service(&target.resource) {
        let (cidr, ports) = (call.api.config.service_cidr, &call.api.config.node_ports);
        allocation::allocate(&mut object, None, call.api.view(), cidr, ports)?;
    }
    let mut errors = rules.validate_create(target.resource.namespaced, &object);
    if let Some(custom) = &target.resource.custom {
        errors.extend(custom.validate(&object, None));
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&target.resource.group_kind(), &target.name, &errors));
    }
    if ownership == Ownership::Track {
        own(writing, &known, None, &mut object);
    }
    Ok(object)
}

/// The next state of an object, ready for the store. `new` and `old` are in the request's version, metadata in order.
pub(super) async fn ready_update(
    writing: &Writing<'_>,
    mut new: Value,
    mut old: Value,
    ownership: Ownership,
) -> Result<(Value, Value), Status> {
    let Writing { call, target, options } = writing;
    let known = Known::load(call, &target.resource).await?;
    known.prune(writing, &mut new)?;
    known.conform(writing, &mut new)?;
    let rules = of(&target.resource);
    to_stored(&target.resource, &mut new);
    to_stored(&target.resource, &mut old);
    (rules.default)(&mut new);
    let request = request(call, target, Operation::Update, Some(&old), options.dry_run);
    admit(&request, &mut new, call.api.view())?;
    rules.ready_change(&target.subresource, &mut new, &old);
    (rules.stamp)(&mut new, Some(&old), &time::format(call.api.now()));
    if is_service(&target.resource) && target.subresource != "status" {
        let (cidr, ports) = (call.api.config.service_cidr, &call.api.config.node_ports);
        allocation::allocate(&mut new, Some(&old), call.api.view(), cidr, ports)?;
    }
    let mut errors = rules.validate_change(&target.subresource, target.resource.namespaced, &new, &old);
    if let Some(custom) = &target.resource.custom {
        errors.extend(custom.validate(&new, Some(&old)));
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&target.resource.group_kind(), &target.name, &errors));
    }
    if ownership == Ownership::Track {
        own(writing, &known, Some(&old), &mut new);
    }
    to_stored(&target.resource, &mut new);
    keep_times(&mut new, &old);
    Ok((new, old))
}

/// 422 for a PUT that must say which state it replaces, and does not.
pub(super) fn check_conditional(target: &Target, body: &Value) -> Result<(), Status> {
    if of(&target.resource).unconditional_update || !metadata::text(body, "resourceVersion").is_empty() {
        return Ok(());
    }
    let error = Error::invalid(
        &Path::new("metadata.resourceVersion"),
        0,
        "must be specified for an update",
    );
    Err(Status::invalid(&target.resource.group_kind(), &target.name, &[error]))
}

fn own(writing: &Writing<'_>, known: &Known, before: Option<&Value>, after: &mut Value) {
    let Some(schema) = known.schema() else { return };
    let api_version = match writing.target.resource.custom {
        Some(_) => writing.target.resource.api_version(),
        None => after["apiVersion"].as_str().unwrap_or_default().to_owned(),
    };
    let manager = writing.manager();
    let reset = reset_fields(writing.target);
    let writer = writer(writing, &manager, &api_version, &reset, writing.call.api.now());
    track_update(before, after, schema, &writer);
}

/// What a write to this place does not own: the status of the object itself, everything else of `/status`.
pub(super) fn reset_fields(target: &Target) -> FieldSet {
    match target.subresource.as_str() {
        "status" => FieldSet::of_fields(&[&["spec"]]),
        _ if target.resource.has_status() => FieldSet::of_fields(&[&["status"]]),
        _ => FieldSet::default(),
    }
}

pub(super) fn writer<'a>(
    writing: &'a Writing<'_>,
    manager: &'a str,
    api_version: &'a str,
    reset_fields: &'a FieldSet,
    now: Timestamp,
) -> Writer<'a> {
    Writer {
        manager,
        api_version,
        subresource: &writing.target.subresource,
        reset_fields,
        now,
    }
}

fn request<'a>(
    call: &'a Call,
    target: &'a Target,
    operation: Operation,
    old: Option<&'a Value>,
    dry_run: bool,
) -> Request<'a> {
    Request {
        operation,
        resource: &target.resource.stored_as,
        subresource: &target.subresource,
        namespace: target.namespace.as_deref(),
        name: &target.name,
        old,
        identity: &call.identity,
        dry_run,
    }
}

pub(super) fn is_service(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}
