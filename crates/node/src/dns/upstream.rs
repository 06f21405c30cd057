//! Names outside the cluster: asked of the resolvers the host itself uses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long one resolver may take, as resolv.conf(5) has it for two of them within a client's patience.
const LIMIT: Duration = Duration::from_secs(2);

/// The host's resolvers, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upstream(Vec<SocketAddr>);

impl Upstream {
    /// From the host's resolv.conf; at most three, as there.
    pub(super) fn parse(resolv_conf: &str) -> Self {
        let servers = resolv_conf.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = (words.next()? == "nameserver").then(|| words.next())??;
            Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, 53))
        });
        Self(servers.take(3).collect())
    }

    /// The first resolver's answer that comes in time.
    pub(super) async fn ask(&self, query: &Message) -> io::Result<Message> {
        let bytes = query.to_bytes().map_err(io::Error::other)?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no resolver");
        for server in &self.0 {
            let outcome = tokio::time::timeout(LIMIT, exchange(*server, query.metadata.id, &bytes)).await;
            match outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(message) => return Ok(message),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn exchange(server: SocketAddr, id: u16, query: &[u8]) -> io::Result<Message> {
    let local: SocketAddr = if server.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let Ok(message) = Message::from_bytes(&buffer[..length]) else {
            continue;
        };
        if message.metadata.id != id {
            continue;
        }
        return if message.metadata.truncation {
            over_tcp(server, query).await
        } else {
            Ok(message)
        };
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Message::from_bytes(&answer).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_come_from_the_hosts_file_in_order() {
        let file = "# made by hand\nsearch lan\nnameserver 10.0.0.1\nnameserver fe80::1\nnameserver nonsense\noptions ndots:1\n";
        let expected = ["10.0.0.1:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()];
        assert_eq!(Upstream::parse(file), Upstream(expected.into()));
        assert_eq!(Upstream::parse(""), Upstream(vec![]));
    }
}
