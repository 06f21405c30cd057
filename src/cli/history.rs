//! `history`: past runs of labs, and where their time went.

use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use super::app::App;
use super::error::CliError;
use crate::engine::history::{PastRun, runs, verb};
use crate::engine::journal::{self, JournalError};
use crate::engine::outcome::RunEnd;
use crate::exit::Code;
use crate::row;
use crate::steps::{Effect, FailureKind};
use crate::ui::Format;
use crate::ui::table::columns;
use crate::ui::time::took;

/// How many of a run's steps are named.
const STEPS: usize = 3;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The lab; left out, all of them
    #[arg(value_name = "SCENARIO")]
    scenario: Option<String>,
    /// Only the newest runs
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Write the newest run as a Chrome trace, for `chrome://tracing` or Perfetto
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

pub(super) fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let mut found = read(app)?;
    if let Some(name) = &args.scenario {
        found.retain(|run| [&run.lab.scenario, &run.lab.id, &run.lab.namespace].contains(&name));
        if found.is_empty() {
            // A wrong name gets a better answer than one that never ran.
            app.catalogue.load(name)?;
        }
    }
    found.sort_by_key(|run| run.began);
    let older = found.len().saturating_sub(args.limit);
    found.drain(..older);
    if let Some(path) = &args.trace {
        let newest = found
            .last()
            .ok_or_else(|| CliError::usage("there is no run to trace"))?;
        return trace(app, newest, path);
    }
    if app.out.format == Format::Json {
        found.iter().for_each(|run| app.out.json_line(run));
        return Ok(Code::Fine);
    }
    if found.is_empty() {
        app.out.say("nothing was run yet");
        return Ok(Code::Fine);
    }
    app.out.line(columns("", &found.iter().map(line).collect::<Vec<_>>()));
    Ok(Code::Fine)
}

/// The runs of every journal: of labs that are there, and of those that are gone.
fn read(app: &App) -> Result<Vec<PastRun>, CliError> {
    let owner = app.paths.owner;
    let list = |folder: &Path| -> Result<Vec<PathBuf>, CliError> {
        let fail = |source| JournalError::Io {
            doing: "reading",
            path: folder.to_owned(),
            source,
        };
        let entries =
            || -> std::io::Result<Vec<PathBuf>> { std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
        match owner.act(entries) {
            Ok(paths) => Ok(paths),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(fail(error).into()),
        }
    };
    let gone = list(&app.paths.history())?;
    let there = list(&app.paths.labs())?;
    let gone = gone
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "journal"));
    let mut found = Vec::new();
    for path in gone.chain(there.into_iter().map(|folder| folder.join("journal"))) {
        match journal::read(&path, owner) {
            Ok(contents) => found.extend(runs(&contents.events)),
            // One journal that cannot be read must not hide the others.
            Err(error) => app.out.error(format!("note: {}", crate::steps::chain(&error))),
        }
    }
    Ok(found)
}

fn trace(app: &App, run: &PastRun, path: &Path) -> Result<Code, CliError> {
    let text = run.trace().to_string();
    let written = app.paths.owner.act(|| std::fs::write(path, text));
    written.map_err(|error| CliError::failed(&format!("writing `{}`", path.display()), &error))?;
    app.out.say(format!(
        "`{} {}` written to `{}`",
        verb(run.verb),
        run.lab.scenario,
        path.display()
    ));
    Ok(Code::Fine)
}

fn line(run: &PastRun) -> Vec<String> {
    let began = run.began.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S");
    let slowest: Vec<String> = run
        .slowest(STEPS)
        .iter()
        .map(|step| format!("{} {}", step.id, took(step.millis)))
        .collect();
    row![
        began,
        format!("{} {}", verb(run.verb), run.lab.scenario),
        end(run.end),
        took(run.millis),
        slowest.join(", "),
    ]
}

fn end(end: Option<RunEnd>) -> &'static str {
    match end {
        None => "no end",
        Some(RunEnd::Done(Effect::Changed)) => "done",
        Some(RunEnd::Done(Effect::Unchanged)) => "nothing to do",
        Some(RunEnd::Stopped | RunEnd::Failed(FailureKind::Stopped)) => "stopped",
        Some(RunEnd::Failed(FailureKind::NotReady)) => "not ready in time",
        Some(RunEnd::Failed(FailureKind::Leftovers)) => "left something",
        Some(RunEnd::Failed(FailureKind::Failed | FailureKind::Prerequisite | FailureKind::Newer)) => "failed",
    }
}
