//! What the pod spec says, in the words the state machine uses.
//!
//! Pure.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, EphemeralContainer, Pod};

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
fn role_of_init(container: &ContainerSpec) -> Role {
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
fn restart_policy(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
        .unwrap_or("Always")
}

/// Whether an instance that ended with `code` is followed by another one, its own rules first, then its own policy,
/// then the pod's. Nothing here of deletion, back-off or deadlines.
pub(super) fn restarts(pod: &Pod, role: Role, container: &ContainerSpec, code: i32) -> bool {
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

/// `spec.terminationGracePeriodSeconds`.
pub(super) fn grace_of(pod: &Pod) -> SignedDuration {
    let seconds = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds)
        .unwrap_or(30);
    SignedDuration::from_secs(seconds.max(0))
}
