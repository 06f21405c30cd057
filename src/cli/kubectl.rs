//! `kubectl -- …`: the user's kubectl with the lab's context.

use super::app::App;
use super::error::CliError;
use super::labs;
use crate::exit::Code;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The lab; may be left out where there is one
    #[arg(long, value_name = "SCENARIO")]
    lab: Option<String>,
    /// What kubectl is told
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<String>,
}

pub(super) fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let known = labs::the_one(app, args.lab.as_deref())?;
    let program = which::which("kubectl").map_err(|_| {
        CliError::new(Code::Prerequisite, "there is no `kubectl` on the PATH")
            .hint("https://kubernetes.io/docs/tasks/tools/ tells how to get it; k8slab itself does not need it")
    })?;
    let mut command = std::process::Command::new(program);
    command
        .arg("--kubeconfig")
        .arg(app.kubeconfig.path())
        .args(["--context", &known.lab.context])
        .args(&args.args);
    replace(command)
}

/// Becomes kubectl, so that its exit code, its terminal and its signals are its own.
#[cfg(unix)]
fn replace(mut command: std::process::Command) -> Result<Code, CliError> {
    use std::os::unix::process::CommandExt as _;
    Err(CliError::failed("running kubectl", &command.exec()))
}

/// Runs kubectl; its exit codes 0 and 1 are ours too.
#[cfg(not(unix))]
fn replace(mut command: std::process::Command) -> Result<Code, CliError> {
    let status = command
        .status()
        .map_err(|error| CliError::failed("running kubectl", &error))?;
    Ok(if status.success() { Code::Fine } else { Code::Failed })
}
