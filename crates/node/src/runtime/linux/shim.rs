//! A shim as the daemon sees it: started or adopted, asked, watched.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::program::Program;
use crate::cgroup::Cgroup;
use crate::fd::watched;
use crate::runtime::folder::{FORMAT, PodFolder, ProcessRecord};
use crate::runtime::protocol::{self, Reply, Request, ShimHello};

/// A shim that was alive when we met it.
pub(super) struct Shim {
    process: ProcessRecord,
    dead: CancellationToken,
}

impl Shim {
    /// Starts the shim of a pod and waits until its namespaces are there.
    pub(super) async fn start(
        program: &Program,
        folder: &PodFolder,
        cgroup: Option<Cgroup>,
        netns: &File,
    ) -> io::Result<Self> {
        let (ours, theirs) = control_pair()?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("shim.log"))?;
        let mut command = program.command();
        command
            .arg("shim")
            .arg(folder.path())
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(log);
        let mut child = command.spawn()?;
        drop(command); // and with it our copy of its end
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or(io::ErrorKind::NotFound)?;
        let process = ProcessRecord::of(pid).ok_or(io::ErrorKind::NotFound)?;
        protocol::send(&ours, &ShimHello { format: FORMAT }, &[netns.as_raw_fd()])?;
        let word = first_word(&watched(ours)?).await?;
        if word.trim() != "ready" {
            child.start_kill().ok();
            child.wait().await?;
            let text = if word.is_empty() {
                last_line(folder.join("shim.log"))
            } else {
                word
            };
            return Err(io::Error::other(text.trim().to_string()));
        }
        let dead = CancellationToken::new();
        let (announce, folder) = (dead.clone(), folder.clone());
        tokio::spawn(async move {
            let status = child.wait().await;
            tracing::debug!("shim {pid} ended: {status:?}");
            bury(folder, cgroup).await;
            announce.cancel();
        });
        Ok(Self { process, dead })
    }

    /// Watches one that an earlier daemon started.
    pub(super) fn adopt(process: ProcessRecord, folder: PodFolder, cgroup: Option<Cgroup>) -> io::Result<Self> {
        let pidfd: AsyncFd<OwnedFd> = watched(pidfd_open(process.pid)?)?;
        let dead = CancellationToken::new();
        let announce = dead.clone();
        tokio::spawn(async move {
            // Readable when the process has ended. An error here would be the runtime's own end.
            pidfd.readable().await.ok();
            bury(folder, cgroup).await;
            announce.cancel();
        });
        Ok(Self { process, dead })
    }

    /// Its pid.
    pub(super) fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Has it ended, and everything in it?
    pub(super) fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// Resolves when it has ended, and everything in it.
    pub(super) async fn dead(&self) {
        self.dead.cancelled().await;
    }

    /// Kills it.
    pub(super) fn kill(&self) {
        kill_process(self.process);
    }
}

/// A shim has ended, in order or not: nothing of its pod may go on without it.
async fn bury(folder: PodFolder, cgroup: Option<Cgroup>) {
    tokio::task::spawn_blocking(move || kill_leftovers(&folder, cgroup.as_ref()))
        .await
        .ok();
}

/// Kills what a dead shim's containers have left: by cgroup, and where there is none by their first processes, with
/// which the kernel ends the whole pid namespace.
pub(super) fn kill_leftovers(folder: &PodFolder, cgroup: Option<&Cgroup>) {
    if let Some(group) = cgroup {
        group.kill();
    }
    for container in folder.containers() {
        if folder.exit(&container.name, container.attempt).is_none()
            && let Some(started) = folder.started(&container.name, container.attempt)
        {
            kill_process(started.process);
        }
    }
}

/// Kills a process if it is still the same.
#[expect(unsafe_code, reason = "pidfd_send_signal has no wrapper")]
pub(super) fn kill_process(process: ProcessRecord) {
    let Ok(pidfd) = pidfd_open(process.pid) else { return };
    // Looked at after opening: the descriptor cannot change its process any more.
    if process.is_alive() {
        let nothing = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a null siginfo is allowed: the kernel makes one.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                pidfd.as_raw_fd(),
                libc::SIGKILL,
                nothing,
                0,
            )
        };
    }
}

#[expect(unsafe_code, reason = "pidfd_open has no wrapper")]
fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(crate::fd::own(i32::try_from(fd).map_err(io::Error::other)?))
}

/// Our end, non-blocking, and the end that becomes a role's stdin.
pub(super) fn control_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    nix::fcntl::fcntl(
        ours.as_raw_fd(),
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
    )?;
    Ok((ours, theirs))
}

async fn first_word(socket: &AsyncFd<OwnedFd>) -> io::Result<String> {
    let mut buffer = [0; 1024];
    let read = |fd: &OwnedFd| Ok(nix::unistd::read(fd.as_raw_fd(), &mut buffer)?);
    let length = socket.async_io(tokio::io::Interest::READABLE, read).await?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn last_line(log: PathBuf) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines()
        .last()
        .unwrap_or("the shim ended without a word")
        .to_string()
}

/// Connects to the shim of a pod, by way of its folder: a socket's path may have 108 bytes, the folder's may be longer.
pub(super) async fn connect(folder: &PodFolder) -> io::Result<UnixStream> {
    let dir = File::open(folder.path())?;
    UnixStream::connect(format!("/proc/self/fd/{}/shim.sock", dir.as_raw_fd())).await
}

/// Sends a request and waits for the reply.
pub(super) async fn ask(folder: &PodFolder, request: &Request) -> io::Result<Reply> {
    let mut stream = connect(folder).await?;
    write_request(&mut stream, request).await?;
    let mut line = vec![];
    BufReader::with_capacity(1024, stream)
        .read_until(b'\n', &mut line)
        .await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&line).map_err(io::Error::other)
}

/// Writes one request line.
pub(super) async fn write_request(stream: &mut UnixStream, request: &Request) -> io::Result<()> {
    let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
    line.push(b'\n');
    stream.write_all(&line).await
}
