//! What a run would do, step by step, and why. Data; `ui` draws it.

use serde::Serialize;

use super::event::Verb;
use super::graph::Graph;
use crate::lab::LabRef;
use crate::scenario::StepId;
use crate::steps::{Action, Intent};

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedStep {
    /// Its id.
    pub id: StepId,
    /// The kind of step.
    pub kind: String,
    /// The steps it waits for in this direction.
    pub needs: Vec<StepId>,
    /// What it would do.
    pub intent: Intent,
}

/// What a run would do; the steps stand in an order in which they could run one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In which direction.
    pub verb: Verb,
    /// The scenario's name.
    pub scenario: String,
    /// The cluster, as `--cluster` names it.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// What would be done.
    pub steps: Vec<PlannedStep>,
}

impl Plan {
    /// Joins the graph of a run with what each of its steps would do. `steps` gives kind and intent by file order.
    pub fn new(verb: Verb, graph: &Graph, mut steps: Vec<Option<(String, Intent)>>, lab: &LabRef) -> Self {
        let order = graph.order().into_iter();
        let steps = order.filter_map(|step| {
            let (kind, intent) = steps.get_mut(step).and_then(Option::take)?;
            let needs = graph
                .needs(step)
                .into_iter()
                .map(|need| graph.id(need).clone())
                .collect();
            Some(PlannedStep {
                id: graph.id(step).clone(),
                kind,
                needs,
                intent,
            })
        });
        Self {
            verb,
            scenario: lab.scenario.clone(),
            cluster: lab.cluster.clone(),
            namespace: lab.namespace.clone(),
            steps: steps.collect(),
        }
    }

    /// Whether there is something to do.
    pub fn has_work(&self) -> bool {
        self.steps.iter().any(|step| step.intent.action != Action::Keep)
    }
}
