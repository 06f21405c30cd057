//! Events → past runs and where their time went; a run as a Chrome trace. Pure.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::event::{Event, Verb, What};
use super::outcome::{RunEnd, StepEnd};
use crate::lab::LabRef;
use crate::scenario::StepId;

/// A run as its journal tells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PastRun {
    /// What it did.
    pub verb: Verb,
    /// To which lab.
    pub lab: LabRef,
    /// When it began.
    pub began: Timestamp,
    /// The version of k8slab.
    pub by: String,
    /// How it ended; `None` when it was killed, or still runs.
    pub end: Option<RunEnd>,
    /// How long it took; of one without an end, until its last event.
    pub millis: u64,
    /// The steps that ended, in the order in which they did.
    pub steps: Vec<PastStep>,
}

/// A step of a past run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PastStep {
    /// Its id.
    pub id: StepId,
    /// The kind of step, where the run told it.
    pub kind: String,
    /// When it began.
    pub began: Timestamp,
    /// How long it took.
    pub millis: u64,
    /// How it ended.
    pub end: StepEnd,
}

impl PastRun {
    /// The steps that took longest, the longest first; those that took no time to speak of are left out.
    pub fn slowest(&self, count: usize) -> Vec<&PastStep> {
        let mut steps: Vec<&PastStep> = self.steps.iter().filter(|step| step.millis >= 50).collect();
        steps.sort_by_key(|step| std::cmp::Reverse(step.millis));
        steps.truncate(count);
        steps
    }

    /// The run in Chrome's trace event format: a row for each step, so that what ran side by side is seen side by side.
    pub fn trace(&self) -> Value {
        let micros = |at: Timestamp| (at.duration_since(self.began).as_micros()).max(0);
        let title = format!("{} {}", verb(self.verb), self.lab.scenario);
        let mut events = vec![
            json!({"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {"name": "k8slab"}}),
            json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": 0, "args": {"name": "run"}}),
            json!({"ph": "X", "name": title, "cat": "run", "pid": 1, "tid": 0, "ts": 0, "dur": self.millis * 1000,
                "args": {"end": self.end}}),
        ];
        for (row, step) in (1..).zip(&self.steps) {
            events.push(json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": row, "args": {"name": step.id}}));
            events.push(
                json!({"ph": "X", "name": step.id, "cat": step.kind, "pid": 1, "tid": row, "ts": micros(step.began),
                "dur": step.millis * 1000, "args": {"end": step.end}}),
            );
        }
        json!({"displayTimeUnit": "ms", "traceEvents": events})
    }
}

/// What a run is called on the command line.
pub fn verb(verb: Verb) -> &'static str {
    match verb {
        Verb::Up => "up",
        Verb::Down => "down",
    }
}

/// The runs of a journal, oldest first.
pub fn runs<'e>(events: impl IntoIterator<Item = &'e Event>) -> Vec<PastRun> {
    let mut runs: Vec<PastRun> = Vec::new();
    let mut kinds: Vec<(StepId, String)> = Vec::new();
    let mut started: Vec<(StepId, Timestamp)> = Vec::new();
    for event in events {
        if let What::RunStarted {
            verb, lab, steps, by, ..
        } = &event.event
        {
            kinds = steps.iter().map(|step| (step.id.clone(), step.kind.clone())).collect();
            started.clear();
            runs.push(PastRun {
                verb: *verb,
                lab: lab.clone(),
                began: event.at,
                by: by.clone(),
                end: None,
                millis: 0,
                steps: Vec::new(),
            });
        }
        // What stands before the first run belongs to none.
        let Some(run) = runs.last_mut() else { continue };
        if run.end.is_none() {
            run.millis = u64::try_from(event.at.duration_since(run.began).as_millis()).unwrap_or(0);
        }
        match &event.event {
            What::StepStarted { step } => started.push((step.clone(), event.at)),
            What::StepFinished { step, end, millis } => {
                let began = started.iter().rev().find(|(id, _)| id == step);
                let kind = kinds.iter().find(|(id, _)| id == step);
                run.steps.push(PastStep {
                    id: step.clone(),
                    kind: kind.map(|(_, kind)| kind.clone()).unwrap_or_default(),
                    began: began.map_or(event.at, |(_, at)| *at),
                    millis: *millis,
                    end: end.clone(),
                });
            }
            What::RunFinished { end, millis } => {
                run.end = Some(*end);
                run.millis = *millis;
            }
            _ => {}
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::event::{StepInfo, VERSION};
    use crate::steps::{Done, Effect};

    fn event(millis: i64, event: What) -> Event {
        Event {
            version: VERSION,
            at: Timestamp::from_millisecond(millis).unwrap(),
            event,
        }
    }

    fn begin(verb: Verb) -> What {
        What::RunStarted {
            verb,
            lab: LabRef {
                id: "cart-1".into(),
                scenario: "cart".into(),
                folder: None,
                namespace: "cart".into(),
                cluster: "embedded".into(),
                context: "k8slab-cart".into(),
            },
            steps: vec![StepInfo {
                id: StepId::new("image"),
                kind: "image".into(),
            }],
            values: BTreeMap::new(),
            by: "0.1.0".into(),
        }
    }

    fn finished(step: &str, millis: u64) -> What {
        What::StepFinished {
            step: StepId::new(step),
            end: StepEnd::Done(Done::changed("done")),
            millis,
        }
    }

    #[test]
    fn each_run_has_its_steps_and_one_that_was_killed_has_no_end() {
        let step = StepId::new("image");
        let events = [
            event(0, begin(Verb::Up)),
            event(100, What::StepStarted { step }),
            event(700, finished("image", 600)),
            event(
                900,
                What::RunFinished {
                    end: RunEnd::Done(Effect::Changed),
                    millis: 900,
                },
            ),
            event(5_000, begin(Verb::Down)),
            event(5_040, finished("image", 40)),
        ];
        let runs = runs(&events);
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[0].end, Some(RunEnd::Done(Effect::Changed)));
        assert_eq!((runs[0].steps[0].kind.as_str(), runs[0].slowest(3).len()), ("image", 1));
        let killed = (runs[1].verb, runs[1].end, runs[1].millis, runs[1].slowest(3).len());
        assert_eq!(killed, (Verb::Down, None, 40, 0));
        let trace = runs[0].trace();
        let bar = &trace["traceEvents"][4];
        assert_eq!(
            (bar["ts"].as_i64(), bar["dur"].as_i64()),
            (Some(100_000), Some(600_000))
        );
    }
}
