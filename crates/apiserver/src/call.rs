//! `Call`: one request on its way through the server.

use std::sync::{Arc, Mutex, PoisonError};

use apimachinery::status::Status;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use http::{HeaderMap, Method};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Collected, LengthLimitError, Limited};
use hyper::upgrade::OnUpgrade;

use crate::api::Api;
use crate::auth::Identity;
use crate::body::{Body, BoxError};
use crate::request::{Accept, Query};

/// The largest body of a request.
pub(crate) const BODY_LIMIT: usize = 3 << 20;

/// The body of a request, of whatever client.
pub(crate) type Incoming = UnsyncBoxBody<Bytes, BoxError>;

/// What a handler gives back.
pub(crate) type Answer = Result<http::Response<Body>, Status>;

/// See the module.
pub(crate) struct Call {
    pub(crate) api: Arc<Api>,
    pub(crate) identity: Identity,
    pub(crate) method: Method,
    /// Undecoded.
    pub(crate) path: String,
    pub(crate) query: Query,
    /// Undecoded, without the question mark.
    pub(crate) raw_query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) accept: Accept,
    body: tokio::sync::Mutex<Option<Incoming>>,
    upgrade: Mutex<Option<OnUpgrade>>,
    warnings: Mutex<Vec<String>>,
}

impl Call {
    pub(crate) fn new(api: Arc<Api>, identity: Identity, mut parts: http::request::Parts, body: Incoming) -> Self {
        Self {
            api,
            identity,
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: Query::parse(parts.uri.query()),
            accept: Accept::read(&parts.headers),
            headers: parts.headers,
            raw_query: parts.uri.query().unwrap_or_default().to_owned(),
            upgrade: Mutex::new(parts.extensions.remove::<OnUpgrade>()),
            body: tokio::sync::Mutex::new(Some(body)),
            warnings: Mutex::default(),
        }
    }

    /// The whole body; empty the second time.
    pub(crate) async fn body(&self) -> Result<Bytes, Status> {
        let Some(body) = self.body.lock().await.take() else {
            return Ok(Bytes::new());
        };
        match collect(body).await {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(BODY_LIMIT)),
            Err(error) => Err(Status::bad_request(format!("reading the body of the request: {error}"))),
        }
    }

    /// The body as it comes; `None` the second time.
    pub(crate) async fn take_body(&self) -> Option<Incoming> {
        self.body.lock().await.take()
    }

    /// The connection itself, once the client has been told that it changes its protocol.
    pub(crate) fn take_upgrade(&self) -> Option<OnUpgrade> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Tells the client something beside the answer.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who writes, for managed fields: `fieldManager`, else the client's name up to the first slash.
    pub(crate) fn manager(&self, given: &str) -> String {
        if !given.is_empty() {
            return given.to_owned();
        }
        let agent = self
            .headers
            .get(http::header::USER_AGENT)
            .and_then(|agent| agent.to_str().ok())
            .unwrap_or_default();
        let name: String = agent
            .split('/')
            .next()
            .unwrap_or_default()
            .chars()
            .filter(|c| !c.is_control())
            .take(128)
            .collect();
        if name.is_empty() { "unknown".to_owned() } else { name }
    }
}

/// Apart from [`Call::body`] because the compiler cannot see that `collect`'s future is `Send` from within another one.
fn collect(body: Incoming) -> BoxFuture<'static, Result<Bytes, BoxError>> {
    Limited::new(body, BODY_LIMIT)
        .collect()
        .map_ok(Collected::to_bytes)
        .boxed()
}
