//! The kinds of step, a file each.

mod outcome;

pub use outcome::{Action, Done, Effect, FailureKind, Intent, Observation, StepError, Thing, ThingClass, chain};
