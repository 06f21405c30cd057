//! The kinds of step, a file each, and the two traits around them: what a step can do, and what it is given.
//!
//! A step leaves notes; only the executor makes events of them. Steps act through a provider, a Kubernetes client or a
//! command, and know neither engine nor CLI.

mod apply;
mod cluster;
mod exec;
mod feature;
mod http;
mod image;
mod outcome;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use outcome::{Action, Done, Effect, FailureKind, Intent, Observation, StepError, Thing, ThingClass, chain};

use crate::exec::Host;
use crate::exec::script::Script;
use crate::images::Recipe;
use crate::k8s::wait::Patience;
use crate::k8s::{self, Resources};
use crate::kubeconfig::UserConfig;
use crate::lab::LabRef;
use crate::providers::{Cluster, Provider};
use crate::scenario::model::{Scenario, Step as Spec, StepKind};

/// The id of the step that every other one waits for.
pub const CLUSTER: &str = "cluster";

/// A kind of step with its fields.
pub trait Step: Send + Sync {
    /// The kind, as listeners show it.
    fn kind(&self) -> &'static str;

    /// Looks at what is there. Changes nothing.
    fn observe<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Observation, StepError>>;

    /// What `run` would do after this observation. Pure.
    fn plan(&self, seen: &Observation) -> Intent {
        Intent::from_observation(seen)
    }

    /// Makes it so, whatever is there already; may be killed and run again at any point.
    fn run<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>>;

    /// Takes away what `run` made, and waits until it is gone. What is gone already is fine.
    fn undo<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>>;

    /// Writes the commands that do the same (or undo it) by hand.
    fn explain(&self, cx: &Explanation<'_>, script: &mut Script);

    /// The limit where the scenario names none.
    fn default_timeout(&self) -> Duration {
        Duration::from_secs(120)
    }
}

/// The step of each kind.
pub fn build(spec: &Spec) -> Box<dyn Step> {
    match &spec.kind {
        StepKind::Feature(feature) => Box::new(feature::FeatureStep { feature: *feature }),
        StepKind::Image { name, .. } => Box::new(image::ImageStep { name: name.clone() }),
        StepKind::Apply { path } => Box::new(apply::ApplyStep { path: path.clone() }),
        StepKind::Wait { target, condition } => Box::new(wait::WaitStep {
            target: target.clone(),
            condition: condition.clone(),
        }),
        StepKind::Http { endpoint, path, status } => Box::new(http::HttpStep {
            endpoint: endpoint.clone(),
            path: path.clone(),
            status: *status,
        }),
        StepKind::Exec { run, undo } => Box::new(exec::ExecStep {
            run: run.clone(),
            undo: undo.clone(),
        }),
    }
}

/// The step that all others wait for: cluster, context, namespace.
pub fn cluster() -> Box<dyn Step> {
    Box::new(cluster::ClusterStep)
}

/// Hears what a step says while it works.
pub trait Voice: Send + Sync {
    /// What is seen now; the next one replaces it.
    fn seen(&self, text: String);
    /// Something worth keeping.
    fn note(&self, text: String);
    /// Something is about to be made. On disk when this returns.
    fn making(&self, thing: Thing);
    /// Something made is gone again.
    fn gone(&self, thing: Thing);
}

/// What is the same for every step of a run.
pub struct Surroundings<'r> {
    /// Which lab.
    pub lab: &'r LabRef,
    /// Its scenario.
    pub scenario: &'r Scenario,
    /// The manifests with the values of this run, by path.
    pub manifests: &'r BTreeMap<String, Vec<Value>>,
    /// What each image is made of, by name, or why that cannot be said.
    pub recipes: &'r BTreeMap<String, Result<Recipe, StepError>>,
    /// Where clusters come from.
    pub provider: &'r dyn Provider,
    /// The cluster, once it is there.
    pub cluster: OnceCell<Session>,
    /// The user's kubeconfig.
    pub kubeconfig: &'r UserConfig,
    /// Where commands are run.
    pub host: &'r dyn Host,
    /// What the journal says this lab made before this run.
    pub made: &'r BTreeSet<Thing>,
    /// Whether other labs use the same cluster.
    pub shared: bool,
    /// What `down` was told.
    pub removal: Removal,
}

/// How thorough a removal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Go on where something is stuck, and take the cluster's state away with it.
    pub force: bool,
    /// Also take away a cluster that was there before the lab, if k8slab made it.
    pub delete_cluster: bool,
}

/// A cluster that answers.
#[derive(Debug)]
pub struct Session {
    /// What the provider says about it.
    pub cluster: Cluster,
    /// Its kinds and its client.
    pub resources: Resources,
}

impl Session {
    /// Talks to this cluster.
    pub fn new(cluster: Cluster) -> Self {
        Self {
            resources: Resources::new(cluster.client.clone()),
            cluster,
        }
    }
}

/// What a step is given.
pub struct StepContext<'r> {
    /// What is the same for every step.
    pub around: &'r Surroundings<'r>,
    /// Who hears it.
    pub voice: &'r dyn Voice,
    /// When it must be done.
    pub until: Instant,
    /// The limit, for messages.
    pub limit: Duration,
    /// Ends waits early.
    pub stop: &'r CancellationToken,
}

impl StepContext<'_> {
    /// The cluster; an error where the step that brings it has not run.
    pub fn session(&self) -> Result<&Session, StepError> {
        let missing = || StepError::new(FailureKind::Failed, "the cluster is not there yet");
        self.around.cluster.get().ok_or_else(missing)
    }

    /// The cluster's kinds and its client.
    pub fn resources(&self) -> Result<&Resources, StepError> {
        self.session().map(|session| &session.resources)
    }

    /// The limits of a wait, and the ear for what it sees.
    pub fn patience<'a>(&'a self, seen: &'a (dyn Fn(String) + Send + Sync)) -> Patience<'a> {
        Patience {
            until: self.until,
            limit: self.limit,
            stop: self.stop,
            seen,
        }
    }

    /// The references by content of every image that is known, by name.
    pub fn images(&self) -> BTreeMap<String, String> {
        let known = self.around.recipes.iter();
        known
            .filter_map(|(name, recipe)| Some((name.clone(), recipe.as_ref().ok()?.reference())))
            .collect()
    }
}

/// What `explain` knows: nothing of a real cluster.
pub struct Explanation<'r> {
    /// Which lab.
    pub lab: &'r LabRef,
    /// The manifests with the values of this run, by path.
    pub manifests: &'r BTreeMap<String, Vec<Value>>,
    /// Its scenario.
    pub scenario: &'r Scenario,
    /// Where clusters come from.
    pub provider: &'r dyn Provider,
    /// Whether the way down is explained.
    pub down: bool,
}

impl From<k8s::Error> for StepError {
    fn from(error: k8s::Error) -> Self {
        let kind = match &error {
            k8s::Error::NotReady { .. } => FailureKind::NotReady,
            k8s::Error::Stopped { .. } => FailureKind::Stopped,
            _ => FailureKind::Failed,
        };
        let hints = error.hint().into_iter().collect();
        let message = chain(&error);
        let seen = match error {
            k8s::Error::NotReady { seen, .. } => seen,
            _ => Vec::new(),
        };
        Self {
            kind,
            message,
            seen,
            hints,
        }
    }
}
