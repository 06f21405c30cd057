//! A connection to a port of a pod through the API server, and one HTTP request over it.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Portforwarder};
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use tokio::io::DuplexStream;

use super::error::Error;
use crate::scenario::model::{Endpoint, TargetKind};

/// More than any answer that is shown or judged.
const BODY_LIMIT: usize = 1024 * 1024;

/// An open connection; dropping it closes it.
pub struct Connection {
    /// Bytes to and from the pod.
    pub stream: DuplexStream,
    forwarder: Portforwarder,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Takes the connection apart; the forwarder must live as long as the stream is used.
    pub fn into_parts(self) -> (DuplexStream, Portforwarder) {
        (self.stream, self.forwarder)
    }
}

/// Connects to a port inside a pod.
pub async fn connect(client: &Client, namespace: &str, pod: &str, port: u16) -> Result<Connection, Error> {
    let doing = format!("connecting to port {port} of pod `{namespace}/{pod}`");
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut forwarder = pods
        .portforward(pod, &[port])
        .await
        .map_err(|error| Error::of(&doing, error))?;
    let stream = forwarder.take_stream(port);
    let stream = stream.ok_or_else(|| Error::Pod {
        doing,
        why: "the port was not offered".to_owned(),
    })?;
    Ok(Connection { stream, forwarder })
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body, as text.
    pub body: String,
}

/// One GET to a pod.
pub async fn get(client: &Client, namespace: &str, pod: &str, port: u16, path: &str) -> Result<Answer, Error> {
    let doing = format!("GET {path} of pod `{namespace}/{pod}`, port {port}");
    let fail = |why: String| Error::Pod {
        doing: doing.clone(),
        why,
    };
    let Connection { stream, mut forwarder } = connect(client, namespace, pod, port).await?;
    let refused = forwarder.take_error(port);
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| fail(error.to_string()))?;
        let request = hyper::Request::get(path)
            .header("host", "localhost")
            .header("user-agent", "k8slab");
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| fail(error.to_string()))?;
        let answer = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| fail(error.to_string()))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
            let body = body.map_err(|error| fail(error.to_string()))?.to_bytes();
            Ok(Answer {
                status,
                body: String::from_utf8_lossy(&body).into_owned(),
            })
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection may end together with the answer: the answer goes first.
            _ = connection => answer.await,
        }
    };
    let answer = exchange.await;
    let said = match (&answer, refused) {
        // The kubelet's own words are better than "connection closed".
        (Err(_), Some(refused)) => tokio::time::timeout(std::time::Duration::from_millis(200), refused)
            .await
            .ok()
            .flatten(),
        _ => None,
    };
    forwarder.abort();
    match said {
        Some(why) => Err(fail(why)),
        None => answer,
    }
}

/// Whether a pod takes requests.
pub fn is_ready(pod: &Value) -> bool {
    pod.pointer("/metadata/deletionTimestamp").is_none()
        && super::ready::condition(pod, "Ready").is_some_and(|at| at.status == "True")
}

/// A ready pod behind an endpoint, and the port to use there.
pub async fn pod_behind(client: &Client, namespace: &str, endpoint: &Endpoint) -> Result<(String, u16), Error> {
    let doing = format!("looking for a pod behind `{}`", endpoint.name);
    let fail = |why: String| Error::Pod {
        doing: doing.clone(),
        why,
    };
    let of = |error| Error::of(&doing, error);
    let name = endpoint.target_name.as_str();
    let (selector, service_port) = match endpoint.target {
        TargetKind::Pod => return Ok((name.to_owned(), endpoint.port)),
        TargetKind::Deployment => {
            let api: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(client.clone(), namespace);
            let selector = api
                .get(name)
                .await
                .map_err(of)?
                .spec
                .and_then(|spec| spec.selector.match_labels);
            (selector.unwrap_or_default(), None)
        }
        TargetKind::Service => {
            let api: Api<k8s_openapi::api::core::v1::Service> = Api::namespaced(client.clone(), namespace);
            let spec = api.get(name).await.map_err(of)?.spec.unwrap_or_default();
            let port = spec
                .ports
                .unwrap_or_default()
                .into_iter()
                .find(|port| port.port == i32::from(endpoint.port));
            let port = port.ok_or_else(|| fail(format!("the Service `{name}` has no port {}", endpoint.port)))?;
            (spec.selector.unwrap_or_default(), Some(port))
        }
    };
    let selector: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = pods
        .list(&ListParams::default().labels(&selector.join(",")))
        .await
        .map_err(of)?;
    let mut ready: Vec<(String, Value)> = list
        .items
        .iter()
        .map(|pod| (pod.name_any(), serde_json::to_value(pod).unwrap_or_default()))
        .filter(|(_, pod)| is_ready(pod))
        .collect();
    ready.sort_by(|a, b| a.0.cmp(&b.0));
    let Some((pod, value)) = ready.into_iter().next() else {
        return Err(fail(format!("no ready pod among {}", list.items.len())));
    };
    let port = match service_port.map(|port| (port.port, port.target_port)) {
        None => endpoint.port,
        Some((port, target)) => target_port(&value, port, target)
            .ok_or_else(|| fail(format!("the pod `{pod}` does not have the Service's target port")))?,
    };
    Ok((pod, port))
}

fn target_port(
    pod: &Value,
    port: i32,
    target: Option<k8s_openapi::apimachinery::pkg::util::intstr::IntOrString>,
) -> Option<u16> {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    match target {
        None => u16::try_from(port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(number).ok(),
        Some(IntOrString::String(name)) => container_ports(pod)
            .find(|(known, _)| *known == name)
            .map(|(_, port)| port),
    }
}

/// The ports that a pod's containers declare: name and number.
pub fn container_ports(pod: &Value) -> impl Iterator<Item = (&str, u16)> {
    let containers = pod
        .pointer("/spec/containers")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let ports = containers
        .iter()
        .filter_map(|container| container["ports"].as_array())
        .flatten();
    ports.filter_map(|port| {
        let number = u16::try_from(port["containerPort"].as_i64()?).ok()?;
        Some((port["name"].as_str().unwrap_or_default(), number))
    })
}
