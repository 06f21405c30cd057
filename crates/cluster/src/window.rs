//! `/debug/next-moves`: what the autoscalers will do next, for `k8slab status`. No Kubernetes API has it.

use std::convert::Infallible;

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;

use crate::link::Link;

/// Serves one connection until the API server closes it.
pub(crate) async fn serve(link: Link, io: DuplexStream) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (code, body) = match request.uri().path() {
            "/debug/next-moves" => (
                StatusCode::OK,
                serde_json::to_string(&link.next_moves()).unwrap_or_default(),
            ),
            _ => (StatusCode::NOT_FOUND, String::new()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = code;
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        async move { Ok::<_, Infallible>(response) }
    });
    // The API server may close at any moment; there is nobody to tell.
    http1::Builder::new()
        .serve_connection(TokioIo::new(io), service)
        .await
        .ok();
}
