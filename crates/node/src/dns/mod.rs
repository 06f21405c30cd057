//! The cluster's DNS: answers for Services, their endpoints and pods; everything else is asked of the host's resolvers.
//!
//! Owns sockets and the wire. What a name means is decided purely in `zone`; names outside the cluster are `upstream`'s.

mod upstream;
mod zone;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tracing::{debug, warn};

use crate::mirror::Mirror;
use crate::network::NetNs;
use upstream::Upstream;
use zone::{Answer, Zone};

const PORT: u16 = 53;
/// What fits a datagram without EDNS.
const DATAGRAM: usize = 512;
/// A TCP client that says nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(10);

/// A DNS server of one cluster.
pub(crate) struct Dns {
    zone: Zone,
    services: Arc<Mirror<Service>>,
    slices: Arc<Mirror<EndpointSlice>>,
    upstream: Upstream,
}

impl Dns {
    /// `domain` is the cluster's, without dots at the ends; `resolv_conf` is the host's file.
    pub(crate) fn new(
        domain: &str,
        services: Arc<Mirror<Service>>,
        slices: Arc<Mirror<EndpointSlice>>,
        resolv_conf: &str,
    ) -> Self {
        Self {
            zone: Zone::new(domain),
            services,
            slices,
            upstream: Upstream::parse(resolv_conf),
        }
    }

    /// Listens on `ip` inside the node's network, then serves for ever.
    pub(crate) async fn run(self, ip: Ipv4Addr, netns: NetNs) {
        let on = SocketAddr::from((ip, PORT));
        let sockets = netns.udp(on).and_then(|udp| Ok((udp, netns.listen(on)?)));
        match sockets {
            Ok((udp, tcp)) => {
                let dns = Arc::new(self);
                tokio::join!(dns.clone().serve_udp(Arc::new(udp)), dns.serve_tcp(tcp));
            }
            Err(error) => warn!("the cluster's DNS listening on {on}: {error}"),
        }
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    debug!("dns: receiving: {error}");
                    continue;
                }
            };
            let Ok(query) = Message::from_bytes(&buffer[..length]) else {
                continue;
            };
            let (dns, socket) = (self.clone(), socket.clone());
            tokio::spawn(async move {
                let limit = query
                    .edns
                    .as_ref()
                    .map_or(DATAGRAM, |edns| usize::from(edns.max_payload()).max(DATAGRAM));
                let Some(reply) = dns.answer(&query).await else { return };
                let Ok(mut bytes) = reply.to_bytes() else { return };
                if bytes.len() > limit {
                    // The client asks again over TCP.
                    bytes = reply.truncate().to_bytes().unwrap_or_default();
                }
                socket.send_to(&bytes, from).await.ok();
            });
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let dns = self.clone();
                    tokio::spawn(async move { dns.converse(stream).await });
                }
                Err(error) => {
                    debug!("dns: accepting: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Messages with a length of two bytes before each (RFC 1035, 4.2.2).
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        while let Ok(length) = tokio::time::timeout(IDLE, stream.read_u16()).await {
            let mut bytes = vec![0; usize::from(length?)];
            stream.read_exact(&mut bytes).await?;
            let Ok(query) = Message::from_bytes(&bytes) else { break };
            let Some(reply) = self.answer(&query).await else { break };
            let bytes = reply.to_bytes().map_err(io::Error::other)?;
            let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
            stream
                .write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat())
                .await?;
        }
        Ok(())
    }

    /// `None` for what is no question: it gets no answer.
    async fn answer(&self, query: &Message) -> Option<Message> {
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let [question] = query.queries.as_slice() else {
            return Some(reply(query, ResponseCode::FormErr));
        };
        if query.metadata.op_code != OpCode::Query {
            return Some(reply(query, ResponseCode::NotImp));
        }
        let answer = self
            .zone
            .resolve(question.name(), question.query_type, &*self.services, &*self.slices);
        match answer {
            Answer::Records(records) => {
                let mut message = reply(query, ResponseCode::NoError);
                message.metadata.authoritative = true;
                message.answers = records;
                Some(message)
            }
            Answer::NoSuchName => {
                let mut message = reply(query, ResponseCode::NXDomain);
                message.metadata.authoritative = true;
                message.authorities = vec![self.zone.authority()];
                Some(message)
            }
            Answer::NoData => {
                let mut message = reply(query, ResponseCode::NoError);
                message.metadata.authoritative = true;
                message.authorities = vec![self.zone.authority()];
                Some(message)
            }
            Answer::NotOurs => match self.upstream.ask(query).await {
                Ok(message) => Some(message),
                Err(error) => {
                    debug!("dns: asking the host's resolvers for `{}`: {error}", question.name());
                    Some(reply(query, ResponseCode::ServFail))
                }
            },
        }
    }
}

fn reply(query: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.queries.clone_from(&query.queries);
    message
}
