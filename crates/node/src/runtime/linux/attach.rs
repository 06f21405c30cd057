//! The daemon's side of an attach: the shim's frames as streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{LinuxRuntime, doing, shim, unexpected};
use crate::runtime::folder::read_json;
use crate::runtime::protocol::{Frame, Reply, Request};
use crate::runtime::session::{ExecSession, TerminalSize};
use crate::runtime::{ContainerConfig, ContainerId, Error};

const BUFFER: usize = 16 * 1024;

impl LinuxRuntime {
    pub(super) async fn join_streams(&self, id: &ContainerId) -> Result<ExecSession, Error> {
        id.check()?;
        let pod = self.pod(&id.pod_uid)?;
        let path = pod.folder.attempt_file(&id.name, id.attempt, "json");
        let missing = || Error::NotFound(format!("running container `{id}`"));
        let container: ContainerConfig = read_json(&path).map_err(|_| missing())?;
        let talk = doing("attaching");
        let (stream, reply) = match connect(&pod.folder, id).await {
            Ok(joined) => joined,
            Err(error) => return Err(talk(error)),
        };
        match reply {
            Reply::Done => {}
            Reply::Unknown => return Err(missing()),
            other => return Err(unexpected(&other)),
        }
        let (from_shim, to_shim) = stream.into_split();
        let (input, from_client) = duplex(BUFFER);
        let (stdout, to_stdout) = duplex(BUFFER);
        let (stderr, to_stderr) = duplex(BUFFER);
        let (resize, sizes) = mpsc::channel(4);
        // Whoever drops stdout has left: the shim is to see that even when the container says nothing.
        let left = CancellationToken::new();
        let (gone, end_of_input) = (left.clone(), container.stdin_once);
        tokio::spawn(async move {
            let talk = async {
                let input = copy_input(from_client, sizes, to_shim, end_of_input);
                tokio::join!(input, copy_output(from_shim, to_stdout, to_stderr))
            };
            gone.run_until_cancelled(talk).await;
        });
        let stdout = Output(stdout, left.drop_guard());
        let (runtime, waited, killed) = (self.clone(), id.clone(), id.clone());
        let killer = self.clone();
        Ok(ExecSession {
            stdin: container.stdin.then(|| Box::new(input) as _),
            stdout: Box::new(stdout),
            stderr: (!container.tty).then(|| Box::new(stderr) as _),
            resize: container.tty.then_some(resize),
            kill: Box::new(move |signal| {
                let (killer, killed) = (killer.clone(), killed.clone());
                tokio::spawn(async move { killer.send_signal(&killed, signal).await });
            }),
            exit: async move { Ok(runtime.await_exit(&waited).await?.code) }.boxed(),
        })
    }
}

/// Asks, and reads no more than the reply's line: frames follow at once.
async fn connect(folder: &crate::runtime::folder::PodFolder, id: &ContainerId) -> io::Result<(UnixStream, Reply)> {
    let mut stream = shim::connect(folder).await?;
    shim::write_request(
        &mut stream,
        &Request::Attach {
            name: id.name.clone(),
            attempt: id.attempt,
        },
    )
    .await?;
    let mut line = vec![];
    while line.last() != Some(&b'\n') {
        line.push(stream.read_u8().await?);
    }
    Ok((stream, serde_json::from_slice(&line).map_err(io::Error::other)?))
}

struct Output(
    DuplexStream,
    #[expect(dead_code, reason = "works by being dropped")] DropGuard,
);

impl AsyncRead for Output {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

/// Input and window sizes. The container's stdin stays open when a client's has ended, unless the pod says
/// `stdinOnce`.
async fn copy_input(
    mut input: DuplexStream,
    mut sizes: mpsc::Receiver<TerminalSize>,
    mut shim: OwnedWriteHalf,
    end_of_input: bool,
) {
    let mut buffer = vec![0; BUFFER];
    let (mut reading, mut resizing) = (true, true);
    while reading || resizing {
        let frame = tokio::select! {
            read = input.read(&mut buffer), if reading => {
                let length = read.unwrap_or(0);
                reading = length > 0;
                if !reading && !end_of_input {
                    continue;
                }
                [&Frame::Stdin.header(length)[..], &buffer[..length]].concat()
            }
            size = sizes.recv(), if resizing => match size {
                Some(TerminalSize { width, height }) => {
                    [&Frame::Resize.header(4)[..], &width.to_be_bytes(), &height.to_be_bytes()].concat()
                }
                None => { resizing = false; continue }
            },
        };
        if shim.write_all(&frame).await.is_err() {
            return;
        }
    }
    // Not shut down: a half-closed connection would look like one that left.
    shim.forget();
}

/// Output until the container has ended, or until nobody reads it.
async fn copy_output(mut shim: OwnedReadHalf, mut stdout: DuplexStream, mut stderr: DuplexStream) -> io::Result<()> {
    loop {
        let mut header = [0; Frame::HEADER];
        shim.read_exact(&mut header).await?;
        let (frame, length) = Frame::parse(&header).unwrap_or_else(|| Err(io::ErrorKind::InvalidData.into()))?;
        let mut body = (&mut shim).take(length as u64);
        match frame {
            Frame::Stderr => tokio::io::copy(&mut body, &mut stderr).await?,
            _ => tokio::io::copy(&mut body, &mut stdout).await?,
        };
    }
}
