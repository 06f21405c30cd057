//! The cluster's cgroup tree: `k8slab-<cluster id>/pod<uid>/<container>-<attempt>`, on v1, hybrid and v2 hosts.
//!
//! Owns where the tree may be, limits in the kernel's terms, joining and removing. Must not know pods or containers;
//! reading figures is `stats`. The runtime writes cgroups itself and keeps them from libcontainer: it joins from a
//! process with one thread through `tasks`, which spares the kernel-wide lock (and the milliseconds of an RCU grace
//! period) that every write to `cgroup.procs` takes.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::runtime::Resources;

/// The controllers without which limits are a fiction.
const NEEDED: [&str; 2] = ["cpu", "memory"];
const ROOTLESS: &str = "rootless, no cgroup delegation";
/// What we use where it is.
const USED: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "devices"];

/// One group, in every hierarchy where it has a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    v2: bool,
    dirs: Vec<Dir>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Dir {
    controllers: Vec<String>,
    path: PathBuf,
}

/// A cgroup with its folders held open: usable where they are not mounted any more.
#[derive(Debug)]
pub struct PinnedCgroup {
    group: Cgroup,
    _fds: Vec<OwnedFd>,
}

impl std::ops::Deref for PinnedCgroup {
    type Target = Cgroup;

    fn deref(&self) -> &Cgroup {
        &self.group
    }
}

impl Cgroup {
    /// Finds a place for the cluster's group and makes it. The error says why there is none, in words for a node
    /// condition.
    pub fn for_cluster(cluster_id: &str) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("reading mountinfo: {e}"))?;
        let found = hierarchies(&mounts);
        let name = format!("k8slab-{cluster_id}");
        if let Some(mount) = found.v2.as_ref().filter(|mount| has_controllers(mount)) {
            let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let base = v2_base(mount, &own)?;
            enable_controllers(&base).map_err(|e| format!("enabling controllers in `{}`: {e}", base.display()))?;
            let group = Self {
                v2: true,
                dirs: vec![Dir {
                    controllers: vec![],
                    path: base.join(name),
                }],
            };
            group
                .make()
                .map_err(|e| format!("making a cgroup in `{}`: {e}", base.display()))?;
            enable_controllers(&group.dirs[0].path).map_err(|e| format!("enabling controllers: {e}"))?;
            return Ok(group);
        }
        let missing: Vec<_> = NEEDED.iter().filter(|c| !found.v1.iter().any(|d| d.has(c))).collect();
        if !missing.is_empty() {
            return Err(match crate::privileges::in_user_namespace() {
                true => ROOTLESS.into(),
                false => format!("no cgroup controller {}", quoted(&missing)),
            });
        }
        let dirs = found
            .v1
            .into_iter()
            .map(|d| Dir {
                path: d.path.join(&name),
                ..d
            })
            .collect();
        let group = Self { v2: false, dirs };
        group.make().map_err(|e| format!("making a cgroup: {e}"))?;
        Ok(group)
    }

    /// A group below this one; nothing is made.
    pub fn child(&self, name: &str) -> Self {
        let dirs = self.dirs.iter().map(|d| Dir {
            controllers: d.controllers.clone(),
            path: d.path.join(name),
        });
        Self {
            v2: self.v2,
            dirs: dirs.collect(),
        }
    }

    /// Is there nothing but the unified hierarchy?
    pub fn is_v2(&self) -> bool {
        self.v2
    }

    /// The file of a controller.
    pub fn file(&self, controller: &str, name: &str) -> Option<PathBuf> {
        let dir = self.dirs.iter().find(|d| self.v2 || d.has(controller))?;
        Some(dir.path.join(name))
    }

    fn make(&self) -> io::Result<()> {
        for dir in &self.dirs {
            if let Err(error) = fs::create_dir(&dir.path)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes the group of a pod: its share of the CPU against other pods.
    pub fn create_pod(&self, resources: &Resources) -> io::Result<()> {
        self.make()?;
        if self.v2 {
            enable_controllers(&self.dirs[0].path)?;
        }
        self.limit(resources)
    }

    /// Makes the group of a container with its limits and its device rules.
    pub fn create_container(&self, resources: &Resources) -> io::Result<()> {
        self.make()?;
        self.limit(resources)?;
        if self.v2 {
            // A failed allocation takes the whole container, as the kubelet has it on v2.
            self.write("memory", "memory.oom.group", "1").ok();
            let dir = fs::File::open(&self.dirs[0].path)?;
            crate::devices::restrict(&dir)
        } else if let Some(allow) = self.file("devices", "devices.allow") {
            self.write("devices", "devices.deny", "a")?;
            // One rule a write: the kernel reads no more.
            crate::devices::RULES
                .iter()
                .try_for_each(|rule| fs::write(&allow, rule.to_string()))
        } else {
            Ok(())
        }
    }

    fn limit(&self, resources: &Resources) -> io::Result<()> {
        let shares = shares(resources.cpu_request_milli.unwrap_or(0));
        // Quota over 100 ms; below 1 ms the kernel refuses.
        let quota = resources.cpu_limit_milli.map(|milli| (milli * 100).max(1000));
        let memory = resources.memory_limit_bytes.map(|bytes| bytes.to_string());
        if self.v2 {
            self.write("cpu", "cpu.weight", &weight(shares).to_string())?;
            if let Some(quota) = quota {
                self.write("cpu", "cpu.max", &format!("{quota} 100000"))?;
            }
            if let Some(bytes) = memory {
                self.write("memory", "memory.max", &bytes)?;
                self.write("memory", "memory.swap.max", "0").ok(); // absent without swap accounting
            }
        } else {
            self.write("cpu", "cpu.shares", &shares.to_string())?;
            if let Some(quota) = quota {
                self.write("cpu", "cpu.cfs_period_us", "100000")?;
                self.write("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
            }
            if let Some(bytes) = memory {
                self.write("memory", "memory.limit_in_bytes", &bytes)?;
                self.write("memory", "memory.memsw.limit_in_bytes", &bytes).ok();
            }
        }
        if let Some(most) = resources.pids_limit {
            self.write("pids", "pids.max", &most.to_string())?;
        }
        Ok(())
    }

    fn write(&self, controller: &str, file: &str, value: &str) -> io::Result<()> {
        let Some(path) = self.file(controller, file) else {
            return Ok(());
        };
        fs::write(&path, value)
            .map_err(|error| io::Error::new(error.kind(), format!("writing `{value}` to `{file}`: {error}")))
    }

    /// Forks; the child is in this group. The caller must have one thread.
    #[expect(unsafe_code, reason = "fork is a system call without a safe form")]
    pub fn fork_into(group: Option<&Self>) -> io::Result<Option<Pid>> {
        let Some(group) = group else {
            // SAFETY: the process has one thread (the caller's promise), so no lock can be held by another.
            return Ok(match unsafe { nix::unistd::fork() }? {
                nix::unistd::ForkResult::Child => None,
                nix::unistd::ForkResult::Parent { child } => Some(child),
            });
        };
        if group.v2
            && let Some(forked) = clone_into(&fs::File::open(&group.dirs[0].path)?)?
        {
            return Ok((forked > 0).then(|| Pid::from_raw(forked)));
        }
        let forked = Self::fork_into(None)?;
        if forked.is_none()
            && let Err(error) = group.join()
        {
            // The parent hears of it because the child ends without a word on its pipe.
            let _ = fs::write("/proc/self/fd/2", format!("joining the cgroup: {error}\n"));
            // SAFETY: ends the child at once, without the parent's exit handlers.
            unsafe { libc::_exit(125) }
        }
        Ok(forked)
    }

    /// Moves the calling process, which must have one thread, into this group.
    pub fn join(&self) -> io::Result<()> {
        let file = if self.v2 { "cgroup.procs" } else { "tasks" };
        self.dirs.iter().try_for_each(|dir| fs::write(dir.path.join(file), "0"))
    }

    /// How often the kernel killed something in here for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.v2 { "memory.events" } else { "memory.oom_control" };
        self.key("memory", file, "oom_kill")
    }

    /// A number of a file of one number.
    pub fn number(&self, controller: &str, file: &str) -> u64 {
        self.text(controller, file).trim().parse().unwrap_or(0)
    }

    /// A number of a file of `key number` lines.
    pub fn key(&self, controller: &str, file: &str, key: &str) -> u64 {
        let text = self.text(controller, file);
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    }

    fn text(&self, controller: &str, file: &str) -> String {
        self.file(controller, file)
            .and_then(|path| fs::read_to_string(path).ok())
            .unwrap_or_default()
    }

    /// Is it there?
    pub fn exists(&self) -> bool {
        self.dirs.iter().any(|dir| dir.path.exists())
    }

    /// Every process in this group and below.
    pub fn processes(&self) -> Vec<i32> {
        let mut all = vec![];
        if let Some(dir) = self.dirs.first() {
            collect_processes(&dir.path, &mut all);
        }
        all
    }

    /// Kills everything in this group and below.
    pub fn kill(&self) {
        if self.v2 && fs::write(self.dirs[0].path.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        for pid in self.processes() {
            nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
        }
    }

    /// Removes this group and those below, which must be empty or about to be: what was killed a moment ago still
    /// counts until the kernel has buried it. Blocks for at most a second.
    pub fn remove(&self) -> io::Result<()> {
        for dir in &self.dirs {
            let mut tries = 0;
            while let Err(error) = remove_tree(&dir.path) {
                tries += 1;
                if tries == 200 {
                    return Err(error);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// Removes the empty group at once or not at all.
    pub fn try_remove(&self) {
        for dir in &self.dirs {
            fs::remove_dir(&dir.path).ok();
        }
    }

    /// Opens the folders, so that the group stays usable by this process after `/sys/fs/cgroup` is hidden.
    pub fn pin(&self) -> io::Result<PinnedCgroup> {
        let (mut fds, mut dirs) = (vec![], vec![]);
        for dir in &self.dirs {
            let fd = OwnedFd::from(fs::File::open(&dir.path)?);
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd()).into();
            dirs.push(Dir {
                controllers: dir.controllers.clone(),
                path,
            });
            fds.push(fd);
        }
        Ok(PinnedCgroup {
            group: Self { v2: self.v2, dirs },
            _fds: fds,
        })
    }
}

impl Dir {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// `requests.cpu` as v1 has it; no request counts as the least, so that a pod without one gets what is left over.
pub fn shares(milli: u64) -> u64 {
    (milli * 1024 / 1000).clamp(2, 262_144)
}

/// v1 shares as a v2 weight, so that 1024 (one CPU) is the default weight 100. The quadratic of
/// opencontainers/cgroups v0.0.5 `utils.go`, which replaced a linear formula that gave one CPU only 39.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "2..=262144"
)]
pub fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as u64
}

#[derive(Default)]
struct Hierarchies {
    v1: Vec<Dir>,
    v2: Option<PathBuf>,
}

/// Where which controllers are mounted, from `/proc/self/mountinfo`.
fn hierarchies(mountinfo: &str) -> Hierarchies {
    let mut found = Hierarchies::default();
    for line in mountinfo.lines() {
        let Some((front, back)) = line.split_once(" - ") else {
            continue;
        };
        let Some(path) = front.split(' ').nth(4).map(PathBuf::from) else {
            continue;
        };
        let mut back = back.split(' ');
        match back.next() {
            Some("cgroup2") if found.v2.is_none() => found.v2 = Some(path),
            Some("cgroup") => {
                let options = back.nth(1).unwrap_or("").split(',');
                let controllers: Vec<String> = options.filter(|o| USED.contains(o)).map(ToString::to_string).collect();
                let known = |d: &Dir| controllers.iter().any(|c| d.has(c));
                if !controllers.is_empty() && !found.v1.iter().any(known) {
                    found.v1.push(Dir { controllers, path });
                }
            }
            _ => {}
        }
    }
    found
}

fn has_controllers(dir: &Path) -> bool {
    let text = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    NEEDED.iter().all(|c| text.split_whitespace().any(|have| have == *c))
}

/// Where on v2 the tree may hang: at the top as root, else in our own group if somebody delegated it to us.
fn v2_base(mount: &Path, own: &str) -> Result<PathBuf, String> {
    let writable = |dir: &Path| nix::unistd::access(&dir.join("cgroup.procs"), nix::unistd::AccessFlags::W_OK).is_ok();
    if fs::create_dir(mount.join(".k8slab-probe")).is_ok() {
        fs::remove_dir(mount.join(".k8slab-probe")).ok();
        return Ok(mount.into());
    }
    let path = Path::new(own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/"));
    // An earlier daemon of this session has moved us all to the leaf.
    let path = if path.ends_with(LEAF) {
        path.parent().unwrap_or(path)
    } else {
        path
    };
    let base = mount.join(path.strip_prefix("/").unwrap_or(path));
    if !writable(&base) {
        return Err(ROOTLESS.into());
    }
    let controllers = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|c| !controllers.split_whitespace().any(|have| have == **c))
        .collect();
    if missing.is_empty() {
        Ok(base)
    } else {
        Err(format!("{} not delegated", quoted(&missing)))
    }
}

fn quoted<T: std::fmt::Display>(names: &[T]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Lets children of `dir` have limits. A group with processes of its own may not (except the real root): those are
/// moved to a leaf first, as container images that run a whole system do. First, because the kernel would let `cpu`
/// pass and make the group a threaded one, in which `memory` is impossible.
fn enable_controllers(dir: &Path) -> io::Result<()> {
    let have = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    let missing: Vec<_> = USED
        .iter()
        .filter(|c| !have.split_whitespace().any(|have| have == **c))
        .collect();
    if missing.iter().any(|c| NEEDED.contains(c)) {
        empty_into_leaf(dir)?;
    }
    for controller in missing {
        match fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")) {
            Err(error) if NEEDED.contains(controller) => return Err(error),
            // `pids` is good to have; `cpuacct` and `devices` are no controllers on v2.
            _ => {}
        }
    }
    Ok(())
}

/// Where processes go that were in the group that becomes ours.
const LEAF: &str = "k8slab-init";

fn empty_into_leaf(dir: &Path) -> io::Result<()> {
    let is_real_root = !dir.join("cgroup.type").exists();
    let processes = fs::read_to_string(dir.join("cgroup.procs"))?;
    if is_real_root || processes.is_empty() {
        return Ok(());
    }
    let leaf = dir.join(LEAF);
    fs::create_dir(&leaf).or_else(|e| {
        if e.kind() == io::ErrorKind::AlreadyExists {
            Ok(())
        } else {
            Err(e)
        }
    })?;
    for pid in processes.lines() {
        // Kernel threads stay, and what ended meanwhile is gone.
        fs::write(leaf.join("cgroup.procs"), pid).ok();
    }
    Ok(())
}

fn collect_processes(dir: &Path, all: &mut Vec<i32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    all.extend(text.lines().filter_map(|pid| pid.parse::<i32>().ok()));
    for child in fs::read_dir(dir).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            collect_processes(&child.path(), all);
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in fs::read_dir(dir).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&child.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `clone3(CLONE_INTO_CGROUP)`: born in the group, no migration. None where the kernel (before 5.7) has no such thing.
#[expect(unsafe_code, reason = "clone3 has no wrapper")]
fn clone_into(group: &fs::File) -> io::Result<Option<i32>> {
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: u64::try_from(libc::SIGCHLD).unwrap_or(17),
        cgroup: u64::try_from(group.as_raw_fd()).unwrap_or(0),
        ..Default::default()
    };
    // SAFETY: without CLONE_VM this is a fork; the process has one thread (the callers' promise), so the child may
    // go on in Rust. `args` outlives the call and has the size that is told.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match pid {
        -1 => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::E2BIG)) => Ok(None),
            error => Err(error),
        },
        pid => Ok(Some(i32::try_from(pid).unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cpu_is_the_default_weight_and_the_ends_are_the_ends() {
        assert_eq!([2, 102, 1024, 262_144].map(weight), [1, 17, 100, 10_000]);
        assert_eq!([0, 1, 100, 1000, 4000].map(shares), [2, 2, 102, 1024, 4096]);
    }

    #[test]
    fn controllers_mounted_together_count_once() {
        let text = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                    31 25 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                    32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    33 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        let found = hierarchies(text);
        assert_eq!(found.v1.len(), 2);
        assert_eq!(found.v1[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found.v1[1].path, Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(found.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
    }
}
