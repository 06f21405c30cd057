//! `k8slab`: Kubernetes scaling labs in one command, on any cluster or on none.
//!
//! ```text
//! cli → engine → steps → providers, images, k8s, exec        scenario is a leaf
//! ```

pub mod engine;
pub mod exit;
pub mod k8s;
pub mod lab;
pub mod paths;
pub mod scenario;
pub mod steps;
