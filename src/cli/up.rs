//! `up`: from a name to a working lab, and what to try next.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use apimachinery::pace::Pace;
use sha2::{Digest as _, Sha256};

use super::app::App;
use super::error::CliError;
use super::labs::{self, Lab, Walked};
use crate::engine::event::Verb;
use crate::engine::outcome::RunEnd;
use crate::exec::CommandLine;
use crate::exit::Code;
use crate::lab::{self, LabRef};
use crate::paths;
use crate::scenario::model::{Origin, Scenario, StepKind};
use crate::scenario::parameter::{self, Resolved};
use crate::scenario::yaml;
use crate::steps::{Effect, Removal};
use crate::ui::time::took;

/// The width of a command to try.
const COMMAND: usize = 32;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) which: Which,
    /// Run the commands and build the Dockerfiles of an own scenario without asking
    #[arg(long)]
    trust: bool,
}

/// Which lab, with which values: what `up`, `plan` and `explain` have in common.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// A scenario's name, or a folder such as `./my-lab`
    #[arg(value_name = "SCENARIO")]
    scenario: String,
    /// Set a parameter; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_set)]
    set: Vec<(String, String)>,
    /// A YAML file with values of parameters; `--set` goes before it
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// Where to run it: `embedded`. Left out, where it runs already, or `K8SLAB_CLUSTER` says
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// The namespace, if not the scenario's name
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Choose the defaults that need no network
    #[arg(long)]
    offline: bool,
    /// Lab time runs this many times faster (embedded only)
    #[arg(long, value_name = "N", value_parser = parse_speed)]
    speed: Option<Pace>,
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn parse_speed(text: &str) -> Result<Pace, String> {
    text.parse()
        .ok()
        .and_then(Pace::new)
        .ok_or_else(|| "expected a whole number from 1 to 10".to_owned())
}

impl Which {
    /// A scenario with its defaults.
    pub(super) fn plain(scenario: &str, cluster: Option<String>, offline: bool, speed: Option<Pace>) -> Self {
        Self {
            scenario: scenario.to_owned(),
            set: Vec::new(),
            values: None,
            cluster,
            namespace: None,
            offline,
            speed,
        }
    }

    /// The lab that is meant, with its values.
    pub(super) fn lab(&self, app: &App) -> Result<Lab, CliError> {
        let scenario = app.catalogue.load(&self.scenario)?;
        let resolved = parameter::resolve(&scenario, &self.given()?, self.offline)?;
        let lab = self.identity(app, &scenario)?;
        // `down` walks all steps: an earlier `up` may have had other values.
        let scenario = scenario.chosen(&resolved.values);
        Lab::new(app, lab, scenario, resolved, self.speed)
    }

    fn given(&self) -> Result<BTreeMap<String, String>, CliError> {
        let mut given = match &self.values {
            Some(path) => read_values(path)?,
            None => BTreeMap::new(),
        };
        given.extend(self.set.iter().cloned());
        Ok(given)
    }

    fn identity(&self, app: &App, scenario: &Scenario) -> Result<LabRef, CliError> {
        let namespace = self.namespace.as_deref().unwrap_or(&scenario.name);
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if namespace.is_empty() || namespace.len() > 50 || !namespace.chars().all(label) {
            return Err(CliError::usage(format!("`{namespace}` is not the name of a namespace")));
        }
        // A lab stays where it is; a new one goes where it is told, or to the embedded cluster.
        let known = labs::find(app, &scenario.name)?;
        let known = known.iter().find(|known| known.lab.namespace == namespace);
        let cluster = match (&self.cluster, known) {
            (Some(cluster), _) => cluster.clone(),
            (None, Some(known)) => known.lab.cluster.clone(),
            (None, None) => app.paths.cluster.clone().unwrap_or_else(|| "embedded".to_owned()),
        };
        let provider = app.provider(&cluster, self.speed)?;
        Ok(lab::identify(scenario, namespace, &cluster, &provider.key()))
    }
}

fn read_values(path: &std::path::Path) -> Result<BTreeMap<String, String>, CliError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| CliError::usage(format!("reading `{shown}`: {error}")))?;
    let documents = yaml::parse(&text);
    let documents =
        documents.map_err(|error| CliError::usage(format!("reading `{shown}`: line {}: {error}", error.at.line)))?;
    let Some(document) = documents.first() else {
        return Ok(BTreeMap::new());
    };
    let yaml::Data::Map(entries) = &document.data else {
        return Err(CliError::usage(format!(
            "reading `{shown}`: expected `name: value` lines, got {}",
            document.kind()
        )));
    };
    Ok(entries
        .iter()
        .map(|(key, value)| (key.name.clone(), value.shown()))
        .collect())
}

pub(super) async fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let lab = args.which.lab(app)?;
    consent(args, app, &lab)?;
    let walked = lab.walk(app, Verb::Up, Removal::default()).await?;
    if let RunEnd::Done(effect) = walked.end {
        goodbye(app, &lab, effect, &walked);
    }
    Ok(walked.conclude(&app.out))
}

fn goodbye(app: &App, lab: &Lab, effect: Effect, walked: &Walked) {
    let name = &lab.scenario.name;
    app.out.say(match effect {
        Effect::Changed => format!("{name} is up in {}", took(walked.millis)),
        Effect::Unchanged => format!("{name} is up, nothing had to be done ({})", took(walked.millis)),
    });
    let mut tries = Vec::new();
    if let Some(action) = lab.scenario.actions.first() {
        let what = action
            .description
            .clone()
            .unwrap_or_else(|| format!("do `{}`", action.name));
        tries.push((format!("k8slab load {name} {}", action.name), what));
    }
    tries.push((format!("k8slab watch {name}"), "see it scale".to_owned()));
    tries.push((kubectl_line(&lab.lab, &lab.resolved), String::new()));
    for (index, (command, what)) in tries.iter().enumerate() {
        let head = if index == 0 { "try" } else { "" };
        app.out
            .say(format!("  {head:<3}   {command:<COMMAND$}{what}").trim_end());
    }
}

fn kubectl_line(lab: &LabRef, resolved: &Resolved) -> String {
    let documents = resolved.manifests.values().flatten();
    let scales = documents
        .clone()
        .any(|document| document["kind"] == "HorizontalPodAutoscaler");
    let what = if scales { "hpa" } else { "all" };
    format!("kubectl --context {} get {what} -w", lab.context)
}

/// Own scenarios that bring commands or Dockerfiles are shown and asked about, once for each content.
fn consent(args: &Args, app: &App, lab: &Lab) -> Result<(), CliError> {
    if lab.scenario.origin == Origin::Shipped || args.trust {
        return Ok(());
    }
    let mut shown = Vec::new();
    for step in &lab.scenario.steps {
        match &step.kind {
            StepKind::Exec { run, undo } => {
                for words in [run, undo].into_iter().filter(|words| !words.is_empty()) {
                    shown.push(format!("  {}: run `{}`", step.id, CommandLine::new(words)));
                }
            }
            StepKind::Image { dockerfile, .. } => {
                let text = lab
                    .scenario
                    .dockerfiles
                    .get(dockerfile)
                    .map(String::as_str)
                    .unwrap_or_default();
                shown.push(format!(
                    "  {}: build `{dockerfile}`\n    {}",
                    step.id,
                    text.trim().replace('\n', "\n    ")
                ));
            }
            _ => {}
        }
    }
    if shown.is_empty() {
        return Ok(());
    }
    let shown = shown.join("\n");
    let digest: String = Sha256::digest(&shown)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let path = app.paths.home.join("consents");
    let mut known = String::new();
    let opened = app.paths.owner.act(|| std::fs::File::open(&path));
    let _ = opened.and_then(|mut file| file.read_to_string(&mut known));
    if known.lines().any(|line| line == digest) {
        return Ok(());
    }
    app.out
        .error(format!("`{}` brings its own:\n{shown}", lab.scenario.name));
    if !app.out.can_ask() {
        return Err(CliError::usage("nobody is there to allow that").hint("read it, then add `--trust`"));
    }
    if !app.out.ask("go on?") {
        return Err(CliError::usage("not allowed"));
    }
    known.push_str(&digest);
    known.push('\n');
    let written = app.paths.owner.act(|| paths::write_private(&path, &known));
    written.map_err(|error| CliError::failed("remembering the answer", &error))
}
