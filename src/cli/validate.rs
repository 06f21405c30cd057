//! `validate`: checks scenario files without a cluster.

use std::path::PathBuf;

use super::error::CliError;
use crate::exit::Code;
use crate::scenario::load::{self, load_folder};
use crate::ui::Out;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder with a `scenario.yaml`, or with folders that have one
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(args: &Args, out: &Out) -> Result<Code, CliError> {
    if args.folder.join(load::FILE).exists() {
        let scenario = load_folder(&args.folder)?;
        out.say(format!("{}: fine, {} steps", scenario.name, scenario.steps.len()));
        return Ok(Code::Fine);
    }
    let entries = std::fs::read_dir(&args.folder)
        .map_err(|error| CliError::usage(format!("reading `{}`: {error}", args.folder.display())))?;
    let mut folders: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    folders.retain(|folder| folder.join(load::FILE).exists());
    folders.sort();
    if folders.is_empty() {
        let message = format!("`{}` has no `{}`", args.folder.display(), load::FILE);
        return Err(CliError::usage(message));
    }
    let mut code = Code::Fine;
    for folder in folders {
        match load_folder(&folder) {
            Ok(scenario) => out.say(format!("{}: fine, {} steps", scenario.name, scenario.steps.len())),
            Err(error) => {
                out.error(CliError::from(error).report());
                code = Code::Usage;
            }
        }
    }
    Ok(code)
}
