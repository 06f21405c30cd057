//! Starts, watches and ends containers: the kubelet's side of a container runtime.
//!
//! The trait speaks of sandboxes and containers only. It must not know Pods, volumes, probes or restart policies
//! (`kubelet`), nor who asks. `linux` runs real containers through one shim process a pod; `fake` is for the
//! kubelet's tests.

use std::path::PathBuf;

use futures::future::BoxFuture;

mod capabilities;
mod config;
mod etc;
pub mod exec;
pub mod fake;
pub(crate) mod folder;
mod launch;
mod linux;
mod oci;
mod protocol;
pub(crate) mod rootfs;
mod seccomp;
pub mod session;
pub mod shim;
mod state;
mod terminal;

pub use config::{
    ContainerConfig, DnsConfig, HostAlias, LogRotation, MemoryVolume, Mount, Resources, SandboxConfig, SeccompProfile,
    Security, User,
};
pub use linux::{LinuxConfig, LinuxRuntime};
pub use session::{ExecRequest, ExecSession, TerminalSize};
pub use state::{AdoptedContainer, AdoptedPod, AdoptedState, ContainerId, Exit, Limits, Sandbox, Started, Usage};

/// Why the runtime did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such sandbox or container (any more).
    #[error("no {0}")]
    NotFound(String),
    /// The sandbox process died, and everything in it. The kubelet makes a new sandbox.
    #[error("the sandbox of pod `{0}` is gone")]
    SandboxGone(String),
    /// What is asked for is not given here (privileged, more than one mapped user, …). Asking again will not help;
    /// Kubernetes: `CreateContainerConfigError`.
    #[error("{0}")]
    Refused(String),
    /// The container could not be set up (mounts, cgroup, root filesystem). Kubernetes: `CreateContainerError`.
    #[error("creating container `{container}`: {cause}")]
    Create {
        /// Its name.
        container: String,
        /// What went wrong.
        cause: String,
    },
    /// Everything was ready but the program could not be executed: not there, not executable.
    /// Kubernetes: terminated with `StartError`, exit code 128.
    #[error("starting container `{container}`: {cause}")]
    Start {
        /// Its name.
        container: String,
        /// What went wrong.
        cause: String,
    },
    /// A command inside a container could not be executed. `kubectl exec` shows it; code 126 or 127 by convention.
    #[error("executing `{command}`: {cause}")]
    Exec {
        /// The command line.
        command: String,
        /// What went wrong.
        cause: String,
    },
    /// Anything else, with what was being done.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What came back.
        #[source]
        source: std::io::Error,
    },
}

/// A container runtime. Every method may be called from many tasks at once; a future that is dropped leaves nothing
/// half done that a later `remove_*` would not clean.
pub trait Runtime: Send + Sync + 'static {
    /// The pod's folder, `<state>/pods/<uid>`. The kubelet keeps volumes below `volumes/` in it; everything in it
    /// goes with [`remove_sandbox`](Self::remove_sandbox).
    fn pod_dir(&self, pod_uid: &str) -> PathBuf;

    /// The current log of an instance: lines in CRI form. Rotated ones lie beside it as `<attempt>.log.1` (newest) …
    fn log_path(&self, id: &ContainerId) -> PathBuf {
        self.pod_dir(&id.pod_uid)
            .join("containers")
            .join(&id.name)
            .join(format!("{}.log", id.attempt))
    }

    /// Makes namespaces and network for a pod. Asked again for a sandbox that is alive, it answers what is there;
    /// a dead one of the same uid is replaced, its container instances and logs stay.
    fn create_sandbox(&self, config: SandboxConfig) -> BoxFuture<'_, Result<Sandbox, Error>>;

    /// Starts a container instance. Done when its program has been executed.
    fn start_container<'a>(
        &'a self,
        pod_uid: &'a str,
        config: ContainerConfig,
    ) -> BoxFuture<'a, Result<Started, Error>>;

    /// Waits for the end of an instance; answers at once, and again, for one that has ended.
    /// [`Error::SandboxGone`] when the sandbox died under it.
    fn wait<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Exit, Error>>;

    /// Sends a signal to the first process of an instance. Fine if it has ended already.
    fn signal<'a>(&'a self, id: &'a ContainerId, signal: i32) -> BoxFuture<'a, Result<(), Error>>;

    /// Runs a command in a running instance.
    fn exec<'a>(&'a self, id: &'a ContainerId, request: ExecRequest) -> BoxFuture<'a, Result<ExecSession, Error>>;

    /// Joins the streams of the instance itself. `exit` of the session is that of the container.
    fn attach<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<ExecSession, Error>>;

    /// What an instance uses. Blocks for some 50 microseconds (a few small reads).
    fn usage(&self, id: &ContainerId) -> Result<Usage, Error>;

    /// Forgets an instance that has ended: its writable layer, its exit, its logs.
    fn remove_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), Error>>;

    /// Kills what still runs and removes everything of a pod: processes, mounts, cgroups, network, folder. Fine if
    /// there is none.
    fn remove_sandbox<'a>(&'a self, pod_uid: &'a str) -> BoxFuture<'a, Result<(), Error>>;

    /// Everything that is there from before, to be called once, before anything else.
    fn adopt(&self) -> BoxFuture<'_, Result<Vec<AdoptedPod>, Error>>;

    /// Whether CPU and memory limits hold.
    fn limits(&self) -> Limits;
}
