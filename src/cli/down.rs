//! `down`: takes labs away, waits until they are gone, and looks for what they left.

use super::app::App;
use super::error::CliError;
use super::labs::{self, Lab};
use crate::engine::event::Verb;
use crate::engine::folder::{self, KnownLab};
use crate::engine::outcome::RunEnd;
use crate::exit::Code;
use crate::scenario::parameter;
use crate::steps::Removal;
use crate::ui::time::took;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The lab
    #[arg(value_name = "SCENARIO", required_unless_present = "all")]
    scenario: Option<String>,
    /// Every lab there is
    #[arg(long, conflicts_with = "scenario")]
    all: bool,
    /// Go on where something is stuck or left behind
    #[arg(long)]
    force: bool,
    /// Also delete the cluster, if k8slab made it
    #[arg(long)]
    delete_cluster: bool,
}

pub(super) async fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let found = match &args.scenario {
        Some(name) => labs::find(app, name)?,
        None => folder::known(&app.paths)?,
    };
    if found.is_empty() {
        if let Some(name) = &args.scenario {
            app.catalogue.load(name)?;
            app.out.say(format!("{name} is not up"));
        } else {
            app.out.say("no lab is up");
        }
        return Ok(Code::Fine);
    }
    let mut worst = Code::Fine;
    for known in found {
        let code = one(args, app, known).await?;
        if worst == Code::Fine {
            worst = code;
        }
        if code == Code::Interrupted {
            break;
        }
    }
    Ok(worst)
}

async fn one(args: &Args, app: &App, known: KnownLab) -> Result<Code, CliError> {
    let scenario = app.scenario_of(&known.lab);
    let name = known.lab.scenario.clone();
    // The values of the last `up`; where the scenario has changed since, its defaults do.
    let values = labs::recorded_values(&known.record);
    let resolved = parameter::resolve(&scenario, &values, false)
        .or_else(|_| parameter::resolve(&scenario, &std::collections::BTreeMap::new(), false))?;
    let lab = Lab::new(app, known.lab, scenario, resolved, None)?;
    let removal = Removal {
        force: args.force,
        delete_cluster: args.delete_cluster,
    };
    let walked = lab.walk(app, Verb::Down, removal).await?;
    if matches!(walked.end, RunEnd::Done(_)) {
        app.out.say(format!("{name} is gone, in {}", took(walked.millis)));
    }
    Ok(walked.conclude(&app.out))
}
