//! A scenario as the rest of the program works with it: checked, complete, its files read.
//!
//! Built by `validate` only, so that every reference in it points at something.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parameter::Parameter;

/// The name of a step, unique in its scenario.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(Box<str>);

impl StepId {
    /// Takes the name as it is.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A lab's description, ready to be run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// `metadata.name`, a DNS label.
    pub name: String,
    /// One line that says what it teaches.
    pub title: String,
    /// More about it.
    pub description: Option<String>,
    /// What the cluster must have.
    pub requires: Requires,
    /// What `--set` can change.
    pub parameters: Vec<Parameter>,
    /// What is done, in file order.
    pub steps: Vec<Step>,
    /// What `open` offers.
    pub endpoints: Vec<Endpoint>,
    /// What `load` can do.
    pub actions: Vec<Action>,
    /// What `test` asserts.
    pub checks: Vec<Check>,
    /// The manifests that steps apply, by path; a list of documents each, as written.
    pub manifests: BTreeMap<String, Vec<Value>>,
    /// The Dockerfiles that steps build, by path.
    pub dockerfiles: BTreeMap<String, String>,
    /// Where it came from.
    pub origin: Origin,
}

impl Scenario {
    /// The action with this name.
    pub fn action(&self, name: &str) -> Option<&Action> {
        self.actions.iter().find(|action| action.name == name)
    }

    /// Without the steps that these values leave out; who needs one of those waits for what it would have waited for.
    #[must_use]
    pub fn chosen(mut self, values: &BTreeMap<String, Value>) -> Self {
        let done = |step: &Step| match &step.when {
            Some((parameter, value)) => values.get(parameter) == Some(value),
            None => true,
        };
        // In file order a step may be needed by an earlier one: until nothing more can be handed on.
        while let Some(at) = self.steps.iter().position(|step| !done(step)) {
            let out = self.steps.remove(at);
            for step in &mut self.steps {
                if let Some(need) = step.needs.iter().position(|need| *need == out.id) {
                    step.needs.remove(need);
                    let inherited = out.needs.iter().filter(|need| !step.needs.contains(need)).cloned();
                    let inherited: Vec<StepId> = inherited.collect();
                    step.needs.extend(inherited);
                }
            }
        }
        self
    }

    /// The endpoint with this name.
    pub fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.name == name)
    }
}

/// Where a scenario's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Inside this binary.
    Shipped,
    /// In this folder.
    Folder(PathBuf),
}

/// What the cluster must have before the first step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requires {
    /// Allocatable CPU, a quantity.
    pub cpu: Option<String>,
    /// Allocatable memory, a quantity.
    pub memory: Option<String>,
    /// This many nodes, no more and no fewer.
    pub nodes: Option<u32>,
    /// Features by name.
    pub features: Vec<Feature>,
}

/// Something a cluster may have to be given before a lab works on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// `metrics.k8s.io`: CPU and memory of pods.
    ResourceMetrics,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::ResourceMetrics];

    /// The name in scenario files.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResourceMetrics => "resource-metrics",
        }
    }

    /// The feature of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }
}

/// A node of the graph.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its id.
    pub id: StepId,
    /// What it does.
    pub kind: StepKind,
    /// The steps it waits for.
    pub needs: Vec<StepId>,
    /// The parameter and the value with which it is done at all; `None` is always.
    pub when: Option<(String, Value)>,
    /// Its limit; `None` is the kind's own.
    pub timeout: Option<Duration>,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum StepKind {
    /// Makes sure that the cluster has a feature.
    Feature(Feature),
    /// Builds an image and brings it to the nodes.
    Image {
        /// Its name; the tag in manifests is `lab`.
        name: String,
        /// The key in `Scenario::dockerfiles`.
        dockerfile: String,
    },
    /// Applies a manifest.
    Apply {
        /// The key in `Scenario::manifests`.
        path: String,
    },
    /// Waits for a condition of an object.
    Wait {
        /// What to look at.
        target: WaitTarget,
        /// The condition's type; `None` is the kind's own idea of ready.
        condition: Option<String>,
    },
    /// Waits for an answer.
    Http {
        /// The endpoint's name.
        endpoint: String,
        /// Path and query.
        path: String,
        /// The wanted status.
        status: u16,
    },
    /// Runs a command of the host.
    Exec {
        /// The command of `up`.
        run: Vec<String>,
        /// The command of `down`; empty is none.
        undo: Vec<String>,
    },
}

impl StepKind {
    /// The field's name in scenario files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Feature(_) => "feature",
            Self::Image { .. } => "image",
            Self::Apply { .. } => "apply",
            Self::Wait { .. } => "wait",
            Self::Http { .. } => "http",
            Self::Exec { .. } => "exec",
        }
    }
}

/// The object of a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitTarget {
    /// Its `apiVersion`.
    pub api_version: &'static str,
    /// Its `kind`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// Where something of the lab answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// The kind of the target.
    pub target: TargetKind,
    /// The target's name.
    pub target_name: String,
    /// The port of the pod; of a Service, the Service's port.
    pub port: u16,
}

/// What an endpoint can point at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Any ready pod of the Deployment.
    Deployment,
    /// Any ready pod behind the Service.
    Service,
    /// This pod.
    Pod,
}

impl TargetKind {
    /// The name before the slash.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "deployment" => Some(Self::Deployment),
            "service" => Some(Self::Service),
            "pod" => Some(Self::Pod),
            _ => None,
        }
    }
}

/// Something a user can do to the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// A label selector: each ready pod is asked.
    pub pods: String,
    /// The port; `None` is the first one that the pod declares.
    pub port: Option<u16>,
    /// Path and query of the GET.
    pub get: String,
}

/// Something that must be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// An action to do first.
    pub action: Option<String>,
    /// The Deployment looked at.
    pub deployment: String,
    /// The replicas it must reach.
    pub replicas: u32,
    /// The limit, in lab time.
    pub within: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::files::Files;
    use crate::scenario::validate;

    #[test]
    fn steps_that_the_values_leave_out_hand_on_what_they_waited_for() {
        let step = |id: &str, needs: &[&str], when: &str| {
            let needs = needs.join(", ");
            format!("    - {{ id: {id}, exec: {{ run: [x] }}, needs: [{needs}]{when} }}\n")
        };
        let when = ", when: { parameter: kind, is: a }";
        let text = format!(
            "apiVersion: k8slab.dev/v1alpha1\nkind: Scenario\nmetadata: {{ name: x }}\nspec:\n  title: X\n  parameters:\n    \
             - {{ name: kind, type: string, oneOf: [a, b], default: a, sets: [] }}\n  steps:\n{}{}{}{}",
            step("last", &["second", "first"], ""),
            step("second", &["first", "other"], when),
            step("other", &[], when),
            step("first", &[], ""),
        );
        let scenario = validate::validate("x.yaml", &text, &Files::Shipped).unwrap();
        let kept = |value: &str| {
            let chosen = scenario
                .clone()
                .chosen(&BTreeMap::from([("kind".to_owned(), value.into())]));
            let steps = chosen.steps.into_iter();
            let steps = steps.map(|step| {
                (
                    step.id.to_string(),
                    step.needs.iter().map(ToString::to_string).collect(),
                )
            });
            steps.collect::<Vec<(String, Vec<String>)>>()
        };
        assert_eq!(kept("a").len(), 4);
        assert_eq!(
            kept("b"),
            [
                ("last".to_owned(), vec!["first".to_owned()]),
                ("first".to_owned(), Vec::new())
            ]
        );
        let unknown = text.replace("is: a", "is: c");
        let problems = validate::validate("x.yaml", &unknown, &Files::Shipped).unwrap_err();
        assert!(problems.to_string().contains("`c` is none of a, b"), "{problems}");
    }
}
