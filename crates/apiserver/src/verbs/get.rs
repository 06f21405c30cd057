//! GET of one object.

use http::StatusCode;

use super::Target;
use super::list::check_resource_version;
use crate::call::{Answer, Call};
use crate::respond;

pub(super) fn get(call: &Call, target: &Target) -> Answer {
    check_resource_version(
        call.query.get("resourceVersion").unwrap_or_default(),
        call.api.store.revision(),
    )?;
    let object = target.current(&call.api)?;
    respond::object(call, &target.resource, StatusCode::OK, &object)
}
