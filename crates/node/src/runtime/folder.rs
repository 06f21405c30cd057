//! A pod's folder, `<state>/pods/<uid>`: where what lies, and the records that let a later daemon take it up.
//!
//! ```text
//! pod.json                       PodRecord: what was asked for, address, cgroup; written before the shim starts
//! shim.json                      which process the shim is
//! attached                       empty; there once the pod has its network
//! shim.sock  shim.log            its socket; what it had to complain about
//! hosts  hostname  resolv.conf   bound into every container
//! run/                           empty here; a tmpfs in the shim's mount namespace
//! volumes/                       the kubelet's
//! containers/<name>/<n>.json     ContainerConfig of attempt n
//!                   <n>.started.json, <n>.exit.json
//!                   <n>.log  <n>.log.1 …
//!                   <n>.message  the termination message file
//!                   <n>/         writable layer and mount point of the root filesystem
//! ```
//! Known to the runtime's daemon side, the shim and the exec role; nobody else reads these files.

use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::config::{ContainerConfig, SandboxConfig};
use super::{ContainerId, Error, Exit, Started};
use crate::cgroup::Cgroup;

/// The format of the folder and of the shim's protocol. 1: the first.
pub(crate) const FORMAT: u32 = 1;

/// `pod.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// What the kubelet asked for.
    pub config: SandboxConfig,
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// Its cgroup; none where limits are not enforced.
    pub cgroup: Option<Cgroup>,
}

/// A process that is still the same when number and start time are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Its pid in the node's pid namespace.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessRecord {
    /// Describes a process that runs now.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name (field 2) is in parentheses and may contain anything.
        let start_ticks = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, start_ticks })
    }

    /// Does it run still (or is it a zombie)?
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
}

/// `<n>.started.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedRecord {
    /// The container's first process.
    pub process: ProcessRecord,
    /// When it executed its program.
    pub started_at: jiff::Timestamp,
}

impl From<StartedRecord> for Started {
    fn from(record: StartedRecord) -> Self {
        Self {
            pid: record.process.pid,
            started_at: record.started_at,
        }
    }
}

/// A pod's folder.
#[derive(Clone, Debug)]
pub(crate) struct PodFolder(PathBuf);

impl PodFolder {
    /// The folder of a pod below `pods`.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A file of it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `containers/<name>`.
    pub(crate) fn container(&self, name: &str) -> PathBuf {
        self.0.join("containers").join(name)
    }

    /// A file of an attempt: `containers/<name>/<n>.<suffix>`.
    pub(crate) fn attempt_file(&self, name: &str, attempt: u32, suffix: &str) -> PathBuf {
        self.container(name).join(format!("{attempt}.{suffix}"))
    }

    /// The folder of an attempt: `containers/<name>/<n>`.
    pub(crate) fn attempt_dir(&self, name: &str, attempt: u32) -> PathBuf {
        self.container(name).join(attempt.to_string())
    }

    /// `pod.json`.
    pub(crate) fn pod(&self) -> io::Result<PodRecord> {
        let record: PodRecord = read_json(&self.join("pod.json"))?;
        if record.format > FORMAT {
            let text = format!(
                "format {} is from a newer k8slab (this one reads up to {FORMAT})",
                record.format
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        Ok(record)
    }

    /// The shim's process, if it was ever started.
    pub(crate) fn shim(&self) -> Option<ProcessRecord> {
        read_json(&self.join("shim.json")).ok()
    }

    /// How an attempt ended, if it did.
    pub(crate) fn exit(&self, name: &str, attempt: u32) -> Option<Exit> {
        read_json(&self.attempt_file(name, attempt, "exit.json")).ok()
    }

    /// The start of an attempt, if it came that far.
    pub(crate) fn started(&self, name: &str, attempt: u32) -> Option<StartedRecord> {
        read_json(&self.attempt_file(name, attempt, "started.json")).ok()
    }

    /// Every attempt that was asked for, by name and number.
    pub(crate) fn containers(&self) -> Vec<ContainerConfig> {
        let mut found: Vec<ContainerConfig> = vec![];
        for container in fs::read_dir(self.join("containers")).into_iter().flatten().flatten() {
            for file in fs::read_dir(container.path()).into_iter().flatten().flatten() {
                let name = file.file_name();
                let attempt = name
                    .to_str()
                    .and_then(|name| name.strip_suffix(".json")?.parse::<u32>().ok());
                if attempt.is_some() {
                    found.extend(read_json::<ContainerConfig>(&file.path()).ok());
                }
            }
        }
        found.sort_by(|a, b| (&a.name, a.attempt).cmp(&(&b.name, b.attempt)));
        found
    }

    /// Removes everything of an attempt. Fine if there is nothing.
    pub(crate) fn remove_attempt(&self, name: &str, attempt: u32) -> io::Result<()> {
        remove_dir(&self.attempt_dir(name, attempt))?;
        let prefix = format!("{attempt}.");
        for file in fs::read_dir(self.container(name)).into_iter().flatten().flatten() {
            if file.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }
}

/// Names come from the API, which has checked them; a path is made of them here, so look again.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let fine = !name.is_empty()
        && name.len() <= 253
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fine {
        Ok(())
    } else {
        Err(Error::Refused(format!("{what} `{name}` cannot name a folder")))
    }
}

impl ContainerId {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_name("pod uid", &self.pod_uid)?;
        check_name("container name", &self.name)
    }
}

/// Removes a folder with everything in it. Fine if there is none.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads a record.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
}

/// Writes a record, whole or not at all.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(value).map_err(io::Error::other)?)?;
    drop(file);
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in ["", "..", ".", "a/b", "a\0", ".hidden"] {
            assert!(check_name("container name", bad).is_err(), "{bad:?}");
        }
        assert!(check_name("container name", "app-1").is_ok());
    }

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let me = ProcessRecord::of(std::process::id().cast_signed()).unwrap();
        assert!(me.is_alive());
        assert!(
            !ProcessRecord {
                start_ticks: me.start_ticks + 1,
                ..me
            }
            .is_alive()
        );
    }

    #[test]
    fn removing_an_attempt_leaves_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PodFolder::new(dir.path());
        for attempt in [1, 11] {
            fs::create_dir_all(folder.attempt_dir("a", attempt).join("upper")).unwrap();
            let config = ContainerConfig {
                name: "a".into(),
                attempt,
                ..Default::default()
            };
            write_json(&folder.attempt_file("a", attempt, "json"), &config).unwrap();
            fs::write(folder.attempt_file("a", attempt, "log.1"), "x").unwrap();
        }
        folder.remove_attempt("a", 1).unwrap();
        assert_eq!(folder.containers().iter().map(|c| c.attempt).collect::<Vec<_>>(), [11]);
        assert!(folder.attempt_file("a", 11, "log.1").exists() && !folder.attempt_file("a", 1, "log.1").exists());
    }
}
