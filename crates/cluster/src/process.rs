//! Processes by pid and start time, and files whose lock says that somebody lives.
//!
//! Owns what a later k8slab must be sure of before it believes or signals a pid it read in a file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A lock on a file, kept until dropped or until the process ends, however it ends.
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// `None` when somebody else holds it.
    pub(crate) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Self { _file: file })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// Waits until nobody else holds it. Blocks the thread.
    pub(crate) fn take(path: &Path) -> io::Result<Self> {
        match Flock::lock(open(path)?, FlockArg::LockExclusive) {
            Ok(file) => Ok(Self { _file: file }),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

/// Whether somebody holds the lock on `path`. False where the file is not there.
pub(crate) fn is_locked(path: &Path) -> io::Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    Ok(Lock::try_take(path)?.is_none())
}

fn open(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Start time of a process in clock ticks since boot; `None` when there is no such process.
///
/// Source: proc(5), field 22 of `/proc/PID/stat`; the command name before it may hold blanks and parentheses.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Signals a process if it is still the one that started at `start_time`. False when it is gone.
pub(crate) fn signal(pid: i32, start: u64, signal: Signal) -> io::Result<bool> {
    if start_time(pid) != Some(start) {
        return Ok(false);
    }
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_seen_by_others_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!is_locked(&path).unwrap());
        let lock = Lock::try_take(&path).unwrap().unwrap();
        assert!(is_locked(&path).unwrap());
        drop(lock);
        assert!(!is_locked(&path).unwrap());
    }

    #[test]
    fn a_pid_with_another_start_time_is_not_signalled() {
        let own = std::process::id() as i32;
        let start = start_time(own).unwrap();
        assert!(signal(own, start, Signal::SIGCONT).unwrap());
        assert!(!signal(own, start + 1, Signal::SIGKILL).unwrap());
    }
}
