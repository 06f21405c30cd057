//! Claims that pods use and volumes that are bound stay, however often they are deleted, until they are free.
//!
//! Owns the finalizers `kubernetes.io/pvc-protection` and `kubernetes.io/pv-protection`; the API server's admission sets
//! them on creation. (k/k `pkg/controller/volume/{pvcprotection,pvprotection}`, v1.36.)

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};

use crate::Context;
use crate::error::{self, Doing, Result};
use crate::informers::{Change, Informers};
use crate::key::Key;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Lets go of deleted claims that no pod uses.
pub(crate) struct Claims {
    informers: Informers,
    client: Client,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start_claims(context: &Context) -> Claims {
    let controller = Claims {
        informers: context.informers.clone(),
        client: context.client(Claims::NAME),
        queue: WorkQueue::new(),
    };
    let queue = controller.queue.clone();
    context
        .informers
        .claims
        .on_change(move |change| queue.add(Key::of(&**change.object())));
    let (queue, claims) = (controller.queue.clone(), context.informers.claims.clone());
    context.informers.pods.on_change(move |change| {
        let Change::Deleted(pod) = change else { return };
        for key in claims_of(pod) {
            if claims
                .get(&key)
                .is_some_and(|claim| claim.metadata.deletion_timestamp.is_some())
            {
                queue.add(key);
            }
        }
    });
    controller
}

/// The claims a pod's volumes name; those of generic ephemeral volumes are named after pod and volume.
fn claims_of(pod: &Pod) -> Vec<Key> {
    let namespace = pod.namespace().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let name = volumes.filter_map(|volume| match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => volume
            .ephemeral
            .as_ref()
            .map(|_| format!("{}-{}", pod.name_any(), volume.name)),
    });
    name.map(|name| Key::new(namespace.as_str(), name)).collect()
}

/// A pod without a node uses nothing yet; one that has ended may still be looked at.
fn uses(pod: &Pod, claim: &Key) -> bool {
    let placed = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .is_some_and(|node| !node.is_empty());
    placed && claims_of(pod).contains(claim)
}

impl Reconcile for Claims {
    const NAME: &'static str = "pvc-protection-controller";
    const WORKERS: usize = 1;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let Some(claim) = self.informers.claims.get(key) else {
            return Ok(());
        };
        let protected = claim.finalizers().iter().any(|finalizer| finalizer == CLAIM_FINALIZER);
        let deleted = claim.metadata.deletion_timestamp.is_some();
        if deleted == protected && (!deleted || !self.is_used(key).await?) {
            let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
            let mut changed = PersistentVolumeClaim::clone(&claim);
            set(changed.finalizers_mut(), CLAIM_FINALIZER, !deleted);
            return match api.replace(&key.name, &PostParams::default(), &changed).await {
                Err(error) if error::is_not_found(&error) => Ok(()),
                written => written
                    .map(drop)
                    .doing(|| format!("changing the finalizers of claim `{key}`")),
            };
        }
        Ok(())
    }
}

impl Claims {
    /// Looks into the cache first, then at the pods themselves: what is let go of is gone.
    async fn is_used(&self, claim: &Key) -> Result<bool> {
        let known = self.informers.pods.in_namespace(&claim.namespace);
        if known.iter().any(|pod| uses(pod, claim)) {
            return Ok(true);
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &claim.namespace);
        let pods = api
            .list(&ListParams::default())
            .await
            .doing(|| format!("looking for pods that use claim `{claim}`"))?;
        Ok(pods.items.iter().any(|pod| uses(pod, claim)))
    }
}

/// Lets go of deleted volumes that are not bound.
pub(crate) struct Volumes {
    informers: Informers,
    client: Client,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start_volumes(context: &Context) -> Volumes {
    let controller = Volumes {
        informers: context.informers.clone(),
        client: context.client(Volumes::NAME),
        queue: WorkQueue::new(),
    };
    let queue = controller.queue.clone();
    context
        .informers
        .volumes
        .on_change(move |change| queue.add(Key::of(&**change.object())));
    controller
}

impl Reconcile for Volumes {
    const NAME: &'static str = "pv-protection-controller";
    const WORKERS: usize = 1;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let Some(volume) = self.informers.volumes.get(key) else {
            return Ok(());
        };
        let protected = volume
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == VOLUME_FINALIZER);
        let deleted = volume.metadata.deletion_timestamp.is_some();
        let bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        if deleted != protected || (deleted && bound) {
            return Ok(());
        }
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let mut changed = PersistentVolume::clone(&volume);
        set(changed.finalizers_mut(), VOLUME_FINALIZER, !deleted);
        match api.replace(&key.name, &PostParams::default(), &changed).await {
            Err(error) if error::is_not_found(&error) => Ok(()),
            written => written
                .map(drop)
                .doing(|| format!("changing the finalizers of volume `{key}`")),
        }
    }
}

fn set(finalizers: &mut Vec<String>, finalizer: &str, wanted: bool) {
    finalizers.retain(|known| known != finalizer);
    if wanted {
        finalizers.push(finalizer.to_owned());
    }
}
