//! Whether this process may make pods, and how: as root, or as an ordinary user in a user namespace.
//!
//! Owns entering that namespace and the words for where it is impossible. Everything here must be called while the
//! process has one thread: the kernel insists.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getegid, geteuid};

use crate::runtime::folder::PodFolder;

/// How pods can be made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// We are root, with what it takes.
    Root,
    /// We are an ordinary user, and [`enter_user_namespace`] will work.
    UserNamespace,
}

/// What the node says of itself where limits are not enforced, and why: reason and message of its condition, and of a
/// Warning event on pods that ask for limits.
pub const NOT_ENFORCED_REASON: &str = "LimitsNotEnforced";

/// The message for [`Limits::NotEnforced`](crate::runtime::Limits): `why` is "rootless, no cgroup delegation" in the
/// common case.
pub fn not_enforced(why: &str) -> String {
    format!("CPU and memory limits are not enforced ({why})")
}

/// This machine does not let us make pods: which step failed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// What was tried.
    pub step: &'static str,
    /// What the kernel said.
    pub errno: Errno,
}

impl std::error::Error for Denied {}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, errno } = self;
        write!(
            f,
            "this machine does not let `{}` make pods: {step}: {}",
            user_name(),
            errno.desc()
        )
    }
}

/// The common reasons, which need different remedies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Ubuntu 23.10 and later: a namespace is made, but without capabilities.
    AppArmor,
    /// `user.max_user_namespaces` is 0.
    SwitchedOff,
    /// A container runtime's seccomp profile, or `kernel.unprivileged_userns_clone` is 0.
    Forbidden,
    /// `/proc` or `/sys` is partly covered (Docker): new ones may not be mounted.
    CoveredProc,
    /// None of these.
    Other,
}

impl Denied {
    /// Why, as far as it can be told.
    pub fn reason(&self) -> Reason {
        let restricted = fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
        self.reason_where(restricted.is_ok_and(|text| text.trim() == "1"))
    }

    fn reason_where(&self, apparmor_restricts: bool) -> Reason {
        match (self.step, self.errno) {
            (NEW_USER, Errno::ENOSPC) => Reason::SwitchedOff,
            (NEW_PROC, _) => Reason::CoveredProc,
            (NEW_USER, Errno::EPERM | Errno::EACCES) if !apparmor_restricts => Reason::Forbidden,
            (_, Errno::EPERM | Errno::EACCES) if apparmor_restricts => Reason::AppArmor,
            (NEW_MOUNT, Errno::EPERM) => Reason::AppArmor,
            (_, Errno::EPERM | Errno::EACCES) => Reason::Forbidden,
            _ => Reason::Other,
        }
    }

    /// What to do, in the order to try it. `command` is what the user typed after the program's name (`up cpu-hpa`),
    /// `exe` the program.
    pub fn hints(&self, exe: &Path, command: &str) -> Vec<String> {
        self.hints_for(self.reason(), exe, command)
    }

    fn hints_for(&self, reason: Reason, exe: &Path, command: &str) -> Vec<String> {
        let mut hints = vec![match reason {
            Reason::AppArmor => {
                "a user namespace was made but it gives no rights: Ubuntu's AppArmor keeps them from programs without a profile \
                 (kernel.apparmor_restrict_unprivileged_userns = 1)"
                    .to_string()
            }
            Reason::SwitchedOff => "user namespaces are switched off here (user.max_user_namespaces = 0)".into(),
            Reason::Forbidden => {
                "making a user namespace is forbidden: by a container runtime's seccomp profile, or by \
                 kernel.unprivileged_userns_clone = 0"
                    .into()
            }
            Reason::CoveredProc => "parts of /proc are covered, as in a Docker container: no new one may be mounted".into(),
            Reason::Other => format!("{} is not possible: {}", self.step, self.errno.desc()),
        }];
        hints.push(format!("run it as root:\n  sudo {} {command}", exe.display()));
        match reason {
            Reason::AppArmor => hints.push(format!(
                "or give the program a profile, once:\n{}",
                apparmor_profile(exe)
            )),
            Reason::SwitchedOff => hints.push("or allow them:\n  sudo sysctl user.max_user_namespaces=10000".into()),
            Reason::Forbidden => hints.push("or allow them:\n  sudo sysctl kernel.unprivileged_userns_clone=1".into()),
            Reason::CoveredProc | Reason::Other => {}
        }
        hints.push(
            "or run it in Docker:\n  docker run --privileged …\n  \
             (instead of --privileged: --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
             --security-opt systempaths=unconfined)"
                .into(),
        );
        hints.push(format!(
            "or use another cluster:\n  k8slab {command} --cluster minikube"
        ));
        hints
    }
}

/// An AppArmor profile for `exe`, as commands to paste.
pub fn apparmor_profile(exe: &Path) -> String {
    format!(
        "  sudo tee /etc/apparmor.d/k8slab >/dev/null <<'EOF'\n  \
         abi <abi/4.0>,\n  \
         include <tunables/global>\n  \
         profile k8slab {} flags=(unconfined) {{\n    \
           userns,\n  \
         }}\n  \
         EOF\n  \
         sudo apparmor_parser -r /etc/apparmor.d/k8slab",
        exe.display()
    )
}

fn user_name() -> String {
    let user = nix::unistd::User::from_uid(geteuid()).ok().flatten();
    user.map_or_else(|| geteuid().to_string(), |user| user.name)
}

const NEW_USER: &str = "making a user namespace";
const JOIN_USER: &str = "joining the running pods' user namespace";
const MAP: &str = "mapping the user";
const NEW_MOUNT: &str = "making a mount namespace";
const NEW_PROC: &str = "mounting a new /proc";
const NEW_NET: &str = "making a network namespace";
const HIDE: &str = "hiding the host's cgroups";

fn at(step: &'static str) -> impl Fn(Errno) -> Denied {
    move |errno| Denied { step, errno }
}

fn io_at(step: &'static str) -> impl Fn(io::Error) -> Denied {
    move |error| Denied {
        step,
        errno: error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw),
    }
}

/// Tries, in a child, what a node will do, and tells by which means pods can be made. Leaves nothing behind.
pub fn detect() -> Result<Means, Denied> {
    if geteuid().is_root() && in_child(|| probe(false)).is_ok() {
        return Ok(Means::Root);
    }
    in_child(|| probe(true))?;
    Ok(Means::UserNamespace)
}

fn probe(enter: bool) -> Result<(), Denied> {
    if enter {
        unshare_user()?;
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(at(NEW_MOUNT))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none).map_err(at(NEW_MOUNT))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(at(NEW_NET))?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(at(NEW_PROC))?;
    // Docker covers parts of /proc: then the kernel lets nobody mount one that shows them.
    in_child(|| mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).map_err(at(NEW_PROC)))
}

/// Is this process in a user namespace below the machine's own?
pub fn in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.trim_end().ends_with("4294967295"))
}

/// Enters a user namespace in which we are root, with a mount namespace of our own and no cgroup in sight that we may
/// not write. Where pods from before still run (in `pods`), theirs is joined: only from inside can they be adopted.
///
/// The process must have one thread.
pub fn enter_user_namespace(pods: &Path) -> Result<(), Denied> {
    match living_shim(pods) {
        Some(pid) => {
            let user = fs::File::open(format!("/proc/{pid}/ns/user")).map_err(io_at(JOIN_USER))?;
            setns(user, CloneFlags::CLONE_NEWUSER).map_err(at(JOIN_USER))?;
        }
        None => unshare_user()?,
    }
    // Ubuntu lets the namespace be made and takes the capabilities away: this is where it shows.
    unshare(CloneFlags::CLONE_NEWNS).map_err(at(NEW_MOUNT))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none).map_err(at(NEW_MOUNT))?;
    hide_cgroups()
}

fn unshare_user() -> Result<(), Denied> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(at(NEW_USER))?;
    // Without CAP_SETGID outside, the group may be mapped only after setgroups(2) is given up.
    fs::write("/proc/self/setgroups", "deny").map_err(io_at(MAP))?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).map_err(io_at(MAP))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).map_err(io_at(MAP))
}

/// A shim of an earlier daemon of ours that runs in another user namespace.
fn living_shim(pods: &Path) -> Option<i32> {
    let own = fs::metadata("/proc/self/ns/user").ok()?.ino();
    fs::read_dir(pods).ok()?.flatten().find_map(|pod| {
        let shim = PodFolder::new(pod.path()).shim().filter(|shim| shim.is_alive())?;
        let theirs = fs::metadata(format!("/proc/{}/ns/user", shim.pid)).ok()?.ino();
        (theirs != own).then_some(shim.pid)
    })
}

/// libcontainer on cgroup v1 fails where it may not write, so it must see no hierarchy at all. Mounts that came along
/// into a user namespace cannot be taken off one by one: we move to a new root that has everything but the old /sys.
/// On v2 the unified hierarchy is bound back, for delegated groups and for reading.
fn hide_cgroups() -> Result<(), Denied> {
    let none = None::<&str>;
    let root = PathBuf::from(format!("/tmp/.k8slab-root-{}", std::process::id()));
    fs::create_dir_all(&root).map_err(io_at(HIDE))?;
    mount(Some("root"), &root, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).map_err(at(HIDE))?;
    for entry in fs::read_dir("/").map_err(io_at(HIDE))?.flatten() {
        let (from, to) = (entry.path(), root.join(entry.file_name()));
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_symlink() {
            let target = fs::read_link(&from).map_err(io_at(HIDE))?;
            std::os::unix::fs::symlink(target, to).map_err(io_at(HIDE))?;
        } else if kind.is_dir() {
            fs::create_dir(&to).map_err(io_at(HIDE))?;
            if entry.file_name() != "sys" {
                mount(Some(&from), &to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).map_err(at(HIDE))?;
            }
        }
    }
    // A new sysfs needs a network namespace of our own: a child has one for the purpose. Not read-only, or the kernel
    // refuses the containers' own sysfs mounts.
    let sys = root.join("sys");
    in_child(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(at(NEW_NET))?;
        mount(Some("sysfs"), &sys, Some("sysfs"), MsFlags::empty(), none).map_err(at(HIDE))
    })?;
    let place = sys.join("fs/cgroup");
    if is_cgroup2("/sys/fs/cgroup") {
        mount(
            Some("/sys/fs/cgroup"),
            &place,
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        )
        .map_err(at(HIDE))?;
    } else {
        mount(
            Some("none"),
            &place,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=755,size=0k"),
        )
        .map_err(at(HIDE))?;
    }
    let cwd = std::env::current_dir().ok();
    std::env::set_current_dir(&root).map_err(io_at(HIDE))?;
    nix::unistd::pivot_root(".", ".").map_err(at(HIDE))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(at(HIDE))?;
    std::env::set_current_dir("/").map_err(io_at(HIDE))?;
    if let Some(cwd) = cwd {
        std::env::set_current_dir(cwd).ok();
    }
    // The recursive bind of /tmp took a copy of the new root along.
    umount2(&root, MntFlags::MNT_DETACH).ok();
    fs::remove_dir(&root).ok();
    Ok(())
}

fn is_cgroup2(path: &str) -> bool {
    let magic = nix::sys::statfs::CGROUP2_SUPER_MAGIC;
    nix::sys::statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type() == magic)
}

/// Runs `work` in a child; its `Denied` comes back through the exit code.
fn in_child(work: impl FnOnce() -> Result<(), Denied>) -> Result<(), Denied> {
    const STEPS: [&str; 7] = [NEW_USER, JOIN_USER, MAP, NEW_MOUNT, NEW_PROC, NEW_NET, HIDE];
    let (read, write) = nix::unistd::pipe().map_err(at(NEW_USER))?;
    #[expect(unsafe_code, reason = "fork is a system call without a safe form")]
    // SAFETY: one thread (the callers' promise).
    let forked = unsafe { fork() }.map_err(at(NEW_USER))?;
    match forked {
        ForkResult::Child => {
            if let Err(Denied { step, errno }) = work() {
                let step = STEPS.iter().position(|known| *known == step).unwrap_or(0);
                let word = [u8::try_from(step).unwrap_or(0), u8::try_from(errno as i32).unwrap_or(0)];
                nix::unistd::write(&write, &word).ok();
            }
            #[expect(unsafe_code, reason = "a fork must not run its parent's exit handlers")]
            // SAFETY: ends the process.
            unsafe {
                libc::_exit(0)
            }
        }
        ForkResult::Parent { child } => {
            drop(write);
            let mut word = [0; 2];
            let length = io::Read::read(&mut fs::File::from(read), &mut word).map_err(io_at(NEW_USER))?;
            let status = waitpid(child, None).map_err(at(NEW_USER))?;
            match (length, status) {
                (0, WaitStatus::Exited(..)) => Ok(()),
                (0, _) => Err(Denied {
                    step: NEW_USER,
                    errno: Errno::UnknownErrno,
                }),
                _ => Err(Denied {
                    step: STEPS.get(usize::from(word[0])).copied().unwrap_or(NEW_USER),
                    errno: Errno::from_raw(i32::from(word[1])),
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(step: &'static str, errno: Errno, apparmor: bool) -> (Reason, String) {
        let denied = Denied { step, errno };
        let reason = denied.reason_where(apparmor);
        (
            reason,
            denied
                .hints_for(reason, Path::new("/usr/local/bin/k8slab"), "up cpu-hpa")
                .join("\n"),
        )
    }

    #[test]
    fn ubuntu_s_restriction_is_named_and_its_profile_can_be_pasted() {
        let (reason, text) = hints(NEW_MOUNT, Errno::EPERM, true);
        assert_eq!(reason, Reason::AppArmor);
        let places: Vec<_> = [
            "sudo /usr/local/bin/k8slab up cpu-hpa",
            "profile k8slab /usr/local/bin/k8slab",
            "docker run",
            "minikube",
        ]
        .map(|part| text.find(part).unwrap_or_else(|| panic!("`{part}` in {text}")))
        .into();
        assert!(
            places.is_sorted(),
            "sudo first, then the profile, Docker, minikube: {text}"
        );
    }

    #[test]
    fn each_reason_has_its_own_remedy() {
        assert_eq!(hints(NEW_USER, Errno::ENOSPC, false).0, Reason::SwitchedOff);
        assert_eq!(hints(NEW_USER, Errno::EPERM, false).0, Reason::Forbidden);
        assert_eq!(hints(NEW_USER, Errno::EACCES, true).0, Reason::AppArmor);
        assert_eq!(hints(NEW_PROC, Errno::EPERM, true).0, Reason::CoveredProc);
        assert!(
            hints(NEW_USER, Errno::ENOSPC, false)
                .1
                .contains("sysctl user.max_user_namespaces")
        );
    }
}
