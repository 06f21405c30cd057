//! From a request to its handler.
//!
//! Owns what happens around every handler: who asks and whether they may, a panic becomes a 500, an endless handler a
//! 504, an error a `Status`, and every answer gets its headers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::Status;
use futures::FutureExt;
use http::request::Parts;
use http::{HeaderMap, Response};
use uuid::Uuid;

use crate::api::Api;
use crate::auth::rbac::Attributes;
use crate::auth::{Identity, authenticate, impersonate};
use crate::body::Body;
use crate::call::{Answer, Call, Incoming};
use crate::request::{ResourcePath, Route, route};
use crate::{local, paths, respond, verbs};

/// A request that is not meant to last must be answered within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Somebody in this process.
    Known(Identity),
    /// Somebody on the network, with the client certificate of the connection.
    Peer(Option<Arc<[u8]>>),
}

/// Answers a request, whatever it is.
pub(crate) async fn dispatch(api: Arc<Api>, caller: Caller, parts: Parts, body: Incoming) -> Response<Body> {
    let audit_id = match parts.headers.get("audit-id").and_then(|id| id.to_str().ok()) {
        Some(id) => id.to_owned(),
        None => Uuid::new_v4().to_string(),
    };
    let identity = match identify(&api, &caller, &parts.headers) {
        Ok(identity) => identity,
        Err(status) => {
            let mut response = respond::status(&status);
            respond::finish(&mut response, &audit_id, &[]);
            return response;
        }
    };
    let call = Arc::new(Call::new(api, identity, parts, body));
    let answer = AssertUnwindSafe(answer(call.clone())).catch_unwind();
    let answer = match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            tracing::error!(method = %call.method, path = %call.path, "a handler panicked");
            Err(Status::internal(
                "this request caused the API server to panic; its log says more",
            ))
        }
        Err(_) => Err(Status::timeout("request did not complete within the allotted timeout")),
    };
    let mut response = answer.unwrap_or_else(|status| respond::status(&status));
    respond::finish(&mut response, &audit_id, &call.take_warnings());
    response
}

fn identify(api: &Api, caller: &Caller, headers: &HeaderMap) -> Result<Identity, Status> {
    let identity = match caller {
        Caller::Known(identity) => identity.clone(),
        Caller::Peer(certificate) => authenticate(certificate.as_deref(), headers, api.view(), &api.pki, api.now())?,
    };
    impersonate(&api.authorizer, api.view(), identity, headers)
}

async fn answer(call: Arc<Call>) -> Answer {
    match route(&call.path) {
        Route::Resource(path) => {
            authorize_resource(&call, &path)?;
            match local::target(&path) {
                Some(target) => local::forward(&call, target).await,
                None => verbs::handle(call, path).await,
            }
        }
        Route::NonResource => {
            authorize_path(&call)?;
            paths::handle(&call).await
        }
    }
}

fn authorize_resource(call: &Call, path: &ResourcePath) -> Result<(), Status> {
    let verb = verbs::verb(call, path).map_or_else(
        || call.method.as_str().to_ascii_lowercase(),
        |verb| verb.as_str().to_owned(),
    );
    let named = verbs::name_of(call, path);
    let attributes = Attributes {
        verb: &verb,
        group: &path.group,
        resource: &path.resource,
        subresource: path.subresource.as_deref(),
        namespace: path.namespace.as_deref(),
        name: named.as_deref(),
        path: None,
    };
    call.api
        .authorizer
        .require(call.api.view(), &call.identity, &attributes)
}

fn authorize_path(call: &Call) -> Result<(), Status> {
    let verb = call.method.as_str().to_ascii_lowercase();
    call.api
        .authorizer
        .require(call.api.view(), &call.identity, &Attributes::on_path(&verb, &call.path))
}
