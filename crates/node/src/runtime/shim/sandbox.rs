//! Makes the calling process the pod's sandbox: namespaces, /dev/shm, hidden cgroups, quiet stdio.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::cgroup::PinnedCgroup;
use crate::runtime::folder::{PodFolder, PodRecord, ProcessRecord, write_json};
use crate::runtime::protocol::{self, ShimHello};

/// Where a shim keeps the node's network namespace open. A later daemon opens `/proc/<shim>/fd/3`.
pub const NODE_NETNS_FD: i32 = 3;

/// What the shim's loop starts with.
pub(super) struct Sandbox {
    /// Answers the daemon.
    pub listener: UnixListener,
    /// The pod's record.
    pub record: PodRecord,
    /// The pod's cgroup, reachable although hidden.
    pub cgroup: Option<PinnedCgroup>,
}

fn doing<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> io::Error {
    move |error| io::Error::other(format!("{what}: {error}"))
}

/// Receives the node's network namespace over stdin and puts it where a later daemon looks for it.
#[expect(unsafe_code, reason = "stdin is a socket here, and fd 3 is a place, not a value")]
pub(super) fn receive_hello() -> io::Result<()> {
    // SAFETY: the daemon starts a shim with a socket as stdin; it stays open for the whole process.
    let stdin = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(0) });
    let hello = protocol::receive::<ShimHello>(&*stdin)?;
    let (_, mut fds) = hello.ok_or_else(|| io::Error::other("the daemon went away"))?;
    let netns = fds
        .pop()
        .ok_or_else(|| io::Error::other("no network namespace came with the greeting"))?;
    if netns.as_raw_fd() == NODE_NETNS_FD {
        std::mem::forget(netns);
        return Ok(());
    }
    nix::unistd::dup3(netns.as_raw_fd(), NODE_NETNS_FD, nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok(())
}

/// Becomes the sandbox of the pod in `folder` (which is also the working directory from now on).
pub(super) fn enter(folder: &PodFolder) -> io::Result<Sandbox> {
    let record = folder.pod().map_err(doing("reading pod.json"))?;
    std::env::set_current_dir(folder.path())?;
    nix::unistd::setsid().ok();
    // Root only; an ordinary user may not protect anything.
    fs::write("/proc/self/oom_score_adj", "-998").ok();
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)
        .map_err(doing("unsharing the pod's namespaces"))?;
    // Slave: the host's mounts still arrive here (hostPath), ours never reach the host.
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none).map_err(doing("making mounts private"))?;
    nix::unistd::sethostname(&record.config.hostname).map_err(doing("setting the hostname"))?;
    network_defaults();
    let tmpfs = |path: &std::path::Path, options: &str| {
        fs::create_dir_all(path)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).map_err(doing("mounting a tmpfs"))
    };
    // Not `nodev`: it may hold writable layers.
    fs::create_dir_all(folder.join("run"))?;
    mount(
        Some("run"),
        &folder.join("run"),
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("mode=700"),
    )
    .map_err(doing("mounting run"))?;
    tmpfs(&folder.join("run/shm"), "mode=1777,size=64m")?;
    for volume in &record.config.memory_volumes {
        let size = volume
            .size_bytes
            .map(|bytes| format!(",size={bytes}"))
            .unwrap_or_default();
        tmpfs(&volume.path, &format!("mode=0777{size}"))?;
    }
    let cgroup = record
        .cgroup
        .as_ref()
        .map(|group| group.pin())
        .transpose()
        .map_err(doing("opening the pod's cgroup"))?;
    hide_cgroups()?;
    nix::sys::prctl::set_child_subreaper(true)?;
    // Bound by a relative name: a socket's path may have 108 bytes, a state directory more.
    fs::remove_file("shim.sock").ok();
    let listener = UnixListener::bind("shim.sock")?;
    listener.set_nonblocking(true)?;
    let me = ProcessRecord::of(std::process::id().cast_signed());
    let me = me.ok_or_else(|| io::Error::other("cannot find myself in /proc"))?;
    write_json(&folder.join("shim.json"), &me)?;
    Ok(Sandbox {
        listener,
        record,
        cgroup,
    })
}

/// As containerd's `enable_unprivileged_ports` and `enable_unprivileged_icmp`: a container without root may listen on
/// port 80 of its own pod.
fn network_defaults() {
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").ok();
    if fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").is_err() {
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").ok();
    }
}

/// libcontainer is to leave cgroups alone: they are written before it runs. It finds an empty folder and no
/// hierarchy mounted. A rootless daemon has done this for all its children (`privileges`), and could not do it here:
/// mounts that came along into a user namespace cannot be taken off one by one.
fn hide_cgroups() -> io::Result<()> {
    const PLACE: &str = "/sys/fs/cgroup";
    let has_cgroups = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        mounts.lines().any(|line| line.contains(" - cgroup"))
    };
    if !has_cgroups() {
        return Ok(());
    }
    umount2(PLACE, MntFlags::MNT_DETACH).map_err(doing("taking /sys/fs/cgroup away"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), PLACE, Some("tmpfs"), flags, Some("mode=755,size=0k")).map_err(doing("hiding /sys/fs/cgroup"))
}

/// The daemon may go away: keep none of its pipes. stderr stays the shim's log.
pub(super) fn detach_stdio() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for fd in 0..2 {
        nix::unistd::dup2(null.as_raw_fd(), fd)?;
    }
    Ok(())
}
