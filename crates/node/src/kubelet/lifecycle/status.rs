//! What the API server is told of a pod: phase, conditions, container statuses.
//!
//! Pure. Source of the rules: `pkg/kubelet/kubelet_pods.go` and `pkg/kubelet/status/generate.go` of kubernetes 1.36.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as ContainerSpec, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Container, Ending, Now, PodState, Role, SandboxState, Terminated, containers, ephemeral_containers, find_container,
    phase,
};
use crate::runtime::ContainerId;

/// The scheme in `containerID`.
pub(crate) const RUNTIME: &str = "k8slab";

/// The conditions that the kubelet owns, in the order in which they are written.
const OWNED: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// Whether the kubelet writes this condition.
pub(crate) fn is_owned(condition: &str) -> bool {
    OWNED.contains(&condition)
}

/// The status of a pod as its kubelet sees it. `known` is the status written before (transition times and conditions of
/// others come from there).
pub(crate) fn of(pod: &Pod, state: &PodState, host: IpAddr, known: &PodStatus, now: Timestamp) -> PodStatus {
    let over = state.is_over();
    let has_init = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.init_containers.iter().flatten().next().is_some());
    let waiting = if has_init {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    let status_of = |(role, spec): (Role, &ContainerSpec)| {
        let container = state.containers.get(&spec.name).cloned().unwrap_or_default();
        container_status(pod, state, role, spec, &container, waiting, now)
    };
    let init: Vec<_> = containers(pod)
        .filter(|(role, _)| *role != Role::Main)
        .map(status_of)
        .collect();
    let main: Vec<_> = containers(pod)
        .filter(|(role, _)| *role == Role::Main)
        .map(status_of)
        .collect();
    let ephemeral: Vec<_> = ephemeral_containers(pod)
        .filter_map(|spec| find_container(pod, &spec.name))
        .map(|(role, spec)| status_of((role, &spec)))
        .collect();

    let mut phase = phase::phase(pod, &init, &main, over);
    if over && !matches!(phase, "Succeeded" | "Failed") && state.ending != Some(Ending::NodeStops) {
        // Ended before it had begun.
        phase = "Failed";
    }
    let (mut reason, mut message) = (None, None);
    if state.ending == Some(Ending::DeadlineExceeded) {
        phase = "Failed";
        reason = Some("DeadlineExceeded".to_owned());
        message = Some("Pod was active on the node longer than the specified deadline".to_owned());
    }
    if let Some(before @ ("Succeeded" | "Failed")) = known.phase.as_deref() {
        // A terminal phase is never left.
        phase = if before == "Failed" { "Failed" } else { "Succeeded" };
        (reason, message) = (known.reason.clone(), known.message.clone());
    }

    let ip = match &state.sandbox {
        SandboxState::Ready { ip } => Some(ip.to_string()),
        _ if over => known.pod_ip.clone(),
        _ => None,
    };
    let mut conditions = vec![
        sandbox_condition(state),
        initialized(pod, &init, &main, phase),
        ready(pod, &init, &main, phase, known),
        containers_ready(pod, &init, &main, phase),
        verdict("PodScheduled", Ok(None)),
    ];
    let before = known.conditions.as_deref().unwrap_or_default();
    for condition in &mut conditions {
        condition.observed_generation = pod.metadata.generation;
        let same = before
            .iter()
            .find(|old| old.type_ == condition.type_ && old.status == condition.status);
        condition.last_transition_time = same
            .and_then(|old| old.last_transition_time.clone())
            .or(Some(Time(now)));
    }
    conditions.extend(
        before
            .iter()
            .filter(|old| !OWNED.contains(&old.type_.as_str()))
            .cloned(),
    );

    PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        observed_generation: pod.metadata.generation,
        host_ip: Some(host.to_string()),
        host_ips: Some(vec![HostIP { ip: host.to_string() }]),
        pod_ips: ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: ip,
        start_time: Some(Time(state.started_at)),
        qos_class: known.qos_class.clone().or_else(|| Some(qos_class(pod).to_owned())),
        conditions: Some(conditions),
        init_container_statuses: Some(init).filter(|list| !list.is_empty()),
        container_statuses: Some(main).filter(|list| !list.is_empty()),
        ephemeral_container_statuses: Some(ephemeral).filter(|list| !list.is_empty()),
        ..Default::default()
    }
}

fn container_status(
    pod: &Pod,
    state: &PodState,
    role: Role,
    spec: &ContainerSpec,
    container: &Container,
    waiting: &str,
    now: Timestamp,
) -> ContainerStatus {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let id_of = |attempt: u32| {
        format!(
            "{RUNTIME}://{}",
            ContainerId::new(uid.clone(), &spec.name, attempt).hex()
        )
    };
    let newest = container.attempt.map(id_of);
    let previous = container.attempt.and_then(|attempt| attempt.checked_sub(1)).map(id_of);
    let wait = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message,
        }),
        ..Default::default()
    };
    let before = || {
        container
            .before
            .as_ref()
            .map(|ended| terminated(ended, previous.clone()))
    };
    let ended = || container.ended.as_ref().map(|ended| terminated(ended, newest.clone()));
    let (now_is, last) = match &container.now {
        Now::Running(running) => (
            ContainerState {
                running: Some(ContainerStateRunning {
                    started_at: Some(Time(running.since)),
                }),
                ..Default::default()
            },
            before(),
        ),
        Now::Failed { reason, message, .. } if !state.is_over() => (
            wait(reason, Some(message.clone()).filter(|m| !m.is_empty())),
            ended().or_else(before),
        ),
        Now::BackingOff { delay, .. } => {
            let message = format!(
                "back-off {} restarting failed container={} pod={}_{}({uid})",
                apimachinery::duration::format_go(*delay),
                spec.name,
                pod.metadata.name.as_deref().unwrap_or_default(),
                pod.metadata.namespace.as_deref().unwrap_or_default(),
            );
            (wait("CrashLoopBackOff", Some(message)), ended())
        }
        _ if container.ended.is_some() && !(container.rerun && container.now == Now::Starting) => {
            (ended().unwrap_or_default(), before())
        }
        _ if state.is_over() && state.ending != Some(Ending::NodeStops) && role != Role::Ephemeral => {
            // It never got so far; the pod's phase needs every container to have an end.
            let mut unknown = Terminated::unknown(None, now);
            unknown.message = "The container could not be located when the pod was terminated".into();
            let known = container
                .before
                .as_ref()
                .map(|ended| terminated(ended, previous.clone()));
            (terminated(&unknown, None), known)
        }
        _ => (wait(waiting, None), ended().or_else(before)),
    };
    let running = container.running();
    let succeeded = container.ended.as_ref().is_some_and(|ended| ended.code == 0);
    let ready = match role {
        Role::Init => running.is_none() && succeeded,
        _ => running.is_some_and(|running| running.started && running.ready && !running.in_post_start),
    };
    let image = container.image.as_ref();
    ContainerStatus {
        name: spec.name.clone(),
        image: image.map_or_else(|| spec.image.clone().unwrap_or_default(), |image| image.name.clone()),
        image_id: image.map(|image| image.id.clone()).unwrap_or_default(),
        container_id: newest,
        ready,
        started: Some(running.is_some_and(|running| running.started && !running.in_post_start)),
        restart_count: i32::try_from(container.attempt.unwrap_or(0)).unwrap_or(i32::MAX),
        state: Some(now_is),
        // An empty object, as every kubelet writes it.
        last_state: Some(last.unwrap_or_default()),
        resources: running.and(resources(spec)),
        allocated_resources: running
            .and(spec.resources.as_ref())
            .and_then(|resources| resources.requests.clone()),
        volume_mounts: volume_mounts(spec),
        ..Default::default()
    }
}

fn terminated(ended: &Terminated, container_id: Option<String>) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: ended.code,
            reason: Some(ended.reason.clone()),
            message: Some(ended.message.clone()).filter(|message| !message.is_empty()),
            started_at: ended.started_at.map(Time),
            finished_at: Some(Time(ended.finished_at)),
            container_id,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn resources(spec: &ContainerSpec) -> Option<ResourceRequirements> {
    spec.resources
        .clone()
        .filter(|resources| *resources != ResourceRequirements::default())
}

fn volume_mounts(spec: &ContainerSpec) -> Option<Vec<VolumeMountStatus>> {
    let mounts = spec.volume_mounts.as_ref()?.iter().map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount
            .read_only
            .filter(|read_only| *read_only)
            .map(|_| "Disabled".to_owned()),
        ..Default::default()
    });
    Some(mounts.collect())
}

/// A condition: true, with a reason or none, or false with reason and message.
fn verdict(type_: &str, outcome: Result<Option<&str>, (&str, Option<String>)>) -> PodCondition {
    let (status, reason, message) = match outcome {
        Ok(reason) => ("True", reason, None),
        Err((reason, message)) => ("False", Some(reason), message),
    };
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.filter(|reason| !reason.is_empty()).map(str::to_owned),
        message,
        ..Default::default()
    }
}

fn sandbox_condition(state: &PodState) -> PodCondition {
    let there = matches!(state.sandbox, SandboxState::Ready { .. }) && !state.is_over();
    verdict(
        "PodReadyToStartContainers",
        if there { Ok(None) } else { Err(("", None)) },
    )
}

fn initialized(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], phase: &str) -> PodCondition {
    let is_missing = |(role, spec): &(Role, &ContainerSpec)| match init.iter().find(|status| status.name == spec.name) {
        Some(status) if *role == Role::Sidecar => status.started != Some(true),
        Some(status) => !status.ready,
        None => true,
    };
    let missing: Vec<_> = containers(pod)
        .filter(|(role, _)| *role != Role::Main)
        .filter(is_missing)
        .map(|(_, spec)| spec.name.as_str())
        .collect();
    let outcome = if phase == "Succeeded" {
        Ok(Some("PodCompleted"))
    } else if missing.is_empty() || main.iter().any(|status| status.container_id.is_some()) {
        Ok(None)
    } else {
        Err((
            "ContainersNotInitialized",
            Some(format!("containers with incomplete status: [{}]", missing.join(" "))),
        ))
    };
    verdict("Initialized", outcome)
}

fn containers_ready(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], phase: &str) -> PodCondition {
    verdict("ContainersReady", readiness(pod, init, main, phase))
}

fn readiness(
    pod: &Pod,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    phase: &str,
) -> Result<Option<&'static str>, (&'static str, Option<String>)> {
    match phase {
        "Succeeded" => return Err(("PodCompleted", None)),
        "Failed" => return Err(("PodFailed", None)),
        _ => {}
    }
    let is_unready = |(role, spec): &(Role, &ContainerSpec)| {
        let statuses = if *role == Role::Main { main } else { init };
        !statuses.iter().any(|status| status.name == spec.name && status.ready)
    };
    let unready: Vec<_> = containers(pod)
        .filter(|(role, _)| matches!(role, Role::Main | Role::Sidecar))
        .filter(is_unready)
        .map(|(_, spec)| spec.name.as_str())
        .collect();
    if unready.is_empty() {
        Ok(None)
    } else {
        Err((
            "ContainersNotReady",
            Some(format!("containers with unready status: [{}]", unready.join(" "))),
        ))
    }
}

fn ready(
    pod: &Pod,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    phase: &str,
    known: &PodStatus,
) -> PodCondition {
    let outcome = readiness(pod, init, main, phase).and_then(|reason| {
        let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
        let conditions = known.conditions.as_deref().unwrap_or_default();
        let problems: Vec<_> = gates
            .filter_map(|gate| {
                let gate = &gate.condition_type;
                match conditions.iter().find(|condition| condition.type_ == *gate) {
                    None => Some(format!(
                        "corresponding condition of pod readiness gate \"{gate}\" does not exist."
                    )),
                    Some(condition) if condition.status != "True" => Some(format!(
                        "the status of pod readiness gate \"{gate}\" is not \"True\", but {}",
                        condition.status
                    )),
                    Some(_) => None,
                }
            })
            .collect();
        if problems.is_empty() {
            Ok(reason)
        } else {
            Err(("ReadinessGatesNotReady", Some(problems.join(", "))))
        }
    });
    verdict("Ready", outcome)
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for (_, spec) in containers(pod) {
        let resources = spec.resources.clone().unwrap_or_default();
        let (requests, limits) = (
            resources.requests.unwrap_or_default(),
            resources.limits.unwrap_or_default(),
        );
        for name in ["cpu", "memory"] {
            let amount = |list: &std::collections::BTreeMap<String, _>| {
                list.get(name)
                    .and_then(|quantity| crate::scheduler::requests::amount(name, quantity))
                    .filter(|n| *n > 0)
            };
            let (request, limit) = (amount(&requests), amount(&limits));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
