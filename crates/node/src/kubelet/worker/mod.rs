//! One task a pod: feeds the state machine with what happens and carries out what it decides.
//!
//! Owns the pod's jobs (sandbox, volumes, starts, waits, hooks, probes). All decisions are `lifecycle`'s.

mod jobs;
mod probing;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Preconditions};
use kube::{Client, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::lifecycle::{
    self, Action, Ending, PodState, ProbeKind, Report, SandboxState, VolumesState, find_container, status,
};
use super::objects::{Kind, Lease, references};
use super::start::with_cause;
use super::status_writer::StatusWriter;
use super::volumes::Tokens;
use super::{Context, PodEvents, PodView};

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// The object as it is now.
    Changed(Arc<Pod>),
    /// The object is gone.
    Gone,
    /// The node ends its containers.
    NodeStops,
    Report(Report),
    /// A ConfigMap or Secret of the pod has changed, or a token is due.
    InputsChanged,
}

/// The task behind one pod.
pub(crate) struct Worker {
    context: Arc<Context>,
    pod: Arc<Pod>,
    uid: String,
    state: PodState,
    told: PodStatus,
    writer: StatusWriter,
    view: watch::Sender<PodView>,
    mailbox: mpsc::UnboundedReceiver<Message>,
    /// For the worker's own jobs; holds the channel open.
    mail: mpsc::UnboundedSender<Message>,
    jobs: JoinSet<()>,
    probes: HashMap<(String, u32, ProbeKind), AbortHandle>,
    /// Begun once the objects are needed.
    watches_inputs: bool,
    /// The volumes are being filled or brought up to date.
    refreshing: bool,
    /// A ConfigMap or Secret has changed while the volumes were being filled.
    inputs_are_stale: bool,
    leases: Arc<[(Kind, String, Arc<Lease>)]>,
    tokens: Arc<tokio::sync::Mutex<Tokens>>,
}

impl Worker {
    /// `view` is what others see of the pod; `state` what is known of it so far.
    pub(crate) fn new(
        context: Arc<Context>,
        pod: Arc<Pod>,
        state: PodState,
        view: watch::Sender<PodView>,
        mail: mpsc::UnboundedSender<Message>,
        mailbox: mpsc::UnboundedReceiver<Message>,
    ) -> Self {
        let (uid, name) = (pod.uid().unwrap_or_default(), pod.name_any());
        let told = pod.status.clone().unwrap_or_default();
        let api = pods(&context.client, &pod);
        let namespace = pod.namespace().unwrap_or_default();
        let lease = |(kind, name): (Kind, String)| {
            let lease = context.objects.lease(kind, &namespace, &name);
            (kind, name, lease)
        };
        let over = matches!(told.phase.as_deref(), Some("Succeeded" | "Failed"));
        let leases = if over {
            Vec::new()
        } else {
            references(&pod).into_iter().map(lease).collect()
        };
        Self {
            writer: StatusWriter::new(api, name, uid.clone(), told.clone()),
            leases: leases.into(),
            told,
            uid,
            context,
            pod,
            state,
            view,
            mailbox,
            mail,
            jobs: JoinSet::new(),
            probes: HashMap::new(),
            watches_inputs: false,
            refreshing: false,
            inputs_are_stale: false,
            tokens: Arc::default(),
        }
    }

    /// Runs until nothing of the pod is left on this node.
    pub(crate) async fn run(mut self) {
        self.object_changed();
        self.rejoin();
        loop {
            if self.step() {
                return self.finish().await;
            }
            let now = self.context.clock.now();
            let wake = self.state.wake_at(&self.pod, now).map(|at| self.instant(at));
            tokio::select! {
                message = self.mailbox.recv() => {
                    let Some(message) = message else { return };
                    self.handle(message);
                    // Whatever else has come in meanwhile needs no status of its own.
                    while let Some(Some(message)) = self.mailbox.recv().now_or_never() {
                        self.handle(message);
                    }
                }
                Some(_) = self.jobs.join_next(), if !self.jobs.is_empty() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    fn handle(&mut self, message: Message) {
        let now = self.context.clock.now();
        match message {
            Message::Changed(pod) => {
                self.pod = pod;
                self.object_changed();
            }
            Message::Gone => {
                let grace_seconds = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
                self.state.end(Ending::Vanished { grace_seconds }, now);
            }
            Message::NodeStops => self.state.end(Ending::NodeStops, now),
            Message::Report(report) => {
                if let Report::PostStart {
                    name, succeeded: false, ..
                } = &report
                {
                    self.events_of(name)
                        .warning("FailedPostStartHook", "PostStartHook failed".into());
                }
                let started = match &report {
                    Report::Started { name, attempt, .. } => Some((name.clone(), *attempt)),
                    _ => None,
                };
                let filled = matches!(report, Report::Volumes(_));
                self.state.apply(&self.pod, report, now);
                self.refreshing &= !filled;
                if filled && std::mem::take(&mut self.inputs_are_stale) {
                    self.inputs_changed(now);
                }
                if let Some((name, attempt)) = started {
                    self.container_started(&name, attempt);
                }
            }
            Message::InputsChanged => self.inputs_changed(now),
        }
    }

    fn inputs_changed(&mut self, now: Timestamp) {
        self.state.inputs_changed(now);
        match self.state.volumes {
            VolumesState::Ready if !self.refreshing => self.prepare_volumes(),
            VolumesState::Ready | VolumesState::Preparing => self.inputs_are_stale = true,
            VolumesState::Absent | VolumesState::Failed { .. } => {}
        }
    }

    fn object_changed(&mut self) {
        if self.pod.metadata.deletion_timestamp.is_some() {
            let grace_seconds = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
            self.state
                .end(Ending::Deleted { grace_seconds }, self.context.clock.now());
        }
    }

    /// After a restart of the daemon: waits for containers that run.
    fn rejoin(&mut self) {
        let running = self
            .state
            .containers
            .iter()
            .filter(|(_, container)| container.running().is_some());
        let running: Vec<_> = running
            .filter_map(|(name, container)| Some((name.clone(), container.attempt?)))
            .collect();
        for (name, attempt) in running {
            self.wait_for(&name, attempt);
        }
    }

    /// Steps the state machine and carries out what it says. True when the worker has nothing left to do but to finish.
    fn step(&mut self) -> bool {
        let actions = self.state.step(&self.pod, self.context.clock.now());
        let mut finish = false;
        for action in actions {
            match action {
                Action::CreateSandbox => self.create_sandbox(),
                Action::PrepareVolumes => self.prepare_volumes(),
                Action::Start {
                    name,
                    attempt,
                    may_pull,
                } => self.start(&name, attempt, may_pull),
                Action::RunPreStop {
                    name,
                    attempt,
                    deadline,
                } => self.pre_stop(&name, attempt, deadline),
                Action::Signal { name, attempt, signal } => self.signal(name, attempt, signal),
                Action::Event {
                    container,
                    severity,
                    reason,
                    message,
                } => {
                    let about = container.as_deref();
                    let events = match about {
                        Some(name) => self.events_of(name),
                        None => PodEvents::of_pod(&self.context, &self.pod),
                    };
                    events.record(severity, reason, message);
                }
                Action::Finish => finish = true,
            }
        }
        self.update_probes();
        let now = self.context.clock.now();
        // A pod whose object is gone has nobody to tell.
        if !matches!(self.state.ending, Some(Ending::Vanished { .. })) {
            // Conditions of others are in the object; what the kubelet itself wrote last is newer than that.
            let status = status::of(&self.pod, &self.state, self.context.node_ip, &self.known(), now);
            self.told = status.clone();
            self.writer.set(status);
        }
        let before = self.view.send_replace(PodView {
            pod: self.pod.clone(),
            state: self.state.clone(),
        });
        if running(&before.state) != running(&self.state) {
            self.context.running_changed.send_modify(|count| *count += 1);
        }
        finish && !matches!(self.state.ending, Some(Ending::Finished | Ending::DeadlineExceeded))
    }

    /// The last status, with the conditions that others own as they are in the object.
    fn known(&self) -> PodStatus {
        let mut known = self.told.clone();
        let theirs = self
            .pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.clone())
            .unwrap_or_default();
        let mine: Vec<_> = known
            .conditions
            .take()
            .unwrap_or_default()
            .into_iter()
            .filter(|c| status::is_owned(&c.type_))
            .collect();
        let theirs = theirs
            .into_iter()
            .filter(|condition| !status::is_owned(&condition.type_) || mine.is_empty());
        known.conditions = Some(mine.iter().cloned().chain(theirs).collect());
        known
    }

    /// The end of the pod on this node: told, cleaned up, and deleted if that is what everybody waits for.
    async fn finish(mut self) {
        let (context, pod, uid) = (self.context.clone(), self.pod.clone(), self.uid.clone());
        let ending = self.state.ending;
        self.jobs.shutdown().await;
        self.probes.clear();
        let clean = async {
            let mut pause = Duration::from_millis(500);
            while let Err(error) = context.runtime.remove_sandbox(&uid).await {
                tracing::warn!(
                    "removing the sandbox of pod `{}`: {}",
                    pod.name_any(),
                    with_cause(&error)
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(60));
            }
        };
        // A node that stops does not wait for an API server that is gone already.
        let patience = if ending == Some(Ending::NodeStops) {
            Duration::from_secs(5)
        } else {
            Duration::MAX
        };
        let _ = tokio::join!(tokio::time::timeout(patience, self.writer.flush()), clean);
        if !matches!(ending, Some(Ending::Deleted { .. })) {
            return;
        }
        let only_this_one = Preconditions {
            uid: Some(uid.clone()),
            resource_version: None,
        };
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(only_this_one),
            ..Default::default()
        };
        let mut pause = Duration::from_millis(200);
        loop {
            match pods(&context.client, &pod).delete(&pod.name_any(), &parameters).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
                Err(error) => tracing::warn!("deleting pod `{}`: {error}", pod.name_any()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    fn events_of(&self, name: &str) -> PodEvents<'_> {
        let role = find_container(&self.pod, name).map_or(lifecycle::Role::Main, |(role, _)| role);
        PodEvents::of_container(&self.context, &self.pod, role, name)
    }

    fn pod_ip(&self) -> Option<Ipv4Addr> {
        match &self.state.sandbox {
            SandboxState::Ready { ip } => Some(*ip),
            _ => None,
        }
    }

    /// A moment of the wall clock on tokio's clock.
    fn instant(&self, at: Timestamp) -> Instant {
        let now = self.context.clock.now();
        let distance = Duration::try_from(at.duration_since(now).abs()).unwrap_or_default();
        let instant = Instant::now();
        if at >= now {
            instant + distance
        } else {
            instant.checked_sub(distance).unwrap_or(instant)
        }
    }
}

/// Which instances run.
fn running(state: &PodState) -> Vec<(&str, Option<u32>)> {
    let running = state
        .containers
        .iter()
        .filter(|(_, container)| container.running().is_some());
    running
        .map(|(name, container)| (name.as_str(), container.attempt))
        .collect()
}

fn pods(client: &Client, pod: &Pod) -> Api<Pod> {
    Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default())
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
