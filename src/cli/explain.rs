//! `explain`: the commands that do the same by hand.

use super::app::App;
use super::error::CliError;
use super::up::Which;
use crate::engine::event::Verb;
use crate::engine::resume::Record;
use crate::exit::Code;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// The way down
    #[arg(long)]
    down: bool,
}

pub(super) async fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let lab = args.which.lab(app)?;
    let record = Record::default();
    let verb = if args.down { Verb::Down } else { Verb::Up };
    let script = lab.look(app, &record)?.explain(verb);
    app.out.text(&script);
    Ok(Code::Fine)
}
