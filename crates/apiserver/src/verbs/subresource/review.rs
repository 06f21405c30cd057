//! Kinds that are asked, not stored: access reviews, token reviews, bindings.

use crate::call::{Answer, Call};
use crate::verbs::Target;

pub(crate) async fn create(_call: &Call, target: &Target) -> Answer {
    Err(super::not_implemented(&target.group_resource().to_string()))
}
