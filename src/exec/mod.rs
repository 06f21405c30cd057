//! Commands of the host: a value, somebody who runs it, somebody who writes it down.

pub mod command;
pub mod script;

use futures::future::BoxFuture;

pub use command::{CommandError, CommandLine, Output};

/// Where commands are run.
pub trait Host: Send + Sync {
    /// Runs a command to its end.
    fn run<'a>(&'a self, line: &'a CommandLine) -> BoxFuture<'a, Result<Output, CommandError>>;
}

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct ThisHost;

impl Host for ThisHost {
    fn run<'a>(&'a self, line: &'a CommandLine) -> BoxFuture<'a, Result<Output, CommandError>> {
        Box::pin(async move {
            let fail = |status: String, stderr: Vec<String>| CommandError {
                line: line.clone(),
                status,
                stderr,
            };
            let mut words = line.words().iter();
            let program = words.next().map(String::as_str).unwrap_or_default();
            let mut command = tokio::process::Command::new(program);
            command
                .args(words)
                .stdin(std::process::Stdio::null())
                .kill_on_drop(true);
            let output = command
                .output()
                .await
                .map_err(|error| fail(error.to_string(), Vec::new()))?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            if !output.status.success() {
                let lines: Vec<String> = stderr.lines().map(str::to_owned).collect();
                let tail = lines[lines.len().saturating_sub(8)..].to_vec();
                return Err(fail(output.status.to_string(), tail));
            }
            Ok(Output {
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            })
        })
    }
}
