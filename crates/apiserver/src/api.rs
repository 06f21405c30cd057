//! `Api`: what all requests share. The store, the resource table, the clock, the way out.

use std::sync::{Arc, PoisonError, RwLock};

use apimachinery::schema::Schemas;
use apimachinery::status::Status;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::auth::Pki;
use crate::auth::rbac::Authorizer;
use crate::config::Config;
use crate::resources::{Resource, SchemaCache, Table};
use crate::store::{Store, View};

/// See the module.
pub(crate) struct Api {
    pub(crate) config: Config,
    pub(crate) store: Arc<Store>,
    pub(crate) schemas: SchemaCache,
    pub(crate) authorizer: Authorizer,
    pub(crate) pki: Arc<Pki>,
    table: RwLock<Arc<Table>>,
    /// Cancelled when the server closes: ends watches.
    pub(crate) closing: CancellationToken,
    /// Held while a Service is allocated an address and written, so that no two get the same one.
    pub(crate) allocating: tokio::sync::Mutex<()>,
}

impl Api {
    pub(crate) fn new(config: Config, store: Arc<Store>, table: Table, pki: Arc<Pki>) -> Self {
        Self {
            config,
            store,
            schemas: SchemaCache::default(),
            authorizer: Authorizer::default(),
            pki,
            table: RwLock::new(Arc::new(table)),
            closing: CancellationToken::new(),
            allocating: tokio::sync::Mutex::new(()),
        }
    }

    /// The table as it is now.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    /// The schemas of the resource's kinds.
    pub(crate) async fn schemas(&self, resource: &Resource) -> Result<Arc<Schemas>, Status> {
        self.schemas.of(resource).await.map_err(Status::internal)
    }

    pub(crate) fn view(&self) -> &dyn View {
        &*self.store
    }
}
