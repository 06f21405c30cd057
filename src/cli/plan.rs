//! `plan`: what `up` or `down` would do, and why.

use super::app::App;
use super::error::CliError;
use super::labs;
use super::up::Which;
use crate::engine::event::Verb;
use crate::engine::resume::Record;
use crate::engine::run::Limits;
use crate::exit::Code;
use crate::ui::Format;
use crate::ui::plan::{PlanFormat, draw};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// The way down
    #[arg(long)]
    down: bool,
    /// How to draw it
    #[arg(short = 'o', long = "format", value_enum, default_value_t, value_name = "FORM")]
    format: PlanFormat,
}

pub(super) async fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let lab = args.which.lab(app)?;
    let known = labs::find(app, &lab.lab.id)?.into_iter().next();
    let record = known.map(|known| known.record).unwrap_or_else(Record::default);
    let verb = if args.down { Verb::Down } else { Verb::Up };
    let plan = lab.look(app, &record)?.plan(verb, &Limits::default()).await?;
    let format = if app.out.format == Format::Json {
        PlanFormat::Json
    } else {
        args.format
    };
    app.out.line(draw(&plan, format));
    Ok(Code::Fine)
}
