//! Gives pods a node: kube-scheduler's default profile without plugins that one node does not need.
//!
//! Owns the loop: watches feed [`cluster::Cluster`] and [`queue::Queue`], [`filter::place`] decides, a Binding is
//! posted. Everything that decides is pure and lies in the other files. Must not know how pods are run.

mod affinity;
pub mod cluster;
pub mod filter;
mod queue;
pub mod requests;
mod score;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use apimachinery::clock::Clock;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::events::{Event, Recorder, Severity, reference};
use crate::mirror::changes;
use crate::storage::Storage;
use cluster::{Cluster, NodeInfo, Placed};
use queue::Queue;
pub(crate) use volumes::SELECTED_NODE;
use volumes::Wanted;

/// `spec.schedulerName` of the pods that are ours, and the component in our events.
pub const NAME: &str = "default-scheduler";

/// A binding that came to an end.
struct Bound {
    uid: String,
    pod: Arc<Pod>,
    node: String,
    result: Result<(), BindError>,
}

/// Why a pod that has a place does not get it.
enum BindError {
    /// The API server did not take the binding.
    Posting(kube::Error),
    /// Its volumes did not come.
    Volumes(String),
}

/// The scheduler: one task that owns all of its state.
pub(crate) struct Scheduler {
    client: Client,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    storage: Storage,
    cluster: Cluster,
    queue: Queue,
    /// Uids of listed pods while a new list comes in, to find those that went away unseen.
    listed: Option<HashMap<String, ()>>,
}

impl Scheduler {
    pub(crate) fn new(client: Client, recorder: Recorder, clock: Arc<dyn Clock>, storage: Storage) -> Self {
        Self {
            client,
            recorder,
            clock,
            storage,
            cluster: Cluster::default(),
            queue: Queue::default(),
            listed: None,
        }
    }

    /// Schedules for ever.
    pub(crate) async fn run(mut self) {
        let unfinished = watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
        let mut pods = pin!(changes(Api::<Pod>::all(self.client.clone()), unfinished));
        let mut nodes = pin!(changes(
            Api::<Node>::all(self.client.clone()),
            watcher::Config::default()
        ));
        let mut claims = self.storage.claims.subscribe();
        let mut volumes = self.storage.volumes.subscribe();
        let mut classes = self.storage.classes.subscribe();
        self.storage.ready().await;
        let mut bindings = FuturesUnordered::new();
        let (mut pods_ready, mut nodes_ready) = (false, false);
        loop {
            // Before both lists are complete the picture is wrong: nodes would look empty.
            let complete = pods_ready && nodes_ready;
            while let Some((uid, pod)) = complete.then(|| self.queue.take(Instant::now())).flatten() {
                let claims = volumes::read(&pod, &self.storage);
                match filter::place_with(&pod, claims.as_ref(), &self.cluster) {
                    Ok(node) => {
                        // Assumed, so that the next pod sees the room as taken.
                        self.cluster.placed.insert(uid.clone(), Placed::read(&pod, &node));
                        let claims = claims.unwrap_or_default();
                        bindings.push(bind(self.client.clone(), self.storage.clone(), uid, pod, claims, node));
                    }
                    Err(message) => {
                        self.queue.refused(&uid, Instant::now());
                        self.refuse(&pod, message);
                    }
                }
            }
            let due = self.queue.next_due().filter(|_| complete);
            tokio::select! {
                Some(event) = pods.next() => pods_ready |= self.pod_event(event),
                Some(event) = nodes.next() => nodes_ready = self.node_event(event).unwrap_or(nodes_ready),
                Some(bound) = bindings.next() => self.bound(bound),
                // A claim, a volume or a class may be what somebody waits for.
                Ok(()) = claims.changed() => self.queue.move_all(),
                Ok(()) = volumes.changed() => self.queue.move_all(),
                Ok(()) = classes.changed() => self.queue.move_all(),
                () = sleep_until(due) => {}
            }
        }
    }

    /// Whether the list is complete now.
    fn pod_event(&mut self, event: watcher::Event<Pod>) -> bool {
        match event {
            watcher::Event::Init => self.listed = Some(HashMap::new()),
            watcher::Event::InitApply(pod) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(pod.uid().unwrap_or_default(), ());
                }
                self.pod_changed(pod);
            }
            watcher::Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let gone = |uid: &&String| !listed.contains_key(*uid);
                let gone: Vec<_> = self.cluster.placed.keys().filter(gone).cloned().collect();
                gone.iter().for_each(|uid| self.forget(uid));
                return true;
            }
            watcher::Event::Apply(pod) => self.pod_changed(pod),
            watcher::Event::Delete(pod) => self.forget(&pod.uid().unwrap_or_default()),
        }
        false
    }

    fn pod_changed(&mut self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .unwrap_or_default();
        if phase == "Succeeded" || phase == "Failed" {
            return self.forget(&uid);
        }
        let spec = pod.spec.clone().unwrap_or_default();
        match spec.node_name.filter(|node| !node.is_empty()) {
            Some(node) => {
                self.queue.remove(&uid);
                let placed = Placed::read(&pod, &node);
                let before = self.cluster.placed.insert(uid, placed.clone());
                if before.as_ref() != Some(&placed) {
                    // It may be the neighbour that somebody's affinity waits for.
                    self.queue.move_all();
                }
            }
            None if pod.metadata.deletion_timestamp.is_some() => self.queue.remove(&uid),
            None => {
                let ours = spec.scheduler_name.as_deref().is_none_or(|name| name == NAME);
                let gated = spec.scheduling_gates.is_some_and(|gates| !gates.is_empty());
                // An assumed pod is being bound: what the watch says of it is older.
                if ours && !gated && !self.cluster.placed.contains_key(&uid) {
                    self.queue.put(&uid, Arc::new(pod), Instant::now());
                }
            }
        }
    }

    fn forget(&mut self, uid: &str) {
        self.queue.remove(uid);
        if self.cluster.placed.remove(uid).is_some() {
            self.queue.move_all();
        }
    }

    /// Whether the list is complete, where that changed.
    fn node_event(&mut self, event: watcher::Event<Node>) -> Option<bool> {
        match event {
            watcher::Event::Init => {
                self.cluster.nodes.clear();
                return Some(false);
            }
            watcher::Event::InitApply(node) | watcher::Event::Apply(node) => {
                let info = NodeInfo::read(&node);
                let before = self.cluster.nodes.insert(info.name.clone(), info.clone());
                if before.as_ref() != Some(&info) {
                    self.queue.move_all();
                }
            }
            watcher::Event::InitDone => return Some(true),
            watcher::Event::Delete(node) => {
                self.cluster.nodes.remove(&node.name_any());
            }
        }
        None
    }

    fn bound(&mut self, bound: Bound) {
        let Bound { uid, pod, node, result } = bound;
        let Err(error) = result else {
            self.queue.remove(&uid);
            let message = format!(
                "Successfully assigned {}/{} to {node}",
                pod.namespace().unwrap_or_default(),
                pod.name_any()
            );
            return self.record(&pod, Severity::Normal, "Scheduled", "Binding", message);
        };
        // Not in the queue: the watch has said meanwhile where it is.
        if self.queue.contains(&uid) {
            self.cluster.placed.remove(&uid);
        }
        if matches!(&error, BindError::Posting(kube::Error::Api(status)) if status.code == 404 || status.code == 409) {
            // Gone, or bound by somebody else: the watch tells.
            return self.queue.refused(&uid, Instant::now());
        }
        self.queue.failed(&uid, Instant::now());
        let message = match error {
            BindError::Posting(error) => format!("binding rejected: {error}"),
            BindError::Volumes(error) => format!("running PreBind plugin \"VolumeBinding\": binding volumes: {error}"),
        };
        self.record(&pod, Severity::Warning, "FailedScheduling", "Scheduling", message);
    }

    /// Event and condition for a pod that no node takes.
    fn refuse(&self, pod: &Arc<Pod>, message: String) {
        self.record(
            pod,
            Severity::Warning,
            "FailedScheduling",
            "Scheduling",
            message.clone(),
        );
        let told = pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref())
            .into_iter()
            .flatten()
            .any(|known| {
                known.type_ == "PodScheduled" && known.status == "False" && known.message.as_ref() == Some(&message)
            });
        if told {
            return;
        }
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": Time(self.clock.now()), "observedGeneration": pod.metadata.generation,
        });
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        tokio::spawn(async move {
            if let Err(error) = api
                .patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                tracing::debug!("writing the condition PodScheduled of `{name}`: {error}");
            }
        });
    }

    fn record(&self, pod: &Pod, severity: Severity, reason: &'static str, action: &'static str, message: String) {
        self.recorder.record(Event {
            about: reference(pod),
            severity,
            reason,
            action,
            message,
        });
    }
}

async fn bind(client: Client, storage: Storage, uid: String, pod: Arc<Pod>, claims: Wanted, node: String) -> Bound {
    let result = match volumes::bind(&client, &storage, &claims, &node).await {
        Ok(()) => post(client, &uid, &pod, &node).await.map_err(BindError::Posting),
        Err(error) => Err(BindError::Volumes(error)),
    };
    Bound { uid, pod, node, result }
}

async fn post(client: Client, uid: &str, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let namespace = pod.namespace().unwrap_or_default();
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.name_any()),
            namespace: Some(namespace.clone()),
            uid: Some(uid.to_owned()),
            ..Default::default()
        },
        target: ObjectReference {
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            ..Default::default()
        },
    };
    let api = Api::<Pod>::namespaced(client, &namespace);
    let posted: Result<Status, _> = api
        .create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding)
        .await;
    posted.map(drop)
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
