//! Real containers: one shim process a pod, which outlives this one.
//!
//! Owns the pods' folders, addresses and cgroups, and talks to the shims. Keeps nothing that cannot be rebuilt from
//! the folders. Must not know the API.

mod attach;
mod exec;
mod program;
mod shim;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use self::program::Program;
use self::shim::Shim;
use super::capabilities::Capabilities;
use super::config::{ContainerConfig, SandboxConfig};
use super::folder::{FORMAT, PodFolder, PodRecord, ProcessRecord, check_name, remove_dir, write_json};
use super::protocol::{Failure, Reply, Request};
use super::session::{ExecRequest, ExecSession};
use super::state::{AdoptedContainer, AdoptedPod, AdoptedState, ContainerId, Exit, Limits, Sandbox, Started, Usage};
use super::{Error, Runtime, etc};
use crate::cgroup::Cgroup;
use crate::network::{Addresses, NetNs, NetworkConfig, NodeNet};
use crate::{privileges, stats};

/// How long a shim may take to kill everything and go, before it is killed itself.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What a [`LinuxRuntime`] needs.
#[derive(Clone, Debug)]
pub struct LinuxConfig {
    /// The node's state; pods lie in `pods/` below it.
    pub dir: PathBuf,
    /// Names the cluster in host-wide names (cgroups).
    pub cluster_id: String,
    /// Addresses.
    pub network: NetworkConfig,
    /// The binary with the roles `shim` and `exec`.
    pub exe: PathBuf,
}

/// The runtime of a real node. Cheap to clone.
#[derive(Clone)]
pub struct LinuxRuntime(Arc<Inner>);

struct Inner {
    pods_dir: PathBuf,
    program: Program,
    network: NodeNet,
    /// The cluster's group, or why there is none.
    cgroup: Result<Cgroup, String>,
    pods: Mutex<HashMap<String, Arc<Pod>>>,
    addresses: Mutex<Addresses>,
    /// Starting is CPU-bound: more at once only makes each later.
    starts: Semaphore,
}

/// A pod whose sandbox was made.
struct Pod {
    folder: PodFolder,
    record: PodRecord,
    /// None: it was dead when we came.
    shim: Option<Shim>,
}

impl Pod {
    fn is_alive(&self) -> bool {
        self.shim.as_ref().is_some_and(|shim| !shim.is_dead())
    }
}

fn doing<'a>(what: impl Into<String> + 'a) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io {
        doing: what.into(),
        source,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LinuxRuntime {
    /// Opens the state and takes up what an earlier daemon left: its shims, and through one of them its network.
    /// Must be called inside a tokio runtime, as root of (at least) a user namespace.
    pub async fn open(config: LinuxConfig) -> Result<Self, Error> {
        let LinuxConfig {
            dir,
            cluster_id,
            network,
            exe,
        } = config;
        let pods_dir = dir.join("pods");
        fs::create_dir_all(&pods_dir).map_err(doing(format!("making `{}`", pods_dir.display())))?;
        restrict(&pods_dir).map_err(doing(format!("closing `{}` to others", pods_dir.display())))?;
        let mut addresses = Addresses::of(network.pods);
        let (mut pods, mut node) = (HashMap::new(), None);
        let entries = fs::read_dir(&pods_dir).map_err(doing(format!("reading `{}`", pods_dir.display())))?;
        for entry in entries.flatten() {
            let folder = PodFolder::new(entry.path());
            let record = match folder.pod() {
                Ok(record) => record,
                // Made by the kubelet for volumes, and then nothing came of it: remove_sandbox will take it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(doing(format!("reading `{}`", folder.join("pod.json").display()))(error)),
            };
            addresses.reserve(record.ip);
            let mut shim = folder.shim().filter(ProcessRecord::is_alive);
            if let Some(unfinished) = shim.filter(|_| !folder.join("attached").exists()) {
                shim::kill_process(unfinished);
                shim = None;
            }
            if let Some(process) = shim
                && node.is_none()
            {
                let path = PathBuf::from(format!("/proc/{}/fd/{}", process.pid, super::shim::NODE_NETNS_FD));
                let adopting = "adopting the node's network";
                match NetNs::open(&path) {
                    Ok(netns) => node = Some(NodeNet::adopt(netns, network).await.map_err(doing(adopting))?),
                    // It is ending: its number is still there, its descriptors are not.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => shim = None,
                    Err(error) => return Err(doing(adopting)(error)),
                }
            }
            let shim = shim
                .map(|process| Shim::adopt(process, folder.clone(), record.cgroup.clone()))
                .transpose();
            let shim = shim.map_err(doing("watching a shim"))?;
            if shim.is_none() {
                shim::kill_leftovers(&folder, record.cgroup.as_ref());
            }
            pods.insert(record.config.uid.clone(), Arc::new(Pod { folder, record, shim }));
        }
        let network = match node {
            Some(node) => node,
            None => NodeNet::create(network)
                .await
                .map_err(doing("making the node's network"))?,
        };
        let cgroup = Cgroup::for_cluster(&cluster_id);
        if let Err(why) = &cgroup {
            tracing::warn!("{}", privileges::not_enforced(why));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self(Arc::new(Inner {
            pods_dir,
            program: Program::new(exe),
            network,
            cgroup,
            pods: Mutex::new(pods),
            addresses: Mutex::new(addresses),
            starts: Semaphore::new(2 * cores),
        })))
    }

    /// Ends what a daemon left behind in `dir`, without a daemon: for a cluster that cannot be started any more.
    pub fn end_leftovers(dir: &Path, cluster_id: &str) -> io::Result<()> {
        for entry in fs::read_dir(dir.join("pods")).into_iter().flatten().flatten() {
            let folder = PodFolder::new(entry.path());
            if let Some(shim) = folder.shim() {
                shim::kill_process(shim);
            }
            let cgroup = folder.pod().ok().and_then(|record| record.cgroup);
            shim::kill_leftovers(&folder, cgroup.as_ref());
        }
        let Ok(group) = Cgroup::for_cluster(cluster_id) else {
            return Ok(()); // there never was one
        };
        group.kill();
        group.remove()
    }

    /// The node's network, for the service proxy, DNS, probes and everything else that talks to pods.
    pub fn network(&self) -> &NodeNet {
        &self.0.network
    }

    /// Takes the cluster's cgroup away, which must be empty. For the end of a cluster.
    pub fn remove_cluster_cgroup(&self) -> io::Result<()> {
        self.0.cgroup.as_ref().map_or(Ok(()), Cgroup::remove)
    }

    fn pod(&self, uid: &str) -> Result<Arc<Pod>, Error> {
        let found = lock(&self.0.pods).get(uid).cloned();
        found.ok_or_else(|| Error::NotFound(format!("sandbox of pod `{uid}`")))
    }

    fn folder(&self, uid: &str) -> PodFolder {
        PodFolder::new(self.0.pods_dir.join(uid))
    }

    async fn make_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, Error> {
        check_name("pod uid", &config.uid)?;
        let uid = config.uid.clone();
        let before = lock(&self.0.pods).get(&uid).cloned();
        if let Some(pod) = before.as_ref().filter(|pod| pod.is_alive()) {
            return Ok(Sandbox { ip: pod.record.ip });
        }
        let _permit = self.0.starts.acquire().await;
        let ip = match &before {
            Some(pod) => pod.record.ip,
            None => lock(&self.0.addresses)
                .take()
                .ok_or_else(|| Error::Refused("no pod address is left in this node's range: too many pods".into()))?,
        };
        let cgroup = self
            .0
            .cgroup
            .as_ref()
            .ok()
            .map(|group| group.child(&format!("pod{uid}")));
        let record = PodRecord {
            format: FORMAT,
            config,
            ip,
            cgroup,
        };
        let folder = self.folder(&uid);
        match self.start_shim(&folder, &record).await {
            Ok(shim) => {
                lock(&self.0.pods).insert(
                    uid,
                    Arc::new(Pod {
                        folder,
                        record,
                        shim: Some(shim),
                    }),
                );
                Ok(Sandbox { ip })
            }
            Err(error) => {
                if before.is_none() {
                    // Nothing of it may be taken for a pod later.
                    fs::remove_file(folder.join("pod.json")).ok();
                    lock(&self.0.addresses).release(ip);
                }
                if let Some(group) = &record.cgroup {
                    group.remove().ok();
                }
                Err(error)
            }
        }
    }

    async fn start_shim(&self, folder: &PodFolder, record: &PodRecord) -> Result<Shim, Error> {
        let files = || -> io::Result<()> {
            fs::create_dir_all(folder.path())?;
            restrict(folder.path())?;
            fs::write(folder.join("hosts"), etc::hosts(&record.config, record.ip))?;
            fs::write(folder.join("hostname"), format!("{}\n", record.config.hostname))?;
            fs::write(folder.join("resolv.conf"), etc::resolv_conf(&record.config.dns))?;
            for stale in ["shim.json", "attached"] {
                fs::remove_file(folder.join(stale)).ok();
            }
            if let Some(group) = &record.cgroup {
                group.create_pod(&record.config.resources)?;
            }
            write_json(&folder.join("pod.json"), record)
        };
        files().map_err(doing(format!("preparing the folder of pod `{}`", record.config.name)))?;
        let netns = self.0.network.netns().file();
        let shim = Shim::start(&self.0.program, folder, record.cgroup.clone(), netns).await;
        let shim = shim.map_err(doing(format!("making the sandbox of pod `{}`", record.config.name)))?;
        let attached = match fs::File::open(format!("/proc/{}/ns/net", shim.pid())) {
            Ok(netns) => self.0.network.attach(&netns, record.ip).await,
            Err(error) => Err(error),
        };
        // Last: a daemon that dies before this line leaves a sandbox that is not taken for one.
        if let Err(error) = attached.and_then(|()| fs::write(folder.join("attached"), "")) {
            shim.kill();
            shim.dead().await;
            return Err(doing(format!("connecting pod `{}`", record.config.name))(error));
        }
        Ok(shim)
    }

    async fn make_container(&self, pod_uid: &str, config: ContainerConfig) -> Result<Started, Error> {
        check_name("container name", &config.name)?;
        let refuse = |what: String| Err(Error::Refused(what));
        if config.security.privileged {
            return refuse(format!(
                "container `{}` asks for privileged mode, which this node does not give",
                config.name
            ));
        }
        Capabilities::of(&config.security.add_capabilities, &config.security.drop_capabilities)?;
        if config.args.is_empty() {
            return refuse(format!(
                "container `{}` has no command, and its image none either",
                config.name
            ));
        }
        let pod = self.pod(pod_uid)?;
        let _permit = self.0.starts.acquire().await;
        let container = config.name.clone();
        match self.ask(&pod, &Request::Start(Box::new(config))).await? {
            Reply::Started(started) => Ok(started.into()),
            Reply::Failed(Failure { starting: true, cause }) => Err(Error::Start { container, cause }),
            Reply::Failed(Failure { starting: false, cause }) => Err(Error::Create { container, cause }),
            other => Err(unexpected(&other)),
        }
    }

    /// One request to a pod's shim. The shim's death while we wait is [`Error::SandboxGone`].
    async fn ask(&self, pod: &Pod, request: &Request) -> Result<Reply, Error> {
        let gone = || Error::SandboxGone(pod.record.config.uid.clone());
        let shim = pod.shim.as_ref().ok_or_else(gone)?;
        tokio::select! {
            () = shim.dead() => Err(gone()),
            reply = shim::ask(&pod.folder, request) => match reply {
                Ok(reply) => Ok(reply),
                Err(error) if is_hangup(&error) || shim.is_dead() => Err(gone()),
                Err(source) => Err(Error::Io { doing: "talking to a shim".into(), source }),
            },
        }
    }

    async fn await_exit(&self, id: &ContainerId) -> Result<Exit, Error> {
        id.check()?;
        let pod = self.pod(&id.pod_uid)?;
        let written = || pod.folder.exit(&id.name, id.attempt);
        if let Some(exit) = written() {
            return Ok(exit);
        }
        match self
            .ask(
                &pod,
                &Request::Wait {
                    name: id.name.clone(),
                    attempt: id.attempt,
                },
            )
            .await
        {
            Ok(Reply::Exited(exit)) => Ok(exit),
            Ok(Reply::Unknown) => Err(Error::NotFound(format!("container `{id}`"))),
            Ok(other) => Err(unexpected(&other)),
            // The last thing the shim did may have been to write it down.
            Err(error) => written().ok_or(error),
        }
    }

    async fn send_signal(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        id.check()?;
        let pod = self.pod(&id.pod_uid)?;
        let request = Request::Signal {
            name: id.name.clone(),
            attempt: id.attempt,
            signal,
        };
        match self.ask(&pod, &request).await {
            Ok(Reply::Unknown) if pod.folder.exit(&id.name, id.attempt).is_none() => {
                Err(Error::NotFound(format!("container `{id}`")))
            }
            Ok(_) | Err(Error::SandboxGone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn drop_container(&self, id: &ContainerId) -> Result<(), Error> {
        id.check()?;
        let folder = self.folder(&id.pod_uid);
        let running = folder
            .started(&id.name, id.attempt)
            .is_some_and(|started| started.process.is_alive());
        if running && folder.exit(&id.name, id.attempt).is_none() {
            return Err(Error::Refused(format!("container `{id}` still runs")));
        }
        let (name, attempt) = (id.name.clone(), id.attempt);
        blocking(move || folder.remove_attempt(&name, attempt))
            .await
            .map_err(doing(format!("removing container `{id}`")))
    }

    async fn drop_sandbox(&self, uid: &str) -> Result<(), Error> {
        check_name("pod uid", uid)?;
        let pod = lock(&self.0.pods).get(uid).cloned();
        if let Some(pod) = &pod
            && let Some(shim) = pod.shim.as_ref().filter(|shim| !shim.is_dead())
        {
            let orderly = async {
                // Its answer, or its death: either is an end.
                shim::ask(&pod.folder, &Request::Stop).await.ok();
                shim.dead().await;
            };
            if tokio::time::timeout(STOP_PATIENCE, orderly).await.is_err() {
                shim.kill();
                shim.dead().await;
            }
        }
        let folder = self.folder(uid);
        let cgroup = pod.as_ref().and_then(|pod| pod.record.cgroup.clone());
        let removed = blocking(move || {
            shim::kill_leftovers(&folder, cgroup.as_ref());
            if let Some(group) = &cgroup {
                group.remove()?;
            }
            remove_dir(folder.path())
        });
        removed
            .await
            .map_err(doing(format!("removing what is left of pod `{uid}`")))?;
        if let Some(pod) = pod {
            lock(&self.0.addresses).release(pod.record.ip);
            lock(&self.0.pods).remove(uid);
        }
        Ok(())
    }

    async fn found(&self) -> Vec<AdoptedPod> {
        let pods: Vec<Arc<Pod>> = lock(&self.0.pods).values().cloned().collect();
        let mut found = vec![];
        for pod in pods {
            self.await_starts(&pod).await;
            found.push(adopted(&pod));
        }
        found.sort_by(|a, b| a.config.uid.cmp(&b.config.uid));
        found
    }

    /// The daemon before may have died while a container was being started: soon there is a process or a failure.
    async fn await_starts(&self, pod: &Pod) {
        for config in pod.folder.containers() {
            let (name, attempt) = (config.name, config.attempt);
            let undecided = || {
                pod.folder.started(&name, attempt).is_none() && pod.folder.attempt_file(&name, attempt, "json").exists()
            };
            let probe = Request::Signal {
                name: name.clone(),
                attempt,
                signal: 0,
            };
            for _ in 0..500 {
                if !undecided() || !matches!(self.ask(pod, &probe).await, Ok(Reply::Done)) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    fn figures(&self, id: &ContainerId) -> Result<Usage, Error> {
        id.check()?;
        let pod = self.pod(&id.pod_uid)?;
        let gone = || Error::NotFound(format!("running container `{id}`"));
        if let Some(group) = &pod.record.cgroup {
            let group = group.child(&format!("{}-{}", id.name, id.attempt));
            return if group.exists() {
                Ok(stats::of_cgroup(&group))
            } else {
                Err(gone())
            };
        }
        let started = pod
            .folder
            .started(&id.name, id.attempt)
            .filter(|s| s.process.is_alive())
            .ok_or_else(gone)?;
        stats::of_processes(started.process.pid).ok_or_else(gone)
    }
}

fn adopted(pod: &Pod) -> AdoptedPod {
    let alive = pod.is_alive();
    let containers = pod.folder.containers().into_iter().map(|config| {
        let exit = pod.folder.exit(&config.name, config.attempt);
        let started = pod.folder.started(&config.name, config.attempt);
        let state = match (exit, started) {
            (Some(exit), _) => AdoptedState::Exited(exit),
            (None, Some(started)) if alive => AdoptedState::Running(started.into()),
            _ => AdoptedState::Unknown,
        };
        AdoptedContainer { config, state }
    });
    AdoptedPod {
        config: pod.record.config.clone(),
        ip: pod.record.ip,
        alive,
        containers: containers.collect(),
    }
}

/// What a conversation with a process that dies looks like.
fn is_hangup(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionRefused | ConnectionReset | UnexpectedEof
    )
}

fn unexpected(reply: &Reply) -> Error {
    Error::Io {
        doing: "talking to a shim".into(),
        source: io::Error::other(format!("unexpected reply {reply:?}")),
    }
}

/// Volumes hold secrets, and layers setuid programs.
fn restrict(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

impl Runtime for LinuxRuntime {
    fn pod_dir(&self, pod_uid: &str) -> PathBuf {
        self.0.pods_dir.join(pod_uid)
    }

    fn create_sandbox(&self, config: SandboxConfig) -> BoxFuture<'_, Result<Sandbox, Error>> {
        self.make_sandbox(config).boxed()
    }

    fn start_container<'a>(
        &'a self,
        pod_uid: &'a str,
        config: ContainerConfig,
    ) -> BoxFuture<'a, Result<Started, Error>> {
        self.make_container(pod_uid, config).boxed()
    }

    fn wait<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Exit, Error>> {
        self.await_exit(id).boxed()
    }

    fn signal<'a>(&'a self, id: &'a ContainerId, signal: i32) -> BoxFuture<'a, Result<(), Error>> {
        self.send_signal(id, signal).boxed()
    }

    fn exec<'a>(&'a self, id: &'a ContainerId, request: ExecRequest) -> BoxFuture<'a, Result<ExecSession, Error>> {
        self.start_exec(id, request).boxed()
    }

    fn attach<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<ExecSession, Error>> {
        self.join_streams(id).boxed()
    }

    fn usage(&self, id: &ContainerId) -> Result<Usage, Error> {
        self.figures(id)
    }

    fn remove_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), Error>> {
        self.drop_container(id).boxed()
    }

    fn remove_sandbox<'a>(&'a self, pod_uid: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        self.drop_sandbox(pod_uid).boxed()
    }

    fn adopt(&self) -> BoxFuture<'_, Result<Vec<AdoptedPod>, Error>> {
        async move { Ok(self.found().await) }.boxed()
    }

    fn limits(&self) -> Limits {
        match &self.0.cgroup {
            Ok(_) => Limits::Enforced,
            Err(why) => Limits::NotEnforced(privileges::not_enforced(why)),
        }
    }
}
