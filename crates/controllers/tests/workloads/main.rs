//! The other workload controllers in process: volumes, StatefulSets, Jobs, CronJobs, DaemonSets, ClusterRoles. Time is paused.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod cluster_role;
mod daemonset;
mod job;
#[path = "../lab/mod.rs"]
mod lab;
mod statefulset;
mod volumes;
