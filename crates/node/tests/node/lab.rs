//! An API server, a node, and an image that is this binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::clock::SystemClock;
use apimachinery::pace::Pace;
use apiserver::Server;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt};
use node::image::{ImageConfig, ImageFile, Store};
use node::network::NetworkConfig;
use node::runtime::{LinuxConfig, LinuxRuntime, Runtime};
use node::{Config, Node};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub(crate) struct Lab {
    pub(crate) client: Client,
    pub(crate) node: Arc<Node>,
    pub(crate) server: Server,
    pub(crate) dir: PathBuf,
}

impl Lab {
    pub(crate) async fn open(name: &str) -> Self {
        let dir = home().join(name);
        let server = Server::in_memory().await;
        let client = server.client();
        // What controllers make in a cluster that has them.
        for (kind, namespace, object) in [
            ("Namespace", None, json!({"metadata": {"name": "kube-node-lease"}})),
            (
                "ServiceAccount",
                Some("default"),
                json!({"metadata": {"name": "default"}}),
            ),
            (
                "ConfigMap",
                Some("default"),
                json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "CA"}}),
            ),
        ] {
            let _ = make(&client, kind, namespace, object).await;
        }
        let store = Store::open(dir.join("images")).unwrap();
        let config = ImageConfig {
            entrypoint: vec!["/w".into(), "w".into()],
            ..Default::default()
        };
        let source = fs::read_link("/proc/self/exe").unwrap();
        let binary = ImageFile {
            source,
            path: "w".into(),
            mode: 0o755,
        };
        store.add(&config, &[binary], &["w:1"]).unwrap();
        let node = Self::node(&dir, &server).await;
        Self {
            client,
            node,
            server,
            dir,
        }
    }

    pub(crate) async fn node(dir: &Path, server: &Server) -> Arc<Node> {
        let clients = server.clone();
        let config = Config {
            name: "n".into(),
            dir: dir.to_owned(),
            registries: node::image::Registries::default(),
            images: dir.join("images"),
            cluster_id: cluster_id(),
            client_for: Arc::new(move |user: &str, groups: &[&str]| clients.client_as(user, groups)),
            api_server: "127.0.0.1:1".parse().unwrap(),
            service_cidr: ([10, 96, 0, 0].into(), 16),
            pod_cidr: ([10, 244, 0, 0].into(), 24),
            dns_ip: [10, 96, 0, 10].into(),
            cluster_domain: "cluster.local".into(),
            node_ip: [127, 0, 0, 1].into(),
            clock: Arc::new(SystemClock),
            pace: Pace::REAL,
            exe: fs::read_link("/proc/self/exe").unwrap(),
            allow_host_path: false,
        };
        Arc::new(
            Node::start(config)
                .await
                .unwrap_or_else(|error| panic!("starting the node: {error}: {:?}", std::error::Error::source(&error))),
        )
    }

    /// Ends every container and takes the state away.
    pub(crate) async fn close(self) {
        self.node.stop_pods().await;
        fs::remove_dir_all(&self.dir).unwrap();
        // Unless another case's state is still there.
        let _ = fs::remove_dir(home());
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create(&self, name: &str, spec: Value) -> Pod {
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        self.pods()
            .create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
            .await
            .unwrap()
    }

    /// A pod with one container of the test's image.
    pub(crate) async fn run(&self, name: &str, args: &[&str], more: Value) -> Pod {
        let mut container = json!({"name": "c", "image": "w:1", "args": args});
        for (key, value) in more.as_object().unwrap() {
            container[key] = value.clone();
        }
        self.create(
            name,
            json!({"automountServiceAccountToken": false, "containers": [container]}),
        )
        .await
    }

    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let wanted = |pod: Option<&Pod>| pod.is_some_and(&wanted);
        let waited = tokio::time::timeout(Duration::from_secs(30), await_condition(self.pods(), name, wanted)).await;
        match waited {
            Ok(pod) => pod.unwrap().unwrap(),
            Err(_) => panic!(
                "pod `{name}` did not get there: {:#?}",
                self.pods().get(name).await.unwrap().status
            ),
        }
    }

    pub(crate) async fn ready(&self, name: &str) -> Pod {
        self.until(name, is_ready).await
    }

    pub(crate) async fn delete(&self, name: &str) {
        let uid = self.pods().get(name).await.unwrap().uid().unwrap();
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
        let gone = kube::runtime::conditions::is_deleted(&uid);
        tokio::time::timeout(Duration::from_secs(40), await_condition(self.pods(), name, gone))
            .await
            .unwrap()
            .unwrap();
    }

    fn connect(&self, metrics: bool) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let node = self.node.clone();
        tokio::spawn(async move {
            if metrics {
                node.serve_metrics(theirs).await
            } else {
                node.serve_kubelet(theirs).await
            }
        });
        ours
    }

    /// The answer of the kubelet or the metrics API, head and body.
    pub(crate) async fn get(&self, metrics: bool, path: &str) -> String {
        let mut connection = self.connect(metrics);
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// What a pod's container has said so far; a container that ended has said everything.
    pub(crate) async fn log(&self, pod: &str) -> String {
        self.get(false, &format!("/containerLogs/default/{pod}/c")).await
    }

    /// Runs a command in a pod; its output, and the Status it ended with.
    pub(crate) async fn exec(&self, pod: &str, command: &[&str]) -> (String, String) {
        use futures::StreamExt;
        use tokio_tungstenite::tungstenite::Message;
        use tokio_tungstenite::tungstenite::client::IntoClientRequest;

        let words: Vec<_> = command.iter().map(|word| format!("command={word}")).collect();
        let url = format!("ws://x/exec/default/{pod}/c?output=1&error=1&{}", words.join("&"));
        let mut request = url.into_client_request().unwrap();
        let offered = http::HeaderValue::from_static("v5.channel.k8s.io");
        request.headers_mut().insert("sec-websocket-protocol", offered);
        let (mut socket, _) = tokio_tungstenite::client_async(request, self.connect(false))
            .await
            .unwrap();
        let (mut output, mut status) = (String::new(), String::new());
        while let Some(Ok(Message::Binary(frame))) = socket.next().await {
            let text = String::from_utf8_lossy(&frame[1..]).into_owned();
            if frame[0] == 3 {
                status = text
            } else {
                output.push_str(&text)
            }
        }
        (output, status)
    }

    /// The same once the kubelet, which may have just been started, knows the pod.
    pub(crate) async fn exec_when_known(&self, pod: &str, command: &[&str]) -> (String, String) {
        let known = async {
            while !self.log(pod).await.starts_with("HTTP/1.1 200") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), known).await.unwrap();
        self.exec(pod, command).await
    }

    /// Without grace.
    pub(crate) async fn delete_now(&self, name: &str) {
        let now = DeleteParams {
            grace_period_seconds: Some(1),
            ..Default::default()
        };
        let uid = self.pods().get(name).await.unwrap().uid().unwrap();
        self.pods().delete(name, &now).await.unwrap();
        let gone = kube::runtime::conditions::is_deleted(&uid);
        await_condition(self.pods(), name, gone).await.unwrap();
    }

    pub(crate) async fn make(&self, kind: &str, object: Value) {
        make(&self.client, kind, Some("default"), object).await.unwrap();
    }
}

/// Where the states of this process lie.
fn home() -> PathBuf {
    std::env::temp_dir().join(format!("k8slab-node-{}", std::process::id()))
}

/// Takes away what a case that failed has left running.
pub(crate) async fn clean_up() {
    let Ok(states) = fs::read_dir(home()) else { return };
    for state in states.flatten() {
        let config = LinuxConfig {
            dir: state.path(),
            cluster_id: cluster_id(),
            network: NetworkConfig::default(),
            exe: fs::read_link("/proc/self/exe").unwrap(),
        };
        let runtime = LinuxRuntime::open(config).await.unwrap();
        for pod in runtime.adopt().await.unwrap() {
            runtime.remove_sandbox(&pod.config.uid).await.unwrap();
        }
        let _ = runtime.remove_cluster_cgroup();
    }
    fs::remove_dir_all(home()).unwrap();
}

fn cluster_id() -> String {
    format!("node-test-{}", std::process::id())
}

async fn make(client: &Client, kind: &str, namespace: Option<&str>, object: Value) -> Result<(), kube::Error> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut object = object;
    object["apiVersion"] = json!("v1");
    object["kind"] = json!(kind);
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
        .await
        .map(drop)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(crate) fn container(pod: &Pod) -> k8s_openapi::api::core::v1::ContainerStatus {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.clone())
        .unwrap_or_default();
    statuses.into_iter().next().unwrap_or_default()
}
