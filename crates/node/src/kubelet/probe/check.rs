//! One run of a probe: a command, a request, a connection.
//!
//! Source of the texts: `pkg/probe/{exec,http,tcp,grpc}` of kubernetes 1.36.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, Probe, TCPSocketAction};

use super::grpc;
use crate::dial::Dial;
use crate::kubelet::http_get::{Answer, Get, go_words, port_number};
use crate::runtime::session::{self, RunError};
use crate::runtime::{ContainerId, Runtime};

/// Upstream's `maxProbeMessageLength`.
const OUTPUT_LIMIT: usize = 10 << 10;
const REDIRECTS: usize = 10;
const AGENT: &str = "kube-probe/1.36";

/// How one run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// It counts as success, but somebody should know.
    Warning(String),
    Failure(String),
    /// The probe itself could not be run.
    Error(String),
}

/// Runs a probe once, within its time limit.
pub(crate) trait Check: Send + Sync {
    fn run<'a>(&'a self, probe: &'a Probe) -> BoxFuture<'a, Outcome>;
}

/// Probes of one container instance.
pub(crate) struct ContainerCheck {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) network: Arc<dyn Dial>,
    pub(crate) id: ContainerId,
    pub(crate) container: Container,
    pub(crate) pod_ip: IpAddr,
}

impl Check for ContainerCheck {
    fn run<'a>(&'a self, probe: &'a Probe) -> BoxFuture<'a, Outcome> {
        let seconds = probe
            .timeout_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|s| *s > 0)
            .unwrap_or(1);
        let limit = Duration::from_secs(seconds);
        Box::pin(async move {
            match probe {
                Probe { exec: Some(action), .. } => self.exec(action, limit).await,
                Probe {
                    http_get: Some(action), ..
                } => self.http(action, limit).await,
                Probe {
                    tcp_socket: Some(action),
                    ..
                } => self.tcp(action, limit).await,
                Probe { grpc: Some(action), .. } => {
                    let Ok(port) = u16::try_from(action.port) else {
                        return Outcome::Error(format!("invalid port number: {}", action.port));
                    };
                    let to = SocketAddr::new(self.pod_ip, port);
                    grpc::check(&*self.network, to, action.service.as_deref().unwrap_or_default(), limit).await
                }
                _ => Outcome::Error("missing probe handler".into()),
            }
        })
    }
}

impl ContainerCheck {
    async fn exec(&self, action: &ExecAction, limit: Duration) -> Outcome {
        let command = action.command.clone().unwrap_or_default();
        match session::run(&*self.runtime, &self.id, &command, limit, OUTPUT_LIMIT).await {
            Ok(output) if output.code == 0 => Outcome::Success,
            Ok(output) => Outcome::Failure(String::from_utf8_lossy(&output.output).into_owned()),
            Err(RunError::TimedOut) => Outcome::Failure(format!(
                "command timed out: \"{}\" timed out after {}s",
                command.join(" "),
                limit.as_secs()
            )),
            // A command that is not there fails as a shell would say it: it is the container that is not right.
            Err(RunError::Runtime(error @ crate::runtime::Error::Exec { .. })) => Outcome::Failure(error.to_string()),
            Err(RunError::Runtime(error)) => Outcome::Error(error.to_string()),
        }
    }

    async fn http(&self, action: &HTTPGetAction, limit: Duration) -> Outcome {
        let get = match Get::of(action, &self.container, &self.pod_ip.to_string()) {
            Ok(get) => get,
            Err(error) => return Outcome::Error(error),
        };
        let url = get.url();
        let timed_out = || {
            Outcome::Failure(format!(
                "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            ))
        };
        tokio::time::timeout(limit, self.follow(get))
            .await
            .unwrap_or_else(|_| timed_out())
    }

    /// Redirects on the same host are followed; one to another host ends the probe, well.
    async fn follow(&self, mut get: Get) -> Outcome {
        let first_host = get.host.clone();
        for _ in 0..=REDIRECTS {
            let answer = match get.send(&*self.network, AGENT).await {
                Ok(answer) => answer,
                Err(error) => return Outcome::Failure(error.to_string()),
            };
            let Some(next) = redirect(&get, &answer) else {
                return judge(&answer);
            };
            if next.host != first_host {
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                return Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"));
            }
            get = next;
        }
        Outcome::Failure(format!("Get \"{}\": stopped after {REDIRECTS} redirects", get.url()))
    }

    async fn tcp(&self, action: &TCPSocketAction, limit: Duration) -> Outcome {
        let port = match port_number(&action.port, &self.container) {
            Ok(port) => port,
            Err(error) => return Outcome::Error(error),
        };
        let host = action.host.as_deref().filter(|host| !host.is_empty());
        let ip = match host.map(str::parse::<IpAddr>) {
            None => self.pod_ip,
            Some(Ok(ip)) => ip,
            Some(Err(_)) => {
                return Outcome::Error(format!(
                    "tcpSocket.host: expected an address, got `{}`",
                    host.unwrap_or_default()
                ));
            }
        };
        let to = SocketAddr::new(ip, port);
        match tokio::time::timeout(limit, self.network.dial(to)).await {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(error)) => Outcome::Failure(format!("dial tcp {to}: connect: {}", go_words(&error))),
            Err(_) => Outcome::Failure(format!("dial tcp {to}: i/o timeout")),
        }
    }
}

fn judge(answer: &Answer) -> Outcome {
    match answer.status.as_u16() {
        200..=399 => Outcome::Success,
        code => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
    }
}

/// Where a redirect leads, if the answer is one.
fn redirect(from: &Get, answer: &Answer) -> Option<Get> {
    if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = answer.location.as_deref()?;
    let mut next = from.clone();
    if let Some(path) = location.strip_prefix('/').filter(|path| !path.starts_with('/')) {
        next.path = format!("/{path}");
        return Some(next);
    }
    let uri: http::Uri = location.parse().ok()?;
    next.https = uri.scheme_str().map_or(from.https, |scheme| scheme == "https");
    next.host = uri.host()?.to_owned();
    next.port = uri.port_u16().unwrap_or(if next.https { 443 } else { 80 });
    next.path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    Some(next)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::dial::HostNetwork;
    use crate::runtime::fake::FakeRuntime;

    fn check() -> ContainerCheck {
        let clock = Arc::new(apimachinery::clock::SystemClock);
        ContainerCheck {
            runtime: FakeRuntime::new("/nowhere", clock),
            network: Arc::new(HostNetwork),
            id: ContainerId::new("u", "c", 0),
            container: Container {
                name: "c".into(),
                ..Default::default()
            },
            pod_ip: [127, 0, 0, 1].into(),
        }
    }

    /// A server that answers every connection with the same bytes.
    async fn server(answer: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    async fn http(port: u16) -> Outcome {
        let probe = serde_json::from_value(json!({"httpGet": {"port": port, "path": "/healthz"}})).unwrap();
        check().run(&probe).await
    }

    #[tokio::test]
    async fn the_status_decides() {
        assert_eq!(
            http(server("HTTP/1.1 204 No Content\r\n\r\n").await).await,
            Outcome::Success
        );
        let unavailable = http(server("HTTP/1.1 503 Oh\r\ncontent-length: 0\r\n\r\n").await).await;
        assert_eq!(
            unavailable,
            Outcome::Failure("HTTP probe failed with statuscode: 503".into())
        );
    }

    #[tokio::test]
    async fn nobody_listening_is_said_in_gos_words() {
        let port = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let text = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        let probe = serde_json::from_value(json!({"tcpSocket": {"port": port}})).unwrap();
        assert_eq!(check().run(&probe).await, Outcome::Failure(text.clone()));
        assert_eq!(
            http(port).await,
            Outcome::Failure(format!("Get \"http://127.0.0.1:{port}/healthz\": {text}"))
        );
    }

    #[tokio::test]
    async fn a_redirect_to_another_host_is_success_with_a_warning() {
        let port = server("HTTP/1.1 302 Found\r\nlocation: http://example.com/\r\ncontent-length: 2\r\n\r\nhi").await;
        assert_eq!(
            http(port).await,
            Outcome::Warning("Probe terminated redirects, Response body: hi".into())
        );
    }

    #[test]
    fn redirects_keep_what_they_do_not_name() {
        let from = Get {
            https: false,
            host: "10.0.0.1".into(),
            port: 8080,
            path: "/a".into(),
            headers: vec![],
        };
        let to = |location: &str| {
            let answer = Answer {
                status: StatusCode::FOUND,
                location: Some(location.into()),
                body: Bytes::new(),
            };
            redirect(&from, &answer).map(|get| get.url())
        };
        assert_eq!(to("/b?c").as_deref(), Some("http://10.0.0.1:8080/b?c"));
        assert_eq!(to("https://10.0.0.1/x").as_deref(), Some("https://10.0.0.1:443/x"));
    }
}
