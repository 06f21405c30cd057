//! Where a cluster keeps what it must not lose: the folders below `K8SLAB_HOME` and the two small files that describe a
//! cluster and its daemon.
//!
//! Owns names, format numbers and the identity of a cluster. Must not know what the API server or the node write inside
//! their folders.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The format of [`Description`]. Changelog: 1 = first.
pub const CLUSTER_FORMAT: u32 = 1;
/// The format of [`DaemonRecord`]. Changelog: 1 = first.
pub const DAEMON_FORMAT: u32 = 1;

/// `K8SLAB_HOME`: everything k8slab keeps, for all clusters of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// The folder itself need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Image layers and references, shared by the clusters of this home; survives `down`.
    pub fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    /// Mirrors of registries and logins, if somebody wrote them down.
    pub fn registries(&self) -> PathBuf {
        self.0.join("registries.yaml")
    }

    /// Journals of past runs; survive `down`.
    pub fn history(&self) -> PathBuf {
        self.0.join("history")
    }

    /// The folder that holds one folder a cluster.
    pub fn clusters(&self) -> PathBuf {
        self.0.join("clusters")
    }

    /// One cluster's folder.
    pub fn cluster(&self, name: &str) -> ClusterDir {
        ClusterDir(self.clusters().join(name))
    }
}

/// The folder of one embedded cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDir(PathBuf);

impl ClusterDir {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    /// The object store.
    pub fn store(&self) -> PathBuf {
        self.0.join("store.redb")
    }

    /// Pod folders, volumes: the node's.
    pub fn node(&self) -> PathBuf {
        self.0.join("node")
    }

    /// What the daemon says while it runs.
    pub fn log(&self) -> PathBuf {
        self.0.join("daemon.log")
    }

    /// Cluster administrator's kubeconfig, mode 0600.
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("admin.kubeconfig")
    }

    /// Held locked by the daemon for as long as it lives: the one proof that it does.
    pub(crate) fn daemon_lock(&self) -> PathBuf {
        self.0.join("daemon.lock")
    }

    /// Held locked by whoever starts, stops or deletes the cluster.
    pub(crate) fn admin_lock(&self) -> PathBuf {
        self.0.join("admin.lock")
    }

    /// Where the daemon listens for `stop`.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    fn description_file(&self) -> PathBuf {
        self.0.join("cluster.json")
    }

    fn daemon_file(&self) -> PathBuf {
        self.0.join("daemon.json")
    }

    /// Eight hex digits in every host-wide name (cgroup, socket) of this cluster, so that several can live on one host:
    /// made from the folder and its owner.
    pub fn id(&self) -> io::Result<String> {
        let path = self.0.canonicalize()?;
        let owner = fs::metadata(&path)?.uid();
        let digest = Sha256::digest(format!("{owner}:{}", path.display()));
        Ok(digest[..4].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Makes the folder, for its owner only.
    pub fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// The cluster's description; `None` where no cluster has been made.
    pub fn description(&self) -> Result<Option<Description>, FormatError> {
        read_versioned(&self.description_file(), CLUSTER_FORMAT)
    }

    /// Replaces the description.
    pub fn describe(&self, description: &Description) -> io::Result<()> {
        write_private(&self.description_file(), &serde_json::to_vec_pretty(description)?)
    }

    /// What the last daemon wrote about itself. It may be gone: only its lock tells.
    pub fn daemon(&self) -> Result<Option<DaemonRecord>, FormatError> {
        read_versioned(&self.daemon_file(), DAEMON_FORMAT)
    }

    pub(crate) fn record_daemon(&self, record: &DaemonRecord) -> io::Result<()> {
        write_private(&self.daemon_file(), &serde_json::to_vec_pretty(record)?)
    }

    pub(crate) fn forget_daemon(&self) {
        fs::remove_file(self.daemon_file()).ok();
        fs::remove_file(self.control_socket()).ok();
    }
}

/// What a cluster is, as long as its folder exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// [`CLUSTER_FORMAT`] of the writer.
    pub format: u32,
    /// The k8slab that wrote this.
    pub version: String,
    /// Lab time runs this many times faster than Kubernetes' own (1–10).
    pub speed: u32,
    /// The API server's port on 127.0.0.1, tried first at the next start; 0 before the first.
    pub port: u16,
}

/// What a daemon says about itself once it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRecord {
    /// [`DAEMON_FORMAT`] of the writer.
    pub format: u32,
    /// The daemon's k8slab.
    pub version: String,
    /// Process id, as the host sees it.
    pub pid: i32,
    /// Start time in clock ticks since boot (`/proc/PID/stat`, field 22): a later process with the same pid has another.
    pub start_time: u64,
    /// The API server's port on 127.0.0.1.
    pub port: u16,
    /// Lab time's divisor.
    pub speed: u32,
    /// Why CPU and memory limits are not enforced; `None` where they are.
    pub limits_not_enforced: Option<String>,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Written by a newer k8slab.
    #[error("`{path}` has format {found}, written by k8slab {version}; this k8slab {} reads up to {known}", env!("CARGO_PKG_VERSION"))]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The k8slab that wrote it.
        version: String,
        /// The newest format known here.
        known: u32,
    },
    /// Not what k8slab writes.
    #[error("reading `{path}`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[derive(Deserialize)]
struct Versioned {
    format: u32,
    #[serde(default)]
    version: String,
}

fn read_versioned<T: for<'de> Deserialize<'de>>(path: &Path, known: u32) -> Result<Option<T>, FormatError> {
    let unreadable = |source: io::Error| FormatError::Unreadable {
        path: path.into(),
        source,
    };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(e)),
    };
    let head: Versioned = serde_json::from_slice(&bytes).map_err(|e| unreadable(e.into()))?;
    if head.format > known {
        return Err(FormatError::Newer {
            path: path.into(),
            found: head.format,
            version: head.version,
            known,
        });
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| unreadable(e.into()))
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> Description {
        Description {
            format: CLUSTER_FORMAT,
            version: "0.1.0".into(),
            speed: 1,
            port: 6443,
        }
    }

    #[test]
    fn a_description_comes_back_as_it_was_written_and_is_private() {
        let home = tempfile::tempdir().unwrap();
        let dir = Home::new(home.path()).cluster("default");
        assert!(dir.description().unwrap().is_none());
        dir.create().unwrap();
        dir.describe(&description()).unwrap();
        assert_eq!(dir.description().unwrap(), Some(description()));
        let mode = fs::metadata(dir.path().join("cluster.json")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_newer_format_is_refused_with_the_version_needed() {
        let home = tempfile::tempdir().unwrap();
        let dir = Home::new(home.path()).cluster("default");
        dir.create().unwrap();
        dir.describe(&Description {
            format: 7,
            version: "3.1.0".into(),
            ..description()
        })
        .unwrap();
        let error = dir.description().unwrap_err().to_string();
        assert!(error.contains("format 7, written by k8slab 3.1.0"), "{error}");
    }

    #[test]
    fn two_folders_are_two_clusters() {
        let home = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| Home::new(home.path()).cluster(name));
        a.create().unwrap();
        b.create().unwrap();
        assert_ne!(a.id().unwrap(), b.id().unwrap());
        assert_eq!(a.id().unwrap().len(), 8);
    }
}
