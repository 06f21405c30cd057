//! `ip`: the address on which NodePorts answer.

use super::app::App;
use super::error::CliError;
use super::labs;
use crate::exit::Code;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The lab; may be left out where there is one
    #[arg(value_name = "SCENARIO")]
    scenario: Option<String>,
}

pub(super) async fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let known = labs::the_one(app, args.scenario.as_deref())?;
    let (session, _) = labs::session(app, &known.lab).await?;
    app.out.line(session.cluster.node_address);
    Ok(Code::Fine)
}
