//! The API server's way out of the process boundary that is not there: pipes in memory to the node and to the
//! controllers' window.
//!
//! Owns which [`Target`] is served by whom. Must not know what is said on a stream.

use std::io;
use std::sync::{Arc, OnceLock, Weak};

use apiserver::{BoxedStream, Connector, Target};
use controllers::{Controllers, NextMove};
use futures::future::BoxFuture;
use node::Node;

use crate::window;

/// As much as one side may write ahead of the other.
const PIPE: usize = 32 * 1024;

/// Connects the API server with what is started after it.
#[derive(Clone, Default)]
pub(crate) struct Link(Arc<Ends>);

#[derive(Default)]
struct Ends {
    node: OnceLock<Weak<Node>>,
    controllers: OnceLock<Weak<Controllers>>,
}

impl Link {
    /// From now on kubelet and metrics connections go to `node`. It is not kept alive.
    pub(crate) fn attach_node(&self, node: &Arc<Node>) {
        self.0.node.set(Arc::downgrade(node)).ok();
    }

    /// From now on `/debug/next-moves` is answered by `controllers`. They are not kept alive.
    pub(crate) fn attach_controllers(&self, controllers: &Arc<Controllers>) {
        self.0.controllers.set(Arc::downgrade(controllers)).ok();
    }

    /// What the autoscalers will do next; nothing before the controllers run.
    pub(crate) fn next_moves(&self) -> Vec<NextMove> {
        let controllers = self.0.controllers.get().and_then(Weak::upgrade);
        controllers
            .map(|controllers| controllers.next_moves())
            .unwrap_or_default()
    }

    fn node(&self) -> io::Result<Arc<Node>> {
        let node = self.0.node.get().and_then(Weak::upgrade);
        node.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the node does not run"))
    }
}

impl Connector for Link {
    fn connect(&self, target: Target) -> BoxFuture<'static, io::Result<BoxedStream>> {
        let link = self.clone();
        Box::pin(async move {
            match target {
                Target::Kubelet { node: name } => {
                    let node = link.node()?;
                    if node.name() != name {
                        return Err(io::Error::new(
                            io::ErrorKind::NotFound,
                            format!("node `{name}` has no kubelet"),
                        ));
                    }
                    let (ours, theirs) = tokio::io::duplex(PIPE);
                    tokio::spawn(async move { node.serve_kubelet(theirs).await });
                    Ok(Box::new(ours) as BoxedStream)
                }
                Target::Local { group, .. } if group == "metrics.k8s.io" => {
                    let node = link.node()?;
                    let (ours, theirs) = tokio::io::duplex(PIPE);
                    tokio::spawn(async move { node.serve_metrics(theirs).await });
                    Ok(Box::new(ours) as BoxedStream)
                }
                Target::Local { group, .. } if group == "debug" => {
                    let (ours, theirs) = tokio::io::duplex(PIPE);
                    tokio::spawn(async move { window::serve(link, theirs).await });
                    Ok(Box::new(ours) as BoxedStream)
                }
                Target::Local { group, version } => {
                    let text = format!("nobody here serves `{group}/{version}`");
                    Err(io::Error::new(io::ErrorKind::NotFound, text))
                }
                Target::Address(address) => Ok(Box::new(link.node()?.dial(address).await?) as BoxedStream),
            }
        })
    }
}
