//! The daemon's side of an exec: starts the role, hands it the streams, passes signals on.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};

use super::shim::control_pair;
use super::{LinuxRuntime, doing};
use crate::fd::{nonblocking, watched};
use crate::runtime::folder::read_json;
use crate::runtime::protocol::{self, ExecHello, ExecReply, ExecSignal};
use crate::runtime::session::{ExecRequest, ExecSession, TerminalSize};
use crate::runtime::{ContainerConfig, ContainerId, Error, terminal};

type Control = AsyncFd<OwnedFd>;

impl LinuxRuntime {
    pub(super) async fn start_exec(&self, id: &ContainerId, request: ExecRequest) -> Result<ExecSession, Error> {
        id.check()?;
        let pod = self.pod(&id.pod_uid)?;
        let started = pod.folder.started(&id.name, id.attempt);
        let running = started.filter(|_| pod.is_alive() && pod.folder.exit(&id.name, id.attempt).is_none());
        let started = running.ok_or_else(|| Error::NotFound(format!("running container `{id}`")))?;
        let path = pod.folder.attempt_file(&id.name, id.attempt, "json");
        let container: ContainerConfig = read_json(&path).map_err(doing(format!("reading `{}`", path.display())))?;
        let command = request.command.join(" ");
        let group = pod.record.cgroup.as_ref();
        let hello = ExecHello {
            process: started.process,
            cgroup: group.map(|group| group.child(&format!("{}-{}", id.name, id.attempt))),
            command: request.command,
            env: container.env,
            cwd: container.cwd,
            user: container.user,
            security: container.security,
            tty: request.tty,
            oom_score_adj: container.resources.oom_score_adj,
        };
        let session = start(self.0.program.command(), &hello, request.stdin).await;
        session.map_err(|error| match error {
            StartError::Command(cause) => Error::Exec { command, cause },
            StartError::Io(source) => Error::Io {
                doing: format!("executing `{command}`"),
                source,
            },
        })
    }
}

enum StartError {
    Command(String),
    Io(io::Error),
}

impl<E: Into<io::Error>> From<E> for StartError {
    fn from(error: E) -> Self {
        Self::Io(error.into())
    }
}

async fn start(
    mut process: tokio::process::Command,
    hello: &ExecHello,
    stdin: bool,
) -> Result<ExecSession, StartError> {
    let (ours, theirs) = control_pair()?;
    process
        .arg("exec")
        .stdin(theirs)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = process.spawn()?;
    drop(process);
    let (mut input, mut output, mut errors) = (None, None, None);
    let mut theirs: Vec<OwnedFd> = vec![];
    if !hello.tty {
        theirs.push(if stdin {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            input = Some(pipe::Sender::from_owned_fd(nonblocking(write)?)?);
            read
        } else {
            File::open("/dev/null")?.into()
        });
        for stream in [&mut output, &mut errors] {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            *stream = Some(pipe::Receiver::from_owned_fd(nonblocking(read)?)?);
            theirs.push(write);
        }
    }
    let fds: Vec<i32> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
    protocol::send(&ours, hello, &fds)?;
    drop(theirs);
    let control: Control = watched(ours)?;
    let master = match receive(&control).await? {
        Some((ExecReply::Running, mut fds)) => fds.pop(),
        Some((ExecReply::Failed(cause), _)) => return Err(StartError::Command(cause)),
        Some((ExecReply::Exited(_), _)) | None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    };
    let (kill, signals) = mpsc::unbounded_channel();
    let (tell, told) = oneshot::channel();
    tokio::spawn(attend(control, child, signals, tell));
    let mut session = ExecSession {
        stdin: input.map(|input| Box::new(input) as _),
        stdout: Box::new(tokio::io::empty()),
        stderr: errors.map(|errors| Box::new(errors) as _),
        resize: None,
        kill: Box::new(move |signal| {
            kill.send(signal).ok();
        }),
        exit: async move { told.await.unwrap_or_else(|_| Err(lost())) }.boxed(),
    };
    if let Some(output) = output {
        session.stdout = Box::new(output);
    }
    if let Some(master) = master {
        let terminal = Arc::new(watched::<File>(nonblocking(master)?)?);
        session.stdin = stdin.then(|| Box::new(TerminalInput(terminal.clone())) as _);
        session.stdout = Box::new(TerminalOutput(terminal.clone()));
        session.resize = Some(resizer(terminal));
    }
    Ok(session)
}

fn lost() -> Error {
    Error::Io {
        doing: "waiting for a command".into(),
        source: io::ErrorKind::UnexpectedEof.into(),
    }
}

async fn receive(control: &Control) -> io::Result<Option<(ExecReply, Vec<OwnedFd>)>> {
    control.async_io(Interest::READABLE, protocol::receive).await
}

/// Until the command has ended: its signals in, its exit code out. Goes on when the session is dropped.
async fn attend(
    control: Control,
    mut child: Child,
    mut signals: mpsc::UnboundedReceiver<i32>,
    tell: oneshot::Sender<Result<i32, Error>>,
) {
    let code = loop {
        tokio::select! {
            reply = receive(&control) => match reply {
                Ok(Some((ExecReply::Exited(code), _))) => break Ok(code),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break Err(lost()),
            },
            Some(signal) = signals.recv() => {
                protocol::send(control.get_ref(), &ExecSignal { signal }, &[]).ok();
            }
        }
    };
    tell.send(code).ok();
    child.wait().await.ok();
}

fn resizer(terminal: Arc<AsyncFd<File>>) -> mpsc::Sender<TerminalSize> {
    let (sender, mut sizes) = mpsc::channel::<TerminalSize>(4);
    tokio::spawn(async move {
        while let Some(TerminalSize { width, height }) = sizes.recv().await {
            terminal::set_size(terminal.get_ref(), width, height).ok();
        }
    });
    sender
}

/// The reading half of a terminal's master.
struct TerminalOutput(Arc<AsyncFd<File>>);

impl AsyncRead for TerminalOutput {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            match guard.try_io(|file| file.get_ref().read(buffer.initialize_unfilled())) {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // Nobody has the other side open any more: end of file.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

/// The writing half. A terminal is never closed: what ends input is the character ^D.
struct TerminalInput(Arc<AsyncFd<File>>);

impl AsyncWrite for TerminalInput {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|file| file.get_ref().write(bytes)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for TerminalInput {
    fn drop(&mut self) {
        self.0.get_ref().write_all(b"\x04").ok();
    }
}
