//! The node as a whole: [`Config`] → [`Node::start`] → [`Node::drain`] or [`Node::stop_pods`].
//!
//! Owns the order in which the parts start and end. Must not know how any of them works.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use apimachinery::clock::Clock;
use apimachinery::pace::Pace;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::runtime::watcher;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::dns::Dns;
use crate::events::{Flavour, Recorder};
use crate::kubelet::images::Images;
use crate::kubelet::{ClusterDns, Context, Kubelet, Objects, parse_resolv_conf};
use crate::local_path::{self, Provisioner};
use crate::metrics::Metrics;
use crate::mirror::Mirror;
use crate::network::{NetNs, NetworkConfig};
use crate::node_status::{self, NodeReporter};
use crate::proxy::{Proxy, Settings};
use crate::runtime::{Limits, Runtime};
use crate::runtime::{LinuxConfig, LinuxRuntime};
use crate::scheduler::requests::Amounts;
use crate::scheduler::{self, Scheduler};
use crate::storage::Storage;
use crate::{host, image};

/// How often an API server that does not take the node's registration is asked again before the start fails.
const REGISTRATION_TRIES: u32 = 10;

/// Makes a client that speaks as `user` in `groups`: every component has an identity of its own.
pub type ClientFor = Arc<dyn Fn(&str, &[&str]) -> kube::Client + Send + Sync>;

/// What a node needs to know before it starts.
#[derive(Clone)]
pub struct Config {
    /// `metadata.name` of the Node object.
    pub name: String,
    /// The node's state: `pods/` (one folder a pod) and `volumes/` (one a local volume) lie below it.
    pub dir: PathBuf,
    /// The image store, which may be shared by several nodes.
    pub images: PathBuf,
    /// Where images come from that are not in the store.
    pub registries: image::Registries,
    /// Names the cluster in everything the host sees (cgroups), so that several clusters live on one machine.
    pub cluster_id: String,
    /// Clients for `system:serviceaccount:kube-system:local-path-provisioner`, `system:kube-scheduler`, `system:node:NAME`, `system:kube-proxy`, ….
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

/// The identity of the provisioner: who composes a cluster binds it to `system:persistent-volume-provisioner`.
const PROVISIONER_USER: &str = "system:serviceaccount:kube-system:local-path-provisioner";

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The image store cannot be used.
    #[error("opening the image store `{}`", path.display())]
    Images {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        source: image::ImageError,
    },
    /// The runtime cannot make pods here, or cannot take up those of an earlier daemon.
    #[error("starting the container runtime")]
    Runtime(#[from] crate::runtime::Error),
    /// The API server did not take the Node object.
    #[error("registering node `{name}`")]
    Register {
        /// Its name.
        name: String,
        /// The last answer.
        source: Box<kube::Error>,
    },
}

/// A running node. Dropping it without [`Node::drain`] ends its tasks at once; containers stay either way.
pub struct Node {
    name: String,
    kubelet: Arc<Kubelet>,
    metrics: Arc<Metrics>,
    runtime: LinuxRuntime,
    netns: NetNs,
    tasks: Mutex<JoinSet<()>>,
}

impl Node {
    /// Starts all parts and adopts the pods that an earlier daemon left running. When it comes back, the Node object is
    /// there and Ready.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let path = config.images.clone();
        let images = image::Store::open(&path).map_err(|source| StartError::Images { path, source })?;
        let images: Arc<dyn Images> = Arc::new(image::Puller::new(images, config.registries.clone()));
        let linux = LinuxConfig {
            dir: config.dir.clone(),
            cluster_id: config.cluster_id.clone(),
            network: NetworkConfig {
                pods: config.pod_cidr,
                services: config.service_cidr,
            },
            exe: config.exe.clone(),
        };
        let linux = LinuxRuntime::open(linux).await?;
        let adopted = linux.adopt().await?;
        let netns = linux.network().netns().clone();
        let mut tasks = JoinSet::new();
        let (services, slices) = start_mirrors(&config, &mut tasks);
        let storage = start_scheduler(&config, &mut tasks);
        let volumes = config.dir.join("volumes");
        start_provisioner(&config, storage, volumes.clone(), &mut tasks);

        let identity = format!("system:node:{}", config.name);
        let client = (config.client_for)(&identity, &["system:nodes"]);
        let (recorder, writer) = Recorder::new(
            client.clone(),
            "kubelet",
            config.name.clone(),
            Flavour::Core,
            config.clock.clone(),
        );
        tasks.spawn(writer);
        let runtime: Arc<dyn Runtime> = Arc::new(linux.clone());
        let reporter = NodeReporter {
            client: client.clone(),
            recorder: recorder.clone(),
            clock: config.clock.clone(),
            name: config.name.clone(),
            ip: config.node_ip,
            pod_cidr: format!("{}/{}", config.pod_cidr.0, config.pod_cidr.1),
            dir: config.dir.clone(),
            runtime: runtime.clone(),
            images: images.clone(),
        };
        let object = register(&reporter).await?;
        tasks.spawn(reporter.run(object));

        let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let resources = node_status::resources(&host::capacity(), node_status::disk(&config.dir).0);
        let kubelet = Kubelet::new(Context {
            node: config.name.clone(),
            node_ip: config.node_ip,
            objects: Objects::new(client.clone()),
            client,
            recorder,
            runtime,
            images,
            network: Arc::new(netns.clone()),
            services: services.clone(),
            dns: ClusterDns {
                ip: config.dns_ip,
                domain: config.cluster_domain.clone(),
                host: parse_resolv_conf(&resolv_conf),
            },
            allocatable: Amounts::read(Some(&resources)),
            clock: config.clock.clone(),
            pace: config.pace,
            allow_host_path: config.allow_host_path,
            volumes,
            running_changed: watch::Sender::new(0),
        });
        tasks.spawn(kubelet.clone().run(adopted));

        let metrics = Metrics::new(&config.name, kubelet.clone(), config.clock.clone(), config.pace);
        let metrics = Arc::new(metrics);
        let sampling = metrics.clone();
        tasks.spawn(async move { sampling.run().await });

        let settings = Settings {
            node_ip: config.node_ip,
            api_server: config.api_server,
        };
        tasks.spawn(Proxy::new(settings, services.clone(), slices.clone(), netns.clone()).run());
        match linux.network().open_way_out().await {
            Ok(outside) => drop(tasks.spawn(crate::proxy::outside::serve(outside))),
            // Pods without a way out are still pods.
            Err(error) => tracing::warn!("pods reach nothing outside the cluster: {error}"),
        }
        let dns = Dns::new(&config.cluster_domain, services, slices, &resolv_conf);
        tasks.spawn(dns.run(config.dns_ip, netns.clone()));
        Ok(Self {
            name: config.name,
            kubelet,
            metrics,
            runtime: linux,
            netns,
            tasks: Mutex::new(tasks),
        })
    }

    /// `metadata.name` of the Node object.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether CPU and memory limits hold on this node.
    pub fn limits(&self) -> Limits {
        self.runtime.limits()
    }

    /// Serves the kubelet's HTTP API on one connection, until the peer closes it.
    pub async fn serve_kubelet<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, io: S) -> io::Result<()> {
        crate::kubelet::http::serve(self.kubelet.clone(), io).await
    }

    /// Serves `metrics.k8s.io` on one connection, until the peer closes it.
    pub async fn serve_metrics<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, io: S) -> io::Result<()> {
        self.metrics.clone().serve(io).await
    }

    /// Connects to an address of the pod or service network.
    pub async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.netns.connect(address).await
    }

    /// Ends the node's tasks. Containers stay and are adopted by the next daemon.
    pub async fn drain(&self) {
        self.end_tasks().await;
        self.kubelet.drain().await;
    }

    /// Ends every container, each with its grace period, then the node's tasks. The objects stay. Statuses are still
    /// written, so the API server has to be there.
    pub async fn stop_pods(&self) {
        // Nothing new is scheduled or started meanwhile.
        self.end_tasks().await;
        self.kubelet.stop_pods().await;
        if let Err(error) = self.runtime.remove_cluster_cgroup() {
            tracing::warn!("removing the cluster's cgroup: {error}");
        }
    }

    async fn end_tasks(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

/// The two kinds that proxy, DNS and containers' environments are made of, watched once for all of them.
fn start_mirrors(config: &Config, tasks: &mut JoinSet<()>) -> (Arc<Mirror<Service>>, Arc<Mirror<EndpointSlice>>) {
    let client = (config.client_for)("system:kube-proxy", &[]);
    let (services, slices) = (Mirror::new(), Mirror::new());
    let all = watcher::Config::default;
    tasks.spawn(
        services
            .clone()
            .follow(Api::all(client.clone()), all(), |service: &mut Service| {
                service.status = None
            }),
    );
    tasks.spawn(slices.clone().follow(Api::all(client), all(), |_| {}));
    (services, slices)
}

async fn register(reporter: &NodeReporter) -> Result<k8s_openapi::api::core::v1::Node, StartError> {
    let mut pause = Duration::from_millis(50);
    let mut tries = 0;
    loop {
        let error = match reporter.register().await {
            Ok(node) => return Ok(node),
            Err(error) => error,
        };
        tries += 1;
        if tries == REGISTRATION_TRIES {
            return Err(StartError::Register {
                name: reporter.name.clone(),
                source: Box::new(error),
            });
        }
        tracing::debug!("registering node `{}`: {error}", reporter.name);
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

fn start_scheduler(config: &Config, tasks: &mut JoinSet<()>) -> Storage {
    let client = (config.client_for)("system:kube-scheduler", &[]);
    let (recorder, writer) = Recorder::new(
        client.clone(),
        scheduler::NAME,
        config.name.clone(),
        Flavour::Series,
        config.clock.clone(),
    );
    tasks.spawn(writer);
    let storage = Storage::default();
    storage.follow(&client, tasks);
    tasks.spawn(Scheduler::new(client, recorder, config.clock.clone(), storage.clone()).run());
    storage
}

fn start_provisioner(config: &Config, storage: Storage, root: PathBuf, tasks: &mut JoinSet<()>) {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    let client = (config.client_for)(PROVISIONER_USER, &groups);
    let (recorder, writer) = Recorder::new(
        client.clone(),
        local_path::NAME,
        config.name.clone(),
        Flavour::Core,
        config.clock.clone(),
    );
    tasks.spawn(writer);
    let provisioner = Provisioner {
        client,
        recorder,
        storage,
        node: config.name.clone(),
        root,
    };
    tasks.spawn(provisioner.run());
}
