//! Connections from pods to places outside the cluster: accepted where every address is local, dialled from the host.
//!
//! Owns what may be reached: TCP, the ports below, and only what is outside for the host, too. Its loopback, link-local
//! addresses (the metadata services of clouds above all) and multicast are refused; the host's own other addresses are
//! as reachable as for any machine beside it. What is refused is refused at once, with a reset.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::network::NetNs;

/// A listener takes one port, so they have to be known: those of the protocols that programs in labs speak.
const PORTS: [u16; 40] = [
    22, 25, 53, 80, 110, 143, 389, 443, 465, 587, 636, 853, 993, 995, 1433, 1883, 2049, 3000, 3128, 3306, 4222, 4317,
    4318, 5000, 5432, 5672, 6379, 6443, 8000, 8080, 8081, 8443, 8888, 9000, 9090, 9092, 9200, 9418, 11211, 27017,
];
const DIAL_LIMIT: Duration = Duration::from_secs(30);
const BREATH: Duration = Duration::from_millis(50);

/// Serves for ever.
pub(crate) async fn serve(outside: NetNs) {
    let mut doors = JoinSet::new();
    for port in PORTS {
        match outside.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))) {
            Ok(listener) => drop(doors.spawn(accept(listener))),
            Err(error) => warn!("listening for what pods send to port {port}: {error}"),
        }
    }
    // The doors close with this future.
    while doors.join_next().await.is_some() {}
}

async fn accept(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((client, from)) => drop(tokio::spawn(async move {
                if let Err(error) = lead_out(client).await {
                    debug!("leading {from} out: {error}");
                }
            })),
            Err(error) => {
                debug!("accepting: {error}");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

async fn lead_out(mut client: TcpStream) -> io::Result<()> {
    let to = client.local_addr()?;
    let dialled = match may_reach(to.ip()) {
        true => tokio::time::timeout(DIAL_LIMIT, TcpStream::connect(to))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    };
    let mut server = match dialled {
        Ok(server) => server,
        Err(error) => {
            // Without waiting: the pod sees a reset.
            let at_once = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&client, sockopt::Linger, &at_once)?;
            return Err(io::Error::new(error.kind(), format!("{to}: {error}")));
        }
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Whether an address is one that lies outside of this host.
fn may_reach(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, ..] = ip.octets();
            !(first == 0 || first >= 224 || ip.is_loopback() || ip.is_link_local())
        }
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_loopback_and_clouds_metadata_are_out_of_reach() {
        let reachable = |ip: &str| may_reach(ip.parse().unwrap());
        for ip in ["93.184.215.14", "192.168.1.7", "10.0.0.1", "172.17.0.1"] {
            assert!(reachable(ip), "{ip}");
        }
        for ip in [
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
        ] {
            assert!(!reachable(ip), "{ip}");
        }
    }
}
