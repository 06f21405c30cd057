//! What creating and changing objects have in common: reading the body, the kind's rules, committing.

use apimachinery::status::Status;
use serde_json::Value;

use super::{Target, metadata};
use crate::call::Call;
use crate::request::{FieldValidation, MediaType, WriteOptions, decode_object};
use crate::resources::Resource;
use crate::store::{Action, Expect, Object, Write, WriteError};

/// An object that is on its way into the store, in the version of the request.
pub(super) struct Writing<'a> {
    pub(super) call: &'a Call,
    pub(super) target: &'a Target,
    pub(super) options: &'a WriteOptions,
}

impl Writing<'_> {
    fn resource(&self) -> &Resource {
        &self.target.resource
    }

    /// The body as an object of the target's kind.
    pub(super) async fn read_body(&self) -> Result<Value, Status> {
        let media_type = MediaType::read(&self.call.headers)?;
        let body = self.call.body().await?;
        let decoded = decode_object(media_type, &body)?;
        let mut object = decoded.value;
        metadata::check_type(&mut object, &self.resource().kind, &self.resource().api_version())?;
        let problems = decoded
            .duplicates
            .iter()
            .map(|path| format!("duplicate field \"{path}\""))
            .collect();
        self.report(problems)?;
        Ok(object)
    }

    /// Who writes.
    pub(super) fn manager(&self) -> String {
        self.call.manager(&self.options.field_manager)
    }

    /// Unknown and duplicate fields: refused, told or ignored, as the client wants.
    pub(super) fn report(&self, problems: Vec<String>) -> Result<(), Status> {
        if problems.is_empty() {
            return Ok(());
        }
        match self.options.field_validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => problems.into_iter().for_each(|problem| self.call.warn(problem)),
            FieldValidation::Strict => {
                let (kind, version) = (&self.resource().kind, &self.resource().version);
                return Err(Status::bad_request(format!(
                    "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
                    problems.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// Puts a new object, in the version of the request, into the store.
    pub(super) async fn commit_new(&self, object: Value) -> Result<Object, WriteError> {
        self.commit(object, Expect::Absent, Action::Put).await
    }

    /// Replaces `current`.
    pub(super) async fn commit_change(&self, current: &Object, object: Value) -> Result<Object, WriteError> {
        self.commit(object, Expect::Revision(current.revision), Action::Put)
            .await
    }

    async fn commit(
        &self,
        mut object: Value,
        expect: Expect,
        action: fn(Value) -> Action,
    ) -> Result<Object, WriteError> {
        to_stored(self.resource(), &mut object);
        if self.options.dry_run {
            return dry_run(self.call, self.target, expect, object);
        }
        let write = Write {
            resource: self.resource().stored_as.clone(),
            key: metadata_key(self.target, &object),
            expect,
            action: action(object),
        };
        self.call.api.write(write).await
    }
}

/// The stored form of an object in the version of the resource.
pub(crate) fn to_stored(resource: &Resource, object: &mut Value) {
    match (&resource.custom, resource.conversion) {
        (Some(custom), _) => metadata::arrange(object, &resource.kind, custom.stored_version()),
        (None, Some(conversion)) => {
            conversion.store(object);
            let version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
            metadata::arrange(object, &resource.kind, &version);
        }
        (None, None) => metadata::arrange(object, &resource.kind, &resource.api_version()),
    }
}

fn metadata_key(target: &Target, object: &Value) -> crate::store::Key {
    let name = metadata::text(object, "name");
    crate::store::Key::new(
        target.namespace.as_deref(),
        if name.is_empty() { &target.name } else { name },
    )
}

/// What the store would have answered.
fn dry_run(call: &Call, target: &Target, expect: Expect, object: Value) -> Result<Object, WriteError> {
    let current = call
        .api
        .store
        .object(&target.resource.stored_as, &metadata_key(target, &object));
    match (expect, current) {
        (Expect::Absent, Some(_)) => Err(WriteError::Exists),
        (Expect::Revision(_), None) => Err(WriteError::Gone),
        (Expect::Revision(wanted), Some(object)) if object.revision != wanted => Err(WriteError::Modified(object)),
        (_, current) => {
            let revision = current.map_or(0, |object| object.revision);
            Ok(Object {
                revision,
                bytes: crate::respond::to_bytes(&object),
            })
        }
    }
}

/// The store's refusal as the client sees it.
pub(super) fn refused(target: &Target, error: WriteError) -> Status {
    match error {
        WriteError::Exists => Status::already_exists(&target.group_resource(), &target.name),
        WriteError::Modified(_) => target.modified(),
        WriteError::Gone => target.not_found(),
        WriteError::Backend(why) => Status::internal(why),
        WriteError::Closed => Status::service_unavailable("the server is shutting down"),
    }
}
