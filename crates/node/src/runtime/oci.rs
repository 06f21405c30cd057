//! From a [`ContainerConfig`] to the OCI configuration that libcontainer reads. Pure.
//!
//! Not in it, because the runtime does it itself: cgroups (`cgroup`), capabilities, seccomp, no_new_privs, command
//! and environment (`launch`).

use std::path::Path;

use serde_json::{Value, json};

use super::config::ContainerConfig;
use super::folder::PodFolder;

/// containerd `oci.WithDefaultSpec`.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A bind whose source is already safe to mount.
pub(super) struct Bind {
    /// What.
    pub source: String,
    /// Where in the container.
    pub target: String,
    /// Not writable.
    pub read_only: bool,
}

/// `config.json`. `ids` is who libcontainer switches to, `namespaces` the process whose net, ipc and uts are the pod's.
pub(super) fn config(
    folder: &PodFolder,
    container: &ContainerConfig,
    rootfs: &Path,
    binds: &[Bind],
    ids: (u32, u32, &[u32]),
    namespaces: u32,
) -> Value {
    let entry = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    let mut mounts = vec![
        entry("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        entry("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        entry(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        ),
        entry("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        entry("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    let mut bind = |source: &str, target: &str, read_only: bool| {
        let access = if read_only { "ro" } else { "rw" };
        let options = ["rbind", "rprivate", access];
        mounts.push(json!({ "destination": target, "type": "bind", "source": source, "options": options }));
    };
    let own = |name: &str| folder.join(name).to_string_lossy().into_owned();
    bind(&own("run/shm"), "/dev/shm", false);
    for file in ["hosts", "hostname", "resolv.conf"] {
        let target = format!("/etc/{file}");
        // A pod may bring its own.
        if !binds.iter().any(|bind| bind.target == target) {
            bind(&own(file), &target, container.security.read_only_root);
        }
    }
    if let Some(target) = &container.termination_message_path {
        let message = folder.attempt_file(&container.name, container.attempt, "message");
        bind(&message.to_string_lossy(), target, false);
    }
    for Bind {
        source,
        target,
        read_only,
    } in binds
    {
        bind(source, target, *read_only);
    }
    // Named by path although a child inherits them: what is not listed libcontainer takes for the host's.
    let joined = |kind: &str, file: &str| json!({ "type": kind, "path": format!("/proc/{namespaces}/ns/{file}") });
    let proc_is_open = container.security.unmasked_proc;
    let keep = |path: &&str| !(proc_is_open && path.starts_with("/proc"));
    let (uid, gid, groups) = ids;
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": uid, "gid": gid, "additionalGids": groups },
            "args": container.args,
            "env": ["PATH=/"],
            "cwd": if container.cwd.is_empty() { "/" } else { &container.cwd },
            "oomScoreAdj": container.resources.oom_score_adj,
        },
        "root": { "path": rootfs, "readonly": container.security.read_only_root },
        "mounts": mounts,
        "linux": {
            "namespaces": [
                { "type": "pid" },
                { "type": "mount" },
                joined("network", "net"),
                joined("ipc", "ipc"),
                joined("uts", "uts"),
            ],
            "maskedPaths": MASKED.into_iter().filter(keep).collect::<Vec<_>>(),
            "readonlyPaths": READ_ONLY.into_iter().filter(keep).collect::<Vec<_>>(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Security;

    fn targets(config: &Value) -> Vec<&str> {
        config["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["destination"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn a_pod_s_own_hosts_file_replaces_ours() {
        let folder = PodFolder::new("/state/pods/u");
        let bind = Bind {
            source: "/v/hosts".into(),
            target: "/etc/hosts".into(),
            read_only: true,
        };
        let container = ContainerConfig {
            name: "a".into(),
            ..Default::default()
        };
        let config = config(&folder, &container, Path::new("/r"), &[bind], (0, 0, &[]), 7);
        assert_eq!(targets(&config).iter().filter(|t| **t == "/etc/hosts").count(), 1);
        assert_eq!(config["linux"]["namespaces"][2]["path"], "/proc/7/ns/net");
    }

    #[test]
    fn unmasked_proc_leaves_sys_masked() {
        let security = Security {
            unmasked_proc: true,
            ..Default::default()
        };
        let container = ContainerConfig {
            name: "a".into(),
            security,
            ..Default::default()
        };
        let config = config(&PodFolder::new("/p"), &container, Path::new("/r"), &[], (0, 0, &[]), 7);
        let masked = config["linux"]["maskedPaths"].as_array().unwrap();
        assert!(masked.iter().all(|path| path.as_str().unwrap().starts_with("/sys")) && !masked.is_empty());
        assert_eq!(config["linux"]["readonlyPaths"].as_array().unwrap().len(), 0);
    }
}
