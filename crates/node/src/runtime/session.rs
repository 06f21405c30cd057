//! A command inside a running container, and its streams: `kubectl exec`, exec probes, hooks, attach.

use std::io;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;

use super::{ContainerId, Error, Runtime};

/// What to run, and which streams the caller wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The command line. No shell is put in front.
    pub command: Vec<String>,
    /// The caller will write; otherwise the command reads end of file.
    pub stdin: bool,
    /// In a terminal; stderr then comes with stdout.
    pub tty: bool,
}

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A running command. Dropping `stdin` is end of file for it; dropping the session leaves the command running, as
/// containerd does, unless [`ExecSession::kill`] was sent something.
pub struct ExecSession {
    /// Where to write, if asked for.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What it writes.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// What it writes to stderr; none with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// New window sizes; none without a terminal.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Sends a signal number to the command.
    pub kill: Box<dyn Fn(i32) + Send + Sync>,
    /// The exit code. It may resolve before the streams are at their end: read those first.
    pub exit: BoxFuture<'static, Result<i32, Error>>,
}

/// What a command that ran to its end has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code.
    pub code: i32,
    /// stdout and stderr in the order they arrived, cut at the limit.
    pub output: Vec<u8>,
}

/// How [`run`] can end without an exit code.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The command was killed. The text is upstream's, after which `timed out after 1s` comes from the prober.
    #[error("command timed out")]
    TimedOut,
    /// It did not start, or its container went away.
    #[error(transparent)]
    Runtime(#[from] Error),
}

/// Runs `command` to its end without a terminal, killing it after `timeout`: exec probes and lifecycle hooks.
///
/// At most `limit` bytes of output are kept (the kubelet's `maxProbeMessageLength` is 10 KiB); the rest is read and
/// dropped, so that the command never blocks on a full pipe.
pub async fn run(
    runtime: &dyn Runtime,
    id: &ContainerId,
    command: &[String],
    timeout: Duration,
    limit: usize,
) -> Result<ExecOutput, RunError> {
    let request = ExecRequest {
        command: command.to_vec(),
        ..Default::default()
    };
    let work = async {
        let session = runtime.exec(id, request).await?;
        let mut guard = KillOnDrop(Some(session.kill));
        let stderr = session.stderr.unwrap_or_else(|| Box::new(tokio::io::empty()));
        let output = collect(session.stdout, stderr, limit).await;
        let code = session.exit.await?;
        guard.0 = None;
        Ok::<_, Error>(ExecOutput {
            code,
            output: output.unwrap_or_default(),
        })
    };
    match tokio::time::timeout(timeout, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(RunError::TimedOut),
    }
}

/// A probe that is given up must not leave its command behind.
struct KillOnDrop(Option<Box<dyn Fn(i32) + Send + Sync>>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(kill) = self.0.take() {
            kill(9);
        }
    }
}

async fn collect(
    mut a: Box<dyn AsyncRead + Send + Unpin>,
    mut b: Box<dyn AsyncRead + Send + Unpin>,
    limit: usize,
) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    let (mut buffer_a, mut buffer_b) = ([0; 1024], [0; 1024]);
    let (mut open_a, mut open_b) = (true, true);
    while open_a || open_b {
        let read = tokio::select! {
            n = a.read(&mut buffer_a), if open_a => { let n = n?; open_a = n > 0; &buffer_a[..n] }
            n = b.read(&mut buffer_b), if open_b => { let n = n?; open_b = n > 0; &buffer_b[..n] }
        };
        let room = limit.saturating_sub(output.len());
        output.extend_from_slice(&read[..read.len().min(room)]);
    }
    Ok(output)
}
