//! `Api`: what all requests share. The store, the resource table, the clock, the way out.

use std::sync::{Arc, PoisonError, RwLock};

use apimachinery::gvk::GroupResource;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::resources::{Resource, Table};
use crate::store::Store;

/// See the module.
pub(crate) struct Api {
    pub(crate) config: Config,
    pub(crate) store: Arc<Store>,
    table: RwLock<Arc<Table>>,
    /// Cancelled when the server closes: ends watches.
    pub(crate) closing: CancellationToken,
    /// Held while a Service is allocated an address and written, so that no two get the same one.
    pub(crate) allocating: tokio::sync::Mutex<()>,
}

impl Api {
    pub(crate) fn new(config: Config, store: Arc<Store>, table: Table) -> Self {
        Self {
            config,
            store,
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

    /// The resource under which objects of `resource` are stored.
    pub(crate) fn stored(&self, resource: &Resource) -> GroupResource {
        resource.stored_as.clone()
    }
}
