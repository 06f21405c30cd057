//! `portForward` for kubectl: SPDY/3.1, plain or inside a WebSocket, two streams a connection.
//!
//! The client opens an error stream and a data stream with the same `requestid` for every connection that it accepts,
//! as long as the session lasts; ports are named by the streams. Source: k/k `staging/src/k8s.io/cri-streaming`
//! (portforward/httpstream.go), `client-go/tools/portforward` (1.36).

use std::collections::HashMap;
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ::http::{HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::io::ReaderStream;

use super::channels::goodbye;
use super::{Body, Refused, text};
use crate::dial::Dial;
use crate::kubelet::http_get::go_words;
use crate::spdy::{Decoder, Encoder, Frame, Headers, Reset};

/// What the streams are for, in `X-Stream-Protocol-Version`.
const PROTOCOL: &str = "portforward.k8s.io";
const BUFFER: usize = 16 << 10;
/// Frames that wait on their way to a pod or to the client.
const QUEUE: usize = 8;
/// Error streams that wait for their data stream; a client opens the two one after the other.
const MAX_WAITING: usize = 64;

/// Whether the request asks for SPDY itself, without a WebSocket around it.
pub(super) fn is_asked_for(headers: &::http::HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("SPDY/3.1"))
}

/// Answers the handshake of a client that speaks SPDY over the bare connection.
pub(super) fn answer(
    mut request: Request<Incoming>,
    ip: IpAddr,
    network: Arc<dyn Dial>,
) -> Result<Response<Body>, Refused> {
    let offered = request.headers().get_all("x-stream-protocol-version");
    let known = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|text| text.split(',').any(|word| word.trim() == PROTOCOL))
    };
    if !offered.iter().any(known) {
        let text = format!("unable to upgrade: expected the stream protocol `{PROTOCOL}`");
        return Err(Refused(StatusCode::FORBIDDEN, text));
    }
    let mut response = Response::new(text(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert("x-stream-protocol-version", HeaderValue::from_static(PROTOCOL));
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => over_bytes(TokioIo::new(upgraded), ip, network).await,
            Err(error) => tracing::debug!("upgrading a connection to SPDY: {error}"),
        }
    });
    Ok(response)
}

async fn over_bytes<S>(io: S, ip: IpAddr, network: Arc<dyn Dial>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, mut write) = tokio::io::split(io);
    let incoming = ReaderStream::with_capacity(read, BUFFER).scan((), |(), bytes| ready(bytes.ok()));
    let (outgoing, mut queue) = mpsc::channel::<Frame>(QUEUE);
    let writing = async {
        let mut encoder = Encoder::default();
        while let Some(frame) = queue.recv().await {
            if write.write_all(&encoder.encode(&frame)).await.is_err() {
                return;
            }
        }
        // The client waits for our end or closes; either is fine.
        let _ = write.shutdown().await;
    };
    tokio::join!(writing, session(incoming, outgoing, ip, network));
}

/// The same with every piece of the byte stream in a binary message.
pub(super) async fn over_messages<S>(socket: WebSocketStream<S>, ip: IpAddr, network: Arc<dyn Dial>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sink, messages) = socket.split();
    let incoming = messages
        .scan((), |(), message| {
            ready(message.ok().filter(|message| !message.is_close()))
        })
        .filter_map(|message| {
            ready(if let Message::Binary(bytes) = message {
                Some(bytes)
            } else {
                None
            })
        });
    let (outgoing, mut queue) = mpsc::channel::<Frame>(QUEUE);
    let writing = async {
        let mut encoder = Encoder::default();
        while let Some(frame) = queue.recv().await {
            if sink.send(Message::binary(encoder.encode(&frame))).await.is_err() {
                return;
            }
        }
        let _ = sink.send(goodbye()).await;
    };
    tokio::join!(writing, session(incoming, outgoing, ip, network));
}

/// A connection to the pod that lives.
struct Forwarded {
    /// Gone once the client has said its last word on the data stream.
    input: Option<mpsc::Sender<Bytes>>,
    task: AbortHandle,
}

/// Serves streams until the client goes away.
async fn session(
    incoming: impl Stream<Item = Bytes>,
    outgoing: mpsc::Sender<Frame>,
    ip: IpAddr,
    network: Arc<dyn Dial>,
) {
    let mut incoming = std::pin::pin!(incoming);
    let mut session = Session {
        outgoing,
        ip,
        network,
        waiting: HashMap::new(),
        streams: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let mut decoder = Decoder::default();
    while let Some(bytes) = incoming.next().await {
        decoder.push(&bytes);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => {
                    if session.take(frame).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!("port-forward: {error}");
                    let status = Reset::ProtocolError as u32;
                    let _ = session.outgoing.send(Frame::GoAway { last_stream: 0, status }).await;
                    return;
                }
            }
        }
        session.forget_what_has_ended();
    }
}

struct Session {
    outgoing: mpsc::Sender<Frame>,
    ip: IpAddr,
    network: Arc<dyn Dial>,
    /// Error streams whose data stream is still to come, by request id.
    waiting: HashMap<String, u32>,
    /// By the id of the data stream.
    streams: HashMap<u32, Forwarded>,
    /// Ends with the session, and all its connections with it.
    tasks: JoinSet<u32>,
}

/// The client is gone.
struct Gone;

impl Session {
    async fn send(&self, frame: Frame) -> Result<(), Gone> {
        self.outgoing.send(frame).await.map_err(|_| Gone)
    }

    async fn take(&mut self, frame: Frame) -> Result<(), Gone> {
        match frame {
            Frame::SynStream { stream, headers, .. } => self.open(stream, &headers).await,
            Frame::Data { stream, fin, bytes } => {
                // Of streams that have ended, and of error streams, on which a client has nothing to say.
                let Some(forwarded) = self.streams.get_mut(&stream) else {
                    return Ok(());
                };
                if let Some(input) = &forwarded.input
                    && !bytes.is_empty()
                {
                    // A pod that does not read holds up the session, as upstream.
                    let _ = input.send(bytes).await;
                }
                if fin {
                    forwarded.input = None;
                }
                Ok(())
            }
            Frame::RstStream { stream, .. } => {
                self.waiting.retain(|_, error_stream| *error_stream != stream);
                if let Some(forwarded) = self.streams.remove(&stream) {
                    forwarded.task.abort();
                }
                Ok(())
            }
            // Even numbers would be ours, and we send none.
            Frame::Ping(id) if id % 2 == 1 => self.send(Frame::Ping(id)).await,
            Frame::Ping(_) | Frame::SynReply { .. } | Frame::GoAway { .. } => Ok(()),
        }
    }

    async fn open(&mut self, stream: u32, headers: &Headers) -> Result<(), Gone> {
        let value = |name: &str| {
            headers
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        let port = value("port")
            .and_then(|port| port.parse::<u16>().ok())
            .filter(|port| *port > 0);
        let request = value("requestid").map(str::to_owned);
        let refused = Frame::RstStream {
            stream,
            status: Reset::RefusedStream as u32,
        };
        let accepted = Frame::SynReply {
            stream,
            fin: false,
            headers: Headers::new(),
        };
        match (value("streamtype"), port) {
            // Clients before 1.3 gave no request id; their data stream came right after the error stream.
            (Some("error"), Some(_)) if self.waiting.len() < MAX_WAITING => {
                self.waiting
                    .insert(request.unwrap_or_else(|| stream.to_string()), stream);
                self.send(accepted).await
            }
            (Some("data"), Some(port)) => {
                let request = request.unwrap_or_else(|| stream.saturating_sub(2).to_string());
                let Some(error_stream) = self.waiting.remove(&request) else {
                    return self.send(refused).await;
                };
                self.send(accepted).await?;
                let (input, fed) = mpsc::channel(QUEUE);
                let connection = Connection {
                    to: SocketAddr::new(self.ip, port),
                    data: stream,
                    error: error_stream,
                    outgoing: self.outgoing.clone(),
                };
                let task = self.tasks.spawn(connection.carry(self.network.clone(), fed));
                self.streams.insert(
                    stream,
                    Forwarded {
                        input: Some(input),
                        task,
                    },
                );
                Ok(())
            }
            _ => self.send(refused).await,
        }
    }

    fn forget_what_has_ended(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Ok(stream) = ended {
                self.streams.remove(&stream);
            }
        }
    }
}

/// One connection to the pod and the two streams that belong to it.
struct Connection {
    to: SocketAddr,
    data: u32,
    error: u32,
    outgoing: mpsc::Sender<Frame>,
}

impl Connection {
    /// Carries bytes both ways until the pod has said its last word; then ends both streams.
    async fn carry(self, network: Arc<dyn Dial>, fed: mpsc::Receiver<Bytes>) -> u32 {
        let complaint = match network.dial(self.to).await {
            Ok(stream) => {
                self.copy(stream, fed).await;
                Bytes::new()
            }
            Err(error) => {
                let (port, words) = (self.to.port(), go_words(&error));
                Bytes::from(format!(
                    "error forwarding port {port}: dial tcp {}: connect: {words}",
                    self.to
                ))
            }
        };
        for (stream, bytes) in [(self.error, complaint), (self.data, Bytes::new())] {
            let _ = self
                .outgoing
                .send(Frame::Data {
                    stream,
                    fin: true,
                    bytes,
                })
                .await;
        }
        self.data
    }

    async fn copy(&self, mut stream: tokio::net::TcpStream, mut fed: mpsc::Receiver<Bytes>) {
        let (mut read, mut write) = stream.split();
        let upstream = async {
            while let Some(bytes) = fed.recv().await {
                if write.write_all(&bytes).await.is_err() {
                    // What the pod has still to say is read to its end.
                    break;
                }
            }
            let _ = write.shutdown().await;
            std::future::pending::<()>().await;
        };
        let downstream = async {
            let mut buffer = vec![0; BUFFER];
            while let Ok(count @ 1..) = read.read(&mut buffer).await {
                let bytes = Bytes::copy_from_slice(&buffer[..count]);
                let frame = Frame::Data {
                    stream: self.data,
                    fin: false,
                    bytes,
                };
                if self.outgoing.send(frame).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = upstream => {}
            () = downstream => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::HostNetwork;

    fn syn(stream: u32, kind: &str, port: u16) -> Frame {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = vec![
            header("streamtype", kind),
            header("port", &port.to_string()),
            header("requestid", "0"),
        ];
        Frame::SynStream {
            stream,
            fin: kind == "error",
            headers,
        }
    }

    /// What a client sees that opens a connection to `port`, says `hello` and nothing more.
    async fn conversation(port: u16) -> Vec<Frame> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(over_bytes(ours, IpAddr::from([127, 0, 0, 1]), Arc::new(HostNetwork)));
        let (mut read, mut write) = tokio::io::split(theirs);
        let mut encoder = Encoder::default();
        let hello = Frame::Data {
            stream: 3,
            fin: true,
            bytes: Bytes::from_static(b"hello"),
        };
        for frame in [syn(1, "error", port), syn(3, "data", port), hello, Frame::Ping(1)] {
            write.write_all(&encoder.encode(&frame)).await.unwrap();
        }
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        let ended = |frames: &[Frame]| {
            let last = |of: u32| {
                frames
                    .iter()
                    .any(|f| matches!(f, Frame::Data { stream, fin: true, .. } if *stream == of))
            };
            last(1) && last(3)
        };
        while !ended(&frames) {
            let mut buffer = [0; 512];
            let count = read.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "ended early: {frames:?}");
            decoder.push(&buffer[..count]);
            while let Some(frame) = decoder.next().unwrap() {
                frames.push(frame);
            }
        }
        frames.retain(|frame| *frame != Frame::Ping(1));
        frames
    }

    fn accepted(stream: u32) -> Frame {
        Frame::SynReply {
            stream,
            fin: false,
            headers: Headers::new(),
        }
    }

    fn said(stream: u32, fin: bool, text: &str) -> Frame {
        Frame::Data {
            stream,
            fin,
            bytes: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    #[tokio::test]
    async fn a_pair_of_streams_is_a_connection_to_the_pod() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = String::new();
            // To the end: what the client closed for writing is closed for the pod too.
            stream.read_to_string(&mut heard).await.unwrap();
            stream.write_all(format!("{heard}, world").as_bytes()).await.unwrap();
        });
        let expected = [
            accepted(1),
            accepted(3),
            said(3, false, "hello, world"),
            said(1, true, ""),
            said(3, true, ""),
        ];
        assert_eq!(conversation(port).await, expected);
    }

    #[tokio::test]
    async fn a_port_on_which_nobody_listens_is_said_on_the_error_stream() {
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let text = format!("error forwarding port {port}: dial tcp 127.0.0.1:{port}: connect: connection refused");
        let expected = [accepted(1), accepted(3), said(1, true, &text), said(3, true, "")];
        assert_eq!(conversation(port).await, expected);
    }

    #[tokio::test]
    async fn a_data_stream_without_its_error_stream_is_refused() {
        let (outgoing, mut frames) = mpsc::channel(8);
        let wire = Encoder::default().encode(&syn(3, "data", 80));
        let incoming = futures::stream::iter([wire]);
        session(incoming, outgoing, IpAddr::from([127, 0, 0, 1]), Arc::new(HostNetwork)).await;
        let status = Reset::RefusedStream as u32;
        assert_eq!(frames.recv().await, Some(Frame::RstStream { stream: 3, status }));
        assert_eq!(frames.recv().await, None);
    }
}
