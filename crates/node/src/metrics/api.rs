//! `metrics.k8s.io/v1beta1` over HTTP: `nodes` and `pods`, get and list.
//!
//! Source of the shapes: k8s.io/metrics `pkg/apis/metrics/v1beta1/types.go`, 1.36; of the rules (a pod is reported when
//! all its containers are, its time and window are those of the earliest): metrics-server `pkg/api`, 0.8.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use apimachinery::gvk::GroupResource;
use apimachinery::labels::Selector;
use apimachinery::quantity::{Format, Quantity};
use apimachinery::status::Status;
use apimachinery::time;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::window::Rate;
use super::{Metrics, Running};

const GROUP: &str = "metrics.k8s.io";
const GROUP_VERSION: &str = "metrics.k8s.io/v1beta1";

impl Metrics {
    /// Serves the API on one connection, until the peer closes it.
    pub(crate) async fn serve<S>(self: Arc<Self>, io: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = self.handle(
                request.method(),
                request.uri().path(),
                request.uri().query().unwrap_or_default(),
            );
            async move { Ok::<_, Infallible>(respond(answer)) }
        });
        http1::Builder::new()
            .serve_connection(TokioIo::new(io), service)
            .await
            .map_err(io::Error::other)
    }

    fn handle(&self, method: &Method, path: &str, query: &str) -> Result<Value, Status> {
        let path: Vec<&str> = path.trim_matches('/').split('/').collect();
        let ["apis", GROUP, rest @ ..] = path.as_slice() else {
            return Err(Status::path_not_found());
        };
        if method != Method::GET {
            let resource = rest.last().copied().unwrap_or_default();
            return Err(Status::method_not_supported(
                &resource_named(resource),
                &method.as_str().to_lowercase(),
            ));
        }
        match rest {
            [] => Ok(group()),
            ["v1beta1"] => Ok(resources()),
            ["v1beta1", "nodes"] => {
                let items = if selector(query)?.is_everything() {
                    self.node_metrics().into_iter().collect()
                } else {
                    Vec::new()
                };
                Ok(list("NodeMetricsList", items))
            }
            ["v1beta1", "nodes", name] => {
                let found = self.node_metrics().filter(|_| *name == self.node);
                found
                    .map(|item| with_type("NodeMetrics", item))
                    .ok_or_else(|| Status::not_found(&resource_named("nodemetrics"), name))
            }
            ["v1beta1", "pods"] => Ok(list("PodMetricsList", self.pod_metrics(None, None, &selector(query)?))),
            ["v1beta1", "namespaces", namespace, "pods"] => Ok(list(
                "PodMetricsList",
                self.pod_metrics(Some(namespace), None, &selector(query)?),
            )),
            ["v1beta1", "namespaces", namespace, "pods", name] => {
                let found = self
                    .pod_metrics(Some(namespace), Some(name), &Selector::everything())
                    .pop();
                let missing = || {
                    let full = format!("{namespace}/{name}");
                    if self.containers.pod_exists(namespace, name) {
                        Status::not_found(&resource_named("podmetrics"), &full)
                    } else {
                        Status::not_found(&GroupResource::new("", "pods"), &full)
                    }
                };
                found.map(|item| with_type("PodMetrics", item)).ok_or_else(missing)
            }
            _ => Err(Status::path_not_found()),
        }
    }

    fn node_metrics(&self) -> Option<Value> {
        let rate = self.machine.lock().unwrap_or_else(PoisonError::into_inner).rate()?;
        Some(json!({
            "metadata": { "name": self.node, "creationTimestamp": time::format(self.clock.now()) },
            "timestamp": time::format(rate.at),
            "window": window(rate.window),
            "usage": usage(&rate),
        }))
    }

    fn pod_metrics(&self, namespace: Option<&str>, name: Option<&str>, selector: &Selector) -> Vec<Value> {
        let mut pods: BTreeMap<(String, String), Vec<Running>> = BTreeMap::new();
        for container in self.containers.running() {
            let wanted = namespace.is_none_or(|wanted| wanted == container.namespace)
                && name.is_none_or(|wanted| wanted == container.pod)
                && selector.matches_with(|key| container.labels.get(key).map(String::as_str));
            if wanted {
                pods.entry((container.namespace.clone(), container.pod.clone()))
                    .or_default()
                    .push(container);
            }
        }
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let rate_of = |container: &Running| windows.get(&container.id).and_then(super::Window::rate);
        let created = time::format(self.clock.now());
        pods.into_iter()
            .filter_map(|((namespace, name), containers)| {
                let rates: Option<Vec<Rate>> = containers.iter().map(rate_of).collect();
                let rates = rates?;
                let earliest = rates.iter().min_by_key(|rate| rate.at)?;
                let each: Vec<Value> = containers
                    .iter()
                    .zip(&rates)
                    .map(|(container, rate)| json!({ "name": container.id.name, "usage": usage(rate) }))
                    .collect();
                let mut metadata = Map::from_iter([
                    ("name".to_owned(), json!(name)),
                    ("namespace".to_owned(), json!(namespace)),
                    ("creationTimestamp".to_owned(), json!(created)),
                ]);
                let labels = &containers.first()?.labels;
                if !labels.is_empty() {
                    metadata.insert("labels".to_owned(), json!(**labels));
                }
                Some(json!({
                    "metadata": metadata,
                    "timestamp": time::format(earliest.at),
                    "window": window(earliest.window),
                    "containers": each,
                }))
            })
            .collect()
    }
}

fn respond(answer: Result<Value, Status>) -> Response<Full<Bytes>> {
    let (code, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(status) => (
            StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            status.to_value(),
        ),
    };
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

fn resource_named(resource: &str) -> GroupResource {
    GroupResource::new(GROUP, resource)
}

fn selector(query: &str) -> Result<Selector, Status> {
    let text = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "labelSelector");
    let Some((_, text)) = text else {
        return Ok(Selector::everything());
    };
    Selector::parse(&text).map_err(|error| Status::bad_request(error.to_string()))
}

fn group() -> Value {
    let version = json!({ "groupVersion": GROUP_VERSION, "version": "v1beta1" });
    json!({ "kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version })
}

fn resources() -> Value {
    let resource = |name: &str, kind: &str, namespaced: bool| json!({ "name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"] });
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": GROUP_VERSION,
        "resources": [resource("nodes", "NodeMetrics", false), resource("pods", "PodMetrics", true)],
    })
}

fn list(kind: &str, items: Vec<Value>) -> Value {
    json!({ "kind": kind, "apiVersion": GROUP_VERSION, "metadata": {}, "items": items })
}

fn with_type(kind: &str, item: Value) -> Value {
    let mut object = Map::from_iter([
        ("kind".to_owned(), json!(kind)),
        ("apiVersion".to_owned(), json!(GROUP_VERSION)),
    ]);
    if let Value::Object(fields) = item {
        object.extend(fields);
    }
    Value::Object(object)
}

fn usage(rate: &Rate) -> Value {
    let cpu = Quantity::from_nanos(i128::from(rate.nanocores), Format::DecimalSi);
    let memory = Quantity::from_value(i64::try_from(rate.memory_bytes).unwrap_or(i64::MAX), Format::BinarySi);
    json!({ "cpu": cpu.to_string(), "memory": memory.to_string() })
}

/// As Go prints a duration of whole milliseconds: `15.123s`.
fn window(length: Duration) -> String {
    let seconds = length.as_millis() as f64 / 1000.0;
    format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use apimachinery::clock::ManualClock;
    use apimachinery::pace::Pace;
    use jiff::{SignedDuration, Timestamp};
    use tokio::sync::watch;

    use super::*;
    use crate::metrics::Containers;
    use crate::runtime::{ContainerId, Usage};

    struct Pods(Vec<Running>, watch::Sender<u64>, Mutex<u64>);

    impl Containers for Pods {
        fn running(&self) -> Vec<Running> {
            self.0.clone()
        }

        fn changed(&self) -> watch::Receiver<u64> {
            self.1.subscribe()
        }

        fn usage(&self, _: &ContainerId) -> Option<Usage> {
            let cpu = *self.2.lock().unwrap();
            Some(Usage {
                cpu_nanoseconds: cpu,
                working_set_bytes: 12 << 20,
                ..Usage::default()
            })
        }

        fn pod_exists(&self, _: &str, name: &str) -> bool {
            name == "young"
        }
    }

    fn metrics() -> Metrics {
        let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let clock = ManualClock::at(start);
        let labels = Arc::new(BTreeMap::from([("app".to_owned(), "web".to_owned())]));
        let running = |container: &str| Running {
            namespace: "shop".into(),
            pod: "web-1".into(),
            labels: labels.clone(),
            id: ContainerId::new("u", container, 0),
            started_at: start,
        };
        let pods = Pods(
            vec![running("main"), running("side")],
            watch::Sender::new(0),
            Mutex::new(0),
        );
        let metrics = Metrics::new("k8slab", Arc::new(pods), Arc::new(clock.clone()), Pace::REAL);
        clock.advance(SignedDuration::from_secs(1));
        metrics.sample_what_is_due();
        metrics
    }

    fn get(metrics: &Metrics, path: &str, query: &str) -> Result<Value, Status> {
        metrics.handle(&Method::GET, path, query)
    }

    #[test]
    fn a_pod_shows_each_container_with_its_usage_and_the_pods_labels() {
        let metrics = metrics();
        let all = get(&metrics, "/apis/metrics.k8s.io/v1beta1/pods", "labelSelector=app%3Dweb").unwrap();
        let expected = json!({
            "metadata": { "name": "web-1", "namespace": "shop", "creationTimestamp": "2026-01-02T03:04:06Z", "labels": { "app": "web" } },
            "timestamp": "2026-01-02T03:04:06Z",
            "window": "1s",
            "containers": [
                { "name": "main", "usage": { "cpu": "0", "memory": "12Mi" } },
                { "name": "side", "usage": { "cpu": "0", "memory": "12Mi" } },
            ],
        });
        assert_eq!(all["items"], json!([expected]));
        let none = get(
            &metrics,
            "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods",
            "labelSelector=app%3Dother",
        )
        .unwrap();
        assert_eq!(none["items"], json!([]));
    }

    #[test]
    fn a_pod_that_has_no_metrics_and_one_that_does_not_exist_are_told_apart() {
        let metrics = metrics();
        let path = |name: &str| format!("/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods/{name}");
        let young = get(&metrics, &path("young"), "").unwrap_err();
        assert_eq!(
            (young.code, young.message.as_str()),
            (404, "podmetrics.metrics.k8s.io \"shop/young\" not found")
        );
        let ghost = get(&metrics, &path("ghost"), "").unwrap_err();
        assert_eq!(ghost.message, "pods \"shop/ghost\" not found");
    }

    #[test]
    fn discovery_names_both_resources_and_other_verbs_and_paths_are_refused() {
        let metrics = metrics();
        let found = get(&metrics, "/apis/metrics.k8s.io/v1beta1", "").unwrap();
        assert_eq!(found["resources"][1]["kind"], "PodMetrics");
        assert_eq!(get(&metrics, "/apis/metrics.k8s.io/v1", "").unwrap_err().code, 404);
        let post = metrics
            .handle(&Method::POST, "/apis/metrics.k8s.io/v1beta1/pods", "")
            .unwrap_err();
        assert_eq!(post.code, 405);
        assert_eq!(
            get(&metrics, "/apis/metrics.k8s.io/v1beta1/pods", "labelSelector=a%20in")
                .unwrap_err()
                .code,
            400
        );
    }

    #[test]
    fn a_window_is_written_as_go_writes_it() {
        assert_eq!(window(Duration::from_millis(15_123)), "15.123s");
        assert_eq!(window(Duration::from_secs(1)), "1s");
    }
}
