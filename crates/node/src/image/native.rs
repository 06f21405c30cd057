//! Images made of files that are already on this machine: `FROM scratch` and a static binary, without Docker.
//!
//! Files are hard-linked, so an image of our own binary costs no space and no time.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    FORMAT, Image, ImageConfig, ImageError, ImageRecord, Link, Reference, Store, doing, hex, sha256, size_of_tree,
};
use crate::runtime::folder::{read_json, remove_dir, write_json};

/// A file of a native image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// Where it is on this machine. The same source may be given under several paths.
    pub source: PathBuf,
    /// Where it is to be in the image.
    pub path: PathBuf,
    /// Permissions in the image.
    pub mode: u32,
}

impl Store {
    /// Adds an image of these files, under these names. The same files and configuration have the same id, on every
    /// machine and every day; folders are made as needed, and `/tmp` always.
    pub fn add(&self, config: &ImageConfig, files: &[ImageFile], references: &[&str]) -> Result<Image, ImageError> {
        let names: Vec<Reference> = references
            .iter()
            .map(|name| Reference::parse(name))
            .collect::<Result<_, _>>()?;
        let _lock = self.lock()?;
        let mut entries = BTreeMap::new();
        for file in files {
            let path = inside(&file.path)?;
            let digest = self.digest(&file.source)?;
            entries.insert(path, (file, digest));
        }
        let listing: Vec<_> = entries
            .iter()
            .map(|(path, (file, digest))| json!([path, file.mode, digest]))
            .collect();
        let layer = sha256(json!(listing).to_string().as_bytes());
        let id = format!("sha256:{}", sha256(image_json(config, &layer).to_string().as_bytes()));
        let links = self.build_layer(&layer, entries.into_iter().map(|(path, (file, _))| (path, file)))?;
        let layers = vec![layer.clone()];
        let size = size_of_tree(&self.layer_path(&layer));
        let record = ImageRecord {
            format: FORMAT,
            id,
            config: config.clone(),
            layers,
            size,
            links,
            digests: vec![],
        };
        self.publish(&record, &names)
    }

    fn build_layer<'a>(
        &self,
        layer: &str,
        files: impl Iterator<Item = (PathBuf, &'a ImageFile)>,
    ) -> Result<Vec<Link>, ImageError> {
        let finished = self.layer_path(layer);
        let building = self.layer_path(&format!("{layer}.tmp"));
        let failed = |path: &Path| doing(format!("adding `{}`", path.display()));
        // What is there may be damaged (a link that was written to): build it again, and put it in its place.
        remove_dir(&building).map_err(failed(&building))?;
        make_dir(&building, 0o755).map_err(failed(&building))?;
        make_dir(&building.join("tmp"), 0o1777).map_err(failed(&building))?;
        let mut links = vec![];
        // A source that was copied once is linked to its copy after that.
        let mut placed: BTreeMap<(PathBuf, u32), PathBuf> = BTreeMap::new();
        for (path, file) in files {
            let target = building.join(&path);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).map_err(failed(&file.path))?;
            }
            let first = placed
                .entry((file.source.clone(), file.mode))
                .or_insert_with(|| target.clone());
            if *first != target {
                fs::hard_link(&*first, &target).map_err(failed(&file.path))?;
                continue;
            }
            place(file, &target).map_err(failed(&file.source))?;
            let placed = fs::metadata(&target).map_err(failed(&file.path))?;
            if is_shared(file, &placed) {
                let modified = (placed.mtime(), placed.mtime_nsec());
                links.push(Link {
                    layer: layer.into(),
                    path,
                    size: placed.len(),
                    modified,
                });
            }
        }
        if finished.exists() {
            // Containers may run from it: it stays if nothing is wrong with it.
            let intact = links.iter().all(|link| self.is_untouched(link));
            if intact {
                remove_dir(&building).map_err(failed(&building))?;
                return Ok(links);
            }
            let aside = self.layer_path(&format!("{layer}.old"));
            remove_dir(&aside).map_err(failed(&aside))?;
            fs::rename(&finished, &aside).map_err(failed(&finished))?;
        }
        fs::rename(&building, &finished).map_err(failed(&finished))?;
        Ok(links)
    }

    /// The digest of a file, remembered by inode, size and time: our own binary has tens of megabytes.
    fn digest(&self, source: &Path) -> Result<String, ImageError> {
        let failed = || doing(format!("reading `{}`", source.display()));
        let data = fs::metadata(source).map_err(failed())?;
        let key = format!(
            "{}:{}:{}:{}:{}",
            data.dev(),
            data.ino(),
            data.len(),
            data.mtime(),
            data.mtime_nsec()
        );
        let path = self.dir.join("files.json");
        let mut known: BTreeMap<String, String> = read_json(&path).unwrap_or_default();
        if let Some(digest) = known.get(&key) {
            return Ok(digest.clone());
        }
        let digest = hash(source).map_err(failed())?;
        if known.len() >= 64 {
            known.clear(); // builds of yesterday
        }
        known.insert(key, digest.clone());
        write_json(&path, &known).map_err(doing(format!("writing `{}`", path.display())))?;
        Ok(digest)
    }
}

/// The OCI image configuration whose digest is the image's id. No time in it: the same content is the same image.
fn image_json(config: &ImageConfig, layer: &str) -> serde_json::Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
    })
}

/// A path in the image as one relative to its root.
fn inside(path: &Path) -> Result<PathBuf, ImageError> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => inside.push(name),
            _ => {
                return Err(ImageError::Archive(format!(
                    "`{}` leads out of the image",
                    path.display()
                )));
            }
        }
    }
    match inside.as_os_str().is_empty() {
        true => Err(ImageError::Archive(format!("`{}` names no file", path.display()))),
        false => Ok(inside),
    }
}

fn place(file: &ImageFile, target: &Path) -> io::Result<()> {
    // A link shares the inode and with it the permissions.
    if fs::metadata(&file.source)?.mode() & 0o7777 == file.mode && fs::hard_link(&file.source, target).is_ok() {
        return Ok(());
    }
    fs::copy(&file.source, target)?;
    fs::set_permissions(target, fs::Permissions::from_mode(file.mode))
}

fn is_shared(file: &ImageFile, placed: &Metadata) -> bool {
    fs::metadata(&file.source).is_ok_and(|source| (source.dev(), source.ino()) == (placed.dev(), placed.ino()))
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            length => hasher.update(&buffer[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(inside(Path::new("/bin/./curl")).unwrap(), Path::new("bin/curl"));
        for bad in ["../x", "/a/../../b", "/", ""] {
            assert!(inside(Path::new(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn other_permissions_make_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("tool");
        fs::write(&source, "x").unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o600)).unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        let file = ImageFile {
            source: source.clone(),
            path: "/tool".into(),
            mode: 0o755,
        };
        let image = store.add(&ImageConfig::default(), &[file], &["tool"]).unwrap();
        let placed = fs::metadata(image.layers[0].join("tool")).unwrap();
        assert_eq!(placed.mode() & 0o7777, 0o755);
        assert_ne!(placed.ino(), fs::metadata(&source).unwrap().ino());
        assert_eq!(
            fs::metadata(image.layers[0].join("tmp")).unwrap().mode() & 0o7777,
            0o1777
        );
        fs::write(&source, "changed").unwrap(); // a copy does not care
        assert!(store.resolve("tool").unwrap().is_some());
    }
}
