//! One runtime with a state folder of its own, an image that is this binary, and short ways to ask for containers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use node::network::NetworkConfig;
use node::runtime::session::{self, ExecOutput};
use node::runtime::{
    ContainerConfig, ContainerId, Error, Exit, LinuxConfig, LinuxRuntime, Runtime, SandboxConfig, Started,
};

static HOME: OnceLock<PathBuf> = OnceLock::new();

/// Where states lie; a temporary folder of this process' own unless set.
pub(crate) fn home() -> &'static Path {
    HOME.get_or_init(|| std::env::temp_dir().join(format!("k8slab-runtime-{}", std::process::id())))
}

/// See [`home`].
pub(crate) fn set_home(path: PathBuf) {
    HOME.set(path).ok();
}

pub(crate) struct Lab {
    pub runtime: LinuxRuntime,
    pub dir: PathBuf,
    pub root: bool,
    pods: AtomicU32,
}

impl Lab {
    pub(crate) async fn open(root: bool) -> Self {
        let dir = home().join(if root { "state" } else { "rootless" });
        let image = dir.join("image");
        for folder in ["tmp", "data", "etc"] {
            fs::create_dir_all(image.join(folder)).unwrap();
        }
        let binary = image.join("w");
        if !binary.exists() {
            fs::hard_link("/proc/self/exe", &binary)
                .or_else(|_| fs::copy("/proc/self/exe", &binary).map(drop))
                .unwrap();
        }
        fs::write(
            image.join("etc/passwd"),
            "root:x:0:0::/root:/w\nweb:x:1234:2345::/srv/web:/w\n",
        )
        .unwrap();
        Self {
            runtime: Self::runtime(&dir).await,
            dir,
            root,
            pods: AtomicU32::new(0),
        }
    }

    pub(crate) async fn runtime(dir: &Path) -> LinuxRuntime {
        let config = LinuxConfig {
            dir: dir.into(),
            cluster_id: cluster_id(),
            network: NetworkConfig::default(),
            exe: fs::read_link("/proc/self/exe").unwrap(),
        };
        LinuxRuntime::open(config).await.unwrap()
    }

    /// A new pod without containers; its uid.
    pub(crate) async fn pod(&self) -> String {
        let uid = format!("uid-{}", self.pods.fetch_add(1, Ordering::Relaxed));
        self.runtime.create_sandbox(sandbox(&uid)).await.unwrap();
        uid
    }

    pub(crate) fn container(&self, name: &str, command: &[&str]) -> ContainerConfig {
        ContainerConfig {
            name: name.into(),
            layers: vec![self.dir.join("image")],
            args: ["/w", "w"].iter().chain(command).map(ToString::to_string).collect(),
            ..Default::default()
        }
    }

    pub(crate) async fn start(&self, pod: &str, config: ContainerConfig) -> (ContainerId, Started) {
        let id = ContainerId::new(pod, &config.name, config.attempt);
        let started = self.runtime.start_container(pod, config).await.unwrap();
        (id, started)
    }

    /// Starts a container and waits for its end.
    pub(crate) async fn run(&self, pod: &str, config: ContainerConfig) -> (Exit, String) {
        let (id, _) = self.start(pod, config).await;
        let exit = self.runtime.wait(&id).await.unwrap();
        (exit, self.log(&id))
    }

    pub(crate) fn log(&self, id: &ContainerId) -> String {
        fs::read_to_string(self.runtime.log_path(id)).unwrap_or_default()
    }

    /// The log's texts of one stream.
    pub(crate) fn said(&self, id: &ContainerId) -> Vec<String> {
        let log = self.log(id);
        log.lines()
            .map(|line| line.splitn(4, ' ').nth(3).unwrap_or("").to_string())
            .collect()
    }

    /// Resolves when the container has said a line that contains `text`.
    pub(crate) async fn until_said(&self, id: &ContainerId, text: &str) {
        // The log is a file: looking again is what a reader of files does.
        for _ in 0..2000 {
            if self.log(id).contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("`{id}` never said `{text}`, only {:?}", self.log(id));
    }

    pub(crate) async fn exec(&self, id: &ContainerId, command: &[&str]) -> Result<ExecOutput, session::RunError> {
        let command: Vec<String> = ["/w", "w"].iter().chain(command).map(ToString::to_string).collect();
        session::run(&self.runtime, id, &command, Duration::from_secs(20), 1 << 20).await
    }

    pub(crate) async fn remove(&self, pod: &str) {
        self.runtime.remove_sandbox(pod).await.unwrap();
    }

    /// A start that must not succeed.
    pub(crate) async fn refused(&self, pod: &str, config: ContainerConfig) -> Error {
        let started = self.runtime.start_container(pod, config).await;
        started.err().unwrap_or_else(|| panic!("the container was started"))
    }
}

/// The same for every process that works on the same states.
pub(crate) fn cluster_id() -> String {
    let name = home().file_name().and_then(|name| name.to_str()).unwrap_or("");
    format!("test-{}", name.rsplit('-').next().unwrap_or("").to_lowercase())
}

/// Takes away what is the lab's own.
pub(crate) fn finish() {
    sweep();
    fs::remove_dir_all(home()).ok();
}

/// The mean proportional memory of our shims.
pub(crate) fn shim_pss() -> Option<u64> {
    let mine = home().to_string_lossy().into_owned();
    let shims = processes().into_iter().filter(|pid| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("shim\0") && line.contains(&mine)
    });
    let sizes: Vec<u64> = shims
        .filter_map(|pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            line.split_whitespace().next()?.parse().ok()
        })
        .collect();
    (!sizes.is_empty()).then(|| sizes.iter().sum::<u64>() / sizes.len() as u64)
}

pub(crate) fn sandbox(uid: &str) -> SandboxConfig {
    SandboxConfig {
        uid: uid.into(),
        name: format!("pod-{uid}"),
        namespace: "default".into(),
        hostname: format!("host-{uid}"),
        ..Default::default()
    }
}

/// What a case left of its pods: processes, mounts, cgroups, folders. (A network namespace lives with processes.)
pub(crate) fn leftovers() -> Option<String> {
    let mut left = vec![];
    let mine = home().to_string_lossy().into_owned();
    for pid in processes() {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .unwrap_or_default()
            .replace('\0', " ");
        if line.contains(&mine) && line.contains("shim") || line.starts_with("/w w ") {
            left.push(format!("process {pid} `{line}`"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&mine))
            .map(|line| format!("mount {line}")),
    );
    for group in cgroups() {
        let pods = fs::read_dir(&group)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        left.extend(pods.map(|pod| format!("cgroup {}", pod.path().display())));
    }
    for state in ["state", "rootless"] {
        let pods = fs::read_dir(home().join(state).join("pods"))
            .into_iter()
            .flatten()
            .flatten();
        left.extend(pods.map(|pod| format!("folder {}", pod.path().display())));
    }
    (!left.is_empty()).then(|| left.join("; "))
}

/// After a failed case: kills our shims (their pods die with them) and clears up, so that the next begins clean.
pub(crate) fn sweep() {
    let mine = home().to_string_lossy().into_owned();
    for pid in processes() {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if line.contains("shim\0") && line.contains(&mine) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            for child in children.split_whitespace().chain([pid.to_string().as_str()]) {
                let pid = nix::unistd::Pid::from_raw(child.parse().unwrap());
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
            }
        }
    }
    std::thread::sleep(Duration::from_millis(200));
    for group in cgroups() {
        remove_tree(&group);
    }
    for state in ["state", "rootless"] {
        fs::remove_dir_all(home().join(state).join("pods")).ok();
    }
}

fn remove_tree(dir: &Path) {
    for child in fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
    {
        remove_tree(&child.path());
    }
    fs::remove_dir(dir).ok();
}

fn processes() -> Vec<i32> {
    let names = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

/// Our cluster's group in every hierarchy.
fn cgroups() -> Vec<PathBuf> {
    let name = format!("k8slab-{}", cluster_id());
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    hierarchies
        .chain([root.to_path_buf()])
        .map(|dir| dir.join(&name))
        .filter(|dir| dir.exists())
        .collect()
}
