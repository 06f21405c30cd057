//! How pods and services are reached.
//!
//! Owns the trait only: on a node, connections come from the node's network namespace, in a test from the host.

use std::io;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use tokio::net::TcpStream;

use crate::network::NetNs;

/// Connects to pods and services.
pub(crate) trait Dial: Send + Sync + 'static {
    /// A fresh connection.
    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
}

impl Dial for NetNs {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(self.connect(to))
    }
}

/// The host's own network.
#[cfg(test)]
pub(crate) struct HostNetwork;

#[cfg(test)]
impl Dial for HostNetwork {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(TcpStream::connect(to))
    }
}
