//! `test`: up, the scenario's checks, down; a report at the end.

use std::path::{Path, PathBuf};

use apimachinery::pace::Pace;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::app::App;
use super::error::CliError;
use super::labs::{self, Lab, Walked};
use super::load::Doing;
use super::signals;
use super::up::{Which, parse_speed};
use crate::checks::report::{Case, Suite, junit};
use crate::checks::{self, title};
use crate::engine::event::Verb;
use crate::engine::outcome::RunEnd;
use crate::exit::Code;
use crate::k8s::wait::Patience;
use crate::scenario::model::Check;
use crate::steps::{Removal, Session};
use crate::ui::Format;
use crate::ui::time::took;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The scenarios, by name or folder
    #[arg(value_name = "SCENARIO", required_unless_present = "all")]
    names: Vec<String>,
    /// Every scenario that `list` shows
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Write what came of it as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write what came of it as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave the labs up
    #[arg(long)]
    keep: bool,
    /// Do everything so often
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Where to run them, as of `up`
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// Choose the defaults that need no network
    #[arg(long)]
    offline: bool,
    /// Lab time runs this many times faster (embedded only); limits of checks are lab time
    #[arg(long, value_name = "N", value_parser = parse_speed)]
    speed: Option<Pace>,
}

pub(super) async fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let names = match args.all {
        true => app.catalogue.list()?.into_iter().map(|entry| entry.name).collect(),
        false => args.names.clone(),
    };
    let mut suites = Vec::new();
    let mut worst = Code::Fine;
    'rounds: for round in 1..=args.repeat {
        for name in &names {
            let (suite, code) = one(args, app, name, round).await?;
            suites.push(suite);
            if worst == Code::Fine {
                worst = code;
            }
            if code == Code::Interrupted {
                worst = code;
                break 'rounds;
            }
        }
    }
    if let Some(path) = &args.junit {
        write(path, junit(&suites))?;
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&suites).unwrap_or_default();
        write(path, text + "\n")?;
    }
    match app.out.format {
        Format::Json => app.out.json_line(&suites),
        _ => app.out.say(summary(&suites)),
    }
    Ok(worst)
}

fn write(path: &Path, text: String) -> Result<(), CliError> {
    std::fs::write(path, text).map_err(|error| CliError::failed(&format!("writing `{}`", path.display()), &error))
}

fn summary(suites: &[Suite]) -> String {
    let cases = || suites.iter().flat_map(|suite| &suite.cases);
    let failed = cases().filter(|case| case.failure.is_some()).count();
    let millis = cases().map(|case| case.millis).sum();
    let names: Vec<&str> = suites
        .iter()
        .filter(|suite| !suite.is_good())
        .map(|suite| suite.name.as_str())
        .collect();
    match failed {
        0 => format!("{} passed, in {}", cases().count(), took(millis)),
        _ => format!(
            "{} passed, {failed} failed ({}), in {}",
            cases().count() - failed,
            names.join(", "),
            took(millis)
        ),
    }
}

async fn one(args: &Args, app: &App, name: &str, round: u32) -> Result<(Suite, Code), CliError> {
    let lab = Which::plain(name, args.cluster.clone(), args.offline, args.speed).lab(app)?;
    let mut suite = Suite {
        name: match args.repeat {
            1 => lab.scenario.name.clone(),
            _ => format!("{} #{round}", lab.scenario.name),
        },
        cases: Vec::new(),
    };
    let walked = lab.walk(app, Verb::Up, Removal::default()).await?;
    suite.cases.push(walked_case("up", &walked));
    let mut code = walked.conclude(&app.out);
    if matches!(walked.end, RunEnd::Done(_)) {
        let (session, _) = labs::session(app, &lab.lab).await?;
        for check in &lab.scenario.checks {
            let Some(case) = done(args, &lab, &session, check).await? else {
                code = Code::Interrupted;
                break;
            };
            let good = case.failure.is_none();
            tell(app, &case);
            suite.cases.push(case);
            // What comes next mostly starts from where this one should have led.
            if !good {
                code = Code::CheckFailed;
                break;
            }
        }
    }
    if !args.keep && code != Code::Interrupted {
        let walked = lab.walk(app, Verb::Down, Removal::default()).await?;
        suite.cases.push(walked_case("down", &walked));
        let down = walked.conclude(&app.out);
        if code == Code::Fine {
            code = down;
        }
    }
    Ok((suite, code))
}

fn walked_case(name: &str, walked: &Walked) -> Case {
    let failures: Vec<String> = walked
        .failures
        .iter()
        .map(|(step, error)| {
            let seen = error.seen.iter().map(|line| format!("\nlast seen: {line}"));
            format!("step `{step}`: {}{}", error.message, seen.collect::<String>())
        })
        .collect();
    let failure = match walked.end {
        RunEnd::Done(_) => None,
        RunEnd::Failed(_) => Some(failures.join("\n")),
        RunEnd::Stopped => Some("stopped".to_owned()),
    };
    Case {
        name: name.to_owned(),
        millis: walked.millis,
        failure,
    }
}

/// Does the check's action for as long as it takes; `None` when it was interrupted.
async fn done(args: &Args, lab: &Lab, session: &Session, check: &Check) -> Result<Option<Case>, CliError> {
    let since = Instant::now();
    let limit = checks::limit(check, args.speed.map_or(1, Pace::speed));
    let never = CancellationToken::new();
    let patience = Patience {
        until: since + limit,
        limit,
        stop: &never,
        seen: &|_| {},
    };
    let action = check.action.as_ref().and_then(|name| lab.scenario.action(name));
    let acting = async {
        if let Some(action) = action {
            let doing = Doing {
                client: session.cluster.client.clone(),
                namespace: &lab.lab.namespace,
                action,
                out: None,
                one: false,
            };
            doing.keep_on().await;
        }
        std::future::pending::<std::convert::Infallible>().await
    };
    let result = tokio::select! {
        biased;
        () = signals::interrupted() => return Ok(None),
        result = checks::wait(&session.resources, &lab.lab.namespace, check, &patience) => result,
        never = acting => match never {},
    };
    let failure = match result {
        Ok(_) => None,
        Err(error) => Some(CliError::from(error).report()),
    };
    Ok(Some(Case {
        name: title(check),
        millis: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        failure,
    }))
}

fn tell(app: &App, case: &Case) {
    if app.out.format == Format::Json {
        return;
    }
    let took = took(case.millis);
    match &case.failure {
        None => app.out.say(format!("  check     {:<66} {took:>6}", case.name)),
        Some(why) => app
            .out
            .error(format!("  check     {} failed after {took}\n{why}", case.name)),
    }
}
