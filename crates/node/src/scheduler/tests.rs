//! The loop against a real API server in process.

use std::time::Duration;

use apimachinery::clock::SystemClock;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

struct Rig {
    client: Client,
    events: mpsc::Receiver<Event>,
    _tasks: JoinSet<()>,
}

impl Rig {
    async fn new() -> Self {
        let server = apiserver::Server::in_memory().await;
        let client = server.client();
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
        Api::namespaced(client.clone(), "default")
            .create(&PostParams::default(), &account)
            .await
            .unwrap();
        let (recorder, events) = Recorder::channel();
        let mut tasks = JoinSet::new();
        let identity = server.client_as("system:kube-scheduler", &[]);
        let storage = Storage::default();
        storage.follow(&identity, &mut tasks);
        tasks.spawn(Scheduler::new(identity, recorder, Arc::new(SystemClock), storage).run());
        Self {
            client,
            events,
            _tasks: tasks,
        }
    }

    async fn node(&self, name: &str, cpu: &str) {
        let nodes = Api::<Node>::all(self.client.clone());
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let patch = json!({"spec": {"taints": null}});
        nodes
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
        let amounts = json!({"cpu": cpu, "memory": "1Gi", "pods": "110"});
        let status = json!({"status": {"capacity": amounts, "allocatable": amounts}});
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    async fn pod(&self, name: &str, cpu: &str, more: Value) {
        let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}});
        for (key, value) in more.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        self.pods()
            .create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
            .await
            .unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn until(&self, name: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let wanted = |pod: Option<&Pod>| pod.is_some_and(&wanted);
        let waited = tokio::time::timeout(PATIENCE, await_condition(self.pods(), name, wanted)).await;
        waited
            .unwrap_or_else(|_| panic!("pod `{name}` did not get there"))
            .unwrap()
            .unwrap()
    }

    async fn placed(&self, name: &str) -> String {
        let pod = self
            .until(name, |pod| {
                pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
            })
            .await;
        pod.spec.unwrap().node_name.unwrap()
    }
}

#[tokio::test]
async fn a_pod_gets_the_node_that_fits_and_an_event() {
    let mut rig = Rig::new().await;
    rig.node("small", "500m").await;
    rig.node("large", "4").await;
    rig.pod("web", "1", json!({})).await;
    assert_eq!(rig.placed("web").await, "large");
    let event = rig.events.recv().await.unwrap();
    assert_eq!(
        (event.reason, event.action, event.message.as_str()),
        ("Scheduled", "Binding", "Successfully assigned default/web to large")
    );
    assert_eq!(event.about.name.as_deref(), Some("web"));
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_goes_when_there_is_room() {
    let mut rig = Rig::new().await;
    rig.node("n", "1").await;
    rig.pod("big", "2", json!({})).await;
    let told = |pod: &Pod| {
        pod.status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
            .any(|c| c.reason.as_deref() == Some("Unschedulable"))
    };
    let pod = rig.until("big", told).await;
    let message = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: \
        0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    let condition = pod
        .status
        .unwrap()
        .conditions
        .unwrap()
        .into_iter()
        .find(|c| c.type_ == "PodScheduled")
        .unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.message.as_deref()),
        ("False", Some(message))
    );
    let event = rig.events.recv().await.unwrap();
    assert_eq!((event.reason, event.message.as_str()), ("FailedScheduling", message));
    rig.node("larger", "4").await;
    assert_eq!(rig.placed("big").await, "larger");
}

#[tokio::test]
async fn pods_of_other_schedulers_and_gated_pods_are_left_alone() {
    let rig = Rig::new().await;
    rig.node("n", "4").await;
    rig.pod("theirs", "1", json!({"schedulerName": "mine"})).await;
    rig.pod("gated", "1", json!({"schedulingGates": [{"name": "wait"}]}))
        .await;
    rig.pod("ours", "1", json!({})).await;
    assert_eq!(rig.placed("ours").await, "n");
    for name in ["theirs", "gated"] {
        assert_eq!(
            rig.pods().get(name).await.unwrap().spec.unwrap().node_name,
            None,
            "{name}"
        );
    }
    let ungate = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    rig.pods()
        .patch("gated", &PatchParams::default(), &ungate)
        .await
        .unwrap();
    assert_eq!(rig.placed("gated").await, "n");
    assert_eq!(rig.pods().get("ours").await.unwrap().name_any(), "ours");
}
