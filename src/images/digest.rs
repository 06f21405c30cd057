//! SHA-256 of files, remembered by what the file system says about them, so that a second `up` reads none of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::paths::{self, Owner};

/// Sums of files, in memory and in a small file.
#[derive(Debug)]
pub struct Digests {
    path: PathBuf,
    owner: Owner,
    known: BTreeMap<String, String>,
}

impl Digests {
    /// What was remembered in the folder `cache`. A file that cannot be read is as good as none.
    pub fn open(cache: &Path, owner: Owner) -> Self {
        let path = cache.join("digests.json");
        let text = owner.act(|| fs::read(&path)).unwrap_or_default();
        Self {
            path,
            owner,
            known: serde_json::from_slice(&text).unwrap_or_default(),
        }
    }

    /// The sum of a file, in hex.
    pub fn of(&mut self, file: &Path) -> io::Result<String> {
        let mut open = self.owner.act(|| File::open(file))?;
        let key = identity(&open.metadata()?, file);
        if let Some(sum) = self.known.get(&key) {
            return Ok(sum.clone());
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = open.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
        }
        let sum: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        // One entry a path: the old content of a rebuilt file is of no use.
        let prefix = format!("{}\0", file.display());
        self.known.retain(|known, _| !known.starts_with(&prefix));
        self.known.insert(key, sum.clone());
        let text = serde_json::to_string(&self.known).unwrap_or_default();
        // Only a cache: where it cannot be written the next run reads the file again.
        let _ = self.owner.act(|| paths::write_private(&self.path, &text));
        Ok(sum)
    }
}

#[cfg(unix)]
fn identity(meta: &fs::Metadata, file: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let (path, dev, inode) = (file.display(), meta.dev(), meta.ino());
    format!(
        "{path}\0{dev}:{inode}:{}:{}.{}:{}.{}",
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    )
}

#[cfg(not(unix))]
fn identity(meta: &fs::Metadata, file: &Path) -> String {
    format!("{}\0{}:{:?}", file.display(), meta.len(), meta.modified().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_remembered_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "hello").unwrap();
        let mut digests = Digests::open(folder.path(), Owner::Myself);
        let hello = digests.of(&file).unwrap();
        assert!(hello.starts_with("2cf24dba"));
        assert_eq!(Digests::open(folder.path(), Owner::Myself).known.len(), 1);
        fs::write(&file, "other").unwrap();
        assert_ne!(digests.of(&file).unwrap(), hello);
        assert_eq!(digests.known.len(), 1);
    }
}
