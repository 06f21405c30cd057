//! What happened in a run, as data: no prose of ours, no colour, no drawing.
//!
//! One stream, several listeners (progress, plain lines, JSON lines, journal); none of them silences another. The shape
//! is written to journals and to users' programs: a change of meaning is a new `VERSION`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use apimachinery::clock::Clock;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outcome::{RunEnd, StepEnd};
use crate::lab::LabRef;
use crate::scenario::StepId;
use crate::steps::Thing;

/// The version of the events' shape. 1: the first.
pub const VERSION: u32 = 1;

/// Something that happened, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `VERSION` of whoever wrote it.
    pub version: u32,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub event: What,
}

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// Towards a working lab.
    Up,
    /// Towards nothing left.
    Down,
}

/// A step as a listener needs to know it before it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepInfo {
    /// Its id.
    pub id: StepId,
    /// The kind of step.
    pub kind: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum What {
    /// A run begins.
    RunStarted {
        /// What it does.
        verb: Verb,
        /// To which lab.
        lab: LabRef,
        /// With which steps, in order.
        steps: Vec<StepInfo>,
        /// With which values of parameters; secrets are left out.
        values: BTreeMap<String, Value>,
        /// The version of k8slab.
        by: String,
    },
    /// A step begins.
    StepStarted {
        /// Which.
        step: StepId,
    },
    /// What a step sees while it works or waits; the next one replaces it.
    StepSeen {
        /// Which.
        step: StepId,
        /// What it sees.
        text: String,
    },
    /// Something worth keeping that a step says.
    StepNote {
        /// Which.
        step: StepId,
        /// What it says.
        text: String,
    },
    /// A step is about to make something: written down before it is done, so that a kill in between loses nothing.
    Making {
        /// Which.
        step: StepId,
        /// What.
        thing: Thing,
    },
    /// Something that was made is gone again.
    Gone {
        /// Which step took it away.
        step: StepId,
        /// What.
        thing: Thing,
    },
    /// A step ended.
    StepFinished {
        /// Which.
        step: StepId,
        /// How.
        end: StepEnd,
        /// After how many milliseconds.
        millis: u64,
    },
    /// A run ended.
    RunFinished {
        /// How.
        end: RunEnd,
        /// After how many milliseconds.
        millis: u64,
    },
}

/// Somebody who hears every event, in order.
pub trait Listener: Send {
    /// Hears one. Must not fail: a listener that cannot go on falls silent by itself.
    fn hear(&mut self, event: &Event);
}

/// The one stream.
pub struct Stream {
    clock: Arc<dyn Clock>,
    listeners: Mutex<Vec<Box<dyn Listener>>>,
}

impl Stream {
    /// A stream to these listeners, in this order.
    pub fn new(clock: Arc<dyn Clock>, listeners: Vec<Box<dyn Listener>>) -> Self {
        Self {
            clock,
            listeners: Mutex::new(listeners),
        }
    }

    /// Tells everybody.
    pub fn emit(&self, what: What) {
        let event = Event {
            version: VERSION,
            at: self.clock.now(),
            event: what,
        };
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter_mut() {
            listener.hear(&event);
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}
