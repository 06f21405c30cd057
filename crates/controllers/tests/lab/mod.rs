//! A cluster in a test: the API server in process, the controllers, and a kubelet of a few lines. Time is tokio's, paused:
//! five minutes of waiting take none, and timestamps move with it.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apimachinery::clock::Clock;
use apimachinery::pace::Pace;
use apiserver::{BoxedStream, Connector, Target};
use controllers::Controllers;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::{Request, Response};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Long enough for anything in these tests; in paused time it passes only when nothing else can happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3600);

/// Wall time that moves with tokio's.
#[derive(Clone, Copy, Debug)]
struct TokioClock(Timestamp, Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.0 + self.1.elapsed()
    }
}

/// The metrics APIs: CPU of every ready pod, and whatever else a test puts here.
pub(crate) struct Metrics {
    clock: Arc<dyn Clock>,
    /// CPU of each pod in thousandths; negative: there are no metrics at all.
    pub(crate) cpu: AtomicI64,
    /// Since when a pod is ready.
    ready: Mutex<BTreeMap<String, Timestamp>>,
    /// Answers of aggregated APIs by path: they do not reach the server.
    pub(crate) other: Mutex<BTreeMap<String, Value>>,
}

impl Metrics {
    /// What the server gets through the connector. A pod has a sample from its first second on, of up to fifteen.
    fn answer(&self, path: &str) -> Value {
        if path == "/apis/metrics.k8s.io/v1beta1" {
            let pods = json!({"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics",
                "verbs": ["get", "list"]});
            return json!({"kind": "APIResourceList", "groupVersion": "metrics.k8s.io/v1beta1", "resources": [pods]});
        }
        let (now, cpu) = (self.clock.now(), self.cpu.load(Ordering::Relaxed));
        let items: Vec<Value> = self
            .ready
            .lock()
            .unwrap()
            .iter()
            .filter_map(|(name, since)| {
                let age = now.duration_since(*since).as_secs();
                (age >= 1 && cpu >= 0).then(|| {
                    json!({
                        "metadata": {"name": name, "namespace": "default"},
                        "timestamp": apimachinery::time::format(now),
                        "window": format!("{}s", age.min(15)),
                        "containers": [{"name": "web", "usage": {"cpu": format!("{}n", cpu * 1_000_000), "memory": "1Mi"}}],
                    })
                })
            })
            .collect();
        json!({"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items})
    }

    /// One request of HTTP/1.1 and its answer, by hand.
    async fn serve(&self, stream: DuplexStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            if stream.read_line(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let target = request.split(' ').nth(1).unwrap_or_default();
        let body = self.answer(target.split('?').next().unwrap_or_default()).to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length";
        stream
            .write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes())
            .await
    }
}

impl Connector for Handle {
    fn connect(&self, target: Target) -> BoxFuture<'static, io::Result<BoxedStream>> {
        let metrics = self.0.clone();
        async move {
            match target {
                Target::Local { group, .. } if group == "metrics.k8s.io" => {
                    let (ours, theirs) = tokio::io::duplex(64 * 1024);
                    tokio::spawn(async move { metrics.serve(ours).await });
                    Ok(Box::new(theirs) as BoxedStream)
                }
                other => Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("no route to {other:?}"),
                )),
            }
        }
        .boxed()
    }
}

/// The server's way to the metrics.
struct Handle(Arc<Metrics>);

pub(crate) struct Lab {
    pub(crate) client: Client,
    pub(crate) server: apiserver::Server,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) kubelet: Arc<Kubelet>,
    pub(crate) metrics: Arc<Metrics>,
    pace: Pace,
    shutdown: CancellationToken,
    controllers: Option<Controllers>,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::at(Pace::REAL).await
    }

    pub(crate) async fn at(pace: Pace) -> Self {
        let start = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(TokioClock(start, Instant::now()));
        let mut config = apiserver::Config::new(apiserver::Storage::Memory);
        config.clock = clock.clone();
        let metrics = Arc::new(Metrics {
            clock: clock.clone(),
            cpu: AtomicI64::new(-1),
            ready: Mutex::default(),
            other: Mutex::default(),
        });
        config.connector = Arc::new(Handle(metrics.clone()));
        let server = apiserver::Server::open(config).await.unwrap();
        let client = server.client();
        let kubelet = Arc::new(Kubelet::new(client.clone(), metrics.clone()));
        tokio::spawn(kubelet.clone().run());
        let shutdown = CancellationToken::new();
        let mut lab = Self {
            client,
            server,
            clock,
            kubelet,
            metrics,
            pace,
            shutdown,
            controllers: None,
        };
        lab.start_controllers();
        // Pods are refused without it.
        lab.until("default", |_: &ServiceAccount| true).await;
        lab
    }

    pub(crate) fn start_controllers(&mut self) {
        let (server, metrics) = (self.server.clone(), self.metrics.clone());
        self.shutdown = CancellationToken::new();
        self.controllers = Some(controllers::start(controllers::Config {
            client_for: Arc::new(move |name| client_as(&server, &metrics, name)),
            pace: self.pace,
            clock: self.clock.clone(),
            ca_pem: "-----BEGIN CERTIFICATE-----".to_owned(),
            shutdown: self.shutdown.clone(),
        }));
    }

    /// Ends the controllers, as a crash of theirs would.
    pub(crate) async fn stop_controllers(&mut self) {
        self.shutdown.cancel();
        if let Some(controllers) = self.controllers.take() {
            controllers.join().await;
        }
    }

    pub(crate) fn next_moves(&self) -> Vec<controllers::NextMove> {
        self.controllers.as_ref().unwrap().next_moves()
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) async fn merge<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap()
    }

    pub(crate) async fn list<K>(&self) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api().list(&ListParams::default()).await.unwrap().items
    }

    /// Waits until an object of this name satisfies `condition`; panics with the last state if it never does.
    pub(crate) async fn until<K>(&self, name: &str, condition: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned
            + Send
            + 'static,
    {
        until_in(&self.api(), name, condition).await
    }

    /// Waits until the list of `K` satisfies `condition`.
    pub(crate) async fn until_all<K>(&self, condition: impl Fn(&[K]) -> bool) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned
            + Send
            + 'static,
    {
        until_all_in(&self.api(), condition).await
    }

    /// Waits until `deployment` is complete: all replicas updated and available, and the controller has seen the spec.
    pub(crate) async fn until_complete(&self, name: &str) -> Deployment {
        self.until(name, |deployment: &Deployment| {
            let status = deployment.status.clone().unwrap_or_default();
            let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
            let progressing = status
                .conditions
                .iter()
                .flatten()
                .find(|condition| condition.type_ == "Progressing");
            status.observed_generation >= deployment.metadata.generation
                && status.replicas.or(Some(0)) == wanted
                && status.updated_replicas.or(Some(0)) == wanted
                && status.available_replicas.or(Some(0)) == wanted
                && progressing.is_none_or(|condition| condition.reason.as_deref() == Some("NewReplicaSetAvailable"))
        })
        .await
    }

    /// Events about `name`, in order, as `Type Reason count: message`.
    pub(crate) async fn events(&self, kind: &str, name: &str) -> Vec<String> {
        // Events are written behind the back of whoever records them.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut events = self.list::<Event>().await;
        events.retain(|event| {
            event.involved_object.kind.as_deref() == Some(kind) && event.involved_object.name.as_deref() == Some(name)
        });
        events.sort_by_key(|event| event.metadata.name.clone());
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        events
            .iter()
            .map(|event| {
                let count = event.count.unwrap_or_default();
                format!(
                    "{} {} {count}: {}",
                    text(&event.type_),
                    text(&event.reason),
                    text(&event.message)
                )
            })
            .collect()
    }

    pub(crate) async fn replica_sets(&self) -> Vec<ReplicaSet> {
        let mut sets = self.list::<ReplicaSet>().await;
        sets.sort_by_key(|set| revision(&set.metadata.annotations));
        sets
    }
}

pub(crate) fn revision(annotations: &Option<BTreeMap<String, String>>) -> i64 {
    let annotation = annotations
        .as_ref()
        .and_then(|all| all.get("deployment.kubernetes.io/revision"));
    annotation
        .and_then(|revision| revision.parse().ok())
        .unwrap_or_default()
}

pub(crate) async fn until_in<K>(api: &Api<K>, name: &str, condition: impl Fn(&K) -> bool) -> K
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api.clone(), config));
    let mut last = None;
    let found = tokio::time::timeout(PATIENCE, async {
        while let Some(event) = events.next().await {
            if let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = event {
                if condition(&object) {
                    return Some(object);
                }
                last = Some(object);
            }
        }
        None
    });
    match found.await {
        Ok(Some(object)) => object,
        _ => panic!(
            "`{name}` never got there; last seen: {}",
            serde_json::to_string_pretty(&last).unwrap()
        ),
    }
}

pub(crate) async fn until_all_in<K>(api: &Api<K>, condition: impl Fn(&[K]) -> bool) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api.clone(), watcher::Config::default()));
    let mut objects = BTreeMap::new();
    let (mut listed, mut last) = (false, Vec::new());
    let found = tokio::time::timeout(PATIENCE, async {
        while let Some(event) = events.next().await {
            let name = |object: &K| (object.meta().namespace.clone(), object.meta().name.clone());
            match event {
                Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                    objects.insert(name(&object), object);
                }
                Ok(watcher::Event::Delete(object)) => {
                    objects.remove(&name(&object));
                }
                Ok(watcher::Event::InitDone) => listed = true,
                _ => {}
            }
            last = objects.values().cloned().collect();
            if listed && condition(&last) {
                return true;
            }
        }
        false
    });
    if !matches!(found.await, Ok(true)) {
        panic!(
            "the list never got there; last seen: {}",
            serde_json::to_string_pretty(&last).unwrap()
        );
    }
    last
}

/// A client under a controller's identity; what a test answers itself never reaches the server.
fn client_as(server: &apiserver::Server, metrics: &Arc<Metrics>, name: &str) -> Client {
    let user = match name {
        controllers::INFORMERS => "system:kube-controller-manager".to_owned(),
        controller => format!("system:serviceaccount:kube-system:{controller}"),
    };
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    let inner = server.client_as(&user, if name == controllers::INFORMERS { &[] } else { &groups });
    let metrics = metrics.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, metrics) = (inner.clone(), metrics.clone());
        async move {
            let path = request
                .uri()
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default();
            let answer = metrics
                .other
                .lock()
                .unwrap()
                .get(&path)
                .map(|answer| answer.to_string().into_bytes());
            match answer {
                Some(answer) => Ok::<_, kube::Error>(Response::new(Body::from(answer))),
                None => client.send(request).await,
            }
        }
    });
    Client::new(service, "default")
}

/// Runs pods without running anything: it says they are ready, and lets go of deleted ones.
pub(crate) struct Kubelet {
    client: Client,
    metrics: Arc<Metrics>,
    /// Pods whose image contains one of these never become ready.
    unready: Mutex<Vec<String>>,
    /// Pods whose image contains one of these end at once, with this exit code.
    ends: Mutex<Vec<(String, i32)>>,
    paused: AtomicBool,
}

impl Kubelet {
    fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            metrics,
            unready: Mutex::default(),
            ends: Mutex::default(),
            paused: false.into(),
        }
    }

    /// Pods of this image stay unready.
    pub(crate) fn never_ready(&self, image: &str) {
        self.unready.lock().unwrap().push(image.to_owned());
    }

    /// Pods of this image end as soon as they are seen.
    pub(crate) fn ends_with(&self, image: &str, code: i32) {
        self.ends.lock().unwrap().push((image.to_owned(), code));
    }

    /// The containers of a pod have ended.
    pub(crate) async fn end(&self, name: &str, code: i32) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        let status = json!({"status": {
            "phase": if code == 0 { "Succeeded" } else { "Failed" },
            "startTime": apimachinery::time::format(self.metrics.clock.now()),
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code}}}],
        }});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    /// From now on nothing is done for anybody.
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    async fn run(self: Arc<Self>) {
        let api: Api<Pod> = Api::all(self.client.clone());
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        while let Some(event) = events.next().await {
            if let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event
                && !self.paused.load(Ordering::Relaxed)
            {
                self.sync(&pod).await;
            }
        }
    }

    async fn sync(&self, pod: &Pod) {
        let (name, namespace) = (
            pod.metadata.name.as_deref().unwrap(),
            pod.metadata.namespace.as_deref().unwrap(),
        );
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        if pod.metadata.deletion_timestamp.is_some() {
            self.metrics.ready.lock().unwrap().remove(name);
            let _ = api
                .delete(
                    name,
                    &DeleteParams {
                        grace_period_seconds: Some(0),
                        ..Default::default()
                    },
                )
                .await;
            return;
        }
        let image = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.containers[0].image.clone())
            .unwrap_or_default();
        let stays_unready = self
            .unready
            .lock()
            .unwrap()
            .iter()
            .any(|unready| image.contains(unready));
        let is_new = pod
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref())
            .is_none();
        let end = self
            .ends
            .lock()
            .unwrap()
            .iter()
            .find(|(ends, _)| image.contains(ends))
            .map(|(_, code)| *code);
        if let Some(code) = end {
            if is_new {
                self.end(name, code).await;
            }
            return;
        }
        if is_new && !stays_unready {
            self.set_ready(namespace, name, true).await;
        }
    }

    pub(crate) async fn set_ready(&self, namespace: &str, name: &str, ready: bool) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let Ok(pod) = api.get(name).await else { return };
        let started = pod.status.as_ref().and_then(|status| status.start_time.clone());
        let created = pod.metadata.creation_timestamp.clone();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let now = self.metrics.clock.now();
        if ready {
            self.metrics.ready.lock().unwrap().insert(name.to_owned(), now);
        } else {
            self.metrics.ready.lock().unwrap().remove(name);
        }
        let now = apimachinery::time::format(now);
        let octet = name
            .bytes()
            .fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte))
            % 250
            + 2;
        let status = json!({"status": {
            "phase": "Running",
            "startTime": started.or(created),
            "podIP": format!("10.244.0.{octet}"),
            "podIPs": [{"ip": format!("10.244.0.{octet}")}],
            "hostIP": node.map(|_| "10.0.0.1"),
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": now}],
        }});
        let _ = api
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await;
    }
}

/// A Deployment `web` of one container with image `image`.
pub(crate) fn deployment(replicas: i32, image: &str, more: Value) -> Value {
    let mut deployment = json!({
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "web", "image": image, "resources": {"requests": {"cpu": "100m"}}}]},
            },
        },
    });
    if let Value::Object(more) = more {
        deployment["spec"].as_object_mut().unwrap().extend(more);
    }
    deployment
}
