//! The node's images: a folder of unpacked layers, configurations and references.
//!
//! Owns `<state>/images`. Two processes use it: the CLI adds, the kubelet reads; a lock orders the writers, and every
//! change is a rename, so readers need none. Must not know registries, pull policies or containers.
//!
//! ```text
//! references.json          normalised name → image id
//! images/<id>.json         ImageRecord
//! layers/<digest>/         unpacked, as overlayfs wants it
//! files.json               digests of files that were added from this machine, by inode and time
//! ```

mod archive;
mod native;
mod pull;
mod reference;
mod registries;
mod unpack;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::native::ImageFile;
pub use self::pull::{PullError, Pulled, Puller};
pub use self::reference::{InvalidReference, Reference};
pub use self::registries::{Login, Logins, Registries};
pub use self::user::ImageUser;
use crate::runtime::folder::{read_json, remove_dir, write_json};

/// The store's format. 1: the first.
const FORMAT: u32 = 1;

/// What went wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Its name is none.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// The archive is damaged, or tries to write where it may not.
    #[error("image archive: {0}")]
    Archive(String),
    /// A user or group that the image's `/etc/passwd` or `/etc/group` does not know.
    #[error("no users found for `{0}` in the image's /etc/passwd or /etc/group")]
    UnknownUser(String),
    /// The disk.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What came back.
        #[source]
        source: io::Error,
    },
}

fn doing<'a>(what: impl Into<String> + 'a) -> impl FnOnce(io::Error) -> ImageError + 'a {
    move |source| ImageError::Io {
        doing: what.into(),
        source,
    }
}

/// The `config` object of an OCI image configuration: what a container gets when the pod says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `uid`, `uid:gid`, `name`, `name:group`; root when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports such as `8000/tcp`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// What `command` of a container replaces.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// What `args` of a container replaces.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM` when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
}

/// Docker writes `null` for what is empty.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `images/<id>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ImageRecord {
    format: u32,
    id: String,
    config: ImageConfig,
    /// Digests, lowest layer first.
    layers: Vec<String>,
    size: u64,
    /// Files of layers that are links to files outside the store.
    links: Vec<Link>,
    /// `REPOSITORY@sha256:…` for every registry it was pulled from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    digests: Vec<String>,
}

/// A file that is shared with the machine: the image is whole only while nobody has written to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Link {
    layer: String,
    path: PathBuf,
    size: u64,
    modified: (i64, i64),
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `sha256:…` of its configuration: `status.containerStatuses[].imageID`.
    pub id: String,
    /// Folders, lowest layer first.
    pub layers: Vec<PathBuf>,
    /// Defaults for containers.
    pub config: ImageConfig,
    /// Bytes of all layers, unpacked.
    pub size: u64,
    /// Its names, normalised, in order.
    pub references: Vec<String>,
    /// `REPOSITORY@sha256:…` for every registry it was pulled from; none of an image that was made or imported here.
    pub digests: Vec<String>,
}

impl Image {
    /// Its digest in the repository of `reference`: none where it did not come from there.
    pub fn repository_digest(&self, reference: &str) -> Option<&str> {
        let wanted = Reference::parse(reference).ok()?;
        let repository = format!("{}/{}@", wanted.domain, wanted.path);
        self.digests
            .iter()
            .map(String::as_str)
            .find(|digest| digest.starts_with(&repository))
    }

    /// The tag that says what is in it: `c-` and the first eight digits of its id.
    pub fn content_tag(&self) -> String {
        content_tag(&self.id)
    }
}

/// See [`Image::content_tag`]; `id` is `sha256:…`.
pub fn content_tag(id: &str) -> String {
    let digits: String = id.trim_start_matches("sha256:").chars().take(8).collect();
    format!("c-{digits}")
}

/// The store. Cheap; holds nothing open.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens, or begins, the store in `dir`.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let dir = dir.into();
        for part in ["images", "layers"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).map_err(doing(format!("making `{}`", part.display())))?;
        }
        Ok(Self { dir })
    }

    /// Finds an image by name, or by id (`sha256:…`). None too if a file it shares with the machine was written to.
    pub fn resolve(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        let references = self.references()?;
        let id = match reference.strip_prefix("sha256:") {
            Some(_) => reference.to_string(),
            None => match references.get(&Reference::parse(reference)?.to_string()) {
                Some(id) => id.clone(),
                None => return Ok(None),
            },
        };
        self.load(&id, &references)
    }

    /// Every image, by id.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let references = self.references()?;
        let ids: BTreeSet<&String> = references.values().collect();
        let mut images = vec![];
        for id in ids {
            images.extend(self.load(id, &references)?);
        }
        Ok(images)
    }

    /// Gives an image one more name.
    pub fn tag(&self, id: &str, reference: &str) -> Result<(), ImageError> {
        let name = Reference::parse(reference)?.to_string();
        let _lock = self.lock()?;
        let mut references = self.references()?;
        references.insert(name, id.to_string());
        self.write_references(&references)
    }

    /// Takes a name away, and the image with its last one. The caller has made sure that no container runs from it.
    /// False if there was no such name.
    pub fn remove(&self, reference: &str) -> Result<bool, ImageError> {
        let name = Reference::parse(reference)?.to_string();
        let _lock = self.lock()?;
        let mut references = self.references()?;
        let Some(id) = references.remove(&name) else {
            return Ok(false);
        };
        self.write_references(&references)?;
        if !references.values().any(|other| *other == id) {
            fs::remove_file(self.image_path(&id)).ok();
            self.sweep()?;
        }
        Ok(true)
    }

    /// Layers that no image has: of removed images, and what an interrupted import left. Under the lock.
    fn sweep(&self) -> Result<(), ImageError> {
        let mut used = BTreeSet::new();
        for file in fs::read_dir(self.dir.join("images"))
            .map_err(doing("reading the images"))?
            .flatten()
        {
            if let Ok(record) = read_json::<ImageRecord>(&file.path()) {
                used.extend(record.layers);
            }
        }
        for layer in fs::read_dir(self.dir.join("layers"))
            .map_err(doing("reading the layers"))?
            .flatten()
        {
            if !layer.file_name().to_str().is_some_and(|name| used.contains(name)) {
                remove_dir(&layer.path()).map_err(doing(format!("removing `{}`", layer.path().display())))?;
            }
        }
        Ok(())
    }

    fn load(&self, id: &str, references: &BTreeMap<String, String>) -> Result<Option<Image>, ImageError> {
        let path = self.image_path(id);
        let record: ImageRecord = match read_json(&path) {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(doing(format!("reading `{}`", path.display()))(error)),
        };
        if let Some(link) = record.links.iter().find(|link| !self.is_untouched(link)) {
            tracing::warn!(
                "image `{id}` is not used: its `{}` has been written to",
                link.path.display()
            );
            return Ok(None);
        }
        let names = references.iter().filter(|(_, other)| *other == id);
        Ok(Some(Image {
            layers: record.layers.iter().map(|digest| self.layer_path(digest)).collect(),
            references: names.map(|(name, _)| name.clone()).collect(),
            id: record.id,
            config: record.config,
            size: record.size,
            digests: record.digests,
        }))
    }

    fn is_untouched(&self, link: &Link) -> bool {
        let found = fs::symlink_metadata(self.layer_path(&link.layer).join(&link.path));
        found.is_ok_and(|found| found.len() == link.size && (found.mtime(), found.mtime_nsec()) == link.modified)
    }

    /// Writes an image down and gives it its names. Under the lock.
    fn publish(&self, record: &ImageRecord, names: &[Reference]) -> Result<Image, ImageError> {
        let path = self.image_path(&record.id);
        write_json(&path, record).map_err(doing(format!("writing `{}`", path.display())))?;
        let mut references = self.references()?;
        for name in names {
            references.insert(name.to_string(), record.id.clone());
        }
        self.write_references(&references)?;
        let image = self.load(&record.id, &references)?;
        image.ok_or_else(|| ImageError::Archive("a file was written to while it was added".into()))
    }

    fn references(&self) -> Result<BTreeMap<String, String>, ImageError> {
        let path = self.dir.join("references.json");
        match read_json::<References>(&path) {
            Ok(references) if references.format <= FORMAT => Ok(references.references),
            Ok(newer) => {
                let text = format!("format {} is from a newer k8slab", newer.format);
                Err(doing(format!("reading `{}`", path.display()))(io::Error::other(text)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(doing(format!("reading `{}`", path.display()))(error)),
        }
    }

    fn write_references(&self, references: &BTreeMap<String, String>) -> Result<(), ImageError> {
        let path = self.dir.join("references.json");
        let references = References {
            format: FORMAT,
            references: references.clone(),
        };
        write_json(&path, &references).map_err(doing(format!("writing `{}`", path.display())))
    }

    /// One writer at a time, in whatever process.
    fn lock(&self) -> Result<Flock<File>, ImageError> {
        let path = self.dir.join("lock");
        let file = File::create(&path).map_err(doing(format!("opening `{}`", path.display())))?;
        let locked = Flock::lock(file, FlockArg::LockExclusive);
        locked.map_err(|(_, errno)| doing(format!("locking `{}`", path.display()))(errno.into()))
    }

    fn image_path(&self, id: &str) -> PathBuf {
        self.dir
            .join("images")
            .join(format!("{}.json", id.trim_start_matches("sha256:")))
    }

    fn layer_path(&self, digest: &str) -> PathBuf {
        self.dir.join("layers").join(digest)
    }
}

#[derive(Serialize, Deserialize)]
struct References {
    format: u32,
    references: BTreeMap<String, String>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The size of everything below a folder, each inode once.
fn size_of_tree(dir: &Path) -> u64 {
    fn walk(dir: &Path, seen: &mut BTreeSet<u64>) -> u64 {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let sizes = entries.map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => walk(&entry.path(), seen),
            Ok(data) if seen.insert(data.ino()) => data.len(),
            _ => 0,
        });
        sizes.sum()
    }
    walk(dir, &mut BTreeSet::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(store: &Store, dir: &Path, text: &str, references: &[&str]) -> Image {
        let source = dir.join(sha256(text.as_bytes()));
        fs::write(&source, text).unwrap();
        let files = ["/app", "/bin/also"].map(|path| ImageFile {
            source: source.clone(),
            path: path.into(),
            mode: 0o644,
        });
        let config = ImageConfig {
            entrypoint: vec!["/app".into()],
            ..Default::default()
        };
        store.add(&config, &files, references).unwrap()
    }

    #[test]
    fn what_is_added_is_found_by_every_name_and_has_the_same_id_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        let first = image(&store, dir.path(), "one", &["cpu-burner:lab"]);
        assert_eq!(first.references, ["docker.io/library/cpu-burner:lab"]);
        assert_eq!(
            store.resolve("docker.io/library/cpu-burner:lab").unwrap().unwrap(),
            first
        );
        let again = image(&store, dir.path(), "one", &["cpu-burner:again"]);
        assert_eq!((again.id.as_str(), again.references.len()), (first.id.as_str(), 2));
        assert_ne!(image(&store, dir.path(), "two", &["other"]).id, first.id);
        assert!(store.resolve("cpu-burner").unwrap().is_none());
        store
            .tag(&first.id, &format!("cpu-burner:{}", first.content_tag()))
            .unwrap();
        assert_eq!(store.resolve(&first.id).unwrap().unwrap().references.len(), 3);
        assert_eq!(first.content_tag().len(), 10);
    }

    #[test]
    fn one_file_under_two_paths_is_one_inode_and_the_machine_s_own() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        let image = image(&store, dir.path(), "one", &["a"]);
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let source = dir.path().join(sha256(b"one"));
        assert_eq!(
            inode(&image.layers[0].join("app")),
            inode(&image.layers[0].join("bin/also"))
        );
        assert_eq!(inode(&image.layers[0].join("app")), inode(&source));
        assert_eq!(image.size, 3);
    }

    #[test]
    fn an_image_whose_file_was_written_to_is_not_found_until_it_is_added_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        let before = image(&store, dir.path(), "one", &["a"]);
        let source = dir.path().join(sha256(b"one"));
        fs::write(&source, "changed").unwrap();
        assert!(store.resolve("a").unwrap().is_none());
        let file = ImageFile {
            source,
            path: "/app".into(),
            mode: 0o644,
        };
        let after = store.add(&ImageConfig::default(), &[file], &["a"]).unwrap();
        assert_ne!(after.id, before.id);
        assert_eq!(store.resolve("a").unwrap().unwrap(), after);
    }

    #[test]
    fn an_image_goes_with_its_last_name_and_leaves_shared_layers() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        let gone = image(&store, dir.path(), "one", &["a", "b"]);
        let stays = image(&store, dir.path(), "two", &["c"]);
        assert!(store.remove("a").unwrap());
        assert!(gone.layers[0].exists());
        assert!(store.remove("b").unwrap());
        assert!(!store.remove("b").unwrap());
        assert!(!gone.layers[0].exists() && stays.layers[0].exists());
        assert_eq!(store.list().unwrap(), [stays]);
    }

    #[test]
    fn docker_s_nulls_are_empty() {
        let config: ImageConfig =
            serde_json::from_str(r#"{"Env":null,"Cmd":["sh"],"Entrypoint":null,"Labels":null,"Volumes":null}"#)
                .unwrap();
        assert_eq!(
            config,
            ImageConfig {
                cmd: vec!["sh".into()],
                ..Default::default()
            }
        );
    }
}
