//! The life of a pod as a pure state machine.
//!
//! [`PodState`] is everything the kubelet remembers of a pod; [`PodState::apply`] takes in what happened, [`PodState::step`]
//! says what to do next, [`status::of`] what to tell the API server. Nothing here waits, reads a clock or touches a
//! container: `now` is a parameter and every act is an [`Action`] that the worker carries out.

mod backoff;
mod phase;
mod restore;
pub(crate) mod status;
mod step;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use apimachinery::pace::Pace;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as ContainerSpec, EphemeralContainer, Pod};

pub(crate) use backoff::Backoff;
pub(crate) use restore::restore;

use crate::events::Severity;
use crate::runtime::Exit;

/// How one container instance ended, in the API's words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Terminated {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Timestamp,
}

impl Terminated {
    /// `Completed`, `Error` or `OOMKilled`.
    pub(crate) fn from_exit(exit: &Exit) -> Self {
        let reason = match exit {
            Exit { oom_killed: true, .. } => "OOMKilled",
            Exit { code: 0, .. } => "Completed",
            _ => "Error",
        };
        Self {
            code: exit.code,
            signal: exit.signal,
            reason: reason.into(),
            message: exit.message.clone(),
            started_at: Some(exit.started_at),
            finished_at: exit.finished_at,
        }
    }

    /// Nobody saw how it ended.
    pub(crate) fn unknown(started_at: Option<Timestamp>, now: Timestamp) -> Self {
        Self {
            code: 137,
            signal: None,
            reason: "ContainerStatusUnknown".into(),
            message: "The container could not be located when the pod was deleted.  The container used to be Running"
                .into(),
            started_at,
            finished_at: now,
        }
    }
}

/// What a container does right now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Now {
    /// Nothing: not started yet, or ended.
    Idle,
    /// A job prepares and starts it.
    Starting,
    /// The start did not come off; tried again at `retry_at`.
    Failed {
        reason: &'static str,
        message: String,
        retry_at: Timestamp,
    },
    /// `CrashLoopBackOff`.
    BackingOff { delay: SignedDuration, until: Timestamp },
    /// Its program runs.
    Running(Running),
}

/// A running instance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Running {
    pub(crate) since: Timestamp,
    /// Its postStart hook has not come back yet.
    pub(crate) in_post_start: bool,
    /// The startup probe has succeeded, or there is none.
    pub(crate) started: bool,
    /// The readiness probe says so, or there is none.
    pub(crate) ready: bool,
    /// It is being stopped.
    pub(crate) stop: Option<Stop>,
}

/// A stop under way: preStop hook, SIGTERM, SIGKILL.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stop {
    /// Taken out when it has been said in an event.
    pub(crate) why: Option<StopReason>,
    /// When the grace period ends.
    pub(crate) deadline: Timestamp,
    pub(crate) hook: Hook,
    /// When SIGTERM was followed, or will be, by SIGKILL; `None` before SIGTERM.
    pub(crate) kill_at: Option<Timestamp>,
    pub(crate) killed: bool,
}

/// Why one container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The pod ends.
    Ending,
    /// A startup or liveness probe failed too often.
    Probe(ProbeKind),
    /// The postStart hook failed.
    PostStart,
}

/// Where the preStop hook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Due,
    Runs,
    Over,
}

/// One container of the spec.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Container {
    /// The number of the newest instance; `None` before the first.
    pub(crate) attempt: Option<u32>,
    /// How the newest instance ended; `None` while it runs.
    pub(crate) ended: Option<Terminated>,
    /// How the instance before that one ended.
    pub(crate) before: Option<Terminated>,
    pub(crate) now: Now,
    /// The image as it was resolved for the newest instance.
    pub(crate) image: Option<ImageInUse>,
    pub(crate) crash_backoff: Backoff,
    pub(crate) pull_backoff: Backoff,
    /// It belongs to a sandbox that is gone: an init container has to run again in the new one.
    pub(crate) rerun: bool,
}

impl Default for Container {
    fn default() -> Self {
        Self {
            attempt: None,
            ended: None,
            before: None,
            now: Now::Idle,
            image: None,
            crash_backoff: Backoff::default(),
            pull_backoff: Backoff::default(),
            rerun: false,
        }
    }
}

/// `status.containerStatuses[].image` and `.imageID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageInUse {
    pub(crate) name: String,
    pub(crate) id: String,
}

impl Container {
    pub(crate) fn running(&self) -> Option<&Running> {
        match &self.now {
            Now::Running(running) => Some(running),
            _ => None,
        }
    }

    fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.now {
            Now::Running(running) => Some(running),
            _ => None,
        }
    }

    /// The number the next instance gets.
    fn next_attempt(&self) -> u32 {
        self.attempt.map_or(0, |attempt| attempt + 1)
    }

    /// It runs or is about to.
    fn is_live(&self) -> bool {
        matches!(self.now, Now::Running(_) | Now::Starting)
    }

    fn succeeded(&self) -> bool {
        !self.rerun && !self.is_live() && self.ended.as_ref().is_some_and(|ended| ended.code == 0)
    }

    fn end(&mut self, terminated: Terminated) {
        self.ended = Some(terminated);
        self.now = Now::Idle;
    }
}

/// Namespaces and network of the pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SandboxState {
    Absent,
    Creating,
    Ready { ip: Ipv4Addr },
    Failed { message: String, retry_at: Timestamp },
}

/// The pod's volumes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum VolumesState {
    Absent,
    Preparing,
    Ready,
    Failed { message: String, retry_at: Timestamp },
}

/// Why the whole pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Every container came to its end, or the spec says that nothing can come of it any more.
    Finished,
    /// `activeDeadlineSeconds` are over.
    DeadlineExceeded,
    /// `metadata.deletionTimestamp` is set, with this grace period.
    Deleted { grace_seconds: i64 },
    /// The object is gone from the API; nobody is left to report to.
    Vanished { grace_seconds: i64 },
    /// The node ends its containers; the object stays.
    NodeStops,
}

/// Everything the kubelet remembers of a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodState {
    /// `status.startTime`.
    pub(crate) started_at: Timestamp,
    pub(crate) sandbox: SandboxState,
    pub(crate) volumes: VolumesState,
    /// Every container by name: init, plain and ephemeral.
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) ending: Option<Ending>,
    /// For which ending [`Action::Finish`] was given out.
    finished: Option<Ending>,
    pub(crate) pace: Pace,
}

/// What has happened.
#[derive(Debug)]
pub(crate) enum Report {
    Sandbox(Result<Ipv4Addr, String>),
    Volumes(Result<(), String>),
    Started {
        name: String,
        attempt: u32,
        since: Timestamp,
        image: ImageInUse,
    },
    StartFailed {
        name: String,
        attempt: u32,
        failure: StartFailure,
    },
    PostStart {
        name: String,
        attempt: u32,
        succeeded: bool,
    },
    PreStop {
        name: String,
        attempt: u32,
    },
    /// `None`: nobody saw how.
    Exited {
        name: String,
        attempt: u32,
        how: Option<Terminated>,
    },
    /// The sandbox of this live container died, and every container in it.
    SandboxGone {
        name: String,
    },
    Probe {
        name: String,
        attempt: u32,
        kind: ProbeKind,
        healthy: bool,
    },
}

/// Why a container was not started.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StartFailure {
    /// `ErrImagePull`, `CreateContainerConfigError`, …
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// The instance existed and ended at once (`StartError`): its number is used up.
    pub(crate) ended: Option<Terminated>,
}

impl StartFailure {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            ended: None,
        }
    }
}

/// The three probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

/// What the worker has to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    CreateSandbox,
    PrepareVolumes,
    /// `may_pull`: an image that is not there may be pulled now.
    Start {
        name: String,
        attempt: u32,
        may_pull: bool,
    },
    RunPreStop {
        name: String,
        attempt: u32,
        deadline: Timestamp,
    },
    Signal {
        name: String,
        attempt: u32,
        signal: Signal,
    },
    Event {
        container: Option<String>,
        severity: Severity,
        reason: &'static str,
        message: String,
    },
    /// All containers have ended and none will start again: report, clean up, and delete the object if it wants to go.
    Finish,
}

/// Which signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM, or what the container's `stopSignal` says.
    Stop,
    Kill,
}

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Init,
    Sidecar,
    Main,
    Ephemeral,
}

/// A container of the spec with its role. Ephemeral containers have the same fields under another type's name.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = (Role, &ContainerSpec)> {
    let spec = pod.spec.as_ref();
    let init = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let main = spec.into_iter().flat_map(|spec| spec.containers.iter());
    init.map(|container| (role_of_init(container), container))
        .chain(main.map(|container| (Role::Main, container)))
}

/// Init containers with `restartPolicy: Always` are sidecars.
pub(crate) fn role_of_init(container: &ContainerSpec) -> Role {
    if container.restart_policy.as_deref() == Some("Always") {
        Role::Sidecar
    } else {
        Role::Init
    }
}

/// The ephemeral containers of a pod.
pub(crate) fn ephemeral_containers(pod: &Pod) -> impl Iterator<Item = &EphemeralContainer> {
    pod.spec
        .iter()
        .flat_map(|spec| spec.ephemeral_containers.iter().flatten())
}

/// A container of any role by name; an ephemeral one is turned into a plain one (it is a container without ports,
/// probes and resources).
pub(crate) fn find_container(pod: &Pod, name: &str) -> Option<(Role, ContainerSpec)> {
    if let Some((role, container)) = containers(pod).find(|(_, container)| container.name == name) {
        return Some((role, container.clone()));
    }
    let ephemeral = ephemeral_containers(pod)
        .find(|container| container.name == name)?
        .clone();
    let container = ContainerSpec {
        name: ephemeral.name,
        image: ephemeral.image,
        command: ephemeral.command,
        args: ephemeral.args,
        working_dir: ephemeral.working_dir,
        env: ephemeral.env,
        env_from: ephemeral.env_from,
        volume_mounts: ephemeral.volume_mounts,
        image_pull_policy: ephemeral.image_pull_policy,
        security_context: ephemeral.security_context,
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        tty: ephemeral.tty,
        termination_message_path: ephemeral.termination_message_path,
        termination_message_policy: ephemeral.termination_message_policy,
        ..Default::default()
    };
    Some((Role::Ephemeral, container))
}

/// `spec.restartPolicy`.
pub(crate) fn restart_policy(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
        .unwrap_or("Always")
}

/// Whether an instance that ended with `code` is followed by another one, its own rules first, then its own policy,
/// then the pod's. Nothing here of deletion, back-off or deadlines.
pub(crate) fn restarts(pod: &Pod, role: Role, container: &ContainerSpec, code: i32) -> bool {
    if role == Role::Sidecar {
        return true;
    }
    if role == Role::Ephemeral {
        return false;
    }
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|value| *value == code);
        if (codes.operator == "In") == listed {
            return rule.action == "Restart";
        }
    }
    match container
        .restart_policy
        .as_deref()
        .unwrap_or_else(|| restart_policy(pod))
    {
        "Never" => false,
        // An init container that has done its work is not run again, whatever the pod's policy.
        "Always" if role == Role::Main => true,
        _ => code != 0,
    }
}

impl PodState {
    /// A pod that was just accepted.
    pub(crate) fn new(now: Timestamp, pace: Pace) -> Self {
        Self {
            started_at: now,
            sandbox: SandboxState::Absent,
            volumes: VolumesState::Absent,
            containers: BTreeMap::new(),
            ending: None,
            finished: None,
            pace,
        }
    }

    /// Whether everything that ever ran has ended and nothing will start again.
    pub(crate) fn is_over(&self) -> bool {
        self.ending.is_some()
            && !self.containers.values().any(Container::is_live)
            && !matches!(self.sandbox, SandboxState::Creating)
            && !matches!(self.volumes, VolumesState::Preparing)
    }

    /// Takes in what happened. Reports about instances that are not the newest are old news.
    pub(crate) fn apply(&mut self, pod: &Pod, report: Report, now: Timestamp) {
        let retry_at = later(now, self.retry_after());
        match report {
            Report::Sandbox(Ok(ip)) => self.sandbox = SandboxState::Ready { ip },
            Report::Sandbox(Err(message)) => self.sandbox = SandboxState::Failed { message, retry_at },
            Report::Volumes(Ok(())) => self.volumes = VolumesState::Ready,
            // Volumes that were filled once stay usable when they cannot be brought up to date.
            Report::Volumes(Err(_)) if self.volumes == VolumesState::Ready => {}
            Report::Volumes(Err(message)) => self.volumes = VolumesState::Failed { message, retry_at },
            Report::Started {
                name,
                attempt,
                since,
                image,
            } => self.started(pod, name, attempt, since, image),
            Report::StartFailed { name, attempt, failure } => self.start_failed(name, attempt, failure, now),
            Report::PostStart {
                name,
                attempt,
                succeeded,
            } => {
                let deadline = later(now, grace_of(pod));
                if let Some(running) = self.instance(&name, attempt).and_then(Container::running_mut) {
                    running.in_post_start = false;
                    if !succeeded {
                        running.stop.get_or_insert(Stop::new(StopReason::PostStart, deadline));
                    }
                }
            }
            Report::PreStop { name, attempt } => {
                let running = self.instance(&name, attempt).and_then(Container::running_mut);
                if let Some(stop) = running.and_then(|running| running.stop.as_mut()) {
                    stop.hook = Hook::Over;
                }
            }
            Report::Exited { name, attempt, how } => {
                if let Some(container) = self.instance(&name, attempt) {
                    let since = container.running().map(|running| running.since);
                    container.end(how.unwrap_or_else(|| Terminated::unknown(since, now)));
                }
            }
            Report::SandboxGone { name } => {
                // Of several containers that tell, the first is believed: then there is a new sandbox.
                if self.containers.get(&name).is_some_and(Container::is_live) {
                    self.sandbox_gone(now);
                }
            }
            Report::Probe {
                name,
                attempt,
                kind,
                healthy,
            } => self.probed(pod, &name, attempt, kind, healthy, now),
        }
    }

    fn started(&mut self, pod: &Pod, name: String, attempt: u32, since: Timestamp, image: ImageInUse) {
        let Some((_, spec)) = find_container(pod, &name) else {
            return;
        };
        let container = self.containers.entry(name).or_default();
        container.before = container.ended.take().or(container.before.take());
        container.attempt = Some(attempt);
        container.image = Some(image);
        container.rerun = false;
        container.pull_backoff = Backoff::default();
        container.now = Now::Running(Running {
            since,
            in_post_start: spec.lifecycle.is_some_and(|lifecycle| lifecycle.post_start.is_some()),
            started: spec.startup_probe.is_none(),
            ready: spec.readiness_probe.is_none(),
            stop: None,
        });
    }

    /// How long after an error that is not a crash the same is tried again (upstream: the pod worker's back-off).
    fn retry_after(&self) -> SignedDuration {
        let real = std::time::Duration::from_secs(10);
        SignedDuration::try_from(self.pace.scale(real)).unwrap_or(SignedDuration::from_secs(10))
    }

    /// The running instance with this number, if it is the newest.
    fn instance(&mut self, name: &str, attempt: u32) -> Option<&mut Container> {
        self.containers
            .get_mut(name)
            .filter(|container| container.attempt == Some(attempt))
    }

    fn start_failed(&mut self, name: String, attempt: u32, failure: StartFailure, now: Timestamp) {
        let mut retry_at = later(now, self.retry_after());
        let pace = self.pace;
        let container = self.containers.entry(name).or_default();
        let StartFailure { reason, message, ended } = failure;
        if let Some(ended) = ended {
            // It counts as an instance that crashed: the crash back-off decides when it is tried again.
            container.before = container.ended.take().or(container.before.take());
            container.attempt = Some(attempt);
            container.rerun = false;
            return container.end(ended);
        }
        if reason == "ErrImagePull" {
            container.pull_backoff.next(now, now, pace);
            // The next look comes soon and only to say `ImagePullBackOff`.
            retry_at = later(now, SignedDuration::from_secs(1));
        }
        container.now = Now::Failed {
            reason,
            message,
            retry_at,
        };
    }

    fn sandbox_gone(&mut self, now: Timestamp) {
        self.sandbox = SandboxState::Absent;
        self.volumes = VolumesState::Absent;
        for container in self.containers.values_mut() {
            match &container.now {
                Now::Running(running) => {
                    let since = running.since;
                    container.end(Terminated::unknown(Some(since), now));
                }
                Now::Starting => container.now = Now::Idle,
                _ => {}
            }
            container.rerun = true;
        }
    }

    /// A ConfigMap or Secret of the pod is different: what failed for want of it is tried at once.
    pub(crate) fn inputs_changed(&mut self, now: Timestamp) {
        if let VolumesState::Failed { retry_at, .. } = &mut self.volumes {
            *retry_at = now;
        }
        for container in self.containers.values_mut() {
            if let Now::Failed {
                reason: "CreateContainerConfigError",
                retry_at,
                ..
            } = &mut container.now
            {
                *retry_at = now;
            }
        }
    }

    fn probed(&mut self, pod: &Pod, name: &str, attempt: u32, kind: ProbeKind, healthy: bool, now: Timestamp) {
        let Some(running) = self.instance(name, attempt).and_then(Container::running_mut) else {
            return;
        };
        match kind {
            ProbeKind::Readiness => running.ready = healthy,
            ProbeKind::Startup if healthy => running.started = true,
            ProbeKind::Liveness if healthy => {}
            ProbeKind::Startup | ProbeKind::Liveness => {
                let spec = find_container(pod, name).map(|(_, spec)| spec);
                let probe = spec.and_then(|spec| match kind {
                    ProbeKind::Startup => spec.startup_probe,
                    _ => spec.liveness_probe,
                });
                let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
                let grace = own.map_or_else(|| grace_of(pod), SignedDuration::from_secs);
                running
                    .stop
                    .get_or_insert(Stop::new(StopReason::Probe(kind), later(now, grace)));
            }
        }
    }
}

impl Stop {
    fn new(why: StopReason, deadline: Timestamp) -> Self {
        Self {
            why: Some(why),
            deadline,
            hook: Hook::Due,
            kill_at: None,
            killed: false,
        }
    }
}

/// `spec.terminationGracePeriodSeconds`.
fn grace_of(pod: &Pod) -> SignedDuration {
    let seconds = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds)
        .unwrap_or(30);
    SignedDuration::from_secs(seconds.max(0))
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}
