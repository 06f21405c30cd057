//! A page on port 80, for labs without a registry: it says which pod answered. Its log tells every request and the end.

use std::sync::Arc;

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
            server::serve_until(
                listener,
                move |request| page(request.uri().path() == "/", name.clone()),
                stop,
            )
            .await;
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

async fn page(known: bool, pod: Arc<str>) -> Response<Full<Bytes>> {
    if !known {
        return server::respond(server::not_found());
    }
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
