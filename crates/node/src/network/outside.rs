//! The way out: whatever pods send to other networks ends in a namespace where every address is local, so that the
//! daemon can accept it there and dial the real place from the host.
//!
//! Owns that namespace and the routes to it; who may go where is `proxy::outside`'s. A namespace apart from the node's,
//! because listeners on all addresses must not answer for Services that have no endpoint. It dies with the daemon, and
//! the way out with it; pods that run on get it back with the next one.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::node::{LOOPBACK, doing, handle, index, up};
use super::{NetNs, NodeNet};

/// The node's end of the pair, and its name there.
const NODE: (&str, Ipv4Addr) = ("out", Ipv4Addr::new(169, 254, 7, 1));
/// The other end. Link-local addresses are nobody's outside.
const OUTSIDE: (&str, Ipv4Addr) = ("in", Ipv4Addr::new(169, 254, 7, 2));
const PREFIX: u8 = 30;

impl NodeNet {
    /// Leads the pods' default route into a namespace that takes connections to any address, and hands it over.
    pub async fn open_way_out(&self) -> io::Result<NetNs> {
        let outside = NetNs::create().map_err(doing("making the namespace of the way out"))?;
        if self.add_way_out(&outside).await.is_err() {
            // That of a daemon before us: the kernel is still taking it away.
            if let Ok(old) = index(&self.netlink, NODE.0).await {
                self.netlink.link().del(old).execute().await.ok();
            }
            self.add_way_out(&outside).await?;
        }
        let there = handle(outside.netlink_socket()?)?;
        up(&there, LOOPBACK).await.map_err(doing("raising the loopback"))?;
        for (netlink, (name, address)) in [(&self.netlink, NODE), (&there, OUTSIDE)] {
            let link = index(netlink, name).await?;
            let add = netlink.address().add(link, address.into(), PREFIX).execute();
            add.await.map_err(doing("giving the way out its addresses"))?;
            up(netlink, link).await.map_err(doing("raising the way out"))?;
        }
        let (pods, prefix) = self.config.pods;
        let back = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(pods, prefix)
            .gateway(NODE.1)
            .build();
        let everywhere = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
            .output_interface(LOOPBACK)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .build();
        for route in [back, everywhere] {
            let add = there.route().add(route).execute();
            add.await.map_err(doing("routing the way out"))?;
        }
        let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        self.netns.run(forward).map_err(doing("letting the node forward"))?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(OUTSIDE.1).build();
        let add = self.netlink.route().add(default).execute();
        add.await.map_err(doing("adding the node's default route"))?;
        Ok(outside)
    }

    async fn add_way_out(&self, outside: &NetNs) -> io::Result<()> {
        let peer = LinkUnspec::new_with_name(OUTSIDE.0)
            .setns_by_fd(outside.file().as_raw_fd())
            .build();
        let pair = LinkVeth::new(NODE.0, OUTSIDE.0)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let add = self.netlink.link().add(pair).execute();
        add.await.map_err(doing("making the pair of the way out"))
    }
}
