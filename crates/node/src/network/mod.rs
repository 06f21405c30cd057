//! The pod network: a network namespace of our own with a bridge in it. Nothing is added to the host's.
//!
//! `netns` makes sockets that belong to a namespace; `node` sets up bridge, routes and veth pairs over netlink, `outside` the way to other networks. Must
//! not know pods or services. The kernel takes everything away with the last process and descriptor that hold the
//! namespace.

mod address;
mod netns;
mod node;
mod outside;

pub use address::Addresses;
pub use netns::NetNs;
pub use node::{NetworkConfig, NodeNet};
