//! From a scenario to a working lab and back: the graph, the plan, the run, its events and its journal.
//!
//! The core (`graph`, `plan`, `executor`, `event`, `outcome`) is pure but for time and knows no Kubernetes type.

pub mod event;
pub mod executor;
pub mod folder;
pub mod graph;
pub mod history;
pub mod journal;
pub mod outcome;
pub mod plan;
pub mod resume;
pub mod run;
