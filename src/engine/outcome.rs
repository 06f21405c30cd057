//! How steps and runs ended.

use serde::{Deserialize, Serialize};

use crate::scenario::StepId;
use crate::steps::{Done, Effect, FailureKind, StepError};

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "camelCase")]
pub enum StepEnd {
    /// Well.
    Done(Done),
    /// It went wrong.
    Failed(StepError),
    /// It never started, because of another step.
    Skipped {
        /// The step that went wrong before.
        because: StepId,
    },
    /// It was stopped, or never started because the run was.
    Stopped,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "as", content = "kind", rename_all = "camelCase")]
pub enum RunEnd {
    /// Every step is done.
    Done(Effect),
    /// A step went wrong.
    Failed(FailureKind),
    /// Stopped by the user.
    Stopped,
}

impl RunEnd {
    /// The run's end from its steps': the gravest kind of failure wins, in the order of the exit codes' use to a caller.
    pub fn of(ends: &[StepEnd]) -> Self {
        let kinds = ends.iter().filter_map(|end| match end {
            StepEnd::Failed(error) => Some(error.kind),
            StepEnd::Stopped => Some(FailureKind::Stopped),
            StepEnd::Done(_) | StepEnd::Skipped { .. } => None,
        });
        let gravity = |kind: &FailureKind| match kind {
            FailureKind::Newer => 0,
            FailureKind::Prerequisite => 1,
            FailureKind::Failed => 2,
            FailureKind::NotReady => 3,
            FailureKind::Leftovers => 4,
            FailureKind::Stopped => 5,
        };
        match kinds.min_by_key(gravity) {
            Some(FailureKind::Stopped) => Self::Stopped,
            Some(kind) => Self::Failed(kind),
            None => {
                let changed = |end: &StepEnd| {
                    matches!(
                        end,
                        StepEnd::Done(Done {
                            effect: Effect::Changed,
                            ..
                        })
                    )
                };
                Self::Done(if ends.iter().any(changed) {
                    Effect::Changed
                } else {
                    Effect::Unchanged
                })
            }
        }
    }
}
