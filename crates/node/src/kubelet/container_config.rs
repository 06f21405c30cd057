//! A container of the spec as the runtime wants it: command line, environment, mounts, security, limits.
//!
//! Pure but for the image's account files. Source of the rules: `pkg/kubelet/kuberuntime/kuberuntime_container*.go` of
//! kubernetes 1.36.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::expand::expand;
use super::lifecycle::status::qos_class;
use super::user::user;
use super::volumes;
use crate::image::Image;
use crate::runtime::{ContainerConfig, Mount, Resources, SeccompProfile, Security};
use crate::scheduler::requests::amount;

/// Everything is resolved: environment, image. `memory_capacity` is the node's, in bytes.
pub(crate) fn container_config(
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: &Image,
    env: &[(String, String)],
    pod_dir: &Path,
    memory_capacity: i64,
) -> Result<ContainerConfig, String> {
    let lookup = |name: &str| {
        env.iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| expand(word, lookup)).collect()
    };
    let (command, args) = (expanded(&container.command), expanded(&container.args));
    let words = if !command.is_empty() {
        [command, args].concat()
    } else if !args.is_empty() {
        [image.config.entrypoint.clone(), args].concat()
    } else {
        [image.config.entrypoint.clone(), image.config.cmd.clone()].concat()
    };
    if words.is_empty() {
        return Err("no command specified".into());
    }
    let own = env.iter().map(|(name, value)| format!("{name}={value}"));
    let cwd = container
        .working_dir
        .clone()
        .filter(|dir| !dir.is_empty())
        .unwrap_or_else(|| image.config.working_dir.clone());
    let message_path = container
        .termination_message_path
        .clone()
        .unwrap_or_else(|| "/dev/termination-log".into());
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt,
        layers: image.layers.clone(),
        args: words,
        env: image.config.env.iter().cloned().chain(own).collect(),
        cwd,
        user: user(pod, container, image)?,
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        security: security(pod, container)?,
        mounts: mounts(pod, container, env, pod_dir)?,
        resources: resources(pod, container, memory_capacity),
        termination_message_path: Some(message_path).filter(|path| !path.is_empty()),
    })
}

fn security(pod: &Pod, container: &Container) -> Result<Security, String> {
    let own = container.security_context.clone().unwrap_or_default();
    let pod_context = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.clone())
        .unwrap_or_default();
    let profile = own.seccomp_profile.or(pod_context.seccomp_profile);
    let seccomp = match profile.as_ref().map(|profile| profile.type_.as_str()) {
        None | Some("RuntimeDefault") => SeccompProfile::RuntimeDefault,
        Some("Unconfined") => SeccompProfile::Unconfined,
        Some(other) => {
            return Err(format!(
                "seccompProfile.type: expected RuntimeDefault or Unconfined on this node, got `{other}`"
            ));
        }
    };
    let capabilities = own.capabilities.unwrap_or_default();
    Ok(Security {
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        privileged: own.privileged == Some(true),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        read_only_root: own.read_only_root_filesystem == Some(true),
        seccomp,
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    })
}

fn mounts(pod: &Pod, container: &Container, env: &[(String, String)], pod_dir: &Path) -> Result<Vec<Mount>, String> {
    let lookup = |name: &str| {
        env.iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    let all = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let volumes: Vec<_> = all.collect();
    let mount = |wanted: &k8s_openapi::api::core::v1::VolumeMount| {
        let volume = volumes.iter().find(|volume| volume.name == wanted.name);
        let volume = volume.ok_or_else(|| {
            format!(
                "container `{}` mounts volume `{}`, which the pod does not have",
                container.name, wanted.name
            )
        })?;
        let by_expression = wanted.sub_path_expr.as_deref().map(|path| expand(path, lookup));
        let sub_path = by_expression
            .or_else(|| wanted.sub_path.clone())
            .filter(|path| !path.is_empty());
        if let Some(path) = &sub_path
            && (path.starts_with('/') || path.split('/').any(|part| part == ".."))
        {
            return Err(format!(
                "subPath of volume `{}`: expected a path inside it, got `{path}`",
                wanted.name
            ));
        }
        let made_of_files = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some();
        let claim = volume.persistent_volume_claim.as_ref();
        let mut source = volumes::path_of(pod_dir, volume);
        if volumes::is_persistent(volume) {
            source = std::fs::read_link(&source)
                .map_err(|error| format!("finding the folder of volume `{}`: {error}", wanted.name))?;
        }
        Ok(Mount {
            source,
            sub_path: sub_path.map(PathBuf::from),
            target: wanted.mount_path.clone(),
            // What the kubelet writes is nobody else's to change.
            read_only: wanted.read_only == Some(true)
                || made_of_files
                || claim.and_then(|claim| claim.read_only) == Some(true),
        })
    };
    container.volume_mounts.iter().flatten().map(mount).collect()
}

fn resources(pod: &Pod, container: &Container, memory_capacity: i64) -> Resources {
    let resources = container.resources.clone().unwrap_or_default();
    let get = |list: &Option<std::collections::BTreeMap<String, _>>, name: &str| {
        let quantity = list.as_ref().and_then(|list| list.get(name))?;
        amount(name, quantity)
            .and_then(|value| u64::try_from(value).ok())
            .filter(|value| *value > 0)
    };
    let memory_request = get(&resources.requests, "memory").unwrap_or(0);
    Resources {
        cpu_request_milli: get(&resources.requests, "cpu"),
        cpu_limit_milli: get(&resources.limits, "cpu"),
        memory_limit_bytes: get(&resources.limits, "memory"),
        oom_score_adj: oom_score_adj(pod, memory_request, memory_capacity),
        pids_limit: None,
    }
}

/// Who is killed first when memory runs out. Source: `pkg/kubelet/qos/policy.go`.
fn oom_score_adj(pod: &Pod, memory_request: u64, memory_capacity: i64) -> i32 {
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    // system-node-critical.
    if priority >= 2_000_001_000 {
        return -997;
    }
    match qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let share = i128::from(memory_request) * 1000 / i128::from(memory_capacity.max(1));
            let score = i32::try_from(1000 - share).unwrap_or(2);
            // Always below the best-effort pods, always above the guaranteed ones.
            score.clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::image::ImageConfig;

    fn config(container: Value) -> Result<ContainerConfig, String> {
        let container: Container = serde_json::from_value(container).unwrap();
        let pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": {"containers": [container],
            "volumes": [{"name": "data"}, {"name": "cm", "configMap": {"name": "cm"}}]}});
        let config = ImageConfig {
            entrypoint: vec!["/app".into()],
            cmd: vec!["serve".into()],
            env: vec!["FROM=image".into()],
            working_dir: "/srv".into(),
            ..Default::default()
        };
        let image = Image {
            id: "sha256:1".into(),
            layers: vec![],
            config,
            size: 0,
            references: vec![],
            digests: vec![],
        };
        let env = [("WHO".to_owned(), "me".to_owned())];
        let pod = serde_json::from_value(pod).unwrap();
        container_config(&pod, &container, 0, &image, &env, Path::new("/pods/u"), 1 << 30)
    }

    #[test]
    fn command_replaces_both_and_args_only_the_images_arguments() {
        let words = |container: Value| config(container).unwrap().args;
        assert_eq!(words(json!({"name": "c"})), ["/app", "serve"]);
        assert_eq!(words(json!({"name": "c", "args": ["$(WHO)"]})), ["/app", "me"]);
        assert_eq!(words(json!({"name": "c", "command": ["/bin/x"]})), ["/bin/x"]);
        assert_eq!(
            words(json!({"name": "c", "command": ["/bin/x"], "args": ["$$(WHO)"]})),
            ["/bin/x", "$(WHO)"]
        );
        assert_eq!(config(json!({"name": "c"})).unwrap().env, ["FROM=image", "WHO=me"]);
        assert_eq!(config(json!({"name": "c"})).unwrap().cwd, "/srv");
    }

    #[test]
    fn mounts_lead_to_the_volumes_and_stay_inside() {
        let mounts =
            |mount: Value| config(json!({"name": "c", "volumeMounts": [mount]})).map(|config| config.mounts[0].clone());
        let plain = mounts(json!({"name": "data", "mountPath": "/data", "subPathExpr": "of/$(WHO)"})).unwrap();
        assert_eq!(plain.source, Path::new("/pods/u/volumes/kubernetes.io~empty-dir/data"));
        assert_eq!(
            (plain.sub_path.unwrap().to_str().unwrap(), plain.read_only),
            ("of/me", false)
        );
        assert!(mounts(json!({"name": "cm", "mountPath": "/c"})).unwrap().read_only);
        assert!(mounts(json!({"name": "data", "mountPath": "/d", "subPath": "../x"})).is_err());
        assert!(mounts(json!({"name": "none", "mountPath": "/d"})).is_err());
    }

    #[test]
    fn limits_and_the_oom_score_follow_the_class() {
        let of = |resources: Value| config(json!({"name": "c", "resources": resources})).unwrap().resources;
        let half = of(json!({"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "200m"}}));
        assert_eq!(
            (half.cpu_request_milli, half.cpu_limit_milli, half.oom_score_adj),
            (Some(100), Some(200), 500)
        );
        assert_eq!(of(json!({})).oom_score_adj, 1000);
        let full = json!({"cpu": "1", "memory": "1Mi"});
        assert_eq!(of(json!({"requests": full, "limits": full})).oom_score_adj, -997);
    }
}
