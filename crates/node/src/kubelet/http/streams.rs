//! `exec` and `attach` over WebSocket channels.

use std::sync::Arc;

use ::http::{Request, Response};
use futures::{SinkExt, StreamExt};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::channels::{
    CLOSE, ERROR, Opening, Protocol, REMOTE_COMMAND, RESIZE, STDERR, STDIN, STDOUT, exit_status, failure, goodbye,
};
use super::query::Query;
use super::{Body, Kubelet, Refused, find_container};
use crate::kubelet::start::with_cause;
use crate::runtime::{ContainerId, Error, ExecRequest, ExecSession, TerminalSize};

const BUFFER: usize = 8 << 10;

/// Which streams the client wants.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    /// The API server's names and the kubelet's own.
    fn of(query: &Query) -> Result<Self, Refused> {
        let tty = query.flag("tty");
        let wanted = Self {
            stdin: query.flag("stdin") || query.flag("input"),
            stdout: query.flag("stdout") || query.flag("output"),
            // A terminal has only one.
            stderr: (query.flag("stderr") || query.flag("error")) && !tty,
            tty,
        };
        if !(wanted.stdin || wanted.stdout || wanted.stderr) {
            return Err(Refused::bad_request(
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        Ok(wanted)
    }
}

pub(super) fn exec(
    kubelet: Arc<Kubelet>,
    request: Request<Incoming>,
    id: ContainerId,
    query: &Query,
) -> Result<Response<Body>, Refused> {
    let wanted = Wanted::of(query)?;
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(Refused::bad_request(
            "you must specify at least one command for the container",
        ));
    }
    let opening = Opening::accept(request, REMOTE_COMMAND)?;
    Ok(opening.then(move |socket, protocol| async move {
        let request = ExecRequest {
            command,
            stdin: wanted.stdin,
            tty: wanted.tty,
        };
        let session = kubelet.context.runtime.exec(&id, request).await;
        converse(socket, protocol, wanted, session, exit_status).await;
    }))
}

pub(super) fn attach(
    kubelet: Arc<Kubelet>,
    request: Request<Incoming>,
    id: ContainerId,
    pod: &Pod,
    query: &Query,
) -> Result<Response<Body>, Refused> {
    let mut wanted = Wanted::of(query)?;
    let spec = find_container(pod, &id.name).map(|(_, spec)| spec).unwrap_or_default();
    // What the container does not have cannot be attached to.
    wanted.stdin &= spec.stdin == Some(true);
    wanted.tty = spec.tty == Some(true);
    wanted.stderr &= !wanted.tty;
    let opening = Opening::accept(request, REMOTE_COMMAND)?;
    Ok(opening.then(move |socket, protocol| async move {
        let session = kubelet.context.runtime.attach(&id).await;
        // How the container ends is not how the attaching ends.
        converse(socket, protocol, wanted, session, |_| exit_status(0)).await;
    }))
}

/// Carries the streams of a session until the command and its output have ended, or the client goes away.
async fn converse<S>(
    socket: WebSocketStream<S>,
    protocol: Protocol,
    wanted: Wanted,
    session: Result<ExecSession, Error>,
    verdict: fn(i32) -> Value,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sink, mut incoming) = socket.split();
    let (outgoing, mut queue) = mpsc::channel::<Message>(8);
    let first = [(wanted.stdout, STDOUT), (wanted.stderr, STDERR), (true, ERROR)];
    let first = first
        .into_iter()
        .find(|(wanted, _)| *wanted)
        .map_or(ERROR, |(_, channel)| channel);
    // Clients wait for an empty frame before they believe that the stream is open.
    let _ = outgoing.try_send(protocol.encode(first, b""));
    let writing = async {
        while let Some(message) = queue.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.send(goodbye()).await;
    };
    let talking = async {
        let status = match session {
            Ok(session) => run(session, protocol, wanted, &mut incoming, &outgoing, verdict).await,
            Err(error) => Some(failure(&format!(
                "error executing command in container: {}",
                with_cause(&error)
            ))),
        };
        if let Some(status) = status {
            // v1 has no Status: text on failure, nothing on success.
            let said = match (protocol.version, status["status"].as_str()) {
                (1, Some("Success")) => None,
                (1, _) => Some(status["message"].as_str().unwrap_or_default().to_owned()),
                _ => Some(status.to_string()),
            };
            if let Some(said) = said {
                let _ = outgoing.send(protocol.encode(ERROR, said.as_bytes())).await;
            }
        }
        drop(outgoing);
    };
    tokio::join!(writing, talking);
}

/// `None` if the client went away first.
async fn run<R>(
    session: ExecSession,
    protocol: Protocol,
    wanted: Wanted,
    incoming: &mut R,
    outgoing: &mpsc::Sender<Message>,
    verdict: fn(i32) -> Value,
) -> Option<Value>
where
    R: futures::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    let ExecSession {
        stdin,
        stdout,
        stderr,
        resize,
        kill: _kill,
        exit,
    } = session;
    let stderr = stderr.unwrap_or_else(|| Box::new(tokio::io::empty()));
    let output = async {
        // All that was written comes before the exit code.
        tokio::join!(
            copy(stdout, protocol, STDOUT, wanted.stdout, outgoing),
            copy(stderr, protocol, STDERR, wanted.stderr, outgoing)
        );
        exit.await
    };
    let mut stdin = stdin.filter(|_| wanted.stdin);
    let input = async {
        while let Some(Ok(message)) = incoming.next().await {
            if message.is_close() {
                break;
            }
            match protocol.decode(message) {
                Some((STDIN, bytes)) => {
                    if let Some(pipe) = &mut stdin
                        && (pipe.write_all(&bytes).await.is_err() || pipe.flush().await.is_err())
                    {
                        // The command does not read any more; what it writes may still come.
                        stdin = None;
                    }
                }
                Some((CLOSE, bytes)) if bytes.first() == Some(&STDIN) => stdin = None,
                Some((RESIZE, bytes)) => {
                    if let (Some(resize), Ok(size)) = (&resize, serde_json::from_slice::<Size>(&bytes)) {
                        let _ = resize
                            .send(TerminalSize {
                                width: size.width,
                                height: size.height,
                            })
                            .await;
                    }
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        exit = output => Some(match exit {
            Ok(code) => verdict(code),
            Err(error) => failure(&format!("error executing command in container: {}", with_cause(&error))),
        }),
        () = input => None,
    }
}

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// Sends what `from` says. Unwanted output is read and dropped, so that the command never blocks on it.
async fn copy(
    mut from: Box<dyn AsyncRead + Send + Unpin>,
    protocol: Protocol,
    channel: u8,
    wanted: bool,
    outgoing: &mpsc::Sender<Message>,
) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if wanted && outgoing.send(protocol.encode(channel, &buffer[..read])).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::time::Duration;

    use bytes::Bytes;
    use futures::FutureExt;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    type Client = WebSocketStream<tokio::io::DuplexStream>;

    async fn converse_with(wanted: Wanted, protocol: usize, session: Result<ExecSession, Error>) -> Client {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let server = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
        tokio::spawn(converse(server, REMOTE_COMMAND[protocol], wanted, session, exit_status));
        WebSocketStream::from_raw_socket(theirs, Role::Client, None).await
    }

    fn all() -> Wanted {
        Wanted {
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
        }
    }

    /// A command that writes back what it reads and exits with 3 at the end of its input.
    fn cat() -> ExecSession {
        let (ours, theirs) = tokio::io::duplex(1024);
        ExecSession {
            stdin: Some(Box::new(ours)),
            stdout: Box::new(theirs),
            stderr: Some(Box::new(Cursor::new(b"oh"))),
            resize: None,
            kill: Box::new(|_| ()),
            exit: async { Ok(3) }.boxed(),
        }
    }

    async fn next(client: &mut Client) -> Option<Message> {
        let next = tokio::time::timeout(Duration::from_secs(10), client.next());
        next.await.expect("a message within ten seconds").and_then(Result::ok)
    }

    #[tokio::test]
    async fn a_whole_conversation_in_v5() {
        let mut client = converse_with(all(), 0, Ok(cat())).await;
        assert_eq!(next(&mut client).await, Some(Message::binary(vec![1])));
        client.send(Message::binary(b"\0hi\n".to_vec())).await.unwrap();
        let mut said = vec![next(&mut client).await.unwrap(), next(&mut client).await.unwrap()];
        said.sort_by_key(|message| message.clone().into_data());
        assert_eq!(
            said,
            [
                Message::binary(b"\x01hi\n".to_vec()),
                Message::binary(b"\x02oh".to_vec())
            ]
        );
        client.send(Message::binary(vec![255, 0])).await.unwrap();
        let status = next(&mut client).await.unwrap().into_data();
        assert!(
            status.starts_with(b"\x03{\"metadata\":{},\"status\":\"Failure\""),
            "{status:?}"
        );
        assert_eq!(next(&mut client).await, Some(goodbye()));
    }

    #[tokio::test]
    async fn a_command_that_does_not_start_is_told_on_the_error_channel() {
        let error = Error::Exec {
            command: "foo".into(),
            cause: "not found".into(),
        };
        let mut client = converse_with(all(), 1, Err(error)).await;
        next(&mut client).await;
        let status = next(&mut client).await.unwrap().into_data();
        let status: Value = serde_json::from_slice(&status[1..]).unwrap();
        assert_eq!(status["reason"], "InternalError");
        assert!(
            status["message"]
                .as_str()
                .unwrap()
                .ends_with("executing `foo`: not found")
        );
        assert_eq!(next(&mut client).await, Some(goodbye()));
    }

    #[tokio::test]
    async fn v1_says_nothing_on_success() {
        let session = ExecSession {
            stdin: None,
            exit: async { Ok(0) }.boxed(),
            ..cat()
        };
        let mut client = converse_with(Wanted { stdin: false, ..all() }, 3, Ok(session)).await;
        let mut channels = vec![];
        while let Some(Message::Binary(bytes)) = next(&mut client).await {
            channels.push(bytes[0]);
        }
        assert!(!channels.contains(&ERROR), "{channels:?}");
    }

    #[test]
    fn at_least_one_stream_must_be_wanted() {
        assert!(Wanted::of(&Query::parse("command=x")).is_err());
        let wanted = Wanted::of(&Query::parse("output=1&error=1&tty=1")).unwrap();
        assert!(wanted.stdout && !wanted.stderr && wanted.tty);
    }

    #[test]
    fn a_resize_is_read_as_clients_write_it() {
        let size: Size = serde_json::from_slice(&Bytes::from_static(b"{\"Width\":80,\"Height\":24}")).unwrap();
        assert_eq!((size.width, size.height), (80, 24));
    }
}
