//! The provisioner `k8slab.dev/local-path`: a folder below the node's state for every claim that asks for one.
//!
//! Owns the folders and the PersistentVolumes that it made. Must not know pods, nor who binds what. Driven by the shared
//! mirrors. After rancher/local-path-provisioner 0.0.3x and `sig-storage-lib-external-provisioner` v11 (`controller.go`):
//! their annotations, event texts and back-off.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::events::{Event, Recorder, Severity, reference};
use crate::scheduler::SELECTED_NODE;
use crate::storage::{Storage, is_bound};

/// `provisioner` of the classes it serves.
pub(crate) const NAME: &str = "k8slab.dev/local-path";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The library's exponential failure rate limiter.
const FIRST_RETRY: Duration = Duration::from_secs(15);
const LAST_RETRY: Duration = Duration::from_secs(1000);

/// What went wrong with an object, and when it is tried again.
struct Failed {
    times: u32,
    again: Instant,
}

pub(crate) struct Provisioner {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) storage: Storage,
    pub(crate) node: String,
    /// The folder of folders.
    pub(crate) root: PathBuf,
}

impl Provisioner {
    /// Serves claims and released volumes for ever.
    pub(crate) async fn run(self) {
        self.storage.ready().await;
        let (mut claims, mut volumes) = (self.storage.claims.subscribe(), self.storage.volumes.subscribe());
        let mut classes = self.storage.classes.subscribe();
        let mut failed = HashMap::<String, Failed>::new();
        loop {
            let mut seen = Vec::new();
            for claim in self.storage.claims.select(|claim| self.is_ours(claim)) {
                let uid = claim.uid().unwrap_or_default();
                if is_due(&failed, &uid) {
                    let done = self.provision(&claim).await;
                    note(&mut failed, &uid, done);
                }
                seen.push(uid);
            }
            for volume in self.storage.volumes.select(is_discarded) {
                let uid = volume.uid().unwrap_or_default();
                if is_due(&failed, &uid) {
                    let done = self.delete(&volume).await;
                    note(&mut failed, &uid, done);
                }
                seen.push(uid);
            }
            failed.retain(|uid, _| seen.contains(uid));
            let next = failed.values().map(|failed| failed.again).min();
            let retry = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok(()) = claims.changed() => {}
                Ok(()) = volumes.changed() => {}
                Ok(()) = classes.changed() => {}
                () = retry => {}
            }
        }
    }

    /// A claim that waits for this provisioner, on this node, and has no volume yet.
    fn is_ours(&self, claim: &PersistentVolumeClaim) -> bool {
        let annotation = |name: &str| claim.annotations().get(name).map(String::as_str);
        let asked = annotation("volume.kubernetes.io/storage-provisioner")
            .or(annotation("volume.beta.kubernetes.io/storage-provisioner"));
        let unbound = !is_bound(claim) && claim.spec.as_ref().is_none_or(|spec| spec.volume_name.is_none());
        if asked != Some(NAME) || !unbound || claim.metadata.deletion_timestamp.is_some() {
            return false;
        }
        let Some(class) = self.storage.class_of(claim).filter(|class| class.provisioner == NAME) else {
            return false;
        };
        let here = match annotation(SELECTED_NODE) {
            Some(node) => node == self.node,
            None => class.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer"),
        };
        here && self.storage.volumes.get("", &volume_name(claim)).is_none()
    }

    async fn provision(&self, claim: &PersistentVolumeClaim) -> Result<(), String> {
        let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
        let message = format!("External provisioner is provisioning volume for claim \"{namespace}/{name}\"");
        self.record(claim, Severity::Normal, "Provisioning", message);
        match self.make(claim).await {
            Ok(volume) => {
                let message = format!("Successfully provisioned volume {volume}");
                self.record(claim, Severity::Normal, "ProvisioningSucceeded", message);
                Ok(())
            }
            Err(error) => {
                let class = claim
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.storage_class_name.clone())
                    .unwrap_or_default();
                let message = format!("failed to provision volume with StorageClass \"{class}\": {error}");
                self.record(claim, Severity::Warning, "ProvisioningFailed", message.clone());
                Err(message)
            }
        }
    }

    /// The folder, then the volume that stands for it.
    async fn make(&self, claim: &PersistentVolumeClaim) -> Result<String, String> {
        let spec = claim.spec.clone().unwrap_or_default();
        if spec.volume_mode.as_deref() == Some("Block") {
            return Err("block volumes are not supported".into());
        }
        if spec.selector.is_some() {
            return Err("claim.Spec.Selector is not supported".into());
        }
        let class = self.storage.class_of(claim).ok_or("its storage class is gone")?;
        let name = volume_name(claim);
        let (namespace, claim_name) = (claim.namespace().unwrap_or_default(), claim.name_any());
        let path = self.root.join(format!("{name}_{namespace}_{claim_name}"));
        let wanted = path.clone();
        let made = tokio::task::spawn_blocking(move || make_folder(&wanted)).await;
        made.map_err(|error| error.to_string())?
            .map_err(|error| format!("making `{}`: {error}", path.display()))?;
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: NAME}},
            "spec": {
                "capacity": {"storage": spec.resources.and_then(|resources| resources.requests)
                    .and_then(|requests| requests.get("storage").cloned())},
                "accessModes": spec.access_modes,
                "volumeMode": "Filesystem",
                "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
                "storageClassName": class.name_any(),
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim_name,
                    "namespace": namespace, "uid": claim.uid(), "resourceVersion": claim.resource_version()},
                "local": {"path": path},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [self.node]}]}]}},
            },
        });
        let volume: PersistentVolume = serde_json::from_value(volume).map_err(|error| error.to_string())?;
        match Api::all(self.client.clone())
            .create(&PostParams::default(), &volume)
            .await
        {
            Ok(_) => Ok(name),
            // An earlier pass made it, and the mirror does not show it yet.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(name),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn delete(&self, volume: &PersistentVolume) -> Result<(), String> {
        let deleted = self.remove(volume).await;
        if let Err(error) = &deleted {
            self.record(volume, Severity::Warning, "VolumeFailedDelete", error.clone());
        }
        deleted
    }

    async fn remove(&self, volume: &PersistentVolume) -> Result<(), String> {
        let path = folder_of(volume).ok_or("the volume has no folder")?;
        // Nothing but what was made here, whatever somebody wrote into the object.
        if path.parent() != Some(&*self.root) || path.file_name().is_none() {
            return Err(format!("`{}` is not below `{}`", path.display(), self.root.display()));
        }
        let shown = path.display().to_string();
        let removed = tokio::task::spawn_blocking(move || match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        let removed = removed.await.map_err(|error| error.to_string())?;
        removed.map_err(|error| format!("removing `{shown}`: {error}"))?;
        let api = Api::<PersistentVolume>::all(self.client.clone());
        match api.delete(&volume.name_any(), &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn record<K>(&self, about: &K, severity: Severity, reason: &'static str, message: String)
    where
        K: kube::Resource<DynamicType = ()>,
    {
        self.recorder.record(Event {
            about: reference(about),
            severity,
            reason,
            action: "",
            message,
        });
    }
}

fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.uid().unwrap_or_default())
}

/// Where a volume lies, if it is a folder of some node.
pub(crate) fn folder_of(volume: &PersistentVolume) -> Option<PathBuf> {
    let spec = volume.spec.as_ref()?;
    let local = spec.local.as_ref().map(|source| &source.path);
    let host = spec.host_path.as_ref().map(|source| &source.path);
    local.or(host).map(PathBuf::from)
}

/// Ours, and to be deleted now that nobody claims it.
fn is_discarded(volume: &PersistentVolume) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let policy = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    phase == Some("Released")
        && policy == Some("Delete")
        && volume.metadata.deletion_timestamp.is_none()
        && volume.annotations().get(PROVISIONED_BY).is_some_and(|by| by == NAME)
}

/// Open to every user: which one the containers run as is not known yet.
fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}

fn is_due(failed: &HashMap<String, Failed>, uid: &str) -> bool {
    failed.get(uid).is_none_or(|failed| failed.again <= Instant::now())
}

fn note(failed: &mut HashMap<String, Failed>, uid: &str, done: Result<(), String>) {
    let Err(error) = done else {
        // Not again before the mirrors show it.
        let again = Instant::now() + FIRST_RETRY;
        failed.insert(uid.to_owned(), Failed { times: 0, again });
        return;
    };
    tracing::warn!("{error}");
    let times = failed.get(uid).map_or(0, |failed| failed.times);
    let pause = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(times)).min(LAST_RETRY);
    let failed_now = Failed {
        times: times + 1,
        again: Instant::now() + pause,
    };
    failed.insert(uid.to_owned(), failed_now);
}
