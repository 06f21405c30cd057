//! One door: accepts, picks a backend, copies bytes both ways.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::debug;

use super::plan::{Rule, Side};
use crate::network::NetNs;

/// A backend that does not answer within this time is passed over.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// Out of descriptors: wait for some to be closed.
const BREATH: Duration = Duration::from_millis(50);

/// Serves until the rule's owner goes.
pub(super) async fn serve(listener: TcpListener, rule: watch::Receiver<Arc<Rule>>, netns: NetNs) {
    let mut turn = 0_usize;
    loop {
        let (client, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!("accepting: {error}");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let current = rule.borrow().clone();
        let first = first_choice(&current, from, turn);
        turn = turn.wrapping_add(1);
        let netns = netns.clone();
        tokio::spawn(async move {
            if let Err(error) = connect(client, &current, first, &netns).await {
                debug!("proxying {from} to Service `{}`: {error}", current.service);
            }
        });
    }
}

/// Round robin, or by the client's address.
fn first_choice(rule: &Rule, from: SocketAddr, turn: usize) -> usize {
    if !rule.sticky {
        return turn;
    }
    match from.ip() {
        std::net::IpAddr::V4(ip) => u32::from(ip) as usize,
        std::net::IpAddr::V6(ip) => u128::from(ip) as usize,
    }
}

async fn connect(mut client: TcpStream, rule: &Rule, first: usize, netns: &NetNs) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut last = io::Error::from(io::ErrorKind::ConnectionRefused);
    // An endpoint may have died since the rule was made: the next one serves just as well.
    for n in 0..rule.backends.len() {
        let backend = rule.backends[first.wrapping_add(n) % rule.backends.len()];
        match tokio::time::timeout(DIAL_LIMIT, dial(rule.side, backend, netns)).await {
            Ok(Ok(mut server)) => {
                tokio::io::copy_bidirectional(&mut client, &mut server).await?;
                return Ok(());
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn dial(side: Side, backend: SocketAddr, netns: &NetNs) -> io::Result<TcpStream> {
    match side {
        Side::Node => netns.connect(backend).await,
        Side::Host => {
            let stream = TcpStream::connect(backend).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(sticky: bool) -> Rule {
        let backends = (1..4).map(|n| SocketAddr::from(([10, 244, 0, n], 80))).collect();
        Rule {
            service: "shop/web".into(),
            side: Side::Node,
            backends,
            sticky,
        }
    }

    #[test]
    fn round_robin_takes_turns_and_affinity_follows_the_client() {
        let from = "10.244.0.9:4711".parse().unwrap();
        assert_eq!([0, 1, 2].map(|turn| first_choice(&rule(false), from, turn)), [0, 1, 2]);
        let chosen = [0, 1, 2].map(|turn| first_choice(&rule(true), from, turn));
        assert!(chosen.iter().all(|choice| *choice == chosen[0]));
    }
}
