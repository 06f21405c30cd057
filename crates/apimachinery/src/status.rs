//! `Status`: what the API answers when it has no object to give, in the exact shape and words clients compare.
//!
//! Source of the wording: `apimachinery/pkg/api/errors`, 1.36. Must not know of HTTP beyond the code it carries.

use std::fmt;

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::field;
use crate::gvk::{GroupKind, GroupResource};
use crate::quote::quote;

/// Why a request failed, as clients test it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kubernetes' own words")]
pub enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    UnsupportedMediaType,
    RequestEntityTooLarge,
    TooManyRequests,
    ServerTimeout,
    Timeout,
    InternalError,
    ServiceUnavailable,
    /// One that this list does not have.
    #[serde(other)]
    Unknown,
}

/// One cause of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Machine-readable: `FieldValueRequired`, `FieldManagerConflict`, `ExitCode`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The field, as `spec.x[0]`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What a `Status` is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The resource's group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The plural resource (for `Invalid`: the kind).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The object's UID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Every cause known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Details {
    fn of(resource: &GroupResource, name: &str) -> Box<Self> {
        Box::new(Self {
            name: name.to_owned(),
            group: resource.group.clone(),
            kind: resource.resource.clone(),
            ..Self::default()
        })
    }
}

/// Kubernetes' `Status` object. As an error it displays its message.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Status {
    /// `ListMeta`: mostly empty; `continue` on an expired list.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// `Success` or `Failure`.
    #[serde(default)]
    pub status: String,
    /// For people; test suites compare it.
    #[serde(default)]
    pub message: String,
    /// For programs.
    #[serde(default)]
    pub reason: Option<Reason>,
    /// What it is about.
    #[serde(default)]
    pub details: Option<Box<Details>>,
    /// The HTTP status code; 0 is not printed.
    #[serde(default)]
    pub code: u16,
}

impl Status {
    fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            metadata: Map::new(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: Some(reason),
            details: None,
            code,
        }
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        self.details = Some(Details::of(resource, name));
        self
    }

    /// It went well; the answer to most deletions.
    pub fn success(details: Option<Details>) -> Self {
        Self {
            metadata: Map::new(),
            status: "Success".to_owned(),
            message: String::new(),
            reason: None,
            details: details.map(Box::new),
            code: 0,
        }
    }

    /// 404: there is no such object.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::failure(404, Reason::NotFound, format!("{resource} {} not found", quote(name))).about(resource, name)
    }

    /// 404: the path leads nowhere.
    pub fn path_not_found() -> Self {
        let mut status = Self::failure(
            404,
            Reason::NotFound,
            "the server could not find the requested resource",
        );
        status.details = Some(Box::default());
        status
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::failure(
            409,
            Reason::AlreadyExists,
            format!("{resource} {} already exists", quote(name)),
        )
        .about(resource, name)
    }

    /// 409: no generated name was free.
    pub fn generate_name_conflict(resource: &GroupResource, name: &str) -> Self {
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for the object",
            quote(name)
        );
        Self::failure(409, Reason::AlreadyExists, message)
            .about(resource, name)
            .retry_after(1)
    }

    /// 409: the object is not as the request believed.
    pub fn conflict(resource: &GroupResource, name: &str, detail: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {}: {detail}", quote(name));
        Self::failure(409, Reason::Conflict, message).about(resource, name)
    }

    /// 409 of an update whose `resourceVersion` is not the object's.
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 of a server-side apply: other managers own fields that it would change.
    pub fn apply_conflict(causes: Vec<Cause>, message: impl Into<String>) -> Self {
        let mut status = Self::failure(409, Reason::Conflict, message);
        status.details = Some(Box::new(Details {
            causes,
            ..Details::default()
        }));
        status
    }

    /// 422: the object breaks rules of its kind.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[field::Error]) -> Self {
        let subject = format!("{kind} {} is invalid", quote(name));
        let message = if errors.is_empty() {
            subject
        } else {
            format!("{subject}: {}", field::join(errors))
        };
        let causes = errors.iter().map(|error| Cause {
            reason: error.kind.reason().to_owned(),
            message: error.body(),
            field: error.path.to_string(),
        });
        let mut status = Self::failure(422, Reason::Invalid, message);
        status.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            causes: causes.collect(),
            ..Details::default()
        }));
        status
    }

    /// 422 of a patch that cannot be applied: Kubernetes says no more than this.
    pub fn unprocessable_patch() -> Self {
        let mut status = Self::failure(
            422,
            Reason::Invalid,
            "the server rejected our request due to an error in our request",
        );
        status.details = Some(Box::default());
        status
    }

    /// 400: the request itself makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, Reason::BadRequest, message)
    }

    /// 401: nobody we know.
    pub fn unauthorized() -> Self {
        Self::failure(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 403: known, but not allowed. An empty `resource` is a path that is no resource's; `name` may be empty.
    pub fn forbidden(resource: &GroupResource, name: &str, detail: impl fmt::Display) -> Self {
        let message = if resource.is_empty() {
            format!("forbidden: {detail}")
        } else if name.is_empty() {
            format!("{resource} is forbidden: {detail}")
        } else {
            format!("{resource} {} is forbidden: {detail}", quote(name))
        };
        Self::failure(403, Reason::Forbidden, message).about(resource, name)
    }

    /// 405: the resource does not have this verb.
    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Self {
        let message = format!(
            "{verb} is not supported on resources of kind {}",
            quote(&resource.to_string())
        );
        Self::failure(405, Reason::MethodNotAllowed, message).about(resource, "")
    }

    /// 406: no answer in a form the client takes.
    pub fn not_acceptable(served: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", served.join(", "));
        Self::failure(406, Reason::NotAcceptable, message)
    }

    /// 415: a body in a form we do not read.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::failure(415, Reason::UnsupportedMediaType, message)
    }

    /// 413: the body has more than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::too_large_because(format!("limit is {limit}"))
    }

    /// 413 for another reason than the size in bytes.
    pub fn too_large_because(message: impl fmt::Display) -> Self {
        let message = format!("Request entity too large: {message}");
        Self::failure(413, Reason::RequestEntityTooLarge, message)
    }

    /// 410: the resource version or the continue token is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Expired, message)
    }

    /// 504: it took too long; `message` follows `Timeout: `.
    pub fn timeout(message: impl fmt::Display) -> Self {
        Self::failure(504, Reason::Timeout, format!("Timeout: {message}"))
    }

    /// 429: later.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::failure(429, Reason::TooManyRequests, message).retry_after(retry_after_seconds)
    }

    /// 500: our fault; `message` follows `Internal error occurred: `.
    pub fn internal(message: impl fmt::Display) -> Self {
        let cause = Cause {
            message: message.to_string(),
            ..Cause::default()
        };
        let mut status = Self::failure(
            500,
            Reason::InternalError,
            format!("Internal error occurred: {message}"),
        );
        status.details = Some(Box::new(Details {
            causes: vec![cause],
            ..Details::default()
        }));
        status
    }

    /// 503: nobody is there to answer.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, Reason::ServiceUnavailable, message)
    }

    /// Adds a cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        self.details.get_or_insert_default().causes.push(Cause {
            reason: reason.to_owned(),
            message: message.into(),
            field: field.to_owned(),
        });
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// Whether this is a failure for `reason`.
    pub fn is(&self, reason: Reason) -> bool {
        self.reason == Some(reason)
    }

    /// As JSON, `kind` first.
    pub fn to_value(&self) -> Value {
        // A `Status` holds only strings, numbers and JSON; none of it can fail to serialize.
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Status", 8)?;
        out.serialize_field("kind", "Status")?;
        out.serialize_field("apiVersion", "v1")?;
        out.serialize_field("metadata", &self.metadata)?;
        out.serialize_field("status", &self.status)?;
        if !self.message.is_empty() {
            out.serialize_field("message", &self.message)?;
        }
        if let Some(reason) = &self.reason {
            out.serialize_field("reason", reason)?;
        }
        if let Some(details) = &self.details {
            out.serialize_field("details", details)?;
        }
        if self.code != 0 {
            out.serialize_field("code", &self.code)?;
        }
        out.end()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{Error, Path};

    #[test]
    fn not_found_has_kubernetes_exact_bytes() {
        let status = Status::not_found(&GroupResource::new("apps", "deployments"), "x");
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"deployments.apps \"x\" not found","reason":"NotFound","details":{"name":"x","group":"apps","kind":"deployments"},"code":404}"#
        );
    }

    #[test]
    fn an_invalid_object_names_every_field() {
        let errors = [
            Error::required(&Path::new("spec.containers"), ""),
            Error::invalid(&Path::new("spec.x"), 0, "must be greater than 0"),
        ];
        let status = Status::invalid(&GroupKind::new("", "Pod"), "x", &errors);
        assert_eq!(
            status.to_string(),
            "Pod \"x\" is invalid: [spec.containers: Required value, spec.x: Invalid value: 0: must be greater than 0]"
        );
        let causes = &status.details.as_ref().unwrap().causes;
        assert_eq!(causes[0].reason, "FieldValueRequired");
        assert_eq!(causes[1].field, "spec.x");
        assert_eq!(causes[1].message, "Invalid value: 0: must be greater than 0");
    }

    #[test]
    fn a_status_survives_the_wire() {
        for status in [
            Status::success(None),
            Status::unauthorized(),
            Status::internal("disk full"),
            Status::too_many_requests("later", 3),
            Status::modified(&GroupResource::new("", "pods"), "x"),
        ] {
            let text = serde_json::to_string(&status).unwrap();
            assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
            assert_eq!(status.to_value()["kind"], "Status");
        }
        let odd: Status = serde_json::from_str(r#"{"reason":"NeverHeardOf"}"#).unwrap();
        assert_eq!(odd.reason, Some(Reason::Unknown));
    }
}
