//! `Api`: what all requests share. The store, the resource table, the clock, the way out.

use std::sync::{Arc, PoisonError, RwLock};

use apimachinery::schema::Schemas;
use apimachinery::status::Status;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::auth::Pki;
use crate::auth::rbac::Authorizer;
use crate::config::Config;
use crate::custom::{self, Registry};
use crate::resources::{Resource, SchemaCache, Table};
use crate::store::{Action, Object, Store, View, Write, WriteError};

/// See the module.
pub(crate) struct Api {
    pub(crate) config: Config,
    pub(crate) store: Arc<Store>,
    pub(crate) schemas: SchemaCache,
    pub(crate) authorizer: Authorizer,
    pub(crate) pki: Arc<Pki>,
    pub(crate) custom: Registry,
    table: RwLock<Arc<Table>>,
    /// Cancelled when the server closes: ends watches.
    pub(crate) closing: CancellationToken,
    /// Held while a Service is allocated an address and written, so that no two get the same one.
    pub(crate) allocating: tokio::sync::Mutex<()>,
}

impl Api {
    pub(crate) fn new(config: Config, store: Arc<Store>, table: Table, pki: Arc<Pki>) -> Self {
        let table = Arc::new(table);
        Self {
            config,
            store,
            custom: Registry::new(table.clone()),
            schemas: SchemaCache::default(),
            authorizer: Authorizer::default(),
            pki,
            table: RwLock::new(table),
            closing: CancellationToken::new(),
            allocating: tokio::sync::Mutex::new(()),
        }
    }

    /// The table as it is now.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves other resources from now on.
    pub(crate) fn set_table(&self, table: Table) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// Writes an object. A definition of custom resources is in force when this returns.
    pub(crate) async fn write(self: &Arc<Self>, write: Write) -> Result<Object, WriteError> {
        let deletes = matches!(write.action, Action::Delete(_));
        let concerns_definitions =
            custom::is_definitions(&write.resource) || (deletes && self.custom.is_terminating(&write.resource));
        if !concerns_definitions {
            return self.store.write(write).await;
        }
        // In a task of its own: a client that goes away must not leave the table behind the store.
        let api = self.clone();
        let task = tokio::spawn(async move {
            let written = api.store.write(write).await;
            custom::refresh(&api).await;
            written
        });
        task.await.unwrap_or(Err(WriteError::Closed))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    /// The schemas of the resource's kinds.
    pub(crate) async fn schemas(&self, resource: &Resource) -> Result<Arc<Schemas>, Status> {
        if let Some(custom) = &resource.custom {
            return Ok(custom.schemas.clone());
        }
        self.schemas.of(resource).await.map_err(Status::internal)
    }

    pub(crate) fn view(&self) -> &dyn View {
        &*self.store
    }
}
