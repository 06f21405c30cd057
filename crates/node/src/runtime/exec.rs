//! The role `exec`: one process for each command run inside a container. Its stdin is a socket to the daemon; over it
//! come the command and its streams, and back go the terminal, the exit code, or why there is neither.
//!
//! Single-threaded: it joins the container's namespaces and forks. Whoever asked may go away; the command stays.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

use super::folder::ProcessRecord;
use super::launch::{Program, become_user, reset_signals};
use super::protocol::{self, ExecHello, ExecReply, ExecSignal};
use crate::cgroup::Cgroup;

/// Runs one command; returns its exit code. Must be called before any thread exists.
pub fn main() -> i32 {
    crate::fd::close_strangers();
    let socket = crate::fd::own(0);
    let code = match session(&socket) {
        Ok(code) => code,
        Err(error) => {
            let _ = protocol::send(&socket, &ExecReply::Failed(error.to_string()), &[]);
            126
        }
    };
    // Dropping would close descriptor 0 while the process goes on to its end: harmless, but pointless.
    std::mem::forget(socket);
    code
}

fn session(socket: &OwnedFd) -> io::Result<i32> {
    let hello = protocol::receive::<ExecHello>(socket)?;
    let (hello, streams) = hello.ok_or_else(|| io::Error::other("the daemon went away"))?;
    let namespaces = Namespaces::of(hello.process)?;
    // From here to the exec, processes of the container must not look into this one.
    nix::sys::prctl::set_dumpable(false)?;
    if !crate::privileges::in_user_namespace() {
        fs::write("/proc/self/oom_score_adj", hello.oom_score_adj.to_string())?;
    }
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let (report, report_end) = pipe2(OFlag::O_CLOEXEC)?;
    let (terminal, terminal_end) = UnixDatagram::pair()?;
    setns(&namespaces.pid, CloneFlags::CLONE_NEWPID)?; // of children, not of this process
    let Some(child) = Cgroup::fork_into(hello.cgroup.as_ref())? else {
        become_command(hello, &namespaces, &streams, &terminal_end, &report_end)
    };
    drop((streams, report_end, terminal_end));

    let mut text = String::new();
    File::from(report).read_to_string(&mut text)?; // until the exec has closed it
    if let Some(cause) = text.lines().find_map(|line| line.strip_prefix("exec ")) {
        waitpid(child, None).ok();
        return Err(io::Error::other(cause.to_string()));
    }
    let master = if hello.tty {
        protocol::receive_fd(&terminal)?
    } else {
        None
    };
    let fds: Vec<i32> = master.iter().map(AsRawFd::as_raw_fd).collect();
    protocol::send(socket, &ExecReply::Running, &fds)?;
    drop(master);
    let code = attend(socket, &signals, child)?;
    let _ = protocol::send(socket, &ExecReply::Exited(code), &[]);
    Ok(code)
}

/// The namespaces of a container's first process.
struct Namespaces {
    user: Option<File>,
    pid: File,
    /// In the order in which they are entered: the mount namespace last, it changes what paths mean.
    rest: Vec<(File, CloneFlags)>,
}

impl Namespaces {
    fn of(process: ProcessRecord) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let gone = || io::Error::other("the container has ended");
        let open = |file: &str| File::open(format!("/proc/{}/ns/{file}", process.pid)).map_err(|_| gone());
        let user = open("user")?;
        let same = user.metadata()?.ino() == fs::metadata("/proc/self/ns/user")?.ino();
        let rest = vec![
            (open("uts")?, CloneFlags::CLONE_NEWUTS),
            (open("ipc")?, CloneFlags::CLONE_NEWIPC),
            (open("net")?, CloneFlags::CLONE_NEWNET),
            (open("mnt")?, CloneFlags::CLONE_NEWNS),
        ];
        let found = Self {
            user: (!same).then_some(user),
            pid: open("pid")?,
            rest,
        };
        // Looked at after opening: now they are those of this process and not of a later one of the same number.
        if process.is_alive() { Ok(found) } else { Err(gone()) }
    }
}

/// In the fork: enters the container and becomes the command.
fn become_command(
    hello: ExecHello,
    namespaces: &Namespaces,
    streams: &[OwnedFd],
    terminal: &UnixDatagram,
    report: &OwnedFd,
) -> ! {
    reset_signals();
    let program = Program {
        args: hello.command,
        env: hello.env,
        user: hello.user,
        security: hello.security,
        terminal: hello.tty.then(|| terminal.as_raw_fd()),
        report: report.as_raw_fd(),
        user_namespace: namespaces.user.as_ref().map(AsRawFd::as_raw_fd),
    };
    let enter = || -> io::Result<()> {
        for (fd, kind) in &namespaces.rest {
            setns(fd, *kind)?;
        }
        if !hello.tty {
            nix::unistd::setsid()?;
            for (number, stream) in (0..3).zip(streams) {
                nix::unistd::dup2(stream.as_raw_fd(), number)?;
            }
        }
        let cwd = if hello.cwd.is_empty() { "/" } else { &hello.cwd };
        std::env::set_current_dir(cwd).map_err(|error| io::Error::other(format!("chdir to `{cwd}`: {error}")))?;
        become_user(&program.user)
    };
    let error = match enter() {
        Ok(()) => program.run(),
        Err(error) => super::launch::LaunchError::new(&error),
    };
    program.tell(&error);
    #[expect(unsafe_code, reason = "a fork must not run its parent's exit handlers")]
    // SAFETY: ends the process.
    unsafe {
        libc::_exit(126)
    }
}

/// Waits for the command's end and passes signals on until then.
fn attend(socket: &OwnedFd, signals: &SignalFd, child: Pid) -> io::Result<i32> {
    let mut connected = true;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if connected {
            fds.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let spoken = fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false));
        while let Ok(Some(_)) = signals.read_signal() {}
        if spoken {
            match protocol::receive::<ExecSignal>(socket) {
                Ok(Some((ExecSignal { signal }, _))) => {
                    if let Ok(signal) = Signal::try_from(signal) {
                        // We are its parent and have not reaped it: the number is still its own.
                        kill(child, signal).ok();
                    }
                }
                Ok(None) | Err(_) => connected = false,
            }
        }
    }
}
