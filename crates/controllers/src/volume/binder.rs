//! The PV controller: binds claims to volumes, both ways, and asks provisioners for what is missing.
//!
//! Owns phases, `claimRef`, `volumeName` and the annotations of binding. Every step is idempotent: a pass that was cut
//! off is finished by the next. (k/k `pkg/controller/volume/persistentvolume/pv_controller.go`, v1.36.)

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

use super::matching;
use crate::Context;
use crate::error::{self, Doing, Error, Result};
use crate::events::Recorder;
use crate::informers::{Change, Informers};
use crate::key::Key;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";

/// What is looked at: a claim or a volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Object {
    Claim(Key),
    Volume(Key),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(key) => write!(f, "volume {key}"),
        }
    }
}

pub(crate) struct Binder {
    informers: Informers,
    clock: Arc<dyn apimachinery::clock::Clock>,
    client: Client,
    recorder: Recorder,
    queue: Arc<WorkQueue<Object>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> Binder {
    let binder = Binder {
        informers: context.informers.clone(),
        clock: context.clock.clone(),
        client: context.client(Binder::NAME),
        recorder: context.recorder(Binder::NAME),
        queue: WorkQueue::new(),
    };
    let queue = binder.queue.clone();
    context.informers.claims.on_change(move |change| {
        let claim = change.object();
        queue.add(Object::Claim(Key::of(&**claim)));
        if let (Change::Deleted(_), Some(volume)) = (change, volume_name(claim)) {
            queue.add(Object::Volume(Key::new("", volume)));
        }
    });
    let (queue, claims) = (binder.queue.clone(), context.informers.claims.clone());
    context.informers.volumes.on_change(move |change| {
        let volume = change.object();
        queue.add(Object::Volume(Key::of(&**volume)));
        // A claim that waits may want it; one that had it may have lost it.
        let waits = |claim: &PersistentVolumeClaim| match volume_name(claim) {
            Some(name) => name == volume.name_any(),
            None => matching::claim_class(claim) == matching::volume_class(volume),
        };
        for claim in claims.all().into_iter().filter(|claim| waits(claim)) {
            queue.add(Object::Claim(Key::of(&*claim)));
        }
    });
    let (queue, claims) = (binder.queue.clone(), context.informers.claims.clone());
    context.informers.storage_classes.on_change(move |_| {
        for claim in claims.all().into_iter().filter(|claim| volume_name(claim).is_none()) {
            queue.add(Object::Claim(Key::of(&*claim)));
        }
    });
    binder
}

fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    let name = claim.spec.as_ref()?.volume_name.as_deref()?;
    (!name.is_empty()).then_some(name)
}

fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

impl Reconcile for Binder {
    const NAME: &'static str = "persistent-volume-binder";
    /// One: what is decided about a claim and about its volume never overlaps.
    const WORKERS: usize = 1;
    type Key = Object;

    fn queue(&self) -> &Arc<WorkQueue<Object>> {
        &self.queue
    }

    async fn reconcile(&self, object: &Object) -> Result<()> {
        match object {
            Object::Claim(key) => match self.informers.claims.get(key) {
                None => Ok(()),
                Some(claim) if claim.annotations().contains_key(BIND_COMPLETED) => self.sync_bound(&claim).await,
                Some(claim) => self.sync_unbound(&claim).await,
            },
            Object::Volume(key) => match self.informers.volumes.get(key) {
                None => Ok(()),
                Some(volume) => self.sync_volume(&volume).await,
            },
        }
    }
}

impl Binder {
    async fn sync_unbound(&self, claim: &PersistentVolumeClaim) -> Result<()> {
        let Some(wanted) = volume_name(claim) else {
            return self.find_volume(claim).await;
        };
        let Some(volume) = self.informers.volumes.get(&Key::new("", wanted)) else {
            return self.set_pending(claim).await;
        };
        if volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none()) {
            if let Some(why) = matching::mismatch(&volume, claim) {
                let message = format!("Cannot bind to requested volume \"{wanted}\": {why}");
                self.recorder.warning(claim, "VolumeMismatch", message);
                return self.set_pending(claim).await;
            }
            return self.bind(&volume, claim).await;
        }
        if matching::is_reserved_for(&volume, claim) {
            return self.bind(&volume, claim).await;
        }
        if claim.annotations().contains_key(BOUND_BY_CONTROLLER) {
            let key = Key::of(claim);
            return Err(Error::new(format!(
                "invalid binding of claim `{key}` to volume `{wanted}`: the volume is claimed by another"
            )));
        }
        let message = format!("volume \"{wanted}\" already bound to a different claim.");
        self.recorder.warning(claim, "FailedBinding", message);
        self.set_pending(claim).await
    }

    /// For a claim that names no volume.
    async fn find_volume(&self, claim: &PersistentVolumeClaim) -> Result<()> {
        let class_name = matching::claim_class(claim);
        let class = self.informers.storage_classes.get(&Key::new("", class_name));
        let node_selected = claim.annotations().contains_key(SELECTED_NODE);
        let delayed = !node_selected && class.as_deref().is_some_and(waits_for_consumer);
        if let Some(volume) = matching::best(claim, self.informers.volumes.all(), delayed) {
            return self.bind(&volume, claim).await;
        }
        if delayed {
            match self.waiting_pod(claim) {
                Some(pod) => {
                    let message = format!("waiting for pod {} to be scheduled", pod.name_any());
                    self.recorder.normal(claim, "WaitForPodScheduled", message);
                }
                None => {
                    let message = "waiting for first consumer to be created before binding";
                    self.recorder.normal(claim, "WaitForFirstConsumer", message);
                }
            }
        } else if class_name.is_empty() {
            let message = "no persistent volumes available for this claim and no storage class is set";
            self.recorder.normal(claim, "FailedBinding", message);
        } else {
            return self.ask_provisioner(claim, class_name, class.as_deref()).await;
        }
        self.set_pending(claim).await
    }

    /// A pod that wants the claim and has no node yet.
    fn waiting_pod(&self, claim: &PersistentVolumeClaim) -> Option<Arc<Pod>> {
        let pods = self.informers.pods.in_namespace(&claim.namespace().unwrap_or_default());
        let name = claim.name_any();
        pods.into_iter().find(|pod| {
            let spec = pod.spec.clone().unwrap_or_default();
            let uses = spec.volumes.iter().flatten().any(|volume| {
                volume
                    .persistent_volume_claim
                    .as_ref()
                    .is_some_and(|source| source.claim_name == name)
            });
            uses && spec.node_name.is_none_or(|node| node.is_empty())
        })
    }

    async fn ask_provisioner(
        &self,
        claim: &PersistentVolumeClaim,
        class_name: &str,
        class: Option<&StorageClass>,
    ) -> Result<()> {
        let Some(class) = class else {
            let message = format!("storageclass.storage.k8s.io \"{class_name}\" not found");
            self.recorder.warning(claim, "ProvisioningFailed", message);
            return self.set_pending(claim).await;
        };
        if class.provisioner == "kubernetes.io/no-provisioner" {
            let message = "no volume plugin matched name: kubernetes.io/no-provisioner";
            self.recorder.warning(claim, "ProvisioningFailed", message);
            return self.set_pending(claim).await;
        }
        let mut annotated = claim.clone();
        for annotation in [BETA_PROVISIONER, PROVISIONER] {
            annotated
                .annotations_mut()
                .insert(annotation.to_owned(), class.provisioner.clone());
        }
        let annotated = self.save_claim(claim, annotated).await?;
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system \
             administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
             registered.",
            class.provisioner
        );
        self.recorder.normal(claim, "ExternalProvisioning", message);
        self.set_pending(&annotated).await
    }

    async fn sync_bound(&self, claim: &PersistentVolumeClaim) -> Result<()> {
        let Some(name) = volume_name(claim) else {
            let message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
            return self.lose(claim, "ClaimLost", message).await;
        };
        let Some(volume) = self.informers.volumes.get(&Key::new("", name)) else {
            let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            return self.lose(claim, "ClaimLost", message).await;
        };
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        if reference.is_none_or(|reference| reference.uid == claim.metadata.uid) {
            return self.bind(&volume, claim).await;
        }
        let message = "Two claims are bound to the same volume, this one is bound incorrectly";
        self.lose(claim, "ClaimMisbound", message).await
    }

    async fn lose(&self, claim: &PersistentVolumeClaim, reason: &str, message: &str) -> Result<()> {
        let is_new = claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Lost");
        self.set_status(claim, "Lost", None).await?;
        if is_new {
            self.recorder.warning(claim, reason, message);
        }
        Ok(())
    }

    async fn sync_volume(&self, volume: &PersistentVolume) -> Result<()> {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let Some(reference) = reference.filter(|it| it.uid.as_ref().is_some_and(|uid| !uid.is_empty())) else {
            // Unused, or reserved for a claim that will come.
            return self.set_phase(volume, "Available").await.map(drop);
        };
        let key = Key::new(
            reference.namespace.clone().unwrap_or_default(),
            reference.name.clone().unwrap_or_default(),
        );
        let claim = match self.informers.claims.get(&key) {
            Some(claim) => Some(claim),
            // What is decided now may delete data: ask, do not believe the cache.
            None => {
                let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
                let live = api.get_opt(&key.name).await;
                live.doing(|| format!("looking at claim `{key}`"))?.map(Arc::new)
            }
        };
        match claim.filter(|claim| claim.metadata.uid == reference.uid) {
            // What becomes of a released volume is its provisioner's business, or its administrator's.
            None => self.release(volume).await,
            Some(claim) => match volume_name(&claim) {
                None => {
                    self.queue.add(Object::Claim(key));
                    Ok(())
                }
                Some(bound) if bound == volume.name_any() => self.set_phase(volume, "Bound").await.map(drop),
                Some(_) => {
                    let policy = volume
                        .spec
                        .as_ref()
                        .and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
                    match volume.annotations().contains_key(PROVISIONED_BY) && policy == Some("Delete") {
                        true => self.release(volume).await,
                        false => self.unbind(volume).await,
                    }
                }
            },
        }
    }

    async fn release(&self, volume: &PersistentVolume) -> Result<()> {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Released" | "Failed")) {
            return Ok(());
        }
        self.set_phase(volume, "Released").await.map(drop)
    }

    /// Back to what it was before the controller or the claim's user took it.
    async fn unbind(&self, volume: &PersistentVolume) -> Result<()> {
        let mut changed = volume.clone();
        let ours = changed.annotations_mut().remove(BOUND_BY_CONTROLLER).is_some();
        if let Some(spec) = &mut changed.spec {
            match (&mut spec.claim_ref, ours) {
                (Some(reference), false) => reference.uid = None,
                (reference, _) => *reference = None,
            }
        }
        let saved = self.save_volume(volume, changed).await?;
        self.set_phase(&saved, "Available").await.map(drop)
    }

    /// Volume to claim, its phase, claim to volume, its status: each only where it is not so yet.
    async fn bind(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<()> {
        let mut changed = volume.clone();
        let spec = changed.spec.get_or_insert_default();
        let reserved = spec.claim_ref.is_some();
        if spec
            .claim_ref
            .as_ref()
            .is_none_or(|reference| reference.uid != claim.metadata.uid)
        {
            spec.claim_ref = Some(ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("PersistentVolumeClaim".into()),
                name: claim.metadata.name.clone(),
                namespace: claim.metadata.namespace.clone(),
                uid: claim.metadata.uid.clone(),
                resource_version: claim.metadata.resource_version.clone(),
                ..Default::default()
            });
            if !reserved {
                yes(changed.annotations_mut(), BOUND_BY_CONTROLLER);
            }
        }
        let volume = self.save_volume(volume, changed).await?;
        let volume = self.set_phase(&volume, "Bound").await?;

        let mut changed = claim.clone();
        if volume_name(claim).is_none() {
            changed.spec.get_or_insert_default().volume_name = volume.metadata.name.clone();
            yes(changed.annotations_mut(), BOUND_BY_CONTROLLER);
        }
        yes(changed.annotations_mut(), BIND_COMPLETED);
        let claim = self.save_claim(claim, changed).await?;
        self.set_status(&claim, "Bound", Some(&volume)).await
    }

    async fn save_volume(&self, old: &PersistentVolume, new: PersistentVolume) -> Result<PersistentVolume> {
        if *old == new {
            return Ok(new);
        }
        let name = old.name_any();
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let saved = api.replace(&name, &PostParams::default(), &new).await;
        saved.doing(|| format!("updating volume `{name}`"))
    }

    async fn save_claim(
        &self,
        old: &PersistentVolumeClaim,
        new: PersistentVolumeClaim,
    ) -> Result<PersistentVolumeClaim> {
        if *old == new {
            return Ok(new);
        }
        let key = Key::of(old);
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let saved = api.replace(&key.name, &PostParams::default(), &new).await;
        saved.doing(|| format!("updating claim `{key}`"))
    }

    async fn set_phase(&self, volume: &PersistentVolume, phase: &str) -> Result<PersistentVolume> {
        let mut changed = volume.clone();
        let status = changed.status.get_or_insert_default();
        if status.phase.as_deref() == Some(phase) {
            return Ok(changed);
        }
        status.phase = Some(phase.to_owned());
        status.message = None;
        status.last_phase_transition_time =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.clock.now()));
        let name = volume.name_any();
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let saved = api.replace_status(&name, &PostParams::default(), &changed).await;
        saved.doing(|| format!("writing the status of volume `{name}`"))
    }

    async fn set_pending(&self, claim: &PersistentVolumeClaim) -> Result<()> {
        self.set_status(claim, "Pending", None).await
    }

    async fn set_status(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<()> {
        let mut changed = claim.clone();
        let old = changed.status.take().unwrap_or_default();
        let spec = volume.and_then(|volume| volume.spec.as_ref());
        let status = PersistentVolumeClaimStatus {
            phase: Some(phase.to_owned()),
            access_modes: spec.and_then(|spec| spec.access_modes.clone()),
            capacity: spec.and_then(|spec| spec.capacity.clone()),
            ..old.clone()
        };
        if old == status {
            return Ok(());
        }
        changed.status = Some(status);
        let key = Key::of(claim);
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.replace_status(&key.name, &PostParams::default(), &changed).await {
            Err(error) if error::is_not_found(&error) => Ok(()),
            written => written
                .map(drop)
                .doing(|| format!("writing the status of claim `{key}`")),
        }
    }
}

fn yes(annotations: &mut BTreeMap<String, String>, annotation: &str) {
    annotations.insert(annotation.to_owned(), "yes".to_owned());
}
