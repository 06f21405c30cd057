//! From a request to its handler.
//!
//! Owns what happens around every handler: a panic becomes a 500, an endless handler a 504, an error a `Status`, and
//! every answer gets its headers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::Status;
use futures::FutureExt;
use http::Response;
use uuid::Uuid;

use crate::body::Body;
use crate::call::{Answer, Call};
use crate::request::{Route, route};
use crate::{respond, verbs};

/// A request that is not meant to last must be answered within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers a request, whatever it is.
pub(crate) async fn dispatch(call: Call) -> Response<Body> {
    let call = Arc::new(call);
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
    let audit_id = match call.headers.get("audit-id").and_then(|id| id.to_str().ok()) {
        Some(id) => id.to_owned(),
        None => Uuid::new_v4().to_string(),
    };
    respond::finish(&mut response, &audit_id, &call.take_warnings());
    response
}

async fn answer(call: Arc<Call>) -> Answer {
    match route(&call.path) {
        Route::Resource(path) => verbs::handle(call, path).await,
        Route::NonResource => Err(Status::path_not_found()),
    }
}
