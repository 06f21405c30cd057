//! TLS listeners: accepts, shakes hands, serves HTTP/1.1 (with upgrades) and HTTP/2 on each connection.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::dispatch::Caller;
use crate::server::Service;

/// A client that does not shake hands, or never sends a request's head, is let go.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Out of descriptors: wait for some to be closed.
const BREATH: Duration = Duration::from_millis(50);

/// Serves until `shutdown`, then accepts no more; connections end with their requests.
pub(crate) async fn serve(
    service: Service,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!("accepting a connection: {error}");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            },
        };
        let (service, acceptor, shutdown) = (service.clone(), acceptor.clone(), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = converse(service, acceptor, stream) => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
}

async fn converse(service: Service, acceptor: TlsAcceptor, stream: TcpStream) {
    stream.set_nodelay(true).ok();
    let stream = match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!("TLS handshake: {error}"),
        Err(_) => return debug!("TLS handshake: not finished in {HANDSHAKE_LIMIT:?}"),
    };
    let (_, session) = stream.get_ref();
    let certificate = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|der| Arc::from(der.as_ref()));
    let http2 = session.alpn_protocol() == Some(b"h2");
    let service = TowerToHyperService::new(service.for_caller(Caller::Peer(certificate)));
    let io = TokioIo::new(stream);
    let served = if http2 {
        let mut server = http2::Builder::new(TokioExecutor::new());
        server
            .timer(TokioTimer::new())
            .max_concurrent_streams(250)
            .serve_connection(io, service)
            .await
    } else {
        let mut server = http1::Builder::new();
        let server = server.timer(TokioTimer::new()).header_read_timeout(None);
        server.serve_connection(io, service).with_upgrades().await
    };
    if let Err(error) = served {
        debug!("serving a connection: {error}");
    }
}
