//! A pod's state after the daemon was away: from what the runtime still has and what the API server was told.
//!
//! Pure. The runtime knows better what runs; the API knows restart counts and endings of containers that are gone.

use apimachinery::pace::Pace;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as ContainerSpec, ContainerStateTerminated, ContainerStatus, Pod, PodStatus,
};

use super::container::Running;
use super::{
    Container, Ending, ImageInUse, Now, PodState, SandboxState, Terminated, containers, ephemeral_containers,
    find_container,
};
use crate::runtime::{AdoptedPod, AdoptedState};

/// The state of a pod when its worker begins.
pub(crate) fn restore(pod: &Pod, adopted: Option<&AdoptedPod>, now: Timestamp, pace: Pace) -> PodState {
    let status = pod.status.clone().unwrap_or_default();
    let mut state = PodState::new(status.start_time.as_ref().map_or(now, |time| time.0), pace);
    let alive = adopted.filter(|adopted| adopted.alive);
    if let Some(adopted) = alive {
        state.sandbox = SandboxState::Ready { ip: adopted.ip };
    }
    let specs = containers(pod).map(|(_, spec)| spec.clone());
    let ephemeral = ephemeral_containers(pod)
        .filter_map(|spec| find_container(pod, &spec.name))
        .map(|(_, spec)| spec);
    for spec in specs.chain(ephemeral) {
        let mut container = from_status(find(&status, &spec.name), now);
        if let Some(adopted) = adopted {
            from_runtime(&mut container, adopted, &spec, find(&status, &spec.name), now);
        }
        container.rerun = alive.is_none() && container.attempt.is_some();
        state.containers.insert(spec.name, container);
    }
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        let deadline = status.reason.as_deref() == Some("DeadlineExceeded");
        state.ending = Some(if deadline {
            Ending::DeadlineExceeded
        } else {
            Ending::Finished
        });
    }
    state
}

fn find<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let lists = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    lists.into_iter().flatten().flatten().find(|status| status.name == name)
}

fn from_status(status: Option<&ContainerStatus>, now: Timestamp) -> Container {
    let mut container = Container::default();
    let Some(status) = status else { return container };
    let ended = |state: &Option<_>| {
        let state: &k8s_openapi::api::core::v1::ContainerState = state.as_ref()?;
        state.terminated.as_ref().map(|ended| terminated(ended, now))
    };
    let running = status.state.as_ref().and_then(|state| state.running.as_ref());
    let (newest, last) = (ended(&status.state), ended(&status.last_state));
    if running.is_some() || newest.is_some() || last.is_some() {
        container.attempt = u32::try_from(status.restart_count).ok();
    }
    match (running, newest) {
        (Some(running), _) => {
            container.ended = Some(Terminated::unknown(running.started_at.as_ref().map(|time| time.0), now));
            container.before = last;
        }
        (None, Some(newest)) => (container.ended, container.before) = (Some(newest), last),
        (None, None) => container.ended = last,
    }
    if !status.image_id.is_empty() {
        container.image = Some(ImageInUse {
            name: status.image.clone(),
            id: status.image_id.clone(),
        });
    }
    container
}

fn terminated(ended: &ContainerStateTerminated, now: Timestamp) -> Terminated {
    Terminated {
        code: ended.exit_code,
        signal: ended.signal,
        reason: ended.reason.clone().unwrap_or_else(|| "Error".into()),
        message: ended.message.clone().unwrap_or_default(),
        started_at: ended.started_at.as_ref().map(|time| time.0),
        finished_at: ended.finished_at.as_ref().map_or(now, |time| time.0),
    }
}

fn from_runtime(
    container: &mut Container,
    adopted: &AdoptedPod,
    spec: &ContainerSpec,
    status: Option<&ContainerStatus>,
    now: Timestamp,
) {
    let mut instances: Vec<_> = adopted
        .containers
        .iter()
        .filter(|instance| instance.config.name == spec.name)
        .collect();
    instances.sort_by_key(|instance| instance.config.attempt);
    let end_of = |state: &AdoptedState| match state {
        AdoptedState::Exited(exit) => Terminated::from_exit(exit),
        AdoptedState::Running(started) => Terminated::unknown(Some(started.started_at), now),
        AdoptedState::Unknown => Terminated::unknown(None, now),
    };
    let Some(newest) = instances.pop() else { return };
    if container.attempt.is_some_and(|known| known > newest.config.attempt) {
        return;
    }
    let earlier = instances.pop().map(|instance| end_of(&instance.state));
    let same = container.attempt == Some(newest.config.attempt);
    // An instance that the API has never heard of pushes the one it knows back.
    let known_before = if same {
        container.before.take()
    } else {
        container.ended.take()
    };
    container.before = earlier.or(known_before);
    container.attempt = Some(newest.config.attempt);
    match &newest.state {
        AdoptedState::Running(started) if adopted.alive => {
            let told = status.filter(|_| same);
            container.ended = None;
            container.now = Now::Running(Running {
                since: started.started_at,
                in_post_start: false,
                started: spec.startup_probe.is_none() || told.is_some_and(|status| status.started == Some(true)),
                ready: spec.readiness_probe.is_none() || told.is_some_and(|status| status.ready),
                stop: None,
            });
        }
        state => {
            let told = container
                .ended
                .take()
                .filter(|ended| same && ended.reason != "ContainerStatusUnknown");
            container.ended = Some(told.unwrap_or_else(|| end_of(state)));
        }
    }
}
