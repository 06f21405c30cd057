//! `status.phase` from the container statuses.
//!
//! Pure. Source of the rules: `pkg/kubelet/kubelet_pods.go` `getPhase` of kubernetes 1.36.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::spec::{Role, containers, restarts};

/// Where a container is in its life, as far as the phase cares.
enum Stage<'a> {
    Unknown,
    /// Not started yet.
    Waiting,
    Running(&'a ContainerStatus),
    /// Ended with this code; maybe waiting to be started again.
    Stopped(i32),
}

fn stage<'a>(statuses: &'a [ContainerStatus], name: &str) -> Stage<'a> {
    let Some(status) = statuses.iter().find(|status| status.name == name) else {
        return Stage::Unknown;
    };
    match &status.state {
        Some(ContainerState { running: Some(_), .. }) => Stage::Running(status),
        Some(ContainerState {
            terminated: Some(ended),
            ..
        }) => Stage::Stopped(ended.exit_code),
        Some(ContainerState { waiting: Some(_), .. }) => {
            match status.last_state.as_ref().and_then(|last| last.terminated.as_ref()) {
                Some(ended) => Stage::Stopped(ended.exit_code),
                None => Stage::Waiting,
            }
        }
        _ => Stage::Unknown,
    }
}

/// The phase. `over`: nothing will be started again, whatever the restart policy says.
pub(super) fn phase(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], over: bool) -> &'static str {
    let (mut init_pending, mut sidecar_pending, mut init_failed) = (false, false, false);
    let (mut running, mut waiting, mut unknown, mut stopped) = (0, 0, 0, 0);
    let (mut failed, mut due_again, mut main_started) = (0, 0, false);
    for (role, spec) in containers(pod) {
        let statuses = if role == Role::Main { main } else { init };
        match (role, stage(statuses, &spec.name)) {
            (Role::Init, Stage::Stopped(0)) => {}
            (Role::Init, Stage::Stopped(code)) => init_failed |= !restarts(pod, role, spec, code),
            (Role::Init, _) => init_pending = true,
            (Role::Sidecar, Stage::Running(status)) => {
                sidecar_pending |= status.started != Some(true);
                running += 1;
            }
            // Sidecars that ended do not count.
            (Role::Sidecar, Stage::Stopped(_)) => {}
            (Role::Sidecar, Stage::Waiting) => (sidecar_pending, waiting) = (true, waiting + 1),
            (Role::Sidecar, Stage::Unknown) => (sidecar_pending, unknown) = (true, unknown + 1),
            (_, Stage::Running(_)) => (running, main_started) = (running + 1, true),
            (_, Stage::Stopped(code)) => {
                (stopped, main_started) = (stopped + 1, true);
                failed += usize::from(code != 0);
                due_again += usize::from(restarts(pod, role, spec, code));
            }
            (_, Stage::Waiting) => waiting += 1,
            (_, Stage::Unknown) => unknown += 1,
        }
    }
    let outcome = if failed == 0 { "Succeeded" } else { "Failed" };
    if init_failed {
        "Failed"
    } else if init_pending || (sidecar_pending && !main_started) || waiting > 0 {
        "Pending"
    } else if running > 0 && unknown == 0 {
        "Running"
    } else if stopped > 0 && unknown == 0 {
        if over || due_again == 0 { outcome } else { "Running" }
    } else {
        "Pending"
    }
}
