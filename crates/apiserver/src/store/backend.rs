//! `Backend`: what makes a commit durable. The index in memory is the truth for readers; a backend only has to take
//! whole commits in order and to give the last state back at start.

use std::path::PathBuf;

use bytes::Bytes;

use super::Key;

/// One object of a commit, or one object at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `GROUP/PLURAL`, or `PLURAL` in the core group.
    pub resource: String,
    /// Which object.
    pub key: Key,
    /// Its serialised state, `None` if it is gone.
    pub bytes: Option<Bytes>,
    /// The revision that made it so.
    pub revision: u64,
}

/// What a backend holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The last committed revision.
    pub revision: u64,
    /// Every object, in any order.
    pub records: Vec<Record>,
}

/// Why a backend could not be opened or could not commit.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The file is there, but it is not a whole store.
    #[error("store `{}` is corrupted: {detail}", path.display())]
    Corrupted {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Written by another release.
    #[error(
        "store `{}` has format {found}, written by k8slab {}; this is k8slab {}, which reads format {expected}",
        path.display(), written_by.as_deref().unwrap_or("of another version"), env!("CARGO_PKG_VERSION")
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What is in the file.
        found: u64,
        /// What this program reads.
        expected: u64,
        /// The version that wrote it, if it said so.
        written_by: Option<String>,
    },
    /// Another process has it open.
    #[error("store `{}` is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Everything else: no space, no permission, …
    #[error("{doing} store `{}`: {detail}", path.display())]
    Io {
        /// `opening`, `writing`, …
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
}

/// Makes commits durable.
pub trait Backend: Send + 'static {
    /// Whether [`Backend::commit`] waits for a device, so that it must not run on an async worker.
    fn blocks(&self) -> bool;

    /// Writes all records and the revision, or nothing. On `Ok` they survive a power cut.
    fn commit(&mut self, records: &[Record], revision: u64) -> Result<(), BackendError>;

    /// Called before the next commit after one that failed: opens everything afresh and says which revision is there,
    /// so that the store learns whether the failed commit is on disk after all.
    fn recover(&mut self) -> Result<u64, BackendError>;
}

/// Keeps nothing: the index in memory is all there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Volatile;

impl Backend for Volatile {
    fn blocks(&self) -> bool {
        false
    }

    fn commit(&mut self, _records: &[Record], _revision: u64) -> Result<(), BackendError> {
        Ok(())
    }

    fn recover(&mut self) -> Result<u64, BackendError> {
        Ok(0)
    }
}
