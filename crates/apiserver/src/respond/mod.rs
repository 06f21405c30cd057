//! Answers: objects, lists, tables, metadata alone and `Status`, with the headers every answer carries.
//!
//! Owns the forms in which stored objects leave the server. Objects that are served as they are stored are never
//! parsed on the way out.

mod headers;
mod list;
mod metadata;
mod table;

use apimachinery::gvk::GroupVersionKind;
use apimachinery::status::Status;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use crate::body::Body;
use crate::call::{Answer, Call};
use crate::request::Representation;
use crate::resources::Resource;
use crate::store::Object;

pub(crate) use headers::finish;
pub(crate) use list::{ListMeta, list, list_value};
pub(crate) use metadata::{Partial, metadata_value};
pub(crate) use table::{Columns, TableOptions, of_object as table};

/// One stored object.
pub(crate) fn object(call: &Call, resource: &Resource, code: StatusCode, object: &Object) -> Answer {
    match call.accept.representation()? {
        Representation::Object => Ok(json(code, served(resource, object))),
        _ => shown(call, code, &served_value(resource, object), || Columns::of(resource)),
    }
}

/// One object that is not stored as such: a `Scale`, a review, the result of a dry run.
pub(crate) fn value(call: &Call, code: StatusCode, value: &Value) -> Answer {
    shown(call, code, value, || Columns::BuiltIn(gvk_of(value)))
}

fn shown(call: &Call, code: StatusCode, value: &Value, columns: impl FnOnce() -> Columns) -> Answer {
    let body = match call.accept.representation()? {
        Representation::Object => to_bytes(value),
        Representation::Metadata(form) => to_bytes(&Partial::of(value, form)),
        Representation::Table(form) => {
            let options = TableOptions::read(&call.query, form)?;
            table(&columns(), value, &options, call.api.now())
        }
    };
    Ok(json(code, body))
}

/// A `Status` as an answer.
pub(crate) fn status(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::OK);
    let mut response = json(code, serde_json::to_vec(status).unwrap_or_default().into());
    if let Some(seconds) = status
        .details
        .as_ref()
        .map(|details| details.retry_after_seconds)
        .filter(|s| *s > 0)
    {
        response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
    if status.code >= 400 {
        response.headers_mut().insert(
            http::header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
    }
    response
}

/// Bytes that are JSON.
pub(crate) fn json(code: StatusCode, bytes: Bytes) -> Response<Body> {
    with_type(code, "application/json", bytes.into())
}

/// Plain text.
pub(crate) fn text(code: StatusCode, text: impl Into<Body>) -> Response<Body> {
    with_type(code, "text/plain; charset=utf-8", text.into())
}

/// A body of a media type.
pub(crate) fn with_type(code: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// The object as this resource's version shows it.
pub(crate) fn served(resource: &Resource, object: &Object) -> Bytes {
    match is_served_as_stored(resource, object) {
        true => object.bytes.clone(),
        false => to_bytes(&served_value(resource, object)),
    }
}

/// The object as this resource's version shows it, parsed.
pub(crate) fn served_value(resource: &Resource, object: &Object) -> Value {
    let mut value = object.value();
    if let Some(conversion) = resource.conversion {
        conversion.serve(&mut value);
    }
    if let Some(custom) = resource.custom.as_ref().filter(|custom| !custom.is_current(object)) {
        custom.serve(&mut value);
    }
    value
}

/// Whether this resource's version shows the object as it is stored.
fn is_served_as_stored(resource: &Resource, object: &Object) -> bool {
    match &resource.custom {
        Some(custom) => custom.is_current(object),
        None => resource.conversion.is_none(),
    }
}

pub(crate) fn to_bytes(value: &impl Serialize) -> Bytes {
    // Nothing that is written here has keys or numbers that JSON lacks.
    serde_json::to_vec(value).unwrap_or_default().into_boxed_slice().into()
}

fn gvk_of(value: &Value) -> GroupVersionKind {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    GroupVersionKind::parse(text("apiVersion"), text("kind")).unwrap_or_default()
}
