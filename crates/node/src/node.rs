//! The node as a whole: [`Config`] → [`Node::start`] → [`Node::drain`] or [`Node::stop_pods`].
//!
//! Owns the order in which the parts start and end. Must not know how any of them works.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use apimachinery::clock::Clock;
use apimachinery::pace::Pace;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::events::{Flavour, Recorder};
use crate::scheduler::{self, Scheduler};

/// Makes a client that speaks as `user` in `groups`: every component has an identity of its own.
pub type ClientFor = Arc<dyn Fn(&str, &[&str]) -> kube::Client + Send + Sync>;

/// What a node needs to know before it starts.
#[derive(Clone)]
pub struct Config {
    /// `metadata.name` of the Node object.
    pub name: String,
    /// The node's state: `pods/` (one folder a pod) and `images/` (the image store) lie below it.
    pub dir: PathBuf,
    /// Names the cluster in everything the host sees (cgroups), so that several clusters live on one machine.
    pub cluster_id: String,
    /// Clients for `system:kube-scheduler`, `system:node:NAME`, `system:kube-proxy`, ….
    pub client_for: ClientFor,
    /// The API server's TLS listener on the host; pods reach it at `10.96.0.1:443`.
    pub api_server: SocketAddr,
    /// Where services live, as address and prefix length; the first address is the API server's.
    pub service_cidr: (Ipv4Addr, u8),
    /// Where pods live, as address and prefix length; the first address is the node's bridge.
    pub pod_cidr: (Ipv4Addr, u8),
    /// The address of the cluster's DNS service.
    pub dns_ip: Ipv4Addr,
    /// The DNS domain of the cluster, without dots at the ends.
    pub cluster_domain: String,
    /// The node's own address, on which node ports listen; 127.0.0.1 unless somebody asks for more.
    pub node_ip: IpAddr,
    /// Wall time for timestamps.
    pub clock: Arc<dyn Clock>,
    /// Divides back-off and metrics windows.
    pub pace: Pace,
    /// The binary that has the roles `shim` and `exec`.
    pub exe: PathBuf,
    /// Whether pods may mount `hostPath` volumes.
    pub allow_host_path: bool,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error("preparing the node's folder `{path}`")]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A running node. Dropping it without [`Node::drain`] ends its tasks at once; containers stay either way.
pub struct Node {
    name: String,
    tasks: JoinSet<()>,
}

impl Node {
    /// Starts all parts and adopts the pods that an earlier daemon left running.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let pods = config.dir.join("pods");
        std::fs::create_dir_all(&pods).map_err(|source| StartError::Folder { path: pods, source })?;
        let mut tasks = JoinSet::new();
        start_scheduler(&config, &mut tasks);
        Ok(Self {
            name: config.name,
            tasks,
        })
    }

    /// `metadata.name` of the Node object.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Serves the kubelet's HTTP API on one connection, until the peer closes it.
    pub async fn serve_kubelet<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, _io: S) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Serves `metrics.k8s.io` on one connection, until the peer closes it.
    pub async fn serve_metrics<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, _io: S) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Connects to an address of the pod or service network.
    pub async fn dial(&self, _address: SocketAddr) -> io::Result<TcpStream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Ends the node's tasks. Containers stay and are adopted by the next daemon.
    pub async fn drain(mut self) {
        self.tasks.shutdown().await;
    }

    /// Ends every container, each with its grace period, then the node's tasks. The objects stay.
    pub async fn stop_pods(self) {
        self.drain().await;
    }
}

fn start_scheduler(config: &Config, tasks: &mut JoinSet<()>) {
    let client = (config.client_for)("system:kube-scheduler", &[]);
    let (recorder, writer) = Recorder::new(
        client.clone(),
        scheduler::NAME,
        config.name.clone(),
        Flavour::Series,
        config.clock.clone(),
    );
    tasks.spawn(writer);
    tasks.spawn(Scheduler::new(client, recorder, config.clock.clone()).run());
}
