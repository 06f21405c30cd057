//! One Kubernetes node: scheduler, kubelet, container runtime, pod network, DNS, service proxy. Linux only.
//!
//! Owns what runs on the machine. Speaks to the API server as any client does, through [`kube::Client`]s, one identity a
//! component; must not know whose API server it is. The front door is [`Node`].

pub mod cgroup;
mod devices;
mod dial;
mod dns;
mod events;
mod fd;
mod host;
pub mod image;
mod kubelet;
mod local_path;
mod metrics;
mod mirror;
pub mod network;
mod node;
mod node_status;
pub mod privileges;
mod proxy;
pub mod runtime;
pub mod scheduler;
mod spdy;
mod stats;
mod storage;

pub use node::{ClientFor, Config, Node, StartError};
