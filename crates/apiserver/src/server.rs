//! `Server`: the one front door. Opens the store, serves requests in process or over TLS, closes.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::auth::{Identity, Pki, PkiError};
use crate::body::{Body, BoxError};
use crate::config::{Config, Storage};
use crate::custom;
use crate::dispatch::{Caller, dispatch};
use crate::resources::Table;
use crate::store::{BackendError, Contents, File, Store, View};
use crate::{seed, serve};

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store cannot be opened. Its file is left as it is.
    #[error("opening the store")]
    Store(#[from] BackendError),
    /// Certificates or keys cannot be made.
    #[error("making certificates and keys")]
    Pki(#[from] PkiError),
    /// An object that every cluster has from its first moment cannot be written.
    #[error("writing the objects a cluster starts with")]
    Bootstrap(#[source] Box<apimachinery::status::Status>),
    /// The embedded data cannot be read: a broken build.
    #[error("reading the embedded API description")]
    Data(#[source] io::Error),
}

/// An API server. Cheap to clone; all clones are the same server.
#[derive(Clone)]
pub struct Server {
    api: Arc<Api>,
}

impl Server {
    /// A server that keeps nothing, with upstream's defaults: for tests.
    pub async fn in_memory() -> Self {
        match Self::open(Config::new(Storage::Memory)).await {
            Ok(server) => server,
            Err(error) => unreachable!("a store in memory opens: {error}"),
        }
    }

    /// Opens the store and makes what every cluster has from its first moment.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let table = Table::built_in().map_err(OpenError::Data)?;
        let store = match &config.storage {
            Storage::Memory => Store::in_memory(),
            Storage::File(path) => {
                let (file, contents) = File::open(path)?;
                Store::new(Box::new(file), contents)
            }
        };
        let pki = match &config.pki {
            Some(pki) => pki.clone(),
            None => Arc::new(Pki::in_memory(config.clock.now())?),
        };
        let api = Arc::new(Api::new(config, store, table, pki));
        seed::plant(&api)
            .await
            .map_err(|status| OpenError::Bootstrap(Box::new(status)))?;
        custom::refresh(&api).await;
        Ok(Self { api })
    }

    /// A client in process, without a socket, as a member of `system:masters`.
    pub fn client(&self) -> kube::Client {
        self.client_as("system:admin", &["system:masters"])
    }

    /// A client in process for a user in groups; `system:authenticated` comes by itself.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> kube::Client {
        kube::Client::new(self.service(Identity::new(user, groups)), "default")
    }

    /// The server as a tower service for one identity.
    pub fn service(&self, identity: Identity) -> Service {
        Service {
            api: self.api.clone(),
            caller: Caller::Known(identity),
        }
    }

    /// Serves HTTPS on `listener` until `shutdown`, in the background. Clients are known by certificate or token.
    pub fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), PkiError> {
        let tls = Arc::new(self.api.pki.server_config()?);
        let service = Service {
            api: self.api.clone(),
            caller: Caller::Peer(None),
        };
        tokio::spawn(serve::serve(service, listener, tls, shutdown));
        Ok(())
    }

    /// The current objects.
    pub fn view(&self) -> Arc<dyn View> {
        self.api.store.clone()
    }

    /// Everything in the store, at one revision.
    pub fn contents(&self) -> Contents {
        self.api.store.contents()
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.api.store.revision()
    }

    /// Ends watches, waits for the writes on their way and closes the store; later writes are refused.
    pub async fn close(&self) {
        self.api.closing.cancel();
        self.api.store.close().await;
    }
}

/// The server as a tower service.
#[derive(Clone)]
pub struct Service {
    api: Arc<Api>,
    caller: Caller,
}

impl Service {
    /// The same server for somebody else.
    pub(crate) fn for_caller(&self, caller: Caller) -> Self {
        Self {
            api: self.api.clone(),
            caller,
        }
    }
}

impl<B> tower::Service<Request<B>> for Service
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let body = body.map_err(|error| -> BoxError { error.into() }).boxed_unsync();
        dispatch(self.api.clone(), self.caller.clone(), parts, body)
            .map(Ok)
            .boxed()
    }
}
