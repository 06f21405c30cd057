//! Journal → what is known about a lab: where it is, what it was given, what it made. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use super::event::{Event, Verb, What};
use super::outcome::RunEnd;
use crate::lab::LabRef;
use crate::steps::Thing;

/// What the journal knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The lab, once a run of it began.
    pub lab: Option<LabRef>,
    /// The last run's verb.
    pub verb: Option<Verb>,
    /// When the last run began.
    pub began: Option<Timestamp>,
    /// The values of the last `up`.
    pub values: BTreeMap<String, Value>,
    /// What the lab made and did not take away.
    pub made: BTreeSet<Thing>,
    /// How the last run ended; `None` while it runs, or when it was killed.
    pub end: Option<RunEnd>,
}

impl Record {
    /// Reads events in order.
    pub fn replay<'e>(events: impl IntoIterator<Item = &'e Event>) -> Self {
        let mut record = Self::default();
        for event in events {
            match &event.event {
                What::RunStarted { verb, lab, values, .. } => {
                    record.lab = Some(lab.clone());
                    record.verb = Some(*verb);
                    record.began = Some(event.at);
                    record.end = None;
                    if *verb == Verb::Up {
                        record.values.clone_from(values);
                    }
                }
                What::Making { thing, .. } => drop(record.made.insert(thing.clone())),
                What::Gone { thing, .. } => drop(record.made.remove(thing)),
                What::RunFinished { end, .. } => record.end = Some(*end),
                What::StepStarted { .. }
                | What::StepSeen { .. }
                | What::StepNote { .. }
                | What::StepFinished { .. } => {}
            }
        }
        record
    }

    /// Whether the last run was an `up` that ended well.
    pub fn is_up(&self) -> bool {
        self.verb == Some(Verb::Up) && matches!(self.end, Some(RunEnd::Done(_)))
    }
}
