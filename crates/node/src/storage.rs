//! Claims, volumes and storage classes as the scheduler and the provisioner see them: watched once for both.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinSet;

use crate::mirror::Mirror;

/// The three kinds.
#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) claims: Arc<Mirror<PersistentVolumeClaim>>,
    pub(crate) volumes: Arc<Mirror<PersistentVolume>>,
    pub(crate) classes: Arc<Mirror<StorageClass>>,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            claims: Mirror::new(),
            volumes: Mirror::new(),
            classes: Mirror::new(),
        }
    }
}

impl Storage {
    /// Starts the watches.
    pub(crate) fn follow(&self, client: &Client, tasks: &mut JoinSet<()>) {
        let all = watcher::Config::default;
        tasks.spawn(self.claims.clone().follow(Api::all(client.clone()), all(), |_| {}));
        tasks.spawn(self.volumes.clone().follow(Api::all(client.clone()), all(), |_| {}));
        tasks.spawn(self.classes.clone().follow(Api::all(client.clone()), all(), |_| {}));
    }

    /// Waits until all three are complete.
    pub(crate) async fn ready(&self) {
        self.claims.ready().await;
        self.volumes.ready().await;
        self.classes.ready().await;
    }

    /// The class a claim asks for, beta annotation first.
    pub(crate) fn class_of(&self, claim: &PersistentVolumeClaim) -> Option<Arc<StorageClass>> {
        let annotated = claim.annotations().get("volume.beta.kubernetes.io/storage-class");
        let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
        self.classes.get("", annotated.or(named)?)
    }
}

/// The PV controller is done with it.
pub(crate) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    named.is_some_and(|name| !name.is_empty()) && claim.annotations().contains_key("pv.kubernetes.io/bind-completed")
}
