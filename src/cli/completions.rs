//! `completions`: for the user's shell.

use clap_complete::Shell;

use crate::exit::Code;
use crate::ui::Out;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args, out: &Out, command: &mut clap::Command) -> Code {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, command, "k8slab", &mut text);
    out.text(&String::from_utf8_lossy(&text));
    Code::Fine
}
