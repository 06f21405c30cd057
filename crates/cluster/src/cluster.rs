//! One cluster in one process: `Config → start → drain | stop`.
//!
//! Owns who is started after whom, as which user, and the kubeconfig that is written when all is there. Must not know
//! of the daemon around it (lock, signals, log).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use apimachinery::clock::{Clock, SystemClock};
use apimachinery::pace::Pace;
use apiserver::Server;
use apiserver::auth::Pki;
use apiserver::store::Contents;
use controllers::Controllers;
use node::Node;
use node::image;
use node::runtime::Limits;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::addons;
use crate::home::ClusterDir;
use crate::kubeconfig;
use crate::link::Link;

/// `metadata.name` of the one node.
pub const NODE_NAME: &str = "k8slab";
/// Tried first by a new cluster: where people expect an API server.
const API_PORT: u16 = 6443;
const SERVICE_CIDR: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 16);
const POD_CIDR: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 0, 0), 16);
const DNS_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// What a cluster needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its folder; exists.
    pub dir: ClusterDir,
    /// The image store's folder.
    pub images: PathBuf,
    /// How registries are reached.
    pub registries: image::Registries,
    /// Lab time.
    pub pace: Pace,
    /// The API server's port on 127.0.0.1, tried first; 0 = any.
    pub port: u16,
}

/// Why a cluster does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificates or keys.
    #[error("preparing certificates in `{}`", path.display())]
    Pki {
        /// Their folder.
        path: PathBuf,
        /// Why.
        source: apiserver::auth::PkiError,
    },
    /// The API server, its store above all.
    #[error("starting the API server")]
    ApiServer(#[from] apiserver::OpenError),
    /// No port.
    #[error("listening on 127.0.0.1")]
    Listen(#[source] io::Error),
    /// The objects that every cluster has.
    #[error("making the cluster's own objects")]
    Addons(#[source] Box<kube::Error>),
    /// The node.
    #[error("starting the node")]
    Node(#[from] node::StartError),
    /// The administrator's kubeconfig.
    #[error("writing the kubeconfig `{}`", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A running cluster.
pub struct Cluster {
    server: Arc<Server>,
    controllers: Arc<Controllers>,
    node: Arc<Node>,
    port: u16,
    shutdown: CancellationToken,
}

impl Cluster {
    /// Starts API server, controllers and node, and adopts containers that an earlier daemon left running.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let Config { dir, pace, .. } = &config;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let shutdown = CancellationToken::new();
        let pki_dir = dir.pki();
        let pki =
            Pki::load_or_create(&pki_dir, clock.now()).map_err(|source| StartError::Pki { path: pki_dir, source })?;
        let pki = Arc::new(pki);
        let listener = listen(config.port).await.map_err(StartError::Listen)?;
        let api_server = listener.local_addr().map_err(StartError::Listen)?;

        let link = Link::default();
        let server = Server::open(apiserver::Config {
            connector: Arc::new(link.clone()),
            clock: clock.clone(),
            pki: Some(pki.clone()),
            api_server: Some(api_server),
            service_cidr: apiserver::Cidr {
                address: SERVICE_CIDR.0,
                prefix: SERVICE_CIDR.1,
            },
            ..apiserver::Config::new(apiserver::Storage::File(dir.store()))
        })
        .await?;
        let server = Arc::new(server);
        server
            .serve(listener, shutdown.clone())
            .map_err(|source| StartError::Pki {
                path: dir.pki(),
                source,
            })?;

        addons::apply(&server.client())
            .await
            .map_err(|error| StartError::Addons(Box::new(error)))?;
        let controllers = controllers::start(controllers::Config {
            client_for: {
                let server = server.clone();
                Arc::new(move |controller: &str| controller_client(&server, controller))
            },
            pace: *pace,
            clock: clock.clone(),
            shutdown: shutdown.clone(),
            ca_pem: pki.ca_pem().to_owned(),
        });
        let controllers = Arc::new(controllers);
        link.attach_controllers(&controllers);

        let node = Node::start(node::Config {
            name: NODE_NAME.into(),
            dir: dir.node(),
            images: config.images.clone(),
            registries: config.registries.clone(),
            cluster_id: dir.id().unwrap_or_default(),
            client_for: {
                let server = server.clone();
                Arc::new(move |user: &str, groups: &[&str]| server.client_as(user, groups))
            },
            api_server,
            service_cidr: SERVICE_CIDR,
            pod_cidr: POD_CIDR,
            dns_ip: DNS_IP,
            cluster_domain: "cluster.local".into(),
            node_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            clock: clock.clone(),
            pace: *pace,
            exe: "/proc/self/exe".into(),
            allow_host_path: true,
        })
        .await?;
        let node = Arc::new(node);
        link.attach_node(&node);

        // Last, because whoever finds it may rely on everything above.
        let path = dir.kubeconfig();
        kubeconfig::write(&path, &pki, api_server, clock.now())
            .map_err(|source| StartError::Kubeconfig { path, source })?;
        Ok(Self {
            server,
            controllers,
            node,
            port: api_server.port(),
            shutdown,
        })
    }

    /// Every object, at one revision.
    pub fn contents(&self) -> Contents {
        self.server.contents()
    }

    /// The API server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Why CPU and memory limits are not enforced; `None` where they are.
    pub fn limits_not_enforced(&self) -> Option<String> {
        match self.node.limits() {
            Limits::Enforced => None,
            Limits::NotEnforced(why) => Some(why),
        }
    }

    /// Ends this process's part; containers go on and are adopted by the next start.
    pub async fn drain(self) {
        self.node.drain().await;
        self.close().await;
    }

    /// Ends every container, each with its grace period, then everything else. Objects stay in the store.
    pub async fn stop(self) {
        self.node.stop_pods().await;
        self.close().await;
    }

    async fn close(self) {
        self.shutdown.cancel();
        if let Some(controllers) = Arc::into_inner(self.controllers) {
            controllers.join().await;
        }
        self.server.close().await;
    }
}

async fn listen(port: u16) -> io::Result<TcpListener> {
    let wanted = if port == 0 { API_PORT } else { port };
    let on = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(on(wanted)).await {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => TcpListener::bind(on(0)).await,
        outcome => outcome,
    }
}

/// Upstream's identities: reads of the shared caches as the controller manager, writes as the controller's own
/// ServiceAccount, so that RBAC's `system:controller:*` roles are real.
fn controller_client(server: &Server, controller: &str) -> kube::Client {
    if controller == "kube-controller-manager" {
        return server.client_as("system:kube-controller-manager", &[]);
    }
    let user = format!("system:serviceaccount:kube-system:{controller}");
    server.client_as(&user, &["system:serviceaccounts", "system:serviceaccounts:kube-system"])
}
