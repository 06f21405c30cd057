//! What a step says about itself: what it saw, what it would do, how it ended. Plain data, no Kubernetes type.

use serde::{Deserialize, Serialize};

/// Whether a step changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// It found everything as it should be.
    Unchanged,
    /// It made or changed something.
    Changed,
}

/// A step that ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Whether it changed anything.
    pub effect: Effect,
    /// What is there now, in a few words.
    pub summary: String,
}

impl Done {
    /// Something was made or changed.
    pub fn changed(summary: impl Into<String>) -> Self {
        Self {
            effect: Effect::Changed,
            summary: summary.into(),
        }
    }

    /// Nothing had to be done.
    pub fn unchanged(summary: impl Into<String>) -> Self {
        Self {
            effect: Effect::Unchanged,
            summary: summary.into(),
        }
    }
}

/// What a step found before doing anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Nothing of it is there.
    Missing,
    /// It is there, but these things differ from what the scenario says.
    Differs(Vec<String>),
    /// It is as it should be; the summary says how.
    Present(String),
    /// It cannot be told before the run, because of this.
    Unknown(String),
}

/// What a step would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Nothing: it is done.
    Keep,
    /// Make what is missing.
    Create,
    /// Change what differs.
    Change,
    /// Look, wait or run, with an outcome that is known only then.
    Run,
    /// Take away what is there.
    Remove,
}

/// What a step would do, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// What.
    pub action: Action,
    /// Why, in a few words.
    pub why: String,
    /// One line each: changed fields, objects.
    pub details: Vec<String>,
}

impl Intent {
    /// The obvious reading of an observation on the way up.
    pub fn from_observation(seen: &Observation) -> Self {
        let (action, why, details) = match seen {
            Observation::Missing => (Action::Create, "missing".to_owned(), Vec::new()),
            Observation::Differs(fields) => {
                let count = if fields.len() == 1 {
                    "1 difference".to_owned()
                } else {
                    format!("{} differences", fields.len())
                };
                (Action::Change, count, fields.clone())
            }
            Observation::Present(summary) => (Action::Keep, summary.clone(), Vec::new()),
            Observation::Unknown(why) => (Action::Run, why.clone(), Vec::new()),
        };
        Self { action, why, details }
    }

    /// The obvious reading of an observation on the way down.
    pub fn removing(seen: &Observation) -> Self {
        let (action, why) = match seen {
            Observation::Missing => (Action::Keep, "nothing is there".to_owned()),
            Observation::Present(summary) => (Action::Remove, summary.clone()),
            Observation::Differs(_) => (Action::Remove, "there, though changed".to_owned()),
            Observation::Unknown(why) => (Action::Run, why.clone()),
        };
        Self {
            action,
            why,
            details: Vec::new(),
        }
    }
}

/// In which way a step went wrong; each is an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// It tried and could not.
    Failed,
    /// Something that must be there is not.
    Prerequisite,
    /// It was not ready in time.
    NotReady,
    /// It left something behind.
    Leftovers,
    /// A format is from a newer version.
    Newer,
    /// It was asked to stop.
    Stopped,
}

/// A step that went wrong, as prose for someone in trouble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// In which way.
    pub kind: FailureKind,
    /// What was being done, to which value, what came back.
    pub message: String,
    /// What was last seen, one line each.
    pub seen: Vec<String>,
    /// What to try next, the best first; a hint may have several lines.
    #[serde(default)]
    pub hints: Vec<String>,
}

impl StepError {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            seen: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// It tried and could not; `error` is written with everything behind it.
    pub fn failed(doing: impl std::fmt::Display, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(FailureKind::Failed, format!("{doing}: {}", chain(error)))
    }

    /// It was asked to stop.
    pub fn stopped() -> Self {
        Self::new(FailureKind::Stopped, "stopped")
    }

    /// The same with something to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same with what was last seen.
    #[must_use]
    pub fn last_seen(mut self, seen: impl IntoIterator<Item = String>) -> Self {
        self.seen.extend(seen);
        self
    }
}

/// An error and its sources in one line, without a layer that only repeats the one below.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = source.source();
    }
    text
}

/// Something that a lab made and that `down` must take away again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Thing {
    /// What sort of thing: `object`, `namespace`, `context`, `cluster`, `image`, `command`.
    pub class: ThingClass,
    /// How it is found again.
    pub name: String,
}

/// What sort of thing a lab made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ThingClass {
    /// A cluster that was not running before.
    Cluster,
    /// A kubeconfig context.
    Context,
    /// A Namespace.
    Namespace,
    /// An image on the nodes.
    Image,
    /// An object: `apiVersion kind namespace/name`.
    Object,
    /// A command of an `exec` step that ran.
    Command,
}

impl ThingClass {
    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Context => "context",
            Self::Namespace => "namespace",
            Self::Image => "image",
            Self::Object => "object",
            Self::Command => "command",
        }
    }
}

impl std::fmt::Display for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} `{}`", self.class.name(), self.name)
    }
}
