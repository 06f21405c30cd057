//! `cluster export` and `import`: all objects of a cluster as one file, and back.
//!
//! Owns who is asked (a daemon that runs, or the store of one that does not) and that nothing is lost on the way. The
//! file's format is the store's ([`Dump`]).

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use apiserver::store::{self, Contents, Dump};
pub use apiserver::store::{BackendError, DumpError};

use crate::client;
use crate::control;
use crate::home::{CLUSTER_FORMAT, ClusterDir, Description, Home};
use crate::process::Lock;

/// Why nothing was exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster's own files.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// An import wants the cluster for itself.
    #[error("the cluster runs")]
    Runs,
    /// There is nothing to export.
    #[error("there is no cluster")]
    Absent,
    /// The store.
    #[error(transparent)]
    Store(#[from] BackendError),
    /// The file is no export.
    #[error("reading `{}`", path.display())]
    Dump {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DumpError,
    },
    /// The disk, or the daemon's socket.
    #[error("{doing} `{}`", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
}

fn doing<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// What came of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// How many objects the cluster has now.
    pub objects: usize,
    /// Where the store is that was there before, if there was one.
    pub kept: Option<PathBuf>,
}

/// Writes all objects to `file`, for its owner's eyes only: Secrets are among them. Answers with their number.
pub async fn export(home: &Home, name: &str, file: &Path) -> Result<usize, Error> {
    let dir = home.cluster(name);
    // Complete or not there.
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let exported = export_to(&dir, &partial).await;
    if exported.is_err() {
        fs::remove_file(&partial).ok();
    }
    let objects = exported?;
    fs::rename(&partial, file).map_err(doing("writing", file))?;
    Ok(objects)
}

async fn export_to(dir: &ClusterDir, file: &Path) -> Result<usize, Error> {
    let open = || {
        fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(file)
            .map_err(doing("writing", file))
    };
    if client::live(dir)?.is_some() {
        let out = tokio::fs::File::from_std(open()?);
        let socket = dir.control_socket();
        control::export(&socket, out)
            .await
            .map_err(doing("asking the daemon behind", &socket))?;
    } else {
        let store = dir.store();
        if !store.exists() {
            return Err(Error::Absent);
        }
        let _lock = take_lock(dir)?;
        let (_, contents) = store::File::open(&store)?;
        Dump::of(contents)
            .write(BufWriter::new(open()?))
            .map_err(doing("writing", file))?;
    }
    File::open(file)
        .and_then(|file| file.sync_all())
        .map_err(doing("writing", file))?;
    // Whoever relies on it later must not be the first to read it.
    Ok(read(file)?.records.len())
}

/// Replaces all objects by those in `file`. A store that is there, sound or not, is kept beside the new one.
pub async fn import(home: &Home, name: &str, file: &Path) -> Result<Imported, Error> {
    let mut contents = read(file)?;
    let dir = home.cluster(name);
    dir.create().map_err(doing("making", dir.path()))?;
    let _lock = take_lock(&dir)?;
    let store = dir.store();
    // Revisions go on: nobody who watched the old objects may take the new ones for their continuation.
    if store.exists()
        && let Ok((_, old)) = store::File::open(&store)
    {
        contents.revision = contents.revision.max(old.revision + 1);
    }
    let kept = store::File::replace(&store, &contents)?;
    if dir.description().map_err(client::Error::from)?.is_none() {
        let description = Description {
            format: CLUSTER_FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            speed: 1,
            port: 0,
        };
        dir.describe(&description).map_err(doing("describing", dir.path()))?;
    }
    Ok(Imported {
        objects: contents.records.len(),
        kept,
    })
}

fn read(path: &Path) -> Result<Contents, Error> {
    let file = File::open(path).map_err(doing("opening", path))?;
    Dump::read(BufReader::new(file)).map_err(|source| Error::Dump {
        path: path.to_owned(),
        source,
    })
}

/// No daemon starts while it is held.
fn take_lock(dir: &ClusterDir) -> Result<Lock, Error> {
    let path = dir.daemon_lock();
    Lock::try_take(&path)
        .map_err(doing("locking", &path))?
        .ok_or(Error::Runs)
}

#[cfg(test)]
mod tests {
    use apiserver::store::{Key, Record};

    use super::*;

    #[tokio::test]
    async fn what_is_exported_comes_back_and_a_damaged_store_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("home"));
        let cluster = home.cluster("default");
        let file = dir.path().join("export");
        assert!(matches!(export(&home, "default", &file).await, Err(Error::Absent)));
        cluster.create().unwrap();
        let contents = Contents {
            revision: 7,
            records: vec![Record {
                resource: "secrets".into(),
                key: Key::new(Some("default"), "s"),
                bytes: Some(br#"{"kind":"Secret","metadata":{"name":"s"}}"#.to_vec().into()),
                revision: 5,
            }],
        };
        store::File::replace(&cluster.store(), &contents).unwrap();
        assert_eq!(export(&home, "default", &file).await.unwrap(), 1);

        fs::write(cluster.store(), "damaged").unwrap();
        let refused = export(&home, "default", &dir.path().join("other")).await;
        assert!(matches!(refused, Err(Error::Store(BackendError::Corrupted { .. }))));
        assert!(!dir.path().join("other").exists());
        let imported = import(&home, "default", &file).await.unwrap();
        assert_eq!(fs::read_to_string(imported.kept.unwrap()).unwrap(), "damaged");
        assert_eq!(store::File::open(&cluster.store()).unwrap().1, contents);
        assert!(matches!(client::status(&home, "default"), Ok(client::Status::Stopped)));

        // Into a sound store: its revisions go on.
        import(&home, "default", &file).await.unwrap();
        assert_eq!(store::File::open(&cluster.store()).unwrap().1.revision, 8);
        let _held = Lock::take(&cluster.daemon_lock()).unwrap();
        assert!(matches!(import(&home, "default", &file).await, Err(Error::Runs)));
    }
}
