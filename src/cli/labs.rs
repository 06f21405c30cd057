//! From a name on the command line to a lab: which scenario, which cluster, whose lock, which journal.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::pace::Pace;
use serde_json::Value;

use super::app::App;
use super::error::{self, CliError};
use super::signals;
use crate::engine::event::{Event, Listener, Stream, Verb, What};
use crate::engine::folder::{self, Holder, KnownLab, LabFolder};
use crate::engine::journal::Journal;
use crate::engine::outcome::{RunEnd, StepEnd};
use crate::engine::resume::Record;
use crate::engine::run::{Limits, Run};
use crate::exec::ThisHost;
use crate::exit::Code;
use crate::images::Recipe;
use crate::images::digest::Digests;
use crate::images::recipe::Pantry;
use crate::lab::LabRef;
use crate::providers::{Cluster, Presence, Provider};
use crate::scenario::model::{Origin, Scenario, StepKind};
use crate::scenario::parameter::Resolved;
use crate::steps::{FailureKind, Removal, Session, StepError, Surroundings, Thing, chain};
use crate::ui::json::JsonLines;
use crate::ui::lines::Lines;
use crate::ui::progress::Progress;
use crate::ui::{Format, Out};

/// A lab with everything that a run of it needs.
pub(super) struct Lab {
    pub(super) lab: LabRef,
    pub(super) scenario: Scenario,
    pub(super) resolved: Resolved,
    pub(super) provider: Box<dyn Provider>,
    recipes: BTreeMap<String, Result<Recipe, StepError>>,
}

impl Lab {
    pub(super) fn new(
        app: &App,
        lab: LabRef,
        scenario: Scenario,
        resolved: Resolved,
        speed: Option<Pace>,
    ) -> Result<Self, CliError> {
        let provider = app.provider(&lab.cluster, speed)?;
        let recipes = recipes(app, &scenario);
        Ok(Self {
            lab,
            scenario,
            resolved,
            provider,
            recipes,
        })
    }

    fn surroundings<'l>(
        &'l self,
        app: &'l App,
        made: &'l BTreeSet<Thing>,
        shared: bool,
        removal: Removal,
    ) -> Surroundings<'l> {
        Surroundings {
            lab: &self.lab,
            scenario: &self.scenario,
            manifests: &self.resolved.manifests,
            recipes: &self.recipes,
            provider: self.provider.as_ref(),
            cluster: tokio::sync::OnceCell::new(),
            kubeconfig: &app.kubeconfig,
            host: &ThisHost,
            made,
            shared,
            removal,
        }
    }

    /// A run that only looks.
    pub(super) fn look<'l>(&'l self, app: &'l App, record: &'l Record) -> Result<Run<'l>, CliError> {
        Ok(Run::new(self.surroundings(
            app,
            &record.made,
            false,
            Removal::default(),
        ))?)
    }

    /// Runs the lab up or down, under its lock and with its journal; how it ended, and the first thing that went wrong.
    pub(super) async fn walk(&self, app: &App, verb: Verb, removal: Removal) -> Result<Walked, CliError> {
        let place = LabFolder::new(&app.paths, &self.lab.id);
        let name = match verb {
            Verb::Up => "up",
            Verb::Down => "down",
        };
        let holder = Holder {
            pid: std::process::id(),
            verb: format!("{name} {}", self.lab.scenario),
            since: app.clock.now(),
        };
        let lock = place.lock(&holder)?;
        let (journal, contents) = Journal::open(&place.journal(), app.paths.owner)?;
        let record = Record::replay(&contents.events);
        let others = folder::known(&app.paths)?;
        let shared = others
            .iter()
            .any(|other| other.lab.id != self.lab.id && other.lab.cluster == self.lab.cluster);
        let run = Run::new(self.surroundings(app, &record.made, shared, removal))?;
        let failure = Failures::default();
        let listeners: Vec<Box<dyn Listener>> = vec![Box::new(journal), shown(&app.out), Box::new(failure.clone())];
        let stream = Stream::new(app.clock.clone(), listeners);
        let limits = Limits {
            total: app.global.timeout,
            stop: signals::listen(&app.out),
        };
        let since = tokio::time::Instant::now();
        let end = match verb {
            Verb::Up => run.up(&self.resolved.values, &stream, &limits).await,
            Verb::Down => run.down(&stream, &limits).await,
        };
        if verb == Verb::Down && matches!(end, RunEnd::Done(_)) {
            place
                .retire(&app.paths, app.clock.now())
                .map_err(|error| CliError::failed("moving the journal to the history", &error))?;
        }
        drop(lock);
        let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Walked {
            end,
            millis,
            failures: failure.take(),
        })
    }
}

/// How a run ended.
pub(super) struct Walked {
    pub(super) end: RunEnd,
    pub(super) millis: u64,
    /// The steps that went wrong, in the order in which they did.
    pub(super) failures: Vec<(String, StepError)>,
}

impl Walked {
    /// The exit code, after telling on standard error what went wrong.
    pub(super) fn conclude(&self, out: &Out) -> Code {
        for (step, error) in &self.failures {
            let error = CliError::from(error.clone());
            out.error(
                CliError {
                    message: format!("step `{step}`: {}", error.message),
                    ..error
                }
                .report(),
            );
        }
        match self.end {
            RunEnd::Done(_) => Code::Fine,
            RunEnd::Failed(kind) => error::code(kind),
            RunEnd::Stopped => Code::Interrupted,
        }
    }
}

/// Remembers what went wrong.
#[derive(Clone, Default)]
struct Failures(std::sync::Arc<std::sync::Mutex<Vec<(String, StepError)>>>);

impl Failures {
    fn take(&self) -> Vec<(String, StepError)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Listener for Failures {
    fn hear(&mut self, event: &Event) {
        if let What::StepFinished {
            step,
            end: StepEnd::Failed(error),
            ..
        } = &event.event
        {
            let mut failures = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            failures.push((step.to_string(), error.clone()));
        }
    }
}

fn shown(out: &Out) -> Box<dyn Listener> {
    match out.format {
        Format::Json => Box::new(JsonLines::new(out.clone())),
        _ if out.is_live() => Box::new(Progress::default()),
        _ => Box::new(Lines::new(out.clone())),
    }
}

/// What each image of a scenario is made of. One that cannot be said fails its step, with the reason.
fn recipes(app: &App, scenario: &Scenario) -> BTreeMap<String, Result<Recipe, StepError>> {
    let mut digests = Digests::open(&app.paths.images(), app.paths.owner);
    let folder = match &scenario.origin {
        Origin::Shipped => None,
        Origin::Folder(folder) => Some(folder.as_path()),
    };
    let images = scenario.steps.iter().filter_map(|step| match &step.kind {
        StepKind::Image { name, dockerfile } => Some((name, dockerfile)),
        _ => None,
    });
    images
        .map(|(name, dockerfile)| {
            let recipe = std::env::current_exe()
                .map_err(|error| StepError::failed("looking for k8slab's own binary", &error))
                .and_then(|binary| {
                    let text = scenario
                        .dockerfiles
                        .get(dockerfile)
                        .map(String::as_str)
                        .unwrap_or_default();
                    let pantry = Pantry {
                        binary: &binary,
                        folder,
                    };
                    Recipe::read(name, dockerfile, text, pantry, &mut digests).map_err(|error| {
                        let mut failed = StepError::new(FailureKind::Failed, chain(&error));
                        failed.hints.extend(error.hint());
                        failed
                    })
                });
            (name.clone(), recipe)
        })
        .collect()
}

/// The labs of a scenario, or with an id, that have a journal.
pub(super) fn find(app: &App, name: &str) -> Result<Vec<KnownLab>, CliError> {
    let known = folder::known(&app.paths)?;
    Ok(known
        .into_iter()
        .filter(|lab| lab.lab.scenario == name || lab.lab.id == name || lab.lab.namespace == name)
        .collect())
}

/// The one lab that is meant: by name, or the only one there is.
pub(super) fn the_one(app: &App, name: Option<&str>) -> Result<KnownLab, CliError> {
    let mut found = match name {
        Some(name) => find(app, name)?,
        None => folder::known(&app.paths)?,
    };
    match (found.len(), name) {
        (1, _) => Ok(found.remove(0)),
        (0, Some(name)) => {
            // A wrong name gets a better answer than one that is merely not up.
            app.catalogue.load(name)?;
            Err(CliError::new(Code::Prerequisite, format!("`{name}` is not up")).hint(format!("k8slab up {name}")))
        }
        (0, None) => Err(CliError::new(Code::Prerequisite, "no lab is up").hint("k8slab list shows what there is")),
        _ => {
            let ids: Vec<&str> = found.iter().map(|lab| lab.lab.id.as_str()).collect();
            Err(CliError::usage("several labs are up: say which").hint(ids.join(", ")))
        }
    }
}

/// The lab's cluster, which must be running.
pub(super) async fn session(app: &App, lab: &LabRef) -> Result<(Session, Box<dyn Provider>), CliError> {
    let provider = app.provider(&lab.cluster, None)?;
    let cluster: Cluster = match provider.find().await? {
        Presence::Running(cluster) => *cluster,
        Presence::Stopped => {
            let error = CliError::new(
                Code::Prerequisite,
                format!("the cluster of `{}` does not run", lab.scenario),
            );
            return Err(error.hint(format!("`k8slab up {}` starts it again", lab.scenario)));
        }
        Presence::Absent => {
            let error = CliError::new(Code::Prerequisite, format!("the cluster of `{}` is gone", lab.scenario));
            return Err(error.hint(format!("`k8slab down {}` forgets the lab", lab.scenario)));
        }
    };
    Ok((Session::new(cluster), provider))
}

/// The recorded values as `--set` would have given them.
pub(super) fn recorded_values(record: &Record) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    record
        .values
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}
