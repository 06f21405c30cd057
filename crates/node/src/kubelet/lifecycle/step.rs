//! What to do next: which containers to start, stop, signal, and when to look again.
//!
//! Pure. Order and rules follow `pkg/kubelet/kuberuntime` of kubernetes 1.36 (`computePodActions`, `killContainer`).

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod};

use super::container::{Hook, Stop, StopReason};
use super::spec::{grace_of, restarts};
use super::{
    Action, Container, Ending, Now, PodState, Role, SandboxState, Signal, VolumesState, containers,
    ephemeral_containers, find_container, later,
};
use crate::events::Severity;

/// SIGKILL never comes sooner than this after SIGTERM.
const LEAST_GRACE: SignedDuration = SignedDuration::from_secs(2);

/// What became of one container in the walk over the spec.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The next one may go on.
    Done,
    /// Everything after it waits.
    Waits,
    /// It ended and will not be started again.
    Final,
}

impl PodState {
    /// The pod shall end. A later word replaces an earlier one; a shorter grace period cuts a longer one.
    pub(crate) fn end(&mut self, ending: Ending, now: Timestamp) {
        let outranked = match self.ending {
            Some(Ending::Vanished { .. }) => true,
            // The object still waits to be deleted.
            Some(Ending::Deleted { .. }) => ending == Ending::NodeStops,
            _ => false,
        };
        if outranked || self.ending == Some(ending) {
            return;
        }
        self.ending = Some(ending);
        if let Ending::Deleted { grace_seconds } | Ending::Vanished { grace_seconds } = ending {
            let deadline = later(now, SignedDuration::from_secs(grace_seconds));
            for running in self.containers.values_mut().filter_map(Container::running_mut) {
                if let Some(stop) = &mut running.stop {
                    stop.deadline = stop.deadline.min(deadline);
                    let least = later(now, LEAST_GRACE);
                    stop.kill_at = stop.kill_at.map(|kill_at| kill_at.min(deadline.max(least)));
                }
            }
        }
    }

    /// Decides. Every action is given out once: the state remembers that it is under way.
    pub(crate) fn step(&mut self, pod: &Pod, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        let names = containers(pod)
            .map(|(_, spec)| &spec.name)
            .chain(ephemeral_containers(pod).map(|spec| &spec.name));
        for name in names {
            if !self.containers.contains_key(name) {
                self.containers.insert(name.clone(), Container::default());
            }
        }
        if self.ending.is_none() && self.deadline(pod).is_some_and(|deadline| deadline <= now) {
            self.end(Ending::DeadlineExceeded, now);
        }
        if self.ending.is_none() {
            self.start_what_is_due(pod, now, &mut actions);
        }
        match self.ending {
            Some(ending) => self.stop_everything(pod, ending, now),
            None => self.stop_what_changed(pod, now),
        }
        self.drive_stops(pod, now, &mut actions);
        if self.is_over() && self.finished != self.ending {
            self.finished = self.ending;
            actions.push(Action::Finish);
        }
        actions
    }

    /// When to step again if nothing happens before. What is due already and was not done waits for a report.
    pub(crate) fn wake_at(&self, pod: &Pod, now: Timestamp) -> Option<Timestamp> {
        let mut times = Vec::new();
        if self.ending.is_none() {
            times.extend(self.deadline(pod));
            if let SandboxState::Failed { retry_at, .. } = &self.sandbox {
                times.push(*retry_at);
            }
            if let VolumesState::Failed { retry_at, .. } = &self.volumes {
                times.push(*retry_at);
            }
        }
        for container in self.containers.values() {
            match &container.now {
                Now::Failed { retry_at, .. } if self.ending.is_none() => times.push(*retry_at),
                Now::BackingOff { until, .. } if self.ending.is_none() => times.push(*until),
                Now::Running(running) => {
                    if let Some(stop) = running.stop.as_ref().filter(|stop| !stop.killed) {
                        times.push(stop.kill_at.unwrap_or(stop.deadline));
                    }
                }
                _ => {}
            }
        }
        times.into_iter().filter(|at| *at > now).min()
    }

    fn deadline(&self, pod: &Pod) -> Option<Timestamp> {
        let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
        Some(later(self.started_at, SignedDuration::from_secs(seconds)))
    }

    fn start_what_is_due(&mut self, pod: &Pod, now: Timestamp, actions: &mut Vec<Action>) {
        if self.has_nothing_left(pod) {
            return self.end(Ending::Finished, now);
        }
        if !self.prepare(now, actions) {
            return;
        }
        match self.run_init(pod, now, actions) {
            Progress::Final => return self.end(Ending::Finished, now),
            Progress::Waits => return,
            Progress::Done => {}
        }
        for (role, spec) in containers(pod).filter(|(role, _)| *role == Role::Main) {
            self.run(pod, role, spec, now, actions);
            // Containers start in order, and a postStart hook is part of the start.
            let has_hook = spec
                .lifecycle
                .as_ref()
                .is_some_and(|lifecycle| lifecycle.post_start.is_some());
            let starts = self
                .containers
                .get(&spec.name)
                .is_some_and(|container| match &container.now {
                    Now::Starting => has_hook,
                    Now::Running(running) => running.in_post_start,
                    _ => false,
                });
            if starts {
                break;
            }
        }
        for ephemeral in ephemeral_containers(pod) {
            if let Some((role, spec)) = find_container(pod, &ephemeral.name) {
                self.run(pod, role, &spec, now, actions);
            }
        }
    }

    /// Whether every plain container has ended for good: no new sandbox is made for such a pod.
    fn has_nothing_left(&self, pod: &Pod) -> bool {
        containers(pod)
            .filter(|(role, _)| *role == Role::Main)
            .all(|(role, spec)| {
                let container = self.containers.get(&spec.name).filter(|container| !container.is_live());
                let ended = container.and_then(|container| container.ended.as_ref());
                ended.is_some_and(|ended| !restarts(pod, role, spec, ended.code))
            })
    }

    /// Sandbox and volumes; true when both are there.
    fn prepare(&mut self, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        match &self.sandbox {
            SandboxState::Failed { retry_at, .. } if *retry_at > now => {}
            SandboxState::Absent | SandboxState::Failed { .. } => {
                self.sandbox = SandboxState::Creating;
                actions.push(Action::CreateSandbox);
            }
            SandboxState::Creating | SandboxState::Ready { .. } => {}
        }
        match &self.volumes {
            VolumesState::Failed { retry_at, .. } if *retry_at > now => {}
            VolumesState::Absent | VolumesState::Failed { .. } => {
                self.volumes = VolumesState::Preparing;
                actions.push(Action::PrepareVolumes);
            }
            VolumesState::Preparing | VolumesState::Ready => {}
        }
        matches!(self.sandbox, SandboxState::Ready { .. }) && self.volumes == VolumesState::Ready
    }

    /// Init containers and sidecars, in order.
    fn run_init(&mut self, pod: &Pod, now: Timestamp, actions: &mut Vec<Action>) -> Progress {
        let mut mains = containers(pod).filter(|(role, _)| *role == Role::Main);
        // Once a plain container has been started here, sidecars come and go without holding anything up.
        let initialized = mains.any(|(_, spec)| {
            self.containers
                .get(&spec.name)
                .is_some_and(|main| !main.rerun && (main.attempt.is_some() || main.is_live()))
        });
        for (role, spec) in containers(pod) {
            match role {
                Role::Init if initialized => {}
                Role::Init => {
                    if self.containers.get(&spec.name).is_some_and(Container::succeeded) {
                        continue;
                    }
                    return match self.run(pod, role, spec, now, actions) {
                        Progress::Final => Progress::Final,
                        _ => Progress::Waits,
                    };
                }
                Role::Sidecar => {
                    self.run(pod, role, spec, now, actions);
                    let running = self.containers.get(&spec.name).and_then(Container::running);
                    if !initialized && !running.is_some_and(|r| r.started && !r.in_post_start) {
                        return Progress::Waits;
                    }
                }
                Role::Main | Role::Ephemeral => {}
            }
        }
        Progress::Done
    }

    /// One container: starts it (again) where that is due.
    fn run(
        &mut self,
        pod: &Pod,
        role: Role,
        spec: &ContainerSpec,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Progress {
        let pace = self.pace;
        let Some(container) = self.containers.get_mut(&spec.name) else {
            return Progress::Waits;
        };
        if container.is_live() {
            return Progress::Done;
        }
        if matches!(&container.now, Now::Failed { retry_at, .. } if *retry_at > now) {
            return Progress::Waits;
        }
        let ended = container
            .ended
            .as_ref()
            .filter(|_| !(container.rerun && role == Role::Init));
        if let Some(ended) = ended {
            if !restarts(pod, role, spec, ended.code) {
                container.now = Now::Idle;
                return Progress::Final;
            }
            let finished_at = ended.finished_at;
            if let Some((delay, until)) = container.crash_backoff.remaining(finished_at, now, pace) {
                if !matches!(container.now, Now::BackingOff { .. }) {
                    let meta = &pod.metadata;
                    actions.push(Action::Event {
                        container: Some(spec.name.clone()),
                        severity: Severity::Warning,
                        reason: "BackOff",
                        message: format!(
                            "Back-off restarting failed container {} in pod {}_{}({})",
                            spec.name,
                            meta.name.as_deref().unwrap_or_default(),
                            meta.namespace.as_deref().unwrap_or_default(),
                            meta.uid.as_deref().unwrap_or_default(),
                        ),
                    });
                }
                container.now = Now::BackingOff { delay, until };
                return Progress::Waits;
            }
            container.crash_backoff.next(finished_at, now, pace);
        }
        container.now = Now::Starting;
        actions.push(Action::Start {
            name: spec.name.clone(),
            attempt: container.next_attempt(),
            may_pull: !container.pull_backoff.holds(now, pace),
        });
        Progress::Waits
    }

    /// Begins to stop what is not being stopped yet.
    fn stop_everything(&mut self, pod: &Pod, ending: Ending, now: Timestamp) {
        let grace = match ending {
            Ending::Deleted { grace_seconds } | Ending::Vanished { grace_seconds } => {
                SignedDuration::from_secs(grace_seconds)
            }
            Ending::Finished | Ending::DeadlineExceeded | Ending::NodeStops => grace_of(pod),
        };
        for container in self.containers.values_mut() {
            match &mut container.now {
                Now::Running(running) => {
                    running
                        .stop
                        .get_or_insert_with(|| Stop::new(StopReason::Ending, later(now, grace)));
                }
                Now::BackingOff { .. } => container.now = Now::Idle,
                _ => {}
            }
        }
    }

    /// The image is the one thing of a running container that may be changed in the spec.
    fn stop_what_changed(&mut self, pod: &Pod, now: Timestamp) {
        let deadline = later(now, grace_of(pod));
        for (_, spec) in containers(pod) {
            let Some(container) = self.containers.get_mut(&spec.name) else {
                continue;
            };
            let (used, wanted) = (container.image.as_ref(), spec.image.as_ref());
            let same = used.zip(wanted).is_none_or(|(used, wanted)| used.name == *wanted);
            if let Some(running) = container.running_mut().filter(|_| !same) {
                running
                    .stop
                    .get_or_insert_with(|| Stop::new(StopReason::Changed, deadline));
            }
        }
    }

    /// Moves every stop on: hook, SIGTERM, SIGKILL.
    fn drive_stops(&mut self, pod: &Pod, now: Timestamp, actions: &mut Vec<Action>) {
        let stops = |container: &Container| container.running().is_some_and(|running| running.stop.is_some());
        if !self.containers.values().any(stops) {
            return;
        }
        let ephemeral = ephemeral_containers(pod).filter_map(|spec| find_container(pod, &spec.name));
        let mut order: Vec<_> = containers(pod)
            .map(|(role, spec)| (role, spec.clone()))
            .chain(ephemeral)
            .collect();
        // Walked backwards: a sidecar gets its signal when all that was started after it has ended.
        order.reverse();
        let mut later_ones_live = false;
        for (role, spec) in order {
            let Some(container) = self.containers.get_mut(&spec.name) else {
                continue;
            };
            let live = container.is_live();
            let attempt = container.attempt.unwrap_or(0);
            if let Some(stop) = container.running_mut().and_then(|running| running.stop.as_mut()) {
                let waits_for_others = role == Role::Sidecar && later_ones_live && self.ending.is_some();
                drive_stop(stop, &spec, attempt, waits_for_others, now, actions);
            }
            later_ones_live |= live;
        }
    }
}

fn drive_stop(
    stop: &mut Stop,
    spec: &ContainerSpec,
    attempt: u32,
    waits_for_others: bool,
    now: Timestamp,
    actions: &mut Vec<Action>,
) {
    let name = &spec.name;
    if let Some(why) = stop.why.take() {
        let message = match why {
            StopReason::Ending => format!("Stopping container {name}"),
            StopReason::Probe(kind) => format!("Container {name} failed {} probe, will be restarted", kind.word()),
            StopReason::Changed => format!("Container {name} definition changed, will be restarted"),
            StopReason::PostStart => "FailedPostStartHook".to_owned(),
        };
        let container = Some(name.clone());
        actions.push(Action::Event {
            container,
            severity: Severity::Normal,
            reason: "Killing",
            message,
        });
    }
    if stop.hook == Hook::Due {
        let has_hook = spec
            .lifecycle
            .as_ref()
            .is_some_and(|lifecycle| lifecycle.pre_stop.is_some());
        stop.hook = Hook::Over;
        // Without any grace there is no time for it.
        if has_hook && stop.deadline > now {
            stop.hook = Hook::Runs;
            actions.push(Action::RunPreStop {
                name: name.clone(),
                attempt,
                deadline: stop.deadline,
            });
        }
    }
    let has_time = now < stop.deadline;
    if stop.kill_at.is_none() && !(has_time && (stop.hook == Hook::Runs || waits_for_others)) {
        stop.kill_at = Some(stop.deadline.max(later(now, LEAST_GRACE)));
        actions.push(Action::Signal {
            name: name.clone(),
            attempt,
            signal: Signal::Stop,
        });
    }
    if !stop.killed && stop.kill_at.is_some_and(|kill_at| kill_at <= now) {
        stop.killed = true;
        actions.push(Action::Signal {
            name: name.clone(),
            attempt,
            signal: Signal::Kill,
        });
    }
}
