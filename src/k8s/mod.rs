//! What k8slab asks of a Kubernetes API: apply, look, wait, forward. Has never heard of providers, steps or scenarios.

pub mod apply;
pub mod audit;
pub mod diff;
pub mod error;
pub mod forward;
pub mod metrics;
pub mod pods;
pub mod ready;
pub mod resource;
pub mod snapshot;
pub mod wait;
pub mod why;

pub use error::Error;
pub use resource::{ObjectName, Resources};

/// The field manager of everything that k8slab applies.
pub const FIELD_MANAGER: &str = "k8slab";
