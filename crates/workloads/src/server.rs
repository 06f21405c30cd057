//! A small HTTP/1.1 server for the programs of the lab: one thread, JSON answers, gone at the first SIGTERM (`serve`) or
//! once every request in flight has its answer (`serve_until`).
//!
//! Owns sockets and signals; what a path means is the program's business.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// An answer: status and JSON body.
pub(crate) type Answer = (StatusCode, Value);

/// What FastAPI, which the original programs used, says to an unknown path.
pub(crate) fn not_found() -> Answer {
    (StatusCode::NOT_FOUND, json!({ "detail": "Not Found" }))
}

/// What FastAPI says to a path value of the wrong type: `kind` as pydantic names it, e.g. `int_parsing`.
pub(crate) fn unprocessable(kind: &str, field: &str, message: &str, input: &str) -> Answer {
    let problem = json!({ "type": kind, "loc": ["path", field], "msg": message, "input": input });
    (StatusCode::UNPROCESSABLE_ENTITY, json!({ "detail": [problem] }))
}

/// Alive.
pub(crate) fn ok() -> Answer {
    (StatusCode::OK, json!({ "status": "ok" }))
}

/// A known path, asked in another way.
pub(crate) fn method_not_allowed() -> Answer {
    (
        StatusCode::METHOD_NOT_ALLOWED,
        json!({ "detail": "Method Not Allowed" }),
    )
}

/// Listens on `0.0.0.0:port`.
pub(crate) async fn bind(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await;
    let listener =
        listener.map_err(|error| io::Error::new(error.kind(), format!("listening on port {port}: {error}")))?;
    crate::say(&format!("listening on port {port}"));
    Ok(listener)
}

/// Serves until `stop`, then takes no more connections, answers what was asked already and closes.
pub(crate) async fn serve_until<H, F>(listener: TcpListener, handler: H, stop: CancellationToken)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let open = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
        };
        let handler = handler.clone();
        let service = service_fn(move |request| {
            let answer = handler(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let connection = open.watch(connection);
        // A peer that breaks off is not worth a line.
        tokio::spawn(async move { connection.await.ok() });
    }
    drop(listener);
    open.shutdown().await;
}

/// Serves on `0.0.0.0:port` until SIGTERM or SIGINT, then returns at once: requests in flight are cut off.
pub(crate) fn serve<H, F>(port: u16, handler: H) -> io::Result<()>
where
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        // As pid 1 a process ignores SIGTERM unless it handles it.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await?;
        crate::say(&format!("listening on port {port}"));
        let handler = Arc::new(handler);
        loop {
            let stream = tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    // The peer is gone already, or there are no descriptors left: then a rest, or this loop
                    // would burn CPU that nobody asked for.
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                },
            };
            let handler = handler.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(respond(answer.await)) }
                });
                // A peer that breaks off is not worth a line.
                http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
            });
        }
    })
}

/// The answer on the wire.
pub(crate) fn respond((status, body): Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
