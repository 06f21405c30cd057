//! Where clusters come from, behind one narrow trait.

#[cfg_attr(not(target_os = "linux"), path = "elsewhere.rs")]
pub mod embedded;

use std::fmt;

use futures::future::BoxFuture;
use jiff::Timestamp;
use kube::config::Kubeconfig;
use serde::{Deserialize, Serialize};

use crate::exec::script::Script;
use crate::images::Recipe;
use crate::k8s::wait::Patience;
use crate::scenario::model::Feature;
use crate::steps::{Done, Session, StepError};

/// The providers there are; a name is offered once it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderName {
    /// k8slab's own one-node Kubernetes.
    Embedded,
}

impl ProviderName {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Embedded];

    /// The name after `--cluster`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
        }
    }

    /// The provider of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.name() == name)
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A cluster that answers.
#[derive(Clone)]
pub struct Cluster {
    /// A client with an administrator's rights.
    pub client: kube::Client,
    /// How others reach it: its current context is the one to use.
    pub kubeconfig: Kubeconfig,
    /// In a few words: `embedded, API at https://127.0.0.1:6443`.
    pub summary: String,
    /// The address on which NodePorts answer.
    pub node_address: String,
    /// What a user must know about it.
    pub warnings: Vec<String>,
    /// Whether this call started it.
    pub started: bool,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({})", self.summary)
    }
}

/// What there is of a cluster.
#[derive(Clone, Debug)]
pub enum Presence {
    /// Nothing.
    Absent,
    /// Its state is kept, but it does not run.
    Stopped,
    /// It answers.
    Running(Box<Cluster>),
}

/// Somebody who provides a cluster.
pub trait Provider: Send + Sync {
    /// Tells clusters of one name apart: two state folders have two embedded clusters.
    fn key(&self) -> String;

    /// What there is of the cluster. Starts nothing.
    fn find(&self) -> BoxFuture<'_, Result<Presence, StepError>>;

    /// The cluster, started if need be. `note` hears what a user should know.
    fn ensure<'a>(&'a self, note: &'a (dyn Fn(String) + Send + Sync)) -> BoxFuture<'a, Result<Cluster, StepError>>;

    /// Whether the nodes have this image.
    fn has_image<'a>(&'a self, image: &'a Recipe) -> BoxFuture<'a, Result<bool, StepError>>;

    /// Brings an image to the nodes, under its name and under its content.
    fn load_image<'a>(&'a self, image: &'a Recipe) -> BoxFuture<'a, Result<(), StepError>>;

    /// Whether the cluster has a feature, and in a few words how.
    fn has_feature<'a>(&'a self, at: &'a Session, feature: Feature)
    -> BoxFuture<'a, Result<Option<String>, StepError>>;

    /// Gives the cluster a feature and waits until it works.
    fn ensure_feature<'a>(
        &'a self,
        at: &'a Session,
        feature: Feature,
        patience: &'a Patience<'a>,
    ) -> BoxFuture<'a, Result<Done, StepError>>;

    /// Lets go of the cluster after its last lab; what became of it. `force` also takes one that `up` did not start.
    fn release(&self, force: bool) -> BoxFuture<'_, Result<String, StepError>>;

    /// What the cluster's autoscalers will do next, as far as it tells.
    fn next_moves<'a>(&'a self, at: &'a Session) -> BoxFuture<'a, Vec<NextMove>>;

    /// Writes how something is had by hand.
    fn explain(&self, what: &Explained<'_>, script: &mut Script);
}

/// Something of a provider that `explain` writes down.
#[derive(Clone, Copy, Debug)]
pub enum Explained<'a> {
    /// A running cluster with a context for the lab.
    Cluster {
        /// The lab's context.
        context: &'a str,
        /// The lab's namespace.
        namespace: &'a str,
    },
    /// A feature.
    Feature {
        /// Which.
        feature: Feature,
        /// The lab's context.
        context: &'a str,
    },
    /// An image, built and loaded.
    Image {
        /// Its name.
        name: &'a str,
        /// The text of its Dockerfile.
        dockerfile: &'a str,
    },
    /// The end of a cluster after its last lab.
    Release,
}

/// What a HorizontalPodAutoscaler will do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextMove {
    /// The autoscaler's namespace.
    pub namespace: String,
    /// The autoscaler's name.
    pub name: String,
    /// When its metrics are looked at again.
    pub next_sync: Option<Timestamp>,
    /// Replicas of the target after the last sync.
    pub current_replicas: i32,
    /// Replicas that the metrics alone asked for.
    pub recommended_replicas: Option<i32>,
    /// What keeps the target from shrinking.
    pub scale_down_held: Option<Held>,
    /// What keeps the target from growing.
    pub scale_up_limit: Option<Limit>,
}

/// Not below `replicas` before `until`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The recommendation that holds.
    pub replicas: i32,
    /// When it leaves the stabilization window.
    pub until: Timestamp,
}

/// Not above `replicas` until `until`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The most replicas allowed.
    pub replicas: i32,
    /// When more are allowed.
    pub until: Option<Timestamp>,
}
