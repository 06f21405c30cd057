//! The node's namespace: bridge, AnyIP route for the service network, a veth pair a pod. A handful of netlink requests.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::sys::TokioSocket;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::NetNs;

const BRIDGE: &str = "br-pods";
/// The loopback interface is the first of every namespace.
pub(super) const LOOPBACK: u32 = 1;

/// Addresses of the networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Pods; the first address is the bridge's.
    pub pods: (Ipv4Addr, u8),
    /// Services.
    pub services: (Ipv4Addr, u8),
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            pods: (Ipv4Addr::new(10, 244, 0, 0), 24),
            services: (Ipv4Addr::new(10, 96, 0, 0), 16),
        }
    }
}

impl NetworkConfig {
    /// The bridge's address: the pods' gateway, and the source they see when the node dials them.
    pub fn gateway(&self) -> Ipv4Addr {
        let hosts = u32::MAX.checked_shr(self.pods.1.into()).unwrap_or(0);
        Ipv4Addr::from((u32::from(self.pods.0) & !hosts) + 1)
    }
}

/// The node's network namespace, set up.
#[derive(Clone, Debug)]
pub struct NodeNet {
    pub(super) netns: NetNs,
    pub(super) netlink: Handle,
    bridge: u32,
    pub(super) config: NetworkConfig,
}

pub(super) fn doing<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> io::Error {
    move |error| io::Error::other(format!("{what}: {error}"))
}

impl NodeNet {
    /// Makes a new one. Must be called inside a tokio runtime.
    pub async fn create(config: NetworkConfig) -> io::Result<Self> {
        let netns = NetNs::create().map_err(doing("making the node's network namespace"))?;
        let netlink = handle(netns.netlink_socket()?)?;
        up(&netlink, LOOPBACK).await.map_err(doing("raising the loopback"))?;
        let bridge = LinkBridge::new(BRIDGE).up().build();
        netlink
            .link()
            .add(bridge)
            .execute()
            .await
            .map_err(doing("making the bridge"))?;
        let bridge = index(&netlink, BRIDGE).await?;
        let (gateway, prefix) = (config.gateway(), config.pods.1);
        let address = netlink.address().add(bridge, gateway.into(), prefix).execute();
        address.await.map_err(doing("giving the bridge its address"))?;
        // AnyIP: the whole service network is local, so a listener may bind any service's address.
        let services = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(config.services.0, config.services.1)
            .output_interface(LOOPBACK)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .build();
        netlink
            .route()
            .add(services)
            .execute()
            .await
            .map_err(doing("routing the service network"))?;
        Ok(Self {
            netns,
            netlink,
            bridge,
            config,
        })
    }

    /// Takes up one that is there already.
    pub async fn adopt(netns: NetNs, config: NetworkConfig) -> io::Result<Self> {
        let netlink = handle(netns.netlink_socket()?)?;
        let bridge = index(&netlink, BRIDGE).await?;
        Ok(Self {
            netns,
            netlink,
            bridge,
            config,
        })
    }

    /// The namespace, for sockets.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// The addresses.
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }

    /// Gives the namespace `pod` an `eth0` with `ip`, on the bridge.
    pub async fn attach(&self, pod: &File, ip: Ipv4Addr) -> io::Result<()> {
        let name = format!("veth{:08x}", u32::from(ip));
        if let Err(error) = self.add_pair(pod, &name).await {
            // Left from a pod that had this address a moment ago: the kernel is still taking it away.
            let Ok(old) = index(&self.netlink, &name).await else {
                return Err(error);
            };
            self.netlink.link().del(old).execute().await.ok();
            self.add_pair(pod, &name).await?;
        }
        let netlink = handle(self.netns.netlink_socket_of(pod)?)?;
        up(&netlink, LOOPBACK)
            .await
            .map_err(doing("raising the pod's loopback"))?;
        let eth0 = index(&netlink, "eth0").await?;
        let address = netlink.address().add(eth0, ip.into(), self.config.pods.1).execute();
        address.await.map_err(doing("giving the pod its address"))?;
        up(&netlink, eth0).await.map_err(doing("raising eth0"))?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(self.config.gateway())
            .build();
        netlink
            .route()
            .add(default)
            .execute()
            .await
            .map_err(doing("adding the default route"))
    }

    /// Both ends in one request: the peer is born in the pod's namespace with its name. It cannot be born up, because
    /// the pair is not linked yet at that point.
    async fn add_pair(&self, pod: &File, name: &str) -> io::Result<()> {
        let peer = LinkUnspec::new_with_name("eth0").setns_by_fd(pod.as_raw_fd()).build();
        let pair = LinkVeth::new(name, "eth0")
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(self.bridge)
            .up()
            .build();
        self.netlink
            .link()
            .add(pair)
            .execute()
            .await
            .map_err(doing("making the veth pair"))
    }
}

pub(super) fn handle(socket: OwnedFd) -> io::Result<Handle> {
    let socket = tokio_socket(socket);
    let (connection, handle, _) = rtnetlink::from_socket(socket);
    tokio::spawn(connection); // ends with the last handle
    Ok(handle)
}

#[expect(unsafe_code, reason = "the crate takes foreign sockets by number only")]
fn tokio_socket(socket: OwnedFd) -> TokioSocket {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: the number is that of a netlink socket, and ownership moves on.
    unsafe { TokioSocket::from_raw_fd(socket.into_raw_fd()) }
}

pub(super) async fn index(netlink: &Handle, name: &str) -> io::Result<u32> {
    let mut links = netlink.link().get().match_name(name.to_string()).execute();
    let link = links.try_next().await.map_err(io::Error::other)?;
    let link = link.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface `{name}`")))?;
    Ok(link.header.index)
}

pub(super) async fn up(netlink: &Handle, index: u32) -> Result<(), rtnetlink::Error> {
    netlink
        .link()
        .set(LinkUnspec::new_with_index(index).up().build())
        .execute()
        .await
}
