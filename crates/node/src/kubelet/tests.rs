//! The kubelet against a real API server in process and a runtime in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use apimachinery::clock::SystemClock;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;

use super::*;
use crate::image::{Image, ImageConfig, ImageError, Logins, PullError, Pulled};
use crate::runtime::fake::FakeRuntime;
use crate::runtime::session::ExecOutput;
use crate::runtime::{AdoptedContainer, AdoptedState, Started};
use futures::future::BoxFuture;

const PATIENCE: Duration = Duration::from_secs(30);

/// Has every image whose name begins with `app`.
struct AppImages;

impl Images for AppImages {
    fn find(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        let config = ImageConfig {
            entrypoint: vec!["/app".into()],
            ..Default::default()
        };
        let image = Image {
            id: "sha256:1".into(),
            layers: vec![],
            config,
            size: 1,
            references: vec![],
            digests: vec![],
        };
        Ok(reference.starts_with("app").then_some(image))
    }

    fn list(&self) -> Vec<(Vec<String>, u64)> {
        vec![]
    }

    fn pull<'a>(&'a self, reference: &'a str, _: &'a [Logins]) -> BoxFuture<'a, Result<Pulled, PullError>> {
        Box::pin(async move { Err(PullError::new(reference, "there is no registry")) })
    }

    fn last_failure(&self, reference: &str) -> Option<String> {
        Some(PullError::new(reference, "there is no registry").to_string())
    }
}

struct Rig {
    client: Client,
    runtime: Arc<FakeRuntime>,
    kubelet: Arc<Kubelet>,
    events: mpsc::Receiver<Event>,
    tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let server = apiserver::Server::in_memory().await;
        let client = server.client();
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
        let accounts = Api::namespaced(client.clone(), "default");
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let api_server = json!({"metadata": {"name": "kubernetes"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}});
        let api_server: Service = serde_json::from_value(api_server).unwrap();
        // A server with bootstrap objects has it already.
        let _ = Api::namespaced(client.clone(), "default")
            .create(&PostParams::default(), &api_server)
            .await;
        let dir = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::new(dir.path(), Arc::new(SystemClock));
        let node = server.client_as("system:node:n", &["system:nodes"]);
        Self::with(client, node, runtime, dir, vec![])
    }

    fn with(
        client: Client,
        node: Client,
        runtime: Arc<FakeRuntime>,
        dir: tempfile::TempDir,
        adopted: Vec<AdoptedPod>,
    ) -> Self {
        let (recorder, events) = Recorder::channel();
        let services = Mirror::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(
            services
                .clone()
                .follow(Api::<Service>::all(client.clone()), watcher::Config::default(), |_| {}),
        );
        let kubelet = Kubelet::new(Context {
            node: "n".into(),
            node_ip: [127, 0, 0, 1].into(),
            objects: Objects::new(node.clone()),
            client: node,
            recorder,
            runtime: runtime.clone(),
            images: Arc::new(AppImages),
            network: Arc::new(crate::dial::HostNetwork),
            services,
            dns: ClusterDns {
                ip: [10, 96, 0, 10].into(),
                domain: "cluster.local".into(),
                host: parse_resolv_conf(""),
            },
            allocatable: Amounts::default(),
            clock: Arc::new(SystemClock),
            pace: Pace::REAL,
            volumes: "/volumes".into(),
            allow_host_path: false,
            running_changed: watch::Sender::new(0),
        });
        tasks.spawn(kubelet.clone().run(adopted));
        Self {
            client,
            runtime,
            kubelet,
            events,
            tasks,
            _dir: dir,
        }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create(&self, name: &str, spec: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": name}, "spec": spec});
        pod["spec"]["nodeName"] = json!("n");
        pod["spec"]["automountServiceAccountToken"] = json!(false);
        self.pods()
            .create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
            .await
            .unwrap()
    }

    /// Waits until the pod is as wanted, and says what it last was like when it never is.
    async fn until(&self, name: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let wanted = |pod: Option<&Pod>| pod.is_some_and(&wanted);
        match tokio::time::timeout(PATIENCE, await_condition(self.pods(), name, wanted)).await {
            Ok(pod) => pod.unwrap().unwrap(),
            Err(_) => panic!(
                "pod `{name}` did not get there: {:#?}",
                self.pods().get_opt(name).await.unwrap().map(|p| p.status)
            ),
        }
    }

    async fn ready(&self, name: &str) -> Pod {
        self.until(name, |pod| condition(pod, "Ready") == "True").await
    }

    /// Reasons and messages of all events so far, fieldPath first.
    fn events(&mut self) -> Vec<String> {
        let mut all = vec![];
        while let Ok(event) = self.events.try_recv() {
            all.push(format!(
                "{} {}: {}",
                event.about.field_path.unwrap_or_default(),
                event.reason,
                event.message
            ));
        }
        all
    }

    /// A connection to the kubelet's HTTP API.
    fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(http::serve(self.kubelet.clone(), theirs));
        ours
    }

    /// Status line, headers and body of a GET.
    async fn get(&self, path: &str) -> String {
        let mut connection = self.connect();
        let request = format!("GET {path} HTTP/1.1\r\nhost: kubelet\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn condition(pod: &Pod, name: &str) -> String {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    conditions
        .into_iter()
        .find(|condition| condition.type_ == name)
        .map(|condition| condition.status)
        .unwrap_or_default()
}

fn container(pod: &Pod) -> k8s_openapi::api::core::v1::ContainerStatus {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.clone())
        .unwrap_or_default();
    statuses.into_iter().next().unwrap_or_default()
}

fn waits_for(pod: &Pod) -> Option<String> {
    container(pod).state?.waiting?.reason
}

fn app() -> Value {
    json!({"containers": [{"name": "c", "image": "app:1"}]})
}

fn id(pod: &Pod, attempt: u32) -> ContainerId {
    ContainerId::new(pod.uid().unwrap(), "c", attempt)
}

#[tokio::test]
async fn a_pod_runs_is_ready_and_says_so() {
    let mut rig = Rig::new().await;
    let pod = rig.create("web", app()).await;
    let running = rig.ready("web").await;
    let status = running.status.clone().unwrap();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.0.2"));
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    let container = container(&running);
    assert_eq!(container.container_id, Some(format!("k8slab://{}", id(&pod, 0).hex())));
    assert_eq!(
        (container.image.as_str(), container.image_id.as_str()),
        ("app:1", "sha256:1")
    );
    assert_eq!(rig.runtime.calls(), ["sandbox web", "start c/0"]);
    assert_eq!(
        rig.events(),
        [
            "spec.containers{c} Pulled: Container image \"app:1\" already present on machine and can be accessed by the pod",
            "spec.containers{c} Created: Container created",
            "spec.containers{c} Started: Container started",
        ]
    );
    let config = rig.runtime.config(&id(&pod, 0)).unwrap();
    assert!(
        config.env.contains(&"KUBERNETES_SERVICE_HOST=10.96.0.1".to_owned()),
        "{:?}",
        config.env
    );
    assert_eq!(rig.runtime.sandbox_config(&pod.uid().unwrap()).unwrap().hostname, "web");
}

#[tokio::test]
async fn a_deleted_pod_is_stopped_cleaned_up_and_gone() {
    let mut rig = Rig::new().await;
    let pod = rig.create("web", app()).await;
    rig.ready("web").await;
    rig.pods().delete("web", &DeleteParams::default()).await.unwrap();
    let uid = pod.uid().unwrap();
    let gone = kube::runtime::conditions::is_deleted(&uid);
    tokio::time::timeout(PATIENCE, await_condition(rig.pods(), "web", gone))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        rig.runtime.calls(),
        ["sandbox web", "start c/0", "signal c/0 15", "remove-sandbox web"]
    );
    assert_eq!(
        rig.events().last().unwrap(),
        "spec.containers{c} Killing: Stopping container c"
    );
}

#[tokio::test]
async fn a_crash_is_restarted_with_its_history() {
    let rig = Rig::new().await;
    let pod = rig.create("web", app()).await;
    rig.ready("web").await;
    rig.runtime.exit_with_message(&id(&pod, 0), 3, "oops");
    rig.runtime.started("c", 1).await;
    let again = rig
        .until("web", |pod| {
            container(pod).restart_count == 1 && condition(pod, "Ready") == "True"
        })
        .await;
    let last = container(&again).last_state.unwrap().terminated.unwrap();
    assert_eq!(
        (last.exit_code, last.reason.as_deref(), last.message.as_deref()),
        (3, Some("Error"), Some("oops"))
    );
    rig.runtime.oom(&id(&pod, 1));
    let waiting = rig
        .until("web", |pod| waits_for(pod).as_deref() == Some("CrashLoopBackOff"))
        .await;
    let last = container(&waiting).last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("OOMKilled")));
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named() {
    let mut rig = Rig::new().await;
    let image =
        |name: &str, policy: &str| json!({"containers": [{"name": "c", "image": name, "imagePullPolicy": policy}]});
    rig.create("never", image("none:1", "Never")).await;
    let pod = rig
        .until("never", |pod| waits_for(pod).as_deref() == Some("ErrImageNeverPull"))
        .await;
    let message = "Container image \"none:1\" is not present with pull policy of Never";
    assert_eq!(
        container(&pod).state.unwrap().waiting.unwrap().message.as_deref(),
        Some(message)
    );
    let events = rig.events();
    assert!(
        events.contains(&format!("spec.containers{{c}} ErrImageNeverPull: {message}")),
        "{events:?}"
    );
    assert!(
        events.contains(&"spec.containers{c} Failed: Error: ErrImageNeverPull".to_owned()),
        "{events:?}"
    );
    rig.create("wrong", image("No:1", "IfNotPresent")).await;
    rig.create("absent", image("none:1", "IfNotPresent")).await;
    rig.until("absent", |pod| waits_for(pod).as_deref() == Some("ImagePullBackOff"))
        .await;
    assert_eq!(
        rig.pods().get("never").await.unwrap().status.unwrap().phase.as_deref(),
        Some("Pending")
    );
}

#[tokio::test]
async fn a_pod_waits_for_its_config_map_and_starts_as_soon_as_it_is_there() {
    let mut rig = Rig::new().await;
    let spec = json!({"containers": [{"name": "c", "image": "app:1",
        "env": [{"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "configMap": {"name": "settings"}}]});
    let pod = rig.create("web", spec).await;
    let event = tokio::time::timeout(PATIENCE, rig.events.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (event.reason, event.message.as_str()),
        (
            "FailedMount",
            "MountVolume.SetUp failed for volume \"v\" : configmap \"settings\" not found"
        )
    );
    let mut map = ConfigMap {
        data: Some(BTreeMap::from([("colour".into(), "red".into())])),
        ..Default::default()
    };
    map.metadata.name = Some("settings".into());
    let maps = Api::<ConfigMap>::namespaced(rig.client.clone(), "default");
    maps.create(&PostParams::default(), &map).await.unwrap();
    rig.ready("web").await;
    assert!(
        rig.runtime
            .config(&id(&pod, 0))
            .unwrap()
            .env
            .contains(&"COLOUR=red".to_owned())
    );
    let file = rig
        .runtime
        .pod_dir(&pod.uid().unwrap())
        .join("volumes/kubernetes.io~configmap/v/colour");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "red");
}

#[tokio::test]
async fn a_container_that_lacks_a_secret_starts_as_soon_as_it_is_there() {
    let rig = Rig::new().await;
    let spec = json!({"containers": [{"name": "c", "image": "app:1", "envFrom": [{"secretRef": {"name": "late"}}]}]});
    rig.create("web", spec).await;
    let pod = rig
        .until("web", |pod| {
            waits_for(pod).as_deref() == Some("CreateContainerConfigError")
        })
        .await;
    assert_eq!(
        container(&pod).state.unwrap().waiting.unwrap().message.as_deref(),
        Some("secret \"late\" not found")
    );
    let secret = json!({"metadata": {"name": "late"}, "stringData": {"A": "b"}});
    let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_value(secret).unwrap();
    Api::namespaced(rig.client.clone(), "default")
        .create(&PostParams::default(), &secret)
        .await
        .unwrap();
    rig.ready("web").await;
}

#[tokio::test]
async fn a_daemon_that_comes_back_adopts_what_runs() {
    let mut rig = Rig::new().await;
    let pod = rig.create("web", app()).await;
    rig.ready("web").await;
    let uid = pod.uid().unwrap();
    rig.tasks.shutdown().await;
    rig.kubelet.drain().await;
    assert_eq!(rig.runtime.running(), [id(&pod, 0)]);
    let adopted = AdoptedPod {
        config: rig.runtime.sandbox_config(&uid).unwrap(),
        ip: [10, 244, 0, 2].into(),
        alive: true,
        containers: vec![AdoptedContainer {
            config: rig.runtime.config(&id(&pod, 0)).unwrap(),
            state: AdoptedState::Running(Started {
                pid: 1,
                started_at: jiff::Timestamp::UNIX_EPOCH,
            }),
        }],
    };
    let calls = rig.runtime.calls().len();
    let Rig {
        client,
        runtime,
        _dir: dir,
        ..
    } = rig;
    let rig = Rig::with(client.clone(), client, runtime, dir, vec![adopted]);
    rig.runtime.exit(&id(&pod, 0), 1);
    rig.runtime.started("c", 1).await;
    assert_eq!(rig.runtime.calls()[calls..], ["start c/1"]);
    let again = rig.until("web", |pod| container(pod).restart_count == 1).await;
    assert_eq!(container(&again).last_state.unwrap().terminated.unwrap().exit_code, 1);
}

#[tokio::test]
async fn a_node_that_stops_ends_containers_and_keeps_objects() {
    let rig = Rig::new().await;
    let pod = rig.create("web", app()).await;
    rig.ready("web").await;
    rig.kubelet.stop_pods().await;
    assert!(rig.runtime.running().is_empty());
    let kept = rig.pods().get("web").await.unwrap();
    assert_eq!((kept.uid(), kept.metadata.deletion_timestamp), (pod.uid(), None));
    assert!(
        container(&rig.pods().get("web").await.unwrap())
            .state
            .unwrap()
            .terminated
            .is_some()
    );
}

#[tokio::test]
async fn a_readiness_command_decides_about_ready() {
    let mut rig = Rig::new().await;
    rig.runtime.on_exec(|_, command| {
        assert_eq!(command, ["check"]);
        ExecOutput {
            code: 0,
            output: vec![],
        }
    });
    let spec =
        json!({"containers": [{"name": "c", "image": "app:1", "readinessProbe": {"exec": {"command": ["check"]}}}]});
    rig.create("web", spec).await;
    rig.ready("web").await;
    assert!(rig.runtime.calls().contains(&"exec c/0 check".to_owned()));
    assert!(rig.events().iter().all(|event| !event.contains("Unhealthy")));
}

#[tokio::test]
async fn hooks_run_after_the_start_and_before_the_end() {
    let rig = Rig::new().await;
    rig.runtime.on_exec(|_, _| ExecOutput::default());
    let hook = |word: &str| json!({"exec": {"command": [word]}});
    let spec = json!({"containers": [{"name": "c", "image": "app:1",
        "lifecycle": {"postStart": hook("hello"), "preStop": hook("bye")}}]});
    rig.create("web", spec).await;
    rig.ready("web").await;
    rig.pods().delete("web", &DeleteParams::default()).await.unwrap();
    rig.runtime.called(|call| call.starts_with("remove-sandbox")).await;
    let calls = rig.runtime.calls();
    assert_eq!(
        calls[1..],
        [
            "start c/0",
            "exec c/0 hello",
            "exec c/0 bye",
            "signal c/0 15",
            "remove-sandbox web"
        ]
    );
}

#[tokio::test]
async fn logs_and_errors_are_served_as_upstreams_kubelet_serves_them() {
    let rig = Rig::new().await;
    let pod = rig.create("web", app()).await;
    rig.ready("web").await;
    let path = rig.runtime.log_path(&id(&pod, 0));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(
        &path,
        "2026-01-02T03:04:05Z stdout F hello\n2026-01-02T03:04:06Z stdout F world\n",
    )
    .unwrap();
    let log = rig.get("/containerLogs/default/web/c?tailLines=1").await;
    assert!(
        log.starts_with("HTTP/1.1 200 OK\r\n") && log.contains("content-type: text/plain") && log.contains("world\n"),
        "{log}"
    );
    assert!(!log.contains("hello"));
    let previous = rig.get("/containerLogs/default/web/c?previous=true").await;
    assert!(
        previous.starts_with("HTTP/1.1 400")
            && previous.ends_with("previous terminated container \"c\" in pod \"web\" not found")
    );
    assert!(
        rig.get("/containerLogs/default/web/x")
            .await
            .starts_with("HTTP/1.1 404")
    );
    assert!(rig.get("/healthz").await.ends_with("ok"));
    assert!(rig.get("/pods").await.contains("\"kind\":\"PodList\""));
    let metrics = rig.get("/metrics/resource").await;
    assert!(
        metrics.contains("container_cpu_usage_seconds_total{container=\"c\",namespace=\"default\",pod=\"web\"} 0"),
        "{metrics}"
    );
    assert!(
        rig.get("/stats/summary")
            .await
            .contains("\"podRef\":{\"name\":\"web\",\"namespace\":\"default\"")
    );
    assert!(rig.get("/nothing").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_command_is_executed_over_a_web_socket() {
    use futures::StreamExt;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    let rig = Rig::new().await;
    rig.runtime.on_exec(|_, _| ExecOutput {
        code: 3,
        output: b"out".to_vec(),
    });
    rig.create("web", app()).await;
    rig.ready("web").await;
    let mut request = "ws://kubelet/exec/default/web/c?command=ls&output=1&error=1"
        .into_client_request()
        .unwrap();
    let offered = ::http::HeaderValue::from_static("v5.channel.k8s.io");
    request.headers_mut().insert("sec-websocket-protocol", offered);
    let (mut socket, response) = tokio_tungstenite::client_async(request, rig.connect()).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    let mut frames = vec![];
    while let Some(Ok(Message::Binary(frame))) = socket.next().await {
        frames.push(frame);
    }
    assert_eq!(frames[0][..], [1]);
    assert_eq!(frames[1][..], *b"\x01out");
    assert!(frames[2].starts_with(b"\x03{") && String::from_utf8_lossy(&frames[2]).contains("exit status 3"));
    let refused = rig.get("/exec/default/web/none?command=ls&output=1").await;
    assert!(refused.starts_with("HTTP/1.1 404") && refused.ends_with("container not found (\"none\")"));
}
