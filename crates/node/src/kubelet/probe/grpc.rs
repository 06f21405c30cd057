//! The gRPC health check, by hand: one unary call of two tiny messages needs no gRPC library.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::Outcome;
use crate::dial::Dial;
use crate::kubelet::http_get::go_words;

/// Asks `grpc.health.v1.Health/Check` for `service`.
pub(crate) async fn check(network: &dyn Dial, to: SocketAddr, service: &str, limit: Duration) -> Outcome {
    match tokio::time::timeout(limit, call(network, to, service)).await {
        Ok(Ok(1)) => Outcome::Success,
        Ok(Ok(status)) => Outcome::Failure(format!(
            "service unhealthy (responded with \"{}\")",
            status_name(status)
        )),
        Ok(Err(error)) => Outcome::Failure(error),
        Err(_) => Outcome::Failure(format!(
            "timeout: failed to connect service \"{to}\" within {}s: context deadline exceeded",
            limit.as_secs()
        )),
    }
}

fn status_name(status: u64) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

async fn call(network: &dyn Dial, to: SocketAddr, service: &str) -> Result<u64, String> {
    let stream = network.dial(to).await.map_err(|error| {
        format!(
            "error: failed to connect service at \"{to}\": dial tcp {to}: connect: {}",
            go_words(&error)
        )
    })?;
    let failed = |error: hyper::Error| format!("error: health rpc failed: {error}");
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(message(service)))
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        // An error before any message comes in the headers, otherwise in the trailers.
        let mut code = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await.map_err(failed)?;
        code = body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status"))
            .cloned()
            .or(code);
        match code.as_ref().and_then(|code| code.to_str().ok()) {
            Some("0") => Ok(serving_status(&body.to_bytes())),
            Some("12") => {
                Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".into())
            }
            code => Err(format!(
                "error: health rpc failed: rpc error: code = {}",
                code.unwrap_or("unknown")
            )),
        }
    };
    let answer = answer.await;
    connection.abort();
    answer
}

/// `HealthCheckRequest { service }` behind gRPC's five bytes.
fn message(service: &str) -> Bytes {
    let mut request = BytesMut::new();
    if !service.is_empty() {
        request.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            request.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        request.put_u8(length as u8);
        request.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(request.len() as u32);
    framed.put(request);
    framed.freeze()
}

/// `HealthCheckResponse.status`, 0 (UNKNOWN) where it is not said.
fn serving_status(framed: &[u8]) -> u64 {
    match framed.get(5..) {
        Some([0x08, status, ..]) => u64::from(*status),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_a_framed_message() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), 1);
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), 0);
    }
}
