//! What hangs below an object: `status`, `scale`, `log`, …
//!
//! Those that are another view of the object itself go through the verbs like the object; the others have a file each.

mod binding;
mod kubelet;
mod proxy;
pub(super) mod review;
mod scale;

use std::sync::Arc;

use apimachinery::status::Status;

use super::{Target, get, patch, update};
use crate::call::{Answer, Call};
use crate::request::ResourcePath;
use crate::resources::Verb;

pub(super) async fn handle(call: Arc<Call>, target: Target, verb: Verb, path: &ResourcePath) -> Answer {
    let Some(subresource) = target.resource.subresource(&target.subresource) else {
        return Err(Status::path_not_found());
    };
    let name = target.subresource.as_str();
    if path.rest.is_some() && name != "proxy" {
        return Err(Status::path_not_found());
    }
    if !subresource.verbs.contains(verb) {
        return Err(Status::method_not_supported(&target.group_resource(), verb.as_str()));
    }
    match name {
        "scale" => scale::handle(&call, &target, verb).await,
        // Another shape of the object itself.
        "status" | "finalize" | "approval" | "ephemeralcontainers" | "resize" => match verb {
            Verb::Get => get::get(&call, &target),
            Verb::Update => update::update(&call, &target).await,
            Verb::Patch => patch::patch(&call, &target).await,
            other => Err(Status::method_not_supported(&target.group_resource(), other.as_str())),
        },
        "binding" => binding::bind(&call, &target).await,
        "eviction" => binding::evict(&call, &target).await,
        "token" => review::token(&call, &target).await,
        "log" | "exec" | "attach" | "portforward" => kubelet::handle(&call, &target).await,
        "proxy" => proxy::handle(&call, &target, path).await,
        other => Err(not_implemented(&format!("subresource {other}"))),
    }
}

/// 501: known, but not served here.
pub(super) fn not_implemented(what: &str) -> Status {
    let mut status = Status::internal(format!("{what} is not implemented by this server"));
    status.code = 501;
    status
}
