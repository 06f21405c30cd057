//! `k8slab`: Kubernetes scaling labs in one command, on any cluster or on none.
//!
//! ```text
//! cli → engine → steps → providers, images, k8s, exec        scenario is a leaf
//! ```

pub mod checks;
pub mod cli;
pub mod engine;
pub mod exec;
pub mod exit;
pub mod images;
pub mod k8s;
pub mod kubeconfig;
pub mod lab;
pub mod paths;
pub mod providers;
pub mod scenario;
pub mod steps;
pub mod ui;
