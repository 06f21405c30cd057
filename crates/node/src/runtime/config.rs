//! What the kubelet asks of a runtime, as data: sandboxes, containers, mounts, security.
//!
//! Everything here is plain and serialisable, because it is also what lies in the pod's folder and crosses the
//! shim's socket. Must not know the Pod type: the kubelet has already resolved defaults, images and volumes.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The pod sandbox: what the containers of one pod share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// `metadata.uid`; names the pod's folder and cgroup.
    pub uid: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// What `hostname` answers inside.
    pub hostname: String,
    /// `<hostname>.<subdomain>.<namespace>.svc.<domain>` where the pod has a subdomain: put before the hostname in
    /// `/etc/hosts`.
    pub fqdn: Option<String>,
    /// `spec.hostAliases`.
    pub host_aliases: Vec<HostAlias>,
    /// The content of `/etc/resolv.conf`.
    pub dns: DnsConfig,
    /// Folders that become a tmpfs inside the sandbox (emptyDir with `medium: Memory`). The daemon sees them empty.
    pub memory_volumes: Vec<MemoryVolume>,
    /// When and how often logs are rotated.
    pub log_rotation: LogRotation,
    /// The pod as a whole: the sum of its containers' CPU requests (its share against other pods), and limits where
    /// every container has one.
    pub resources: Resources,
}

/// One line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAlias {
    /// The address.
    pub ip: IpAddr,
    /// Its names.
    pub hostnames: Vec<String>,
}

/// `/etc/resolv.conf`, as upstream's kubelet writes it: search, nameserver, options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Name servers.
    pub nameservers: Vec<IpAddr>,
    /// Search domains.
    pub searches: Vec<String>,
    /// `ndots:5` and the like.
    pub options: Vec<String>,
}

/// A tmpfs of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryVolume {
    /// The folder on which it is mounted (in the sandbox's mount namespace only).
    pub path: PathBuf,
    /// `sizeLimit` in bytes.
    pub size_bytes: Option<u64>,
}

/// The kubelet's `containerLogMaxSize` and `containerLogMaxFiles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRotation {
    /// A log file that has grown past this many bytes is renamed to `<attempt>.log.1` and a new one is begun.
    pub max_bytes: u64,
    /// Files kept per container instance, the current one included.
    pub max_files: u32,
}

impl Default for LogRotation {
    fn default() -> Self {
        Self {
            max_bytes: 10 << 20,
            max_files: 5,
        }
    }
}

/// One container instance: what runs, and under which limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// `name` of the container in the pod spec.
    pub name: String,
    /// How many times it was started before: 0, 1, 2, … A number is used once.
    pub attempt: u32,
    /// Unpacked image layers, lowest first (`image::Image::layers`).
    pub layers: Vec<PathBuf>,
    /// The command line: image entrypoint and `command`/`args` already put together.
    pub args: Vec<String>,
    /// `NAME=value`, later ones win. `PATH` gets a default when it is missing.
    pub env: Vec<String>,
    /// Working directory; `/` when empty. Created if the image has none, as containerd does.
    pub cwd: String,
    /// Who it runs as.
    pub user: User,
    /// Gets a terminal; stdout and stderr are then one.
    pub tty: bool,
    /// Keeps stdin open (for attach); otherwise it reads end of file.
    pub stdin: bool,
    /// With `stdin`: the first attach that goes away closes it.
    pub stdin_once: bool,
    /// What it may do.
    pub security: Security,
    /// Volumes.
    pub mounts: Vec<Mount>,
    /// What it may use.
    pub resources: Resources,
    /// `terminationMessagePath`: a file bound there is read back into [`Exit::message`](super::Exit::message).
    pub termination_message_path: Option<String>,
}

/// Numeric identity of the container's first process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// `supplementalGroups`, `fsGroup`, and what the image's `/etc/group` adds.
    pub supplementary_groups: Vec<u32>,
}

/// The parts of a securityContext that a runtime acts on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// Capabilities added to containerd's default set; with or without `CAP_`; `ALL` for every one.
    pub add_capabilities: Vec<String>,
    /// Capabilities taken away, `ALL` for every one. Dropping `ALL` comes first, then the additions.
    pub drop_capabilities: Vec<String>,
    /// `privileged: true`: refused with [`Error::Refused`](super::Error::Refused).
    pub privileged: bool,
    /// `allowPrivilegeEscalation: false` sets no_new_privs.
    pub no_new_privileges: bool,
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// Which system calls are refused.
    pub seccomp: SeccompProfile,
    /// `procMount: Unmasked` shows the masked paths of `/proc`.
    pub unmasked_proc: bool,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            add_capabilities: vec![],
            drop_capabilities: vec![],
            privileged: false,
            no_new_privileges: false,
            read_only_root: false,
            seccomp: SeccompProfile::RuntimeDefault,
            unmasked_proc: false,
        }
    }
}

/// `securityContext.seccompProfile.type`. `Localhost` profiles are refused by the kubelet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompProfile {
    /// The allow-list that containerd uses. Ours applies it also where a pod says nothing.
    #[default]
    RuntimeDefault,
    /// Every system call.
    Unconfined,
}

/// A file or folder of the host (or of a volume) shown inside the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is shown: an absolute path on the node.
    pub source: PathBuf,
    /// Below `source` and nowhere else: symlinks that lead out of it are an error. Created as a folder if missing.
    pub sub_path: Option<PathBuf>,
    /// Where, inside the container.
    pub target: String,
    /// Not writable.
    pub read_only: bool,
}

/// cgroup figures, in the pod spec's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// `requests.cpu` in millicores: the share under contention.
    pub cpu_request_milli: Option<u64>,
    /// `limits.cpu` in millicores: a quota over periods of 100 ms.
    pub cpu_limit_milli: Option<u64>,
    /// `limits.memory` in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// What the kernel's out-of-memory killer adds to the score (by QoS class: -997, 2 … 999, 1000).
    pub oom_score_adj: i32,
    /// Most processes and threads in the container.
    pub pids_limit: Option<i64>,
}
