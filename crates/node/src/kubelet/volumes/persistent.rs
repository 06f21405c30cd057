//! Volumes that outlive their pod: a claim's PersistentVolume, reached through a link in the pod's folder.
//!
//! Owns finding the folder behind a claim and handing it to the pod's group. The link is what says that it is done: it
//! survives the daemon as the pod does, and a refresh asks nobody again. (k/k `pkg/kubelet/volumemanager`,
//! `pkg/volume/local`, `pkg/volume/volume_linux.go`, v1.36.)

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::{Api, Client, ResourceExt};

use super::path_of;
use crate::local_path::folder_of;
use crate::storage::is_bound;

/// Set-group-ID and search on folders, read and write on everything.
const FOLDER_BITS: u32 = 0o2110;
const SHARED_BITS: u32 = 0o660;

/// The folder behind a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Persistent {
    /// `metadata.name` of the PersistentVolume.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Whether its ownership may be changed: not for a `hostPath`.
    pub(crate) owned: bool,
}

/// By the volume's name in the pod.
pub(crate) type Claims = BTreeMap<String, Persistent>;

/// The claim that a volume of this pod stands for.
pub(super) fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => volume
            .ephemeral
            .as_ref()
            .map(|_| format!("{}-{}", pod.name_any(), volume.name)),
    }
}

/// Finds the folders of all claims that are not linked yet. The error is the text of a `FailedMount` event.
pub(crate) async fn find(client: &Client, pod: &Pod, pod_dir: &Path) -> Result<Claims, String> {
    let namespace = pod.namespace().unwrap_or_default();
    let mut found = Claims::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let Some(name) = claim_name(pod, volume) else { continue };
        if path_of(pod_dir, volume).is_symlink() {
            continue;
        }
        let persistent = find_one(client, &namespace, &name)
            .await
            .map_err(|error| format!("error processing PVC {namespace}/{name}: {error}"))?;
        found.insert(volume.name.clone(), persistent);
    }
    Ok(found)
}

async fn find_one(client: &Client, namespace: &str, name: &str) -> Result<Persistent, String> {
    let text = |error: kube::Error| match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    };
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    let claim = claims
        .get(name)
        .await
        .map_err(|error| format!("failed to fetch PVC from API server: {}", text(error)))?;
    if claim.metadata.deletion_timestamp.is_some() {
        return Err("PVC is being deleted".into());
    }
    if !is_bound(&claim) {
        return Err("PVC is not bound".into());
    }
    let volume_name = claim.spec.and_then(|spec| spec.volume_name).unwrap_or_default();
    let volume = Api::<PersistentVolume>::all(client.clone())
        .get(&volume_name)
        .await
        .map_err(|error| format!("failed to fetch PV {volume_name} from API server: {}", text(error)))?;
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if reference.is_none_or(|reference| reference.uid != claim.metadata.uid) {
        return Err(format!("PV {volume_name} is not bound to this PVC"));
    }
    let path = folder_of(&volume).ok_or_else(|| format!("PV {volume_name} is of a kind this node does not support"))?;
    Ok(Persistent {
        owned: volume.spec.as_ref().is_some_and(|spec| spec.local.is_some()),
        name: volume_name,
        path,
    })
}

/// Links the folder into the pod's, after it was given to the pod's group.
pub(super) fn link(
    found: &Persistent,
    link: &Path,
    group: Option<u32>,
    only_if_root_differs: bool,
    read_only: bool,
) -> Result<(), String> {
    if !found.path.is_dir() {
        return Err(format!("path \"{}\" does not exist", found.path.display()));
    }
    if let Some(group) = group.filter(|_| found.owned && !read_only)
        && !(only_if_root_differs && is_shared(&found.path, group))
    {
        share(&found.path, group).map_err(|error| format!("applyFSGroup failed for vol {}: {error}", found.name))?;
    }
    let said = |error: io::Error| format!("linking `{}`: {error}", link.display());
    fs::create_dir_all(link.parent().unwrap_or(link)).map_err(said)?;
    symlink(&found.path, link).map_err(said)
}

/// Whether the root already is as [`share`] leaves it.
fn is_shared(path: &Path, group: u32) -> bool {
    let wanted = SHARED_BITS | FOLDER_BITS;
    fs::metadata(path).is_ok_and(|meta| meta.gid() == group && meta.mode() & wanted == wanted)
}

/// Gives a tree to a group, links untouched and never followed.
fn share(path: &Path, group: u32) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if meta.is_symlink() {
        return Ok(());
    }
    let folder = if meta.is_dir() { FOLDER_BITS } else { 0 };
    let mode = meta.mode() & 0o7777 | SHARED_BITS | folder;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            share(&entry?.path(), group)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_linked_and_shared_with_the_pods_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("file"), "x").unwrap();
        fs::set_permissions(path.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
        let group = fs::metadata(&path).unwrap().gid();
        let found = Persistent {
            name: "pv".into(),
            path: path.clone(),
            owned: true,
        };
        let to = dir.path().join("pod/volumes/v");
        link(&found, &to, Some(group), false, false).unwrap();
        assert_eq!(fs::read_link(&to).unwrap(), path);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&path) & 0o2770, mode(&path.join("file"))), (0o2770, 0o660));
        assert!(is_shared(&path, group));
        // Only what differs at its root is walked again.
        fs::set_permissions(path.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(&to).unwrap();
        link(&found, &to, Some(group), true, false).unwrap();
        assert_eq!(mode(&path.join("file")), 0o600);
    }

    #[test]
    fn a_folder_that_is_gone_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let found = Persistent {
            name: "pv".into(),
            path: dir.path().join("gone"),
            owned: true,
        };
        let error = link(&found, &dir.path().join("v"), None, false, false).unwrap_err();
        assert!(
            error.starts_with("path \"") && error.ends_with("gone\" does not exist"),
            "{error}"
        );
    }
}
