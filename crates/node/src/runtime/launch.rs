//! The last steps of a process before it becomes the container's program: terminal, user, capabilities, seccomp, exec.
//!
//! Used twice: as libcontainer's executor for a container's first process, and by the `exec` role for a later one.
//! Everything that takes rights away happens here and in one order, because seccomp without no_new_privs needs
//! CAP_SYS_ADMIN, which libcontainer would already have dropped.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::capabilities::Capabilities;
use super::config::{SeccompProfile, Security, User};
use super::seccomp;

/// What is to be executed, and with which rights.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// The command line.
    pub args: Vec<String>,
    /// `NAME=value`; [`environment`] puts the defaults in.
    pub env: Vec<String>,
    /// Who it runs as. Ids that are not mapped here get a user namespace of their own.
    pub user: User,
    /// What it may do.
    pub security: Security,
    /// Gets a terminal, whose master is sent over this socket.
    pub terminal: Option<RawFd>,
    /// A pipe, close-on-exec, on which the reason of a failure is told, in one line after `exec `.
    pub report: RawFd,
    /// The user namespace of the container's first process, for those after it.
    pub user_namespace: Option<RawFd>,
}

/// Why the program does not run: in the words of runc, which users of Kubernetes know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct LaunchError(String);

impl LaunchError {
    /// For what failed before.
    pub(super) fn new(error: &dyn std::error::Error) -> Self {
        Self(error.to_string())
    }
}

fn step<E: std::fmt::Display>(doing: &str) -> impl FnOnce(E) -> LaunchError {
    move |error| LaunchError(format!("{doing}: {error}"))
}

impl Program {
    /// Becomes the program; comes back only with an error. The thread must be the only one of its process.
    pub(super) fn run(&self) -> LaunchError {
        match self.try_run() {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_run(&self) -> Result<std::convert::Infallible, LaunchError> {
        let capabilities = Capabilities::of(&self.security.add_capabilities, &self.security.drop_capabilities)
            .map_err(step("capabilities"))?;
        let filters = match self.security.seccomp {
            SeccompProfile::RuntimeDefault => seccomp::default_profile(&capabilities).map_err(step("seccomp"))?,
            SeccompProfile::Unconfined => vec![],
        };
        let env = environment(&self.env, self.user.uid, Path::new("/etc/passwd"));
        reset_signals();
        reset_limits();
        if let Some(socket) = self.terminal {
            terminal(socket).map_err(step("terminal"))?;
        }
        self.own_user_namespace().map_err(step("user namespace"))?;
        capabilities.bound().map_err(step("bounding capabilities"))?;
        if self.security.no_new_privileges {
            nix::sys::prctl::set_no_new_privs().map_err(step("no_new_privs"))?;
        }
        for filter in &filters {
            apply_filter(filter).map_err(step("seccomp"))?;
        }
        capabilities.keep(self.user.uid == 0).map_err(step("capabilities"))?;
        Err(execute(&self.args, &env))
    }

    /// In a user namespace that maps one id (rootless), any other id is that one id under another name: a user
    /// namespace below, made at the very end, maps it. Outside it is the same user with the same rights.
    fn own_user_namespace(&self) -> io::Result<()> {
        let mapped = |file: &str, id: u32| fs::read_to_string(file).is_ok_and(|map| is_mapped(&map, id));
        if mapped("/proc/self/uid_map", self.user.uid) && mapped("/proc/self/gid_map", self.user.gid) {
            return Ok(());
        }
        // Files in /proc belong to us only while we are dumpable; exec sets this anew.
        nix::sys::prctl::set_dumpable(true)?;
        if let Some(fd) = self.user_namespace {
            return Ok(setns(borrow(fd), CloneFlags::CLONE_NEWUSER)?);
        }
        unshare(CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{} 0 1", self.user.uid))?;
        fs::write("/proc/self/gid_map", format!("{} 0 1", self.user.gid))
    }
}

/// Switches to a user and keeps the capabilities for [`Program::run`] to take away (for a container's first process
/// libcontainer does this). Ids that are not mapped are left to the user namespace that `run` enters.
pub(super) fn become_user(user: &User) -> io::Result<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let map = |file: &str| fs::read_to_string(file).unwrap_or_default();
    if !is_mapped(&map("/proc/self/uid_map"), user.uid) || !is_mapped(&map("/proc/self/gid_map"), user.gid) {
        return Ok(());
    }
    if map("/proc/self/setgroups").trim() != "deny" {
        let groups: Vec<Gid> = user.supplementary_groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
    }
    nix::sys::prctl::set_keepcaps(true)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Capabilities::ALL.keep(true)?; // effective again: the switch has cleared that set
    Ok(nix::sys::prctl::set_keepcaps(false)?)
}

/// Is `id` in a `uid_map` or `gid_map`?
pub(super) fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (numbers.next().unwrap_or(0), numbers.next(), numbers.next().unwrap_or(0));
        (first..first + count).contains(&u64::from(id))
    })
}

/// The environment with what every container may expect: `PATH`, and `HOME` from `/etc/passwd`. A name that is given
/// twice keeps its last value.
pub(super) fn environment(given: &[String], uid: u32, passwd: &Path) -> Vec<String> {
    const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let name = |entry: &str| entry.split('=').next().unwrap_or("").to_string();
    let mut env: Vec<String> = vec![];
    for entry in given {
        match env.iter_mut().find(|other| name(other) == name(entry)) {
            Some(other) => other.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.insert(0, PATH.into());
    }
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", home(uid, passwd).unwrap_or_else(|| "/".into())));
    }
    env
}

fn home(uid: u32, passwd: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(passwd).ok()?.take(1 << 20).read_to_string(&mut text).ok()?;
    let line = text
        .lines()
        .find(|line| line.split(':').nth(2) == Some(&uid.to_string()))?;
    line.split(':')
        .nth(5)
        .filter(|home| !home.is_empty())
        .map(ToString::to_string)
}

fn execute(args: &[String], env: &[String]) -> LaunchError {
    let c = |text: &String| CString::new(text.as_bytes());
    let (Some(name), Ok(argv), Ok(envp)) = (
        args.first(),
        args.iter().map(c).collect::<Result<Vec<_>, _>>(),
        env.iter().map(c).collect::<Result<Vec<_>, _>>(),
    ) else {
        return LaunchError("exec: no command specified, or a NUL byte in it".into());
    };
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("");
    let candidates: Vec<String> = if name.contains('/') {
        vec![name.clone()]
    } else {
        path.split(':')
            .map(|dir| format!("{}/{name}", if dir.is_empty() { "." } else { dir }))
            .collect()
    };
    let mut denied = false;
    for candidate in &candidates {
        let Ok(program) = CString::new(candidate.as_bytes()) else {
            continue;
        };
        let Err(error) = nix::unistd::execve(&program, &argv, &envp);
        match error {
            Errno::ENOENT | Errno::ENOTDIR if name.contains('/') => {
                // A script whose interpreter is missing gives the same error as a missing script.
                let what = if Path::new(candidate).exists() { "" } else { "stat " };
                return LaunchError(format!("exec: {name:?}: {what}{name}: no such file or directory"));
            }
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES if !name.contains('/') => denied = true,
            Errno::EACCES => return LaunchError(format!("exec: {name:?}: permission denied")),
            Errno::ENOEXEC => return LaunchError(format!("exec {candidate}: exec format error")),
            error => return LaunchError(format!("exec {candidate}: {}", error.desc())),
        }
    }
    let why = if denied {
        "permission denied"
    } else {
        "executable file not found in $PATH"
    };
    LaunchError(format!("exec: {name:?}: {why}"))
}

/// Signals ignored or blocked here would stay so in the program: Rust ignores SIGPIPE, the shim blocks SIGCHLD, and who
/// knows what we were started with. All 64, also those that the C library keeps to itself.
#[expect(unsafe_code, reason = "the C library lets nobody touch signals 32 and 33")]
pub(super) fn reset_signals() {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    // The kernel's `struct sigaction`, all zero: the default disposition, no flags, no mask.
    let default = [0u64; 4];
    for number in 1..=64 {
        let nothing = std::ptr::null_mut::<u64>();
        // SAFETY: the struct is at most as long as `default`, and the default disposition runs no code of ours.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                nothing,
                size_of::<u64>(),
            )
        };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).ok();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
}

/// The daemon raises its own limit of open files; containers get what a kubelet's containers have.
fn reset_limits() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const MOST: u64 = 1 << 20;
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(MOST), hard.min(MOST)).ok();
    }
}

/// A terminal of the container's own devpts as stdin, stdout and stderr; its master goes out over `socket`.
fn terminal(socket: RawFd) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let open = |path: &str| {
        File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(path)
    };
    let master = open("/dev/pts/ptmx")?;
    let mut number = 0i32;
    let unlock = 0i32;
    ioctl(&master, libc::TIOCSPTLCK, (&raw const unlock).cast())?;
    ioctl(&master, libc::TIOCGPTN, (&raw mut number).cast_const().cast())?;
    let slave = open(&format!("/dev/pts/{number}"))?;
    nix::unistd::setsid().ok(); // libcontainer has done so already
    ioctl(&slave, libc::TIOCSCTTY, std::ptr::null())?;
    let fds = [master.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket, &[IoSlice::new(b"t")], &message, MsgFlags::empty(), None)?;
    for fd in 0..3 {
        nix::unistd::dup2(slave.as_raw_fd(), fd)?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "ioctl")]
fn ioctl(file: &File, request: libc::Ioctl, argument: *const libc::c_void) -> io::Result<()> {
    // SAFETY: every caller passes what its request reads or writes: an i32, or nothing.
    if unsafe { libc::ioctl(file.as_raw_fd(), request, argument) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[expect(unsafe_code, reason = "a number becomes a borrow")]
fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: the descriptors of a `Program` stay open until it executes.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// libseccomp's way needs no_new_privs or root in the namespace; both are given by [`Program::run`]'s order.
/// (`seccompiler::apply_filter` would set no_new_privs always.)
#[expect(unsafe_code, reason = "seccomp(2) has no wrapper without no_new_privs")]
fn apply_filter(program: &seccompiler::BpfProgram) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `sock_filter` of the crate and of libc are the kernel's; the program outlives the call, which copies it.
    if unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl Executor for Program {
    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let error = self.run();
        self.tell(&error);
        Err(ExecutorError::Other(error.to_string()))
    }

    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(()) // execve judges better than a look at the mode bits
    }

    fn setup_envs(&self, _: std::collections::HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(()) // handed to execve in the order given; a map would lose it
    }
}

impl Program {
    /// Tells the failure on the report pipe.
    pub(super) fn tell(&self, error: &LaunchError) {
        tell(self.report, &format!("exec {error}"));
    }
}

/// Writes a line on a report pipe, in one piece: two processes write there, and only a single short write is atomic.
pub(super) fn tell(report: RawFd, line: &str) {
    let mut pipe = std::mem::ManuallyDrop::new(File::from(crate::fd::own(report)));
    let line = line.replace('\n', " ");
    pipe.write_all(format!("{line}\n").as_bytes()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_name_wins_and_its_place_stays() {
        let given = ["A=1", "B=2", "A=3"].map(String::from);
        let env = environment(&given, 0, Path::new("/nowhere"));
        assert_eq!(env[1..], ["A=3", "B=2", "HOME=/"].map(String::from));
        assert!(env[0].starts_with("PATH=/usr/local/sbin"));
    }

    #[test]
    fn home_comes_from_passwd() {
        let dir = tempfile::tempdir().unwrap();
        let passwd = dir.path().join("passwd");
        fs::write(
            &passwd,
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv/web:/bin/false\n",
        )
        .unwrap();
        assert_eq!(
            environment(&["PATH=/x".into()], 33, &passwd),
            ["PATH=/x", "HOME=/srv/web"]
        );
    }

    #[test]
    fn a_mapping_of_one_id_maps_one_id() {
        assert!(is_mapped("         0       1000          1\n", 0));
        assert!(!is_mapped("         0       1000          1\n", 1));
        assert!(is_mapped("         0          0 4294967295\n", 65534));
    }
}
