//! The one door through which the API server reaches what is outside it.
//!
//! Owns the trait only. Must not know what is behind it: the cluster crate hands in-process pipes to the node, a test
//! hands what it likes.

use std::io;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A [`Stream`] of any kind.
pub type BoxedStream = Box<dyn Stream>;

/// Whom the API server wants to talk to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The kubelet of a node: plain HTTP/1.1, paths and queries as upstream's kubelet serves on port 10250.
    Kubelet {
        /// `metadata.name` of the Node.
        node: String,
    },
    /// An API that the cluster serves itself beside the API server, e.g. `metrics.k8s.io`; plain HTTP/1.1 with full
    /// API paths (`/apis/metrics.k8s.io/v1beta1/…`).
    Local {
        /// API group.
        group: String,
        /// API version.
        version: String,
    },
    /// An address in the pod or service network (webhooks, aggregated APIs, the pod and service proxy).
    Address(SocketAddr),
}

/// Opens a byte stream to a [`Target`].
///
/// Errors: `NotFound` where no such target exists, otherwise whatever dialling it said.
pub trait Connector: Send + Sync + 'static {
    /// A fresh connection.
    fn connect(&self, target: Target) -> BoxFuture<'static, io::Result<BoxedStream>>;
}

/// Refuses every target: an API server alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoConnector;

impl Connector for NoConnector {
    fn connect(&self, target: Target) -> BoxFuture<'static, io::Result<BoxedStream>> {
        Box::pin(async move {
            Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no route to {target:?}"),
            ))
        })
    }
}
