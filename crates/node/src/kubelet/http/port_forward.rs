//! `portForward` over WebSocket channels: two channels a port, data and error.
//!
//! kubectl speaks SPDY instead (`spdy_forward`); this is for the other clients. Connections go to the pod's address:
//! what a pod offers on its loopback only is not reachable.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ::http::{Request, Response};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::channels::{Opening, PORT_FORWARD, Protocol, SPDY_TUNNEL, goodbye};
use super::query::Query;
use super::{Body, Kubelet, PodView, Refused, spdy_forward};
use crate::dial::Dial;
use crate::kubelet::http_get::go_words;
use crate::kubelet::lifecycle::SandboxState;

const BUFFER: usize = 16 << 10;

pub(super) fn answer(
    kubelet: &Arc<Kubelet>,
    request: Request<Incoming>,
    pod: &PodView,
    query: &Query,
) -> Result<Response<Body>, Refused> {
    let SandboxState::Ready { ip } = pod.state.sandbox else {
        return Err(Refused::not_found("the pod has no sandbox to forward to"));
    };
    let network = kubelet.context.network.clone();
    if spdy_forward::is_asked_for(request.headers()) {
        return spdy_forward::answer(request, ip.into(), network);
    }
    let opening = Opening::accept(request, PORT_FORWARD)?;
    if opening.protocol == SPDY_TUNNEL {
        return Ok(opening.then(move |socket, _| spdy_forward::over_messages(socket, ip.into(), network)));
    }
    let ports = ports(query)?;
    Ok(opening.then(move |socket, protocol| async move {
        let targets = ports.into_iter().map(|port| SocketAddr::new(ip.into(), port)).collect();
        forward(socket, protocol, targets, &*network).await;
    }))
}

/// `port=80&port=81`, `ports=80,81`.
fn ports(query: &Query) -> Result<Vec<u16>, Refused> {
    let words = query
        .all("port")
        .chain(query.all("ports"))
        .flat_map(|value| value.split(','));
    let parse = |word: &str| match word.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Refused::bad_request(format!("unable to parse \"{word}\" as a port"))),
    };
    let ports = words.map(parse).collect::<Result<Vec<_>, _>>()?;
    if ports.is_empty() {
        return Err(Refused::bad_request("query parameter \"port\" is required"));
    }
    // Two channels each, numbered by a byte.
    if ports.len() > 127 {
        return Err(Refused::bad_request(format!("at most 127 ports, got {}", ports.len())));
    }
    Ok(ports)
}

/// Forwards until the client goes away or every port's connection has ended.
async fn forward<S>(socket: WebSocketStream<S>, protocol: Protocol, targets: Vec<SocketAddr>, network: &dyn Dial)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sink, mut incoming) = socket.split();
    let (outgoing, mut queue) = mpsc::channel::<Message>(8);
    let mut inputs = HashMap::new();
    let mut connections = Vec::new();
    for (index, to) in targets.into_iter().enumerate() {
        let data = 2 * index as u8;
        let (input, fed) = mpsc::channel::<Bytes>(8);
        inputs.insert(data, input);
        connections.push(one(network, to, protocol, data, fed, outgoing.clone()));
    }
    drop(outgoing);
    let writing = async {
        while let Some(message) = queue.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.send(goodbye()).await;
    };
    let reading = async {
        while let Some(Ok(message)) = incoming.next().await {
            if message.is_close() {
                break;
            }
            let Some((channel, bytes)) = protocol.decode(message) else {
                continue;
            };
            if let Some(input) = inputs.get(&channel)
                && input.send(bytes).await.is_err()
            {
                inputs.remove(&channel);
            }
        }
    };
    let forwarding = async { tokio::join!(writing, futures::future::join_all(connections)) };
    tokio::select! {
        _ = forwarding => {}
        () = reading => {}
    }
}

/// One port: says its number on both channels, connects, and carries bytes both ways.
async fn one(
    network: &dyn Dial,
    to: SocketAddr,
    protocol: Protocol,
    data: u8,
    mut fed: mpsc::Receiver<Bytes>,
    outgoing: mpsc::Sender<Message>,
) {
    let port = to.port().to_le_bytes();
    for channel in [data, data + 1] {
        if outgoing.send(protocol.encode(channel, &port)).await.is_err() {
            return;
        }
    }
    let mut stream = match network.dial(to).await {
        Ok(stream) => stream,
        Err(error) => {
            let text = format!(
                "error forwarding port {}: dial tcp {to}: connect: {}",
                to.port(),
                go_words(&error)
            );
            let _ = outgoing.send(protocol.encode(data + 1, text.as_bytes())).await;
            return;
        }
    };
    let (mut read, mut write) = stream.split();
    let upstream = async {
        while let Some(bytes) = fed.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
        std::future::pending::<()>().await;
    };
    let downstream = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(count @ 1..) = read.read(&mut buffer).await {
            if outgoing.send(protocol.encode(data, &buffer[..count])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = upstream => {}
        () = downstream => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::dial::HostNetwork;

    #[tokio::test]
    async fn each_port_has_two_channels_that_begin_with_its_number() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut greeting = [0; 5];
            stream.read_exact(&mut greeting).await.unwrap();
            stream.write_all(b"world").await.unwrap();
        });
        let (ours, theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let server = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
            forward(server, PORT_FORWARD[1], vec![to], &HostNetwork).await;
        });
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let [low, high] = to.port().to_le_bytes();
        assert_eq!(
            client.next().await.unwrap().unwrap(),
            Message::binary(vec![0, low, high])
        );
        assert_eq!(
            client.next().await.unwrap().unwrap(),
            Message::binary(vec![1, low, high])
        );
        client.send(Message::binary(b"\0hello".to_vec())).await.unwrap();
        assert_eq!(
            client.next().await.unwrap().unwrap(),
            Message::binary(b"\0world".to_vec())
        );
        assert_eq!(client.next().await.unwrap().unwrap(), goodbye());
    }

    #[test]
    fn ports_come_one_by_one_or_in_a_list() {
        let parse = |text: &str| ports(&Query::parse(text));
        assert_eq!(parse("port=80&port=81"), Ok(vec![80, 81]));
        assert_eq!(parse("ports=80,81"), Ok(vec![80, 81]));
        assert!(parse("").is_err() && parse("port=0").is_err() && parse("port=99999").is_err());
    }
}
