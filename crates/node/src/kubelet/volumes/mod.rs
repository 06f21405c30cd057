//! A pod's volumes: where they lie, how they are filled, how they follow their sources.
//!
//! Owns the folders below `<pod>/volumes`. Preparing is idempotent: the same call fills them first and refreshes them
//! later. Must not know containers; the mounts are made by the runtime.

mod payload;
mod persistent;
mod token;
mod writer;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};

use super::downward::Surroundings;
use super::env::Inputs;
use crate::runtime::MemoryVolume;
use crate::scheduler::requests::amount;
pub(crate) use payload::Source;
pub(crate) use persistent::{Claims, find as find_claims};
pub(crate) use token::{Token, Tokens, wanted_tokens};

/// A volume that could not be prepared; the text is that of the `FailedMount` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountFailure {
    pub(crate) volume: String,
    pub(crate) cause: String,
}

impl std::fmt::Display for MountFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "MountVolume.SetUp failed for volume \"{}\" : {}",
            self.volume, self.cause
        )
    }
}

/// Everything that decides what is in a pod's volumes.
pub(crate) struct Contents<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) inputs: &'a Inputs,
    pub(crate) tokens: &'a Tokens,
    /// Folders of claims that are not linked yet.
    pub(crate) claims: &'a Claims,
    pub(crate) around: &'a Surroundings,
}

/// Where a volume lies on the node, whether it is there already or not.
pub(crate) fn path_of(pod_dir: &Path, volume: &Volume) -> PathBuf {
    if let Some(host) = &volume.host_path {
        return PathBuf::from(&host.path);
    }
    let plugin = if is_persistent(volume) {
        "kubernetes.io~persistent-volume-claim"
    } else if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else if volume.projected.is_some() {
        "kubernetes.io~projected"
    } else if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else {
        "kubernetes.io~empty-dir"
    };
    pod_dir.join("volumes").join(plugin).join(&volume.name)
}

/// Whether it stands for a claim: what lies at [`path_of`] then is a link.
pub(crate) fn is_persistent(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
}

/// Which folders of the host pods may have.
pub(crate) struct HostPaths<'a> {
    /// All of them.
    pub(crate) any: bool,
    /// These in any case.
    pub(crate) below: &'a Path,
}

impl HostPaths<'_> {
    fn allow(&self, path: &Path) -> Result<(), String> {
        let plain = path.components().all(|part| part != std::path::Component::ParentDir);
        if self.any || (plain && path.starts_with(self.below)) {
            return Ok(());
        }
        Err(format!(
            "this node does not let pods mount `{}`: hostPath volumes are not allowed",
            path.display()
        ))
    }
}

/// A volume without any source is an emptyDir.
fn empty_dir(volume: &Volume) -> Option<EmptyDirVolumeSource> {
    let rest = Volume {
        name: volume.name.clone(),
        ..Default::default()
    };
    volume
        .empty_dir
        .clone()
        .or_else(|| (*volume == rest).then(EmptyDirVolumeSource::default))
}

fn in_memory(volume: &Volume) -> Option<EmptyDirVolumeSource> {
    empty_dir(volume).filter(|source| source.medium.as_deref() == Some("Memory"))
}

/// Makes the folders on which the sandbox mounts its memory volumes, and says which.
pub(crate) fn memory_volumes(pod: &Pod, pod_dir: &Path) -> io::Result<Vec<MemoryVolume>> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| Some((volume, in_memory(volume)?)))
        .map(|(volume, source)| {
            let path = path_of(pod_dir, volume);
            fs::create_dir_all(&path)?;
            let size = source.size_limit.as_ref().and_then(|size| amount("memory", size));
            Ok(MemoryVolume {
                path,
                size_bytes: size.and_then(|size| u64::try_from(size).ok()),
            })
        })
        .collect()
}

/// Fills every volume, or brings it up to date. Says whether anything changed.
pub(crate) fn prepare(contents: &Contents<'_>, pod_dir: &Path, allowed: &HostPaths<'_>) -> Result<bool, MountFailure> {
    let spec = contents.pod.spec.clone().unwrap_or_default();
    let group = spec.security_context.as_ref().and_then(|context| context.fs_group);
    let group = group.and_then(|group| u32::try_from(group).ok());
    let mut changed = false;
    for volume in spec.volumes.iter().flatten() {
        let done = prepare_one(contents, volume, pod_dir, group, allowed);
        changed |= done.map_err(|cause| MountFailure {
            volume: volume.name.clone(),
            cause,
        })?;
    }
    Ok(changed)
}

fn prepare_one(
    contents: &Contents<'_>,
    volume: &Volume,
    pod_dir: &Path,
    group: Option<u32>,
    allowed: &HostPaths<'_>,
) -> Result<bool, String> {
    let path = path_of(pod_dir, volume);
    let said = |error: io::Error| format!("writing `{}`: {error}", path.display());
    if let Some(host) = &volume.host_path {
        allowed.allow(Path::new(&host.path))?;
        return host_path(host).map(|()| false);
    }
    if is_persistent(volume) {
        let Some(found) = contents.claims.get(&volume.name) else {
            return Ok(false);
        };
        allowed.allow(&found.path)?;
        let context = contents
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.security_context.as_ref());
        let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
        let read_only = volume
            .persistent_volume_claim
            .as_ref()
            .and_then(|claim| claim.read_only)
            == Some(true);
        return persistent::link(found, &path, group, policy == Some("OnRootMismatch"), read_only).map(|()| true);
    }
    if in_memory(volume).is_some() {
        return Ok(false);
    }
    if empty_dir(volume).is_some() {
        if path.is_dir() {
            return Ok(false);
        }
        fs::create_dir_all(&path).map_err(said)?;
        let mode = if group.is_some() { 0o2777 } else { 0o777 };
        own(&path, mode, group).map_err(|error| format!("applyFSGroup failed for vol {}: {error}", volume.name))?;
        return Ok(true);
    }
    let Some(source) = Source::of(volume) else {
        return Err("volumes of this kind are not supported by this node".into());
    };
    let files = source.files(contents)?;
    writer::write(&path, &files, group).map_err(said)
}

/// Sets mode and group of a file or folder; the umask has no say.
fn own(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if group.is_some() {
        chown(path, None, group)?;
    }
    // After the change of group, which drops the set-group-ID bit.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            fs::create_dir_all(path).map_err(|error| format!("making `{}`: {error}", source.path))?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::File::create_new(path).map_err(|error| format!("making `{}`: {error}", source.path))?;
        }
        _ => {}
    }
    let type_ = fs::metadata(path).ok().map(|meta| meta.file_type());
    let is = |check: fn(&fs::FileType) -> bool| type_.as_ref().is_some_and(check);
    let (fine, what) = match kind {
        "" => (true, ""),
        "Directory" | "DirectoryOrCreate" => (is(fs::FileType::is_dir), "directory"),
        "File" | "FileOrCreate" => (is(fs::FileType::is_file), "file"),
        "Socket" => (is(FileTypeExt::is_socket), "socket file"),
        "CharDevice" => (is(FileTypeExt::is_char_device), "character device"),
        "BlockDevice" => (is(FileTypeExt::is_block_device), "block device"),
        _ => return Err(format!("{kind} is an invalid volume type")),
    };
    if fine {
        Ok(())
    } else {
        Err(format!("hostPath type check failed: {} is not a {what}", source.path))
    }
}

/// When the earliest token has to be renewed.
pub(crate) fn refresh_at(tokens: &Tokens) -> Option<Timestamp> {
    tokens.values().map(Token::refresh_at).min()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::objects::{Kind, Payload};
    use super::*;

    fn pod(volumes: Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "d", "labels": {"app": "x"}},
            "spec": {"containers": [], "volumes": volumes}}),
        )
        .unwrap()
    }

    fn config_map(pairs: &[(&str, &str)]) -> Inputs {
        let data = pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.as_bytes().to_vec()))
            .collect();
        let payload = Payload {
            data,
            binary: BTreeMap::from([("raw".into(), vec![0, 1])]),
        };
        HashMap::from([((Kind::ConfigMap, "cm".into()), Some(Arc::new(payload)))])
    }

    fn run(dir: &Path, pod: &Pod, inputs: &Inputs) -> Result<bool, String> {
        let around = Surroundings {
            host_ip: [127, 0, 0, 1].into(),
            pod_ip: None,
            allocatable: Default::default(),
        };
        let contents = Contents {
            pod,
            inputs,
            tokens: &Tokens::new(),
            claims: &Claims::new(),
            around: &around,
        };
        let allowed = HostPaths {
            any: false,
            below: Path::new("/volumes"),
        };
        prepare(&contents, dir, &allowed).map_err(|failure| failure.to_string())
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading `{}`: {error}", path.display()))
    }

    #[test]
    fn a_config_map_is_a_folder_of_links_and_changes_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let pod = pod(json!([{"name": "v", "configMap": {"name": "cm"}}]));
        assert_eq!(run(dir.path(), &pod, &config_map(&[("a", "1"), ("b", "2")])), Ok(true));
        let volume = dir.path().join("volumes/kubernetes.io~configmap/v");
        assert_eq!(
            (read(volume.join("a")), read(volume.join("b"))),
            ("1".into(), "2".into())
        );
        assert_eq!(fs::read(volume.join("raw")).unwrap(), [0, 1]);
        assert_eq!(fs::read_link(volume.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(
            fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o7777,
            0o644
        );
        let before = fs::read_link(volume.join("..data")).unwrap();

        assert_eq!(run(dir.path(), &pod, &config_map(&[("a", "1"), ("b", "2")])), Ok(false));
        assert_eq!(run(dir.path(), &pod, &config_map(&[("a", "new")])), Ok(true));
        assert_eq!(read(volume.join("a")), "new");
        assert!(!volume.join("b").exists());
        assert_ne!(fs::read_link(volume.join("..data")).unwrap(), before);
        assert!(!volume.join(before).exists(), "the old content stays behind");
    }

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let dir = tempfile::tempdir().unwrap();
        let pod = pod(json!([{"name": "v", "configMap": {"name": "cm", "defaultMode": 0o400,
            "items": [{"key": "a", "path": "deep/er/file"}, {"key": "b", "path": "run", "mode": 0o755}]}}]));
        run(dir.path(), &pod, &config_map(&[("a", "1"), ("b", "2"), ("c", "3")])).unwrap();
        let volume = dir.path().join("volumes/kubernetes.io~configmap/v");
        assert_eq!(read(volume.join("deep/er/file")), "1");
        let mode = |name: &str| fs::metadata(volume.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("deep/er/file"), mode("run")), (0o400, 0o755));
        assert!(!volume.join("c").exists());
        assert_eq!(fs::read_link(volume.join("deep")).unwrap(), Path::new("..data/deep"));
    }

    #[test]
    fn what_is_missing_is_said_in_the_kubelets_words() {
        let dir = tempfile::tempdir().unwrap();
        let error = |volume: Value| run(dir.path(), &pod(json!([volume])), &config_map(&[("a", "1")])).unwrap_err();
        assert_eq!(
            error(json!({"name": "v", "secret": {"secretName": "gone"}})),
            "MountVolume.SetUp failed for volume \"v\" : secret \"gone\" not found"
        );
        assert_eq!(
            error(json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}})),
            "MountVolume.SetUp failed for volume \"v\" : references non-existent config key: z"
        );
        assert!(error(json!({"name": "v", "hostPath": {"path": "/etc"}})).contains("not allowed"));
        let optional = json!([{"name": "v", "secret": {"secretName": "gone", "optional": true}}]);
        assert!(run(dir.path(), &pod(optional), &Inputs::new()).is_ok());
    }

    #[test]
    fn a_projected_volume_puts_its_sources_together() {
        let dir = tempfile::tempdir().unwrap();
        let pod = pod(json!([{"name": "v", "projected": {"sources": [
            {"configMap": {"name": "cm", "items": [{"key": "a", "path": "from/cm"}]}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}]));
        run(dir.path(), &pod, &config_map(&[("a", "1")])).unwrap();
        let volume = dir.path().join("volumes/kubernetes.io~projected/v");
        assert_eq!(read(volume.join("from/cm")), "1");
        assert_eq!(read(volume.join("labels")), "app=\"x\"");
        assert_eq!(read(volume.join("namespace")), "d");
    }

    #[test]
    fn an_empty_dir_is_open_to_everyone_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let pod = pod(
            json!([{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]),
        );
        assert_eq!(run(dir.path(), &pod, &Inputs::new()), Ok(true));
        let volume = dir.path().join("volumes/kubernetes.io~empty-dir/v");
        assert_eq!(fs::metadata(&volume).unwrap().permissions().mode() & 0o7777, 0o777);
        fs::write(volume.join("kept"), "x").unwrap();
        assert_eq!(run(dir.path(), &pod, &Inputs::new()), Ok(false));
        assert!(volume.join("kept").exists());
        let memory = memory_volumes(&pod, dir.path()).unwrap();
        assert_eq!(memory.len(), 1);
        assert_eq!(memory[0].size_bytes, Some(1 << 20));
        assert!(memory[0].path.is_dir());
    }
}
