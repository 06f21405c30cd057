//! Scenario files: bytes → positioned YAML → `v1alpha1` → the model, with every problem in one report.
//!
//! A leaf: knows serde, Kubernetes' arithmetic (quantities, selectors) and nothing else of ours.

pub mod decode;
pub mod duration;
pub mod files;
pub mod load;
pub mod manifest;
pub mod model;
pub mod parameter;
pub mod problem;
pub mod suggestion;
pub mod v1alpha1;
pub mod validate;
pub mod yaml;

pub use load::{Catalogue, LoadError};
pub use model::{Scenario, StepId};
