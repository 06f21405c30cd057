//! What has happened changes what is remembered.
//!
//! Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::container::{Hook, Now, Running, Stop, StopReason};
use super::spec::{find_container, grace_of};
use super::{
    Backoff, Container, ImageInUse, PodState, ProbeKind, Report, SandboxState, StartFailure, Terminated, VolumesState,
    later,
};

impl PodState {
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
                _ => container.now = Now::Idle,
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
