//! A page on port 80, for labs without a registry: it says which pod answered. Its log tells every request and the end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use tokio_util::sync::CancellationToken;

use crate::{operator, server};

const PORT: u16 = 80;

/// Serves until SIGTERM, then answers what is in flight. Exit code 0, or 1 when the port cannot be had.
pub(crate) fn main(_args: &[String]) -> i32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let stop = CancellationToken::new();
            operator::stop_on_signals(&stop)?;
            let listener = server::bind(PORT).await?;
            let name: Arc<str> = pod_name().into();
            let told = stop.clone();
            tokio::spawn(async move {
                told.cancelled().await;
                crate::say("SIGTERM: no more connections");
            });
            let answer = move |request: http::Request<hyper::body::Incoming>| {
                crate::say(&format!("{} {}", request.method(), request.uri()));
                page(request.uri().path().to_owned(), name.clone())
            };
            server::serve_until(listener, answer, stop).await;
            crate::say("every request is answered");
            Ok(())
        })
    });
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            crate::complain(&format!("web: {error}"));
            1
        }
    }
}

/// `/` is the page; `/wait/SECONDS` is the page after a while, for whoever wants to see somebody wait.
async fn page(path: String, pod: Arc<str>) -> Response<Full<Bytes>> {
    let seconds = match path.strip_prefix("/wait/").map(str::parse) {
        Some(Ok(seconds)) => seconds,
        None if path == "/" => 0,
        _ => return server::respond(server::not_found()),
    };
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let text = format!("<!doctype html>\n<title>{pod}</title>\n<p>This is pod <b>{pod}</b>.\n");
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = StatusCode::OK;
    let html = header::HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

/// A pod's host name is its name.
pub(crate) fn pod_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
