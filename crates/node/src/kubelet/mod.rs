//! The kubelet: runs the pods that are bound to this node.
//!
//! Owns one worker a pod and what they share. Decisions are `lifecycle`'s, containers the runtime's
//! ([`Runtime`](crate::runtime::Runtime)); the API server sees it through `http`.

mod container_config;
mod downward;
mod env;
mod expand;
mod hooks;
pub(crate) mod http;
mod http_get;
pub(crate) mod images;
pub(crate) mod lifecycle;
mod logs;
mod objects;
mod probe;
mod sandbox;
mod start;
pub(crate) use start::with_cause;
mod status_writer;
#[cfg(test)]
mod tests;
mod user;
mod volumes;
mod worker;

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apimachinery::clock::Clock;
use apimachinery::pace::Pace;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::Api;
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::dial::Dial;
use crate::events::{Event, Recorder, Severity, reference};
use crate::metrics::{Containers, Running};
use crate::mirror::{Key, Mirror, changes};
use crate::runtime::{AdoptedPod, ContainerId, Runtime, Usage};
use crate::scheduler::requests::Amounts;
use downward::Surroundings;
use images::Images;
use lifecycle::{PodState, Role};
pub(crate) use objects::Objects;
pub(crate) use sandbox::{ClusterDns, parse_resolv_conf};
use worker::{Message, Worker};

/// What all workers share.
pub(crate) struct Context {
    pub(crate) node: String,
    pub(crate) node_ip: IpAddr,
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) network: Arc<dyn Dial>,
    pub(crate) services: Arc<Mirror<Service>>,
    pub(crate) objects: Objects,
    pub(crate) dns: ClusterDns,
    pub(crate) allocatable: Amounts,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) pace: Pace,
    pub(crate) allow_host_path: bool,
    /// Where local volumes lie, which pods may mount in any case.
    pub(crate) volumes: std::path::PathBuf,
    /// Rings when a container starts or ends.
    pub(crate) running_changed: watch::Sender<u64>,
}

impl Context {
    fn surroundings(&self, pod_ip: Option<IpAddr>) -> Surroundings {
        Surroundings {
            host_ip: self.node_ip,
            pod_ip,
            allocatable: self.allocatable.clone(),
        }
    }
}

/// What others may know of a pod on this node.
#[derive(Clone)]
pub(crate) struct PodView {
    pub(crate) pod: Arc<Pod>,
    pub(crate) state: PodState,
}

/// Events about one pod, or one of its containers.
struct PodEvents<'a> {
    context: &'a Context,
    pod: &'a Pod,
    field_path: Option<String>,
}

impl<'a> PodEvents<'a> {
    fn of_pod(context: &'a Context, pod: &'a Pod) -> Self {
        Self {
            context,
            pod,
            field_path: None,
        }
    }

    fn of_container(context: &'a Context, pod: &'a Pod, role: Role, name: &str) -> Self {
        let list = match role {
            Role::Init | Role::Sidecar => "initContainers",
            Role::Main => "containers",
            Role::Ephemeral => "ephemeralContainers",
        };
        Self {
            context,
            pod,
            field_path: Some(format!("spec.{list}{{{name}}}")),
        }
    }

    fn normal(&self, reason: &'static str, message: String) {
        self.record(Severity::Normal, reason, message);
    }

    fn warning(&self, reason: &'static str, message: String) {
        self.record(Severity::Warning, reason, message);
    }

    fn record(&self, severity: Severity, reason: &'static str, message: String) {
        let mut about = reference(self.pod);
        about.field_path = self.field_path.clone();
        self.context.recorder.record(Event {
            about,
            severity,
            reason,
            action: "",
            message,
        });
    }
}

/// A pod of this node, as the kubelet holds it.
struct Entry {
    uid: String,
    mail: mpsc::UnboundedSender<Message>,
    view: watch::Receiver<PodView>,
    task: JoinHandle<()>,
}

/// The kubelet of this node.
pub(crate) struct Kubelet {
    context: Arc<Context>,
    pods: Mutex<HashMap<Key, Entry>>,
    /// Workers whose object is gone and whose containers are still ending.
    leaving: Mutex<Vec<JoinHandle<()>>>,
}

impl Kubelet {
    pub(crate) fn new(context: Context) -> Arc<Self> {
        Arc::new(Self {
            context: Arc::new(context),
            pods: Mutex::default(),
            leaving: Mutex::default(),
        })
    }

    fn pods(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the pods of this node for ever. `adopted`: what an earlier daemon left.
    pub(crate) async fn run(self: Arc<Self>, adopted: Vec<AdoptedPod>) {
        let mut adopted: HashMap<String, AdoptedPod> =
            adopted.into_iter().map(|pod| (pod.config.uid.clone(), pod)).collect();
        // The environment of the first container needs them.
        self.context.services.ready().await;
        let mine = watcher::Config::default().fields(&format!("spec.nodeName={}", self.context.node));
        let mut events = pin!(changes(Api::<Pod>::all(self.context.client.clone()), mine));
        let mut listed = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                watcher::Event::Init => listed.clear(),
                watcher::Event::InitApply(pod) => {
                    listed.push(Key::of(&pod));
                    self.changed(pod, &mut adopted);
                }
                watcher::Event::InitDone => {
                    let gone: Vec<_> = self
                        .pods()
                        .keys()
                        .filter(|key| !listed.contains(key))
                        .cloned()
                        .collect();
                    gone.iter().for_each(|key| self.gone(key));
                    self.remove_orphans(std::mem::take(&mut adopted)).await;
                }
                watcher::Event::Apply(pod) => self.changed(pod, &mut adopted),
                watcher::Event::Delete(pod) => {
                    let key = Key::of(&pod);
                    let uid = pod.uid().unwrap_or_default();
                    if self.pods().get(&key).is_some_and(|entry| entry.uid == uid) {
                        // Its last word on grace is in the object that comes with the event.
                        self.tell(&key, Message::Changed(Arc::new(pod)));
                        self.gone(&key);
                    }
                }
            }
        }
    }

    fn changed(self: &Arc<Self>, pod: Pod, adopted: &mut HashMap<String, AdoptedPod>) {
        let (key, uid) = (Key::of(&pod), pod.uid().unwrap_or_default());
        let pod = Arc::new(pod);
        let known = self.pods().get(&key).map(|entry| entry.uid.clone());
        match known {
            Some(known) if known == uid => return self.tell(&key, Message::Changed(pod)),
            // Another pod took the name while nobody looked.
            Some(_) => self.gone(&key),
            None => {}
        }
        let now = self.context.clock.now();
        let state = lifecycle::restore(&pod, adopted.remove(&uid).as_ref(), now, self.context.pace);
        let (mail, mailbox) = mpsc::unbounded_channel();
        let (view, views) = watch::channel(PodView {
            pod: pod.clone(),
            state: state.clone(),
        });
        let worker = Worker::new(self.context.clone(), pod, state, view, mail.clone(), mailbox);
        let task = tokio::spawn(worker.run());
        self.pods().insert(
            key,
            Entry {
                uid,
                mail,
                view: views,
                task,
            },
        );
    }

    fn tell(&self, key: &Key, message: Message) {
        if let Some(entry) = self.pods().get(key) {
            // A worker that has ended has nothing more to do for its pod.
            let _ = entry.mail.send(message);
        }
    }

    /// The object is gone: the worker ends by itself.
    fn gone(&self, key: &Key) {
        if let Some(entry) = self.pods().remove(key) {
            let _ = entry.mail.send(Message::Gone);
            let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            leaving.retain(|task| !task.is_finished());
            leaving.push(entry.task);
        }
    }

    fn take_leaving(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.leaving.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sandboxes whose pods were deleted while nobody looked.
    async fn remove_orphans(&self, orphans: HashMap<String, AdoptedPod>) {
        for uid in orphans.into_keys() {
            if let Err(error) = self.context.runtime.remove_sandbox(&uid).await {
                tracing::warn!(
                    "removing the sandbox `{uid}`, whose pod is gone: {}",
                    start::with_cause(&error)
                );
            }
        }
    }

    /// The pod of this name, if it is on this node.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<watch::Receiver<PodView>> {
        self.pods()
            .get(&Key::new(namespace, name))
            .map(|entry| entry.view.clone())
    }

    /// Every pod on this node.
    pub(crate) fn views(&self) -> Vec<PodView> {
        self.pods().values().map(|entry| entry.view.borrow().clone()).collect()
    }

    /// Ends every container, each with its grace period, and removes all sandboxes. The objects stay.
    pub(crate) async fn stop_pods(&self) {
        let entries: Vec<_> = self.pods().drain().map(|(_, entry)| entry).collect();
        for entry in &entries {
            let _ = entry.mail.send(Message::NodeStops);
        }
        for task in entries.into_iter().map(|entry| entry.task).chain(self.take_leaving()) {
            let _ = task.await;
        }
    }

    /// Ends the workers and leaves the containers alone.
    pub(crate) async fn drain(&self) {
        let entries: Vec<_> = self.pods().drain().map(|(_, entry)| entry).collect();
        for task in entries.into_iter().map(|entry| entry.task).chain(self.take_leaving()) {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Containers for Kubelet {
    fn running(&self) -> Vec<Running> {
        let mut running = Vec::new();
        for view in self.views() {
            let labels = Arc::new(view.pod.labels().clone());
            let uid = view.pod.uid().unwrap_or_default();
            for (name, container) in &view.state.containers {
                let (Some(runs), Some(attempt)) = (container.running(), container.attempt) else {
                    continue;
                };
                running.push(Running {
                    namespace: view.pod.namespace().unwrap_or_default(),
                    pod: view.pod.name_any(),
                    labels: labels.clone(),
                    id: ContainerId::new(&uid, name, attempt),
                    started_at: runs.since,
                });
            }
        }
        running
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.context.running_changed.subscribe()
    }

    fn usage(&self, id: &ContainerId) -> Option<Usage> {
        self.context.runtime.usage(id).ok()
    }

    fn pod_exists(&self, namespace: &str, name: &str) -> bool {
        self.pod(namespace, name).is_some()
    }
}
