//! API server, controllers and node put together as one cluster, and the daemon that keeps it alive.
//!
//! Owns composition: who is started when, with which identity, in which folder, and how it ends. Knows how none of the
//! parts works. `Config → start → drain | stop`, the daemon around it, and the CLI's side ([`client`]).

mod addons;
pub mod client;
mod cluster;
mod control;
mod daemon;
mod home;
mod kubeconfig;
mod link;
mod memory;
mod process;
mod roles;
pub mod transfer;
mod window;

pub use cluster::{Cluster, Config, NODE_NAME, StartError};
pub use home::{CLUSTER_FORMAT, ClusterDir, DAEMON_FORMAT, DaemonRecord, Description, FormatError, Home};
pub use node::image;
pub use roles::dispatch;
