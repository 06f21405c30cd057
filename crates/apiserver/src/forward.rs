//! Hands a request on to somebody behind the [`Connector`](crate::Connector) and its answer back, protocol upgrades
//! included: `log`, `exec`, `port-forward`, the proxies, local APIs.
//!
//! Owns the HTTP of it: hop-by-hop headers, the upgrade of both connections, bytes both ways. What path to ask for is
//! the caller's.

use apimachinery::status::Status;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use crate::api::Api;
use crate::body::{Body, BoxError};
use crate::call::{Answer, Call, Incoming as RequestBody};
use crate::connector::Target;

/// Headers that are about one connection (RFC 9110 §7.6.1), and those that are for us alone.
const NOT_FORWARDED: [HeaderName; 4] = [AUTHORIZATION, HOST, TE, TRANSFER_ENCODING];

/// Sends the call's method, headers and body to `path_and_query` at `target`.
pub(crate) async fn request(call: &Call, target: Target, path_and_query: &str) -> Answer {
    let body = call
        .take_body()
        .await
        .unwrap_or_else(|| Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync());
    let mut request = Request::new(body);
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = path_and_query
        .parse()
        .map_err(|_| Status::bad_request(format!("`{path_and_query}` is no path")))?;
    *request.headers_mut() = headers(call);
    let upgrading = call.headers.contains_key(UPGRADE);
    let ours = if upgrading { call.take_upgrade() } else { None };
    let mut response = send(&call.api, target, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(pass(response));
    }
    let Some(ours) = ours else {
        return Err(Status::bad_request(
            "an upgrade was answered that this connection cannot make",
        ));
    };
    let theirs = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        match tokio::try_join!(ours, theirs) {
            Ok((ours, theirs)) => {
                let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
                // Either side may go at any moment; there is nobody to tell.
                tokio::io::copy_bidirectional(&mut ours, &mut theirs).await.ok();
            }
            Err(error) => tracing::debug!("changing the protocol of a forwarded request: {error}"),
        }
    });
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    Ok(answer)
}

/// Opens a connection, sends one request on it.
pub(crate) async fn send(
    api: &Api,
    target: Target,
    mut request: Request<RequestBody>,
) -> Result<Response<Incoming>, Status> {
    let unavailable = |error: &dyn std::fmt::Display| Status::service_unavailable(format!("dialing backend: {error}"));
    let stream = api
        .config
        .connector
        .connect(target)
        .await
        .map_err(|error| unavailable(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, RequestBody>(TokioIo::new(stream))
        .await
        .map_err(|error| unavailable(&error))?;
    tokio::spawn(async move { connection.with_upgrades().await });
    request
        .headers_mut()
        .entry(HOST)
        .or_insert(HeaderValue::from_static("k8slab"));
    sender.send_request(request).await.map_err(|error| unavailable(&error))
}

fn headers(call: &Call) -> HeaderMap {
    let mut headers = call.headers.clone();
    for name in NOT_FORWARDED {
        headers.remove(name);
    }
    let upgrading = headers.contains_key(UPGRADE);
    if !upgrading {
        headers.remove(CONNECTION);
    }
    let spoofed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-remote-"))
        .cloned()
        .collect();
    for name in spoofed {
        headers.remove(name);
    }
    if let Ok(user) = HeaderValue::from_str(&call.identity.user) {
        headers.insert("x-remote-user", user);
    }
    for group in &call.identity.groups {
        if let Ok(group) = HeaderValue::from_str(group) {
            headers.append("x-remote-group", group);
        }
    }
    headers
}

/// The answer as it is, streamed.
fn pass(response: Response<Incoming>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    for name in [CONNECTION, TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    let stream = body.into_data_stream();
    let stream = futures::StreamExt::map(stream, |piece| piece.map_err(|error| -> BoxError { error.into() }));
    Response::from_parts(parts, Body::stream(stream))
}
