//! A lab's folder in the state directory: its journal, and the lock that lets one k8slab at a time work on it.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::journal::{self, JournalError};
use super::resume::Record;
use crate::lab::LabRef;
use crate::paths::{self, Owner, Paths};

/// A lab's place in the state folder.
#[derive(Clone, Debug)]
pub struct LabFolder {
    path: PathBuf,
    owner: Owner,
}

/// Why a lab cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else does.
    #[error("another k8slab holds the lab `{lab}`{}", holder.as_ref().map(|holder| format!(": {holder}")).unwrap_or_default())]
    Held {
        /// The lab.
        lab: String,
        /// Who, when it could be read.
        holder: Option<Holder>,
    },
    /// The disk said no.
    #[error("locking `{}`", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// What it does.
    pub verb: String,
    /// Since when.
    pub since: jiff::Timestamp,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`k8slab {}`, process {}, since {}",
            self.verb,
            self.pid,
            self.since.strftime("%H:%M:%S UTC")
        )
    }
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct LabLock {
    _file: File,
}

impl LabFolder {
    /// The folder of the lab with this id.
    pub fn new(paths: &Paths, id: &str) -> Self {
        Self {
            path: paths.labs().join(id),
            owner: paths.owner,
        }
    }

    /// The journal's file.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// What the journal knows.
    pub fn record(&self) -> Result<Record, JournalError> {
        Ok(Record::replay(&journal::read(&self.journal(), self.owner)?.events))
    }

    /// Takes the lab for this process, or says who has it.
    pub fn lock(&self, holder: &Holder) -> Result<LabLock, LockError> {
        let path = self.path.join("lock");
        let fail = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        loop {
            let mut file = self.owner.act(|| open_lock(&self.path, &path)).map_err(fail)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    let _ = file.read_to_string(&mut text);
                    let lab = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    return Err(LockError::Held {
                        lab,
                        holder: serde_json::from_str(&text).ok(),
                    });
                }
                Err(std::fs::TryLockError::Error(source)) => return Err(fail(source)),
            }
            // `down` removes the folder while it holds the lock: a lock on a removed file locks nothing.
            if !same_file(&file, &path) {
                continue;
            }
            let text = serde_json::to_string(holder).unwrap_or_default();
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| file.write_all(text.as_bytes()))
                .map_err(fail)?;
            return Ok(LabLock { _file: file });
        }
    }

    /// Moves the journal to the history and removes the folder. The lock must be held.
    pub fn retire(&self, paths: &Paths, now: jiff::Timestamp) -> std::io::Result<()> {
        self.owner.act(|| {
            paths::create_private_folder(&paths.history())?;
            let id = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = format!("{}-{id}.journal", now.strftime("%Y%m%dT%H%M%SZ"));
            std::fs::rename(self.journal(), paths.history().join(name))?;
            std::fs::remove_dir_all(&self.path)?;
            // Gone with its last lab; not there or not empty is fine.
            let _ = std::fs::remove_dir(paths.labs());
            Ok(())
        })
    }
}

fn open_lock(folder: &Path, path: &Path) -> std::io::Result<File> {
    paths::create_private_folder(folder)?;
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn same_file(_file: &File, path: &Path) -> bool {
    path.exists()
}

/// A lab that has a journal.
#[derive(Clone, Debug)]
pub struct KnownLab {
    /// Its identity.
    pub lab: LabRef,
    /// What the journal knows.
    pub record: Record,
    /// Its folder.
    pub folder: LabFolder,
}

/// Every lab that has a journal, by id. Journals that cannot be read are errors: `down` must not overlook them.
pub fn known(paths: &Paths) -> Result<Vec<KnownLab>, JournalError> {
    let labs = paths.labs();
    let entries = match paths.owner.act(|| std::fs::read_dir(&labs)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(JournalError::Io {
                doing: "reading",
                path: labs,
                source,
            });
        }
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| JournalError::Io {
            doing: "reading",
            path: labs.clone(),
            source,
        })?;
        let folder = LabFolder {
            path: entry.path(),
            owner: paths.owner,
        };
        let record = folder.record()?;
        if let Some(lab) = record.lab.clone() {
            found.push(KnownLab { lab, record, folder });
        }
    }
    found.sort_by(|a, b| a.lab.id.cmp(&b.lab.id));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, LabFolder) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("labs/cpu-hpa-00000000");
        (
            home,
            LabFolder {
                path,
                owner: Owner::Myself,
            },
        )
    }

    fn holder() -> Holder {
        Holder {
            pid: 42,
            verb: "up".into(),
            since: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_held_lab_says_who_holds_it_and_is_free_afterwards() {
        let (_home, folder) = folder();
        let lock = folder.lock(&holder()).unwrap();
        let refused = folder.lock(&Holder { pid: 43, ..holder() }).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "another k8slab holds the lab `cpu-hpa-00000000`: `k8slab up`, process 42, since 00:00:00 UTC"
        );
        drop(lock);
        folder.lock(&holder()).unwrap();
    }

    #[test]
    fn a_lock_on_a_removed_folder_is_taken_again_on_the_new_one() {
        let (_home, folder) = folder();
        let old = folder.lock(&holder()).unwrap();
        std::fs::remove_dir_all(&folder.path).unwrap();
        let new = folder.lock(&holder()).unwrap();
        drop(old);
        assert!(matches!(folder.lock(&holder()), Err(LockError::Held { .. })));
        drop(new);
    }
}
