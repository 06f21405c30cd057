//! Lifecycle hooks: postStart and preStop.
//!
//! Source of the rules: `pkg/kubelet/lifecycle/handlers.go` of kubernetes 1.36. The request of a hook may be answered by
//! any status; only a request that gets no answer has failed.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use super::http_get::{Error as GetError, Get};
use crate::dial::Dial;
use crate::runtime::session::{self, RunError};
use crate::runtime::{ContainerId, Runtime};

const OUTPUT_LIMIT: usize = 10 << 10;
const AGENT: &str = "kube-lifecycle/1.36";

/// What a hook needs of its surroundings.
pub(crate) struct Hook<'a> {
    pub(crate) runtime: &'a dyn Runtime,
    pub(crate) network: &'a dyn Dial,
    pub(crate) id: &'a ContainerId,
    pub(crate) container: &'a Container,
    pub(crate) pod_ip: IpAddr,
}

/// How a hook ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Fine,
    /// It asked for HTTPS and the container answered in HTTP (event `LifecycleHTTPFallback`).
    FellBackToHttp,
}

impl Hook<'_> {
    /// Runs a handler to its end, at most for `limit`.
    pub(crate) async fn run(&self, handler: &LifecycleHandler, limit: Duration) -> Result<Done, String> {
        if let Some(action) = &handler.exec {
            let command = action.command.clone().unwrap_or_default();
            return match session::run(self.runtime, self.id, &command, limit, OUTPUT_LIMIT).await {
                Ok(output) if output.code == 0 => Ok(Done::Fine),
                Ok(output) => Err(format!("command '{}' exited with {}", command.join(" "), output.code)),
                Err(error @ RunError::TimedOut) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            };
        }
        if let Some(action) = &handler.http_get {
            let get = Get::of(action, self.container, &self.pod_ip.to_string())?;
            return match tokio::time::timeout(limit, self.request(get)).await {
                Ok(done) => done,
                Err(_) => Err("the request was not answered in time".into()),
            };
        }
        if let Some(action) = &handler.sleep {
            let wanted = Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0));
            tokio::time::sleep(wanted.min(limit)).await;
            return Ok(Done::Fine);
        }
        Err("invalid handler: expected exec, httpGet or sleep".into())
    }

    async fn request(&self, mut get: Get) -> Result<Done, String> {
        match get.send(self.network, AGENT).await {
            Ok(_) => Ok(Done::Fine),
            Err(GetError::NotTls { .. }) => {
                get.https = false;
                get.send(self.network, AGENT)
                    .await
                    .map(|_| Done::FellBackToHttp)
                    .map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::dial::HostNetwork;
    use crate::runtime::fake::FakeRuntime;

    async fn run(handler: Value) -> Result<Done, String> {
        let runtime = FakeRuntime::new("/nowhere", Arc::new(apimachinery::clock::SystemClock));
        let container = Container {
            name: "c".into(),
            ..Default::default()
        };
        let id = ContainerId::new("u", "c", 0);
        let hook = Hook {
            runtime: &*runtime,
            network: &HostNetwork,
            id: &id,
            container: &container,
            pod_ip: [127, 0, 0, 1].into(),
        };
        hook.run(&serde_json::from_value(handler).unwrap(), Duration::from_secs(5))
            .await
    }

    async fn server() -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
        port
    }

    #[tokio::test]
    async fn any_status_is_an_answer() {
        assert_eq!(
            run(json!({"httpGet": {"port": server().await, "path": "/stop"}})).await,
            Ok(Done::Fine)
        );
    }

    #[tokio::test]
    async fn a_plain_server_asked_over_tls_is_asked_again_without() {
        let handler = json!({"httpGet": {"port": server().await, "scheme": "HTTPS"}});
        assert_eq!(run(handler).await, Ok(Done::FellBackToHttp));
    }

    #[tokio::test(start_paused = true)]
    async fn sleep_sleeps_but_not_past_the_grace_period() {
        let start = tokio::time::Instant::now();
        assert_eq!(run(json!({"sleep": {"seconds": 60}})).await, Ok(Done::Fine));
        assert_eq!(start.elapsed().as_secs(), 5);
    }
}
