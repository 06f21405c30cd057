//! What a runtime tells the kubelet: what runs, how it ended, what it uses.

use std::fmt;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::{ContainerConfig, SandboxConfig};

/// One container instance. Restarting a container makes a new instance with the next `attempt`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerId {
    /// `metadata.uid` of its pod.
    pub pod_uid: String,
    /// The container's name.
    pub name: String,
    /// Which start of it: 0, 1, 2, …
    pub attempt: u32,
}

impl ContainerId {
    /// Names an instance.
    pub fn new(pod_uid: impl Into<String>, name: impl Into<String>, attempt: u32) -> Self {
        Self {
            pod_uid: pod_uid.into(),
            name: name.into(),
            attempt,
        }
    }

    /// 64 hexadecimal digits that stand for this instance: `status.containerStatuses[].containerID` after
    /// `k8slab://`.
    pub fn hex(&self) -> String {
        let digest = Sha256::digest(self.to_string());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.pod_uid, self.name, self.attempt)
    }
}

/// A sandbox that is ready for containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The pod's address.
    pub ip: Ipv4Addr,
}

/// A container whose program has been executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Its first process, as the node counts.
    pub pid: i32,
    /// When.
    pub started_at: Timestamp,
}

/// How a container ended. Published only after everything it wrote is in its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 + n for a signal, as every runtime reports it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed something in it for want of memory.
    pub oom_killed: bool,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// At most 4096 bytes of the termination message file; empty if it wrote none.
    pub message: String,
}

/// What a container has used. All counters since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its processes, in nanoseconds.
    pub cpu_nanoseconds: u64,
    /// Memory in use without inactive file cache, in bytes: what the kubelet calls the working set.
    pub working_set_bytes: u64,
    /// Anonymous memory, in bytes.
    pub rss_bytes: u64,
    /// Periods in which it was held back by its CPU limit.
    pub throttled_periods: u64,
}

/// What an earlier daemon left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptedPod {
    /// The sandbox as it was asked for.
    pub config: SandboxConfig,
    /// Its address.
    pub ip: Ipv4Addr,
    /// False: the sandbox is gone (killed, or the machine was restarted). Every container in it has an exit then,
    /// and only [`remove_sandbox`](super::Runtime::remove_sandbox) makes sense.
    pub alive: bool,
    /// Every instance that has not been removed, by name and attempt.
    pub containers: Vec<AdoptedContainer>,
}

/// A container instance found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptedContainer {
    /// The container as it was asked for.
    pub config: ContainerConfig,
    /// Running, or how it ended while nobody looked.
    pub state: AdoptedState,
}

/// See [`AdoptedContainer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptedState {
    /// Still there; [`wait`](super::Runtime::wait) for it.
    Running(Started),
    /// Ended, log complete.
    Exited(Exit),
    /// Ended with its sandbox; nobody saw how. Kubernetes: `ContainerStatusUnknown`, exit code 137.
    Unknown,
}

/// Whether CPU and memory limits hold on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limits {
    /// By cgroups.
    Enforced,
    /// Not at all. The text is for the node's condition and for events.
    NotEnforced(String),
}
