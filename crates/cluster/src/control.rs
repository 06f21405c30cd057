//! What the CLI may ask a daemon beside the Kubernetes API: to go, with or without its containers, and for its store.
//!
//! One JSON line each way on a Unix socket that only the cluster's owner can open (its folder is mode 0700).

use std::io;
use std::path::Path;

use apiserver::store::Dump;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// A dump is sent in pieces of about this size.
const PIECE: usize = 64 << 10;

/// A request on the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Request {
    /// End every container, then the daemon. Objects stay.
    Stop,
    /// End the daemon only; containers go on and are adopted by the next one.
    Detach,
    /// Send every object, after the answer, as a dump.
    Export,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    error: Option<String>,
}

/// A request with the way to answer it: dropped unanswered, the asker sees the connection end.
pub(crate) struct Asked {
    pub(crate) request: Request,
    stream: UnixStream,
}

impl Asked {
    pub(crate) async fn answer(mut self, outcome: Result<(), String>) {
        let reply = serde_json::to_string(&Reply { error: outcome.err() }).unwrap_or_default();
        // The asker may have gone; there is nobody else to tell.
        self.stream.write_all(format!("{reply}\n").as_bytes()).await.ok();
    }
}

impl Asked {
    /// Answers with a dump of a store. The asker counts its lines, so one that ends early is noticed.
    pub(crate) async fn send(mut self, mut dump: Dump) -> io::Result<()> {
        let mut piece = serde_json::to_vec(&Reply { error: None })?;
        piece.push(b'\n');
        while dump.line(&mut piece)? {
            if piece.len() > PIECE {
                self.stream.write_all(&piece).await?;
                piece.clear();
            }
        }
        self.stream.write_all(&piece).await
    }
}

/// Listens for requests until the returned receiver is dropped.
pub(crate) fn listen(socket: &Path) -> io::Result<mpsc::Receiver<Asked>> {
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut line = String::new();
                let mut reader = BufReader::new(stream);
                if reader.read_line(&mut line).await.is_ok()
                    && let Ok(request) = serde_json::from_str(&line)
                {
                    sender
                        .send(Asked {
                            request,
                            stream: reader.into_inner(),
                        })
                        .await
                        .ok();
                }
            });
        }
    });
    Ok(receiver)
}

/// Asks the daemon behind `socket` and waits for its answer.
pub(crate) async fn ask(socket: &Path, request: Request) -> io::Result<()> {
    asked(socket, request).await.map(drop)
}

/// Asks the daemon behind `socket` for its store and writes the dump to `out`.
pub(crate) async fn export(socket: &Path, mut out: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut rest = asked(socket, Request::Export).await?;
    tokio::io::copy_buf(&mut rest, &mut out).await?;
    out.flush().await
}

async fn asked(socket: &Path, request: Request) -> io::Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream
        .write_all(format!("{}\n", serde_json::to_string(&request)?).as_bytes())
        .await?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream);
    reader.read_line(&mut line).await?;
    let reply: Reply = serde_json::from_str(&line)
        .map_err(|_| io::Error::new(io::ErrorKind::UnexpectedEof, "the daemon ended without an answer"))?;
    reply.error.map_or(Ok(reader), |error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_answered_with_what_came_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let mut asked = listen(&socket).unwrap();
        let daemon = tokio::spawn(async move {
            let first = asked.recv().await.unwrap();
            assert_eq!(first.request, Request::Stop);
            first.answer(Err("two containers would not go".into())).await;
            asked.recv().await.unwrap().answer(Ok(())).await;
        });
        let error = ask(&socket, Request::Stop).await.unwrap_err();
        assert_eq!(error.to_string(), "two containers would not go");
        ask(&socket, Request::Detach).await.unwrap();
        daemon.await.unwrap();
    }

    #[tokio::test]
    async fn a_daemon_that_dies_before_it_answers_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let mut asked = listen(&socket).unwrap();
        let daemon = tokio::spawn(async move { drop(asked.recv().await) });
        let error = ask(&socket, Request::Stop).await.unwrap_err();
        assert_eq!(error.to_string(), "the daemon ended without an answer");
        daemon.await.unwrap();
    }
}
