//! The cluster's cgroup tree: `k8slab-<cluster id>/pod<uid>/<container>-<attempt>`, on v1, hybrid and v2 hosts.
//!
//! Owns limits in the kernel's terms, joining and removing; `place` finds where the tree may
//! be. Must not know pods or containers;
//! reading figures is `stats`. The runtime writes cgroups itself and keeps them from libcontainer: it joins from a
//! process with one thread through `tasks`, which spares the kernel-wide lock (and the milliseconds of an RCU grace
//! period) that every write to `cgroup.procs` takes.

mod place;

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::runtime::Resources;

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
            place::enable_controllers(&self.dirs[0].path)?;
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
}
