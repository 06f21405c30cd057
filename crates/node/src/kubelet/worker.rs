//! One task a pod: feeds the state machine with what happens and carries out what it decides.
//!
//! Owns the pod's jobs (sandbox, volumes, starts, waits, hooks, probes). All decisions are `lifecycle`'s.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
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

use super::hooks::{Done, Hook};
use super::lifecycle::{
    self, Action, Ending, Now, PodState, ProbeKind, Report, SandboxState, Signal, Terminated, VolumesState,
    find_container, status,
};
use super::objects::{Kind, Lease, references};
use super::probe::{self, ContainerCheck, News};
use super::sandbox::sandbox_config;
use super::start::{Outcome, Start, inputs, with_cause};
use super::status_writer::StatusWriter;
use super::volumes::{self, Contents, Tokens};
use super::{Context, PodEvents, PodView};
use crate::runtime::{ContainerId, Error};

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
    /// The jobs that wait for objects of the pod to change; begun once the objects are needed.
    watching: Vec<AbortHandle>,
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
            watching: Vec::new(),
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
            let wake = self.state.wake_at(&self.pod).map(|at| self.instant(at));
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
                self.state.apply(&self.pod, report, now);
                if let Some((name, attempt)) = started {
                    self.container_started(&name, attempt);
                }
            }
            Message::InputsChanged => {
                self.state.inputs_changed(now);
                if self.state.volumes == VolumesState::Ready {
                    self.prepare_volumes();
                }
            }
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

    fn send_report<F>(&mut self, report: F) -> AbortHandle
    where
        F: Future<Output = Option<Report>> + Send + 'static,
    {
        let mail = self.mail.clone();
        self.jobs.spawn(async move {
            if let Some(report) = report.await {
                let _ = mail.send(Message::Report(report));
            }
        })
    }

    fn events_of(&self, name: &str) -> PodEvents<'_> {
        let role = find_container(&self.pod, name).map_or(lifecycle::Role::Main, |(role, _)| role);
        PodEvents::of_container(&self.context, &self.pod, role, name)
    }

    fn create_sandbox(&mut self) {
        let (context, pod, uid) = (self.context.clone(), self.pod.clone(), self.uid.clone());
        self.send_report(async move {
            let made = async {
                let dir = context.runtime.pod_dir(&uid);
                let memory =
                    volumes::memory_volumes(&pod, &dir).map_err(|error| format!("making memory volumes: {error}"))?;
                let config = sandbox_config(&pod, &context.dns, memory)?;
                let sandbox = context.runtime.create_sandbox(config).await;
                sandbox.map(|sandbox| sandbox.ip).map_err(|error| with_cause(&error))
            };
            let made = made.await;
            if let Err(error) = &made {
                let events = PodEvents::of_pod(&context, &pod);
                events.warning(
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {error}"),
                );
            }
            Some(Report::Sandbox(made))
        });
    }

    /// Fills the volumes, or brings them up to date.
    fn prepare_volumes(&mut self) {
        self.watch_inputs();
        let (context, pod, leases, tokens) = (
            self.context.clone(),
            self.pod.clone(),
            self.leases.clone(),
            self.tokens.clone(),
        );
        let ip = self.pod_ip();
        let mail = self.mail.clone();
        self.send_report(async move {
            let mut tokens = tokens.lock().await;
            let prepared = fill(&context, &pod, &leases, &mut tokens, ip).await;
            if let Err(error) = &prepared {
                PodEvents::of_pod(&context, &pod).warning("FailedMount", error.clone());
            }
            if let Some(at) = volumes::refresh_at(&tokens) {
                let after = at.duration_since(context.clock.now());
                let after = Duration::try_from(after).unwrap_or(Duration::from_secs(1));
                drop(tokens);
                tokio::spawn(async move {
                    tokio::select! {
                        () = tokio::time::sleep(after) => drop(mail.send(Message::InputsChanged)),
                        () = mail.closed() => {}
                    }
                });
            }
            Some(Report::Volumes(prepared))
        });
    }

    /// Tells the worker when a ConfigMap or Secret changes.
    fn watch_inputs(&mut self) {
        self.watching.drain(..).for_each(|job| job.abort());
        for (_, _, lease) in self.leases.clone().iter() {
            let (changed, mail) = (lease.subscribe(), self.mail.clone());
            self.watching.push(self.jobs.spawn(async move {
                changed.await;
                let _ = mail.send(Message::InputsChanged);
            }));
        }
    }

    fn pod_ip(&self) -> Option<Ipv4Addr> {
        match &self.state.sandbox {
            SandboxState::Ready { ip } => Some(*ip),
            _ => None,
        }
    }

    fn start(&mut self, name: &str, attempt: u32, may_pull: bool) {
        let (Some((role, container)), Some(pod_ip)) = (find_container(&self.pod, name), self.pod_ip()) else {
            return;
        };
        let start = Start {
            context: self.context.clone(),
            pod: self.pod.clone(),
            role,
            container,
            attempt,
            pod_ip,
            leases: self.leases.clone(),
            may_pull,
        };
        let name = name.to_owned();
        self.send_report(async move {
            Some(match start.run().await {
                Outcome::Started(started, image) => Report::Started {
                    name,
                    attempt,
                    since: started.started_at,
                    image,
                },
                Outcome::Failed(failure) => Report::StartFailed { name, attempt, failure },
                Outcome::SandboxGone => Report::SandboxGone { name },
            })
        });
    }

    /// Waits for its end, runs its postStart hook, and forgets the instance before the last.
    fn container_started(&mut self, name: &str, attempt: u32) {
        self.wait_for(name, attempt);
        let id = ContainerId::new(&self.uid, name, attempt);
        if let Some(old) = attempt.checked_sub(2) {
            let (runtime, old) = (
                self.context.runtime.clone(),
                ContainerId {
                    attempt: old,
                    ..id.clone()
                },
            );
            self.jobs.spawn(async move {
                if let Err(error) = runtime.remove_container(&old).await {
                    tracing::debug!("removing container `{old}`: {error}");
                }
            });
        }
        let Some((role, container)) = find_container(&self.pod, name) else {
            return;
        };
        let handler = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.clone());
        let (Some(handler), Some(ip)) = (handler, self.pod_ip()) else {
            return;
        };
        let (context, pod, name) = (self.context.clone(), self.pod.clone(), name.to_owned());
        self.send_report(async move {
            let hook = Hook {
                runtime: &*context.runtime,
                network: &*context.network,
                id: &id,
                container: &container,
                pod_ip: IpAddr::V4(ip),
            };
            // A hook that never ends holds its container back for ever, as upstream.
            let done = hook.run(&handler, Duration::MAX).await;
            report_fallback(&context, &pod, role, &name, &done);
            if let Err(error) = &done {
                tracing::debug!("postStart hook of container `{name}`: {error}");
            }
            Some(Report::PostStart {
                name,
                attempt,
                succeeded: done.is_ok(),
            })
        });
    }

    fn wait_for(&mut self, name: &str, attempt: u32) {
        let (context, pod, name) = (self.context.clone(), self.pod.clone(), name.to_owned());
        let id = ContainerId::new(&self.uid, &name, attempt);
        self.send_report(async move {
            let how = match context.runtime.wait(&id).await {
                Ok(exit) => {
                    let mut ended = Terminated::from_exit(&exit);
                    let policy = find_container(&pod, &name).and_then(|(_, spec)| spec.termination_message_policy);
                    if ended.message.is_empty() && exit.code != 0 && policy.as_deref() == Some("FallbackToLogsOnError")
                    {
                        ended.message = super::logs::last_words(&context.runtime.log_path(&id)).await;
                    }
                    Some(ended)
                }
                Err(Error::SandboxGone(_)) => return Some(Report::SandboxGone { name }),
                Err(error) => {
                    tracing::warn!("waiting for container `{id}`: {}", with_cause(&error));
                    None
                }
            };
            Some(Report::Exited { name, attempt, how })
        });
    }

    fn pre_stop(&mut self, name: &str, attempt: u32, deadline: Timestamp) {
        let (Some((role, container)), Some(ip)) = (find_container(&self.pod, name), self.pod_ip()) else {
            return;
        };
        let handler = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.pre_stop.clone());
        let limit = self.instant(deadline).saturating_duration_since(Instant::now());
        let (context, pod, name) = (self.context.clone(), self.pod.clone(), name.to_owned());
        let id = ContainerId::new(&self.uid, &name, attempt);
        self.send_report(async move {
            let hook = Hook {
                runtime: &*context.runtime,
                network: &*context.network,
                id: &id,
                container: &container,
                pod_ip: IpAddr::V4(ip),
            };
            let handler = handler.unwrap_or_default();
            let run = hook.run(&handler, Duration::MAX);
            // A hook that outlives the grace period is left behind without a word.
            if let Ok(done) = tokio::time::timeout(limit, run).await {
                report_fallback(&context, &pod, role, &name, &done);
                if let Err(error) = &done {
                    tracing::debug!("preStop hook of container `{name}`: {error}");
                    let events = PodEvents::of_container(&context, &pod, role, &name);
                    events.warning("FailedPreStopHook", "PreStopHook failed".into());
                }
            }
            Some(Report::PreStop { name, attempt })
        });
    }

    fn signal(&mut self, name: String, attempt: u32, signal: Signal) {
        let number = match signal {
            Signal::Kill => libc::SIGKILL,
            Signal::Stop => self.stop_signal(&name),
        };
        let runtime = self.context.runtime.clone();
        let id = ContainerId::new(&self.uid, name, attempt);
        self.jobs.spawn(async move {
            if let Err(error) = runtime.signal(&id, number).await {
                tracing::debug!("sending signal {number} to container `{id}`: {error}");
            }
        });
    }

    /// `lifecycle.stopSignal`, else SIGTERM.
    fn stop_signal(&self, name: &str) -> i32 {
        let lifecycle = find_container(&self.pod, name).and_then(|(_, spec)| spec.lifecycle);
        let named = lifecycle.and_then(|lifecycle| lifecycle.stop_signal);
        let known = named.and_then(|name| name.parse::<nix::sys::signal::Signal>().ok());
        known.map_or(libc::SIGTERM, |signal| signal as i32)
    }

    /// Begins the probes that are due and ends those that have no business any more.
    fn update_probes(&mut self) {
        let ending = self.state.ending.is_some();
        let mut wanted = Vec::new();
        for (name, container) in &self.state.containers {
            let (Now::Running(running), Some(attempt)) = (&container.now, container.attempt) else {
                continue;
            };
            let Some((_, spec)) = find_container(&self.pod, name) else {
                continue;
            };
            for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
                let due = match kind {
                    ProbeKind::Startup => !running.started && !ending,
                    ProbeKind::Liveness => running.started && !ending && running.stop.is_none(),
                    // Goes on while the pod ends: its endpoints still serve.
                    ProbeKind::Readiness => running.started,
                };
                if let Some(probe) = probe::probe_of(&spec, kind).filter(|_| due) {
                    wanted.push((
                        (name.clone(), attempt, kind),
                        spec.clone(),
                        probe.clone(),
                        running.clone(),
                    ));
                }
            }
        }
        self.probes.retain(|key, task| {
            let keep = wanted.iter().any(|(wanted, ..)| wanted == key);
            if !keep {
                task.abort();
            }
            keep
        });
        for (key, spec, probe, running) in wanted {
            let Some(ip) = self.pod_ip().filter(|_| !self.probes.contains_key(&key)) else {
                continue;
            };
            let (name, attempt, kind) = key.clone();
            let check = Arc::new(ContainerCheck {
                runtime: self.context.runtime.clone(),
                network: self.context.network.clone(),
                id: ContainerId::new(&self.uid, &name, attempt),
                container: spec,
                pod_ip: IpAddr::V4(ip),
            });
            let healthy = match kind {
                ProbeKind::Startup => running.started,
                ProbeKind::Liveness => true,
                ProbeKind::Readiness => running.ready,
            };
            let started = self.instant(running.since).min(Instant::now());
            let (context, pod, mail) = (self.context.clone(), self.pod.clone(), self.mail.clone());
            let tell = move |news| match news {
                News::Healthy(healthy) => {
                    let name = name.clone();
                    let _ = mail.send(Message::Report(Report::Probe {
                        name,
                        attempt,
                        kind,
                        healthy,
                    }));
                }
                News::Event(reason, message) => {
                    let role = find_container(&pod, &name).map_or(lifecycle::Role::Main, |(role, _)| role);
                    PodEvents::of_container(&context, &pod, role, &name).warning(reason, message);
                }
            };
            let task = self.jobs.spawn(probe::run(kind, probe, check, started, healthy, tell));
            self.probes.insert(key, task);
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

async fn fill(
    context: &Context,
    pod: &Pod,
    leases: &[(Kind, String, Arc<Lease>)],
    tokens: &mut Tokens,
    ip: Option<Ipv4Addr>,
) -> Result<(), String> {
    let now = context.clock.now();
    let due = volumes::wanted_tokens(pod)
        .into_iter()
        .filter(|wanted| tokens.get(wanted).is_none_or(|t| t.refresh_at() <= now));
    let requests = due.map(|wanted| async move {
        let token = wanted.request(context.client.clone(), pod, now).await;
        (wanted, token)
    });
    let (inputs, fresh) = tokio::join!(inputs(leases), futures::future::join_all(requests));
    for (wanted, token) in fresh {
        match token {
            Ok(token) => drop(tokens.insert(wanted, token)),
            // The old one is still good for a while.
            Err(error) if tokens.contains_key(&wanted) => {
                tracing::warn!("renewing a token of pod `{}`: {error}", pod.name_any())
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    let around = context.surroundings(ip.map(IpAddr::V4));
    let contents = Contents {
        pod,
        inputs: &inputs?,
        tokens,
        around: &around,
    };
    let dir = context.runtime.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    volumes::prepare(&contents, &dir, context.allow_host_path)
        .map(drop)
        .map_err(|failure| failure.to_string())
}

fn report_fallback(context: &Context, pod: &Pod, role: lifecycle::Role, name: &str, done: &Result<Done, String>) {
    if *done == Ok(Done::FellBackToHttp) {
        let events = PodEvents::of_container(context, pod, role, name);
        events.warning(
            "LifecycleHTTPFallback",
            "request to HTTPS lifecycle hook got HTTP response, retrying with HTTP succeeded".into(),
        );
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
