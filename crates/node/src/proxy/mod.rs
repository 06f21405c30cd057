//! The service proxy: a listener for every ClusterIP and NodePort, each handing its connections to a ready endpoint.
//!
//! Owns sockets. Which listeners there are and where they lead is decided purely in `plan`. A Service without a ready
//! endpoint has no listener: a connection is refused at once, as kube-proxy's REJECT does. Must not know Pods.

mod forward;
pub(crate) mod outside;
mod plan;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::mirror::Mirror;
use crate::network::NetNs;
pub(crate) use plan::{Door, Settings};
use plan::{Rule, plan};

/// After a port could not be had: somebody else may let it go.
const RETRY: Duration = Duration::from_secs(5);

/// The proxy's view of the cluster and the places where it listens.
pub(crate) struct Proxy {
    settings: Settings,
    services: Arc<Mirror<Service>>,
    slices: Arc<Mirror<EndpointSlice>>,
    netns: NetNs,
    doors: HashMap<Door, OpenDoor>,
}

struct OpenDoor {
    rule: watch::Sender<Arc<Rule>>,
    listening: JoinHandle<()>,
}

impl Drop for OpenDoor {
    fn drop(&mut self) {
        // Connections that are under way go on.
        self.listening.abort();
    }
}

impl Proxy {
    pub(crate) fn new(
        settings: Settings,
        services: Arc<Mirror<Service>>,
        slices: Arc<Mirror<EndpointSlice>>,
        netns: NetNs,
    ) -> Self {
        Self {
            settings,
            services,
            slices,
            netns,
            doors: HashMap::new(),
        }
    }

    /// Follows the mirrors for ever.
    pub(crate) async fn run(mut self) {
        let (mut services, mut slices) = (self.services.subscribe(), self.slices.subscribe());
        self.services.ready().await;
        self.slices.ready().await;
        loop {
            services.mark_unchanged();
            slices.mark_unchanged();
            let complete = self.reconcile();
            let retry = async {
                if complete {
                    std::future::pending().await
                } else {
                    tokio::time::sleep(RETRY).await
                }
            };
            tokio::select! {
                changed = services.changed() => if changed.is_err() { return },
                changed = slices.changed() => if changed.is_err() { return },
                () = retry => {}
            }
        }
    }

    /// Opens, closes and redirects listeners. False when one of them could not be had.
    fn reconcile(&mut self) -> bool {
        let mut wanted: BTreeMap<Door, Rule> = plan(&self.settings, &self.services.all(), &self.slices.all());
        self.doors.retain(|door, _| wanted.contains_key(door));
        for (door, open) in &self.doors {
            if let Some(rule) = wanted.remove(door) {
                open.rule.send_if_modified(|current| {
                    let changed = **current != rule;
                    if changed {
                        *current = Arc::new(rule);
                    }
                    changed
                });
            }
        }
        let mut complete = true;
        for (door, rule) in wanted {
            match self.listen(&door) {
                Ok(listener) => {
                    let (rule, follow) = watch::channel(Arc::new(rule));
                    let listening = tokio::spawn(forward::serve(listener, follow, self.netns.clone()));
                    self.doors.insert(door, OpenDoor { rule, listening });
                }
                Err(error) => {
                    complete = false;
                    warn!("listening on {door} for Service `{}`: {error}", rule.service);
                }
            }
        }
        complete
    }

    fn listen(&self, door: &Door) -> io::Result<TcpListener> {
        match *door {
            Door::Cluster(address) => self.netns.listen(address),
            Door::Node(address) => listen_on_host(address),
        }
    }
}

fn listen_on_host(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        tokio::net::TcpSocket::new_v4()
    } else {
        tokio::net::TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}
