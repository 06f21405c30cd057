//! Imports images from archives: what `docker save` writes, and OCI image layouts. Layers may be plain, gzip or zstd.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::unpack::unpack;
use super::{FORMAT, Image, ImageConfig, ImageError, ImageRecord, Reference, Store, doing, hex, sha256};
use crate::runtime::folder::{read_json, remove_dir};

/// Documents in an archive are small; what is longer is no document.
const MOST_JSON: u64 = 8 << 20;

impl Store {
    /// Imports every image of an archive that has a name there, or all under `references` if some are given. The
    /// archive is read once, from begin to end.
    pub fn import(&self, archive: impl Read, references: &[&str]) -> Result<Vec<Image>, ImageError> {
        let given: Vec<Reference> = references
            .iter()
            .map(|name| Reference::parse(name))
            .collect::<Result<_, _>>()?;
        let _lock = self.lock()?;
        let spool = self.dir.join("import");
        remove_dir(&spool).map_err(doing("clearing what an earlier import left"))?;
        let imported = spool_archive(archive, &spool).and_then(|files| self.import_spooled(&files, &given));
        remove_dir(&spool).map_err(doing("clearing up after an import"))?;
        imported
    }

    fn import_spooled(&self, files: &Files, given: &[Reference]) -> Result<Vec<Image>, ImageError> {
        let found = if files.has("index.json") {
            files.oci_images()?
        } else {
            files.docker_images()?
        };
        let mut images = vec![];
        for found in found {
            let names = if given.is_empty() {
                found.names.clone()
            } else {
                given.to_vec()
            };
            images.push(self.import_one(files, &found, &names)?);
        }
        if images.is_empty() {
            return Err(ImageError::Archive("there is no image in it".into()));
        }
        Ok(images)
    }

    fn import_one(&self, files: &Files, found: &Found, names: &[Reference]) -> Result<Image, ImageError> {
        let text = files.bytes(&found.config)?;
        let document: ConfigDocument = parse(&found.config, &text)?;
        let diff_ids = &document.rootfs.diff_ids;
        if diff_ids.len() != found.layers.len() {
            let (layers, ids) = (found.layers.len(), diff_ids.len());
            return Err(ImageError::Archive(format!(
                "{layers} layers but {ids} digests of layers"
            )));
        }
        if document.os.as_deref().is_some_and(|os| os != "linux") {
            return Err(ImageError::Archive(format!(
                "made for {}, not for linux",
                document.os.unwrap_or_default()
            )));
        }
        let (mut layers, mut size) = (vec![], 0);
        for (name, diff_id) in found.layers.iter().zip(diff_ids) {
            let digest = hex_digest(diff_id)?;
            size += self.import_layer(&files.path(name)?, digest)?;
            layers.push(digest.to_string());
        }
        let record = ImageRecord {
            format: FORMAT,
            id: format!("sha256:{}", sha256(&text)),
            config: document.config.unwrap_or_default(),
            layers,
            size,
            links: vec![],
            digests: files.digests.clone(),
        };
        self.publish(&record, names)
    }

    /// Adds what a registry had: `spool` holds a file for each layer that was not there, named by its digest.
    pub(super) fn add_pulled(
        &self,
        spool: &Path,
        config: &str,
        layers: &[String],
        name: &Reference,
        digest: &str,
    ) -> Result<Image, ImageError> {
        let _lock = self.lock()?;
        fs::write(spool.join("config"), config).map_err(doing("writing a configuration"))?;
        let file = |digest: &String| (digest.clone(), digest.replace(':', "-"));
        let mut names: BTreeMap<String, String> = layers.iter().map(file).collect();
        names.insert("config".into(), "config".into());
        let mut digests = vec![format!("{}/{}@{digest}", name.domain, name.path)];
        // The same image under another name keeps what is known of it.
        let id = sha256(config.as_bytes());
        if let Ok(known) = read_json::<ImageRecord>(&self.image_path(&id)) {
            digests.extend(known.digests);
            digests.sort();
            digests.dedup();
        }
        let files = Files {
            dir: spool.into(),
            names,
            digests,
        };
        let found = Found {
            config: "config".into(),
            layers: layers.to_vec(),
            names: vec![],
        };
        self.import_one(&files, &found, std::slice::from_ref(name))
    }

    /// Which of `layers` have to be fetched for an image of this configuration.
    pub(super) fn missing(&self, config: &str, layers: &[String]) -> Result<Vec<String>, ImageError> {
        let document: ConfigDocument = parse("config", config.as_bytes())?;
        let ids = document.rootfs.diff_ids;
        if ids.len() != layers.len() {
            let (layers, ids) = (layers.len(), ids.len());
            return Err(ImageError::Archive(format!(
                "{layers} layers but {ids} digests of layers"
            )));
        }
        let mut missing: Vec<String> = vec![];
        for (layer, id) in layers.iter().zip(&ids) {
            hex_digest(layer)?;
            if !self.layer_path(hex_digest(id)?).exists() && !missing.contains(layer) {
                missing.push(layer.clone());
            }
        }
        Ok(missing)
    }

    /// Unpacks a layer unless it is there, and checks that it is the one that was promised. Returns its size.
    fn import_layer(&self, file: &Path, digest: &str) -> Result<u64, ImageError> {
        let finished = self.layer_path(digest);
        if finished.exists() {
            return Ok(super::size_of_tree(&finished));
        }
        let building = self.layer_path(&format!("{digest}.tmp"));
        let failed = || doing(format!("unpacking layer `{digest}`"));
        remove_dir(&building).map_err(failed())?;
        fs::create_dir_all(&building).map_err(failed())?;
        let unpacked = (|| {
            let mut layer = Hashing {
                inner: decompress(file)?,
                hasher: Sha256::new(),
            };
            let size = unpack(&mut layer, &building)?;
            io::copy(&mut layer, &mut io::sink())?; // what follows the end of the archive counts, too
            Ok::<_, io::Error>((size, hex(&layer.hasher.finalize())))
        })();
        match unpacked {
            Ok((size, found)) if found == digest => {
                fs::rename(&building, &finished).map_err(failed())?;
                Ok(size)
            }
            Ok((_, found)) => {
                remove_dir(&building).map_err(failed())?;
                Err(ImageError::Archive(format!(
                    "a layer has digest `{found}`, expected `{digest}`"
                )))
            }
            Err(error) => {
                remove_dir(&building).map_err(failed())?;
                Err(ImageError::Archive(error.to_string()))
            }
        }
    }
}

/// An image as the archive's index has it.
struct Found {
    config: String,
    layers: Vec<String>,
    names: Vec<Reference>,
}

/// The archive's files on disk: links and order in an archive allow no reading in place.
struct Files {
    dir: PathBuf,
    /// Name in the archive → name on disk.
    names: BTreeMap<String, String>,
    /// Where the image comes from, if from a registry.
    digests: Vec<String>,
}

fn spool_archive(archive: impl Read, dir: &Path) -> Result<Files, ImageError> {
    let failed = |error: io::Error| ImageError::Archive(error.to_string());
    fs::create_dir_all(dir).map_err(doing(format!("making `{}`", dir.display())))?;
    let mut names = BTreeMap::new();
    let mut aliases = vec![];
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let name = entry
            .path()
            .map_err(failed)?
            .to_string_lossy()
            .trim_start_matches("./")
            .to_string();
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                // Never a name of the archive's choice.
                let place = names.len().to_string();
                let mut file = File::create(dir.join(&place)).map_err(doing("spooling an archive"))?;
                io::copy(&mut entry, &mut file).map_err(failed)?;
                names.insert(name, place);
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                // Old `docker save` links equal layers to each other.
                let target = entry
                    .link_name()
                    .map_err(failed)?
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                aliases.push((name, target));
            }
            _ => {}
        }
    }
    for (name, target) in aliases {
        let plain = target.trim_start_matches("../").trim_start_matches("./");
        if let Some(place) = names.get(plain).or_else(|| names.get(&target)).cloned() {
            names.insert(name, place);
        }
    }
    Ok(Files {
        dir: dir.into(),
        names,
        digests: vec![],
    })
}

impl Files {
    fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    fn path(&self, name: &str) -> Result<PathBuf, ImageError> {
        let place = self.names.get(name);
        let place = place.ok_or_else(|| ImageError::Archive(format!("`{name}` is not in it")))?;
        Ok(self.dir.join(place))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let mut bytes = vec![];
        let file = File::open(self.path(name)?).map_err(doing(format!("reading `{name}`")))?;
        file.take(MOST_JSON)
            .read_to_end(&mut bytes)
            .map_err(doing(format!("reading `{name}`")))?;
        Ok(bytes)
    }

    /// A document by its digest, checked.
    fn blob(&self, digest: &str) -> Result<(String, Vec<u8>), ImageError> {
        let hex = hex_digest(digest)?;
        let name = format!("blobs/sha256/{hex}");
        let bytes = self.bytes(&name)?;
        let found = sha256(&bytes);
        match found == hex {
            true => Ok((name, bytes)),
            false => Err(ImageError::Archive(format!("`{name}` has digest `{found}`"))),
        }
    }

    fn docker_images(&self) -> Result<Vec<Found>, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            config: String,
            #[serde(default)]
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let entries: Vec<Entry> = parse("manifest.json", &self.bytes("manifest.json")?)?;
        let found = entries.into_iter().map(
            |Entry {
                 config,
                 repo_tags,
                 layers,
             }| {
                let tags = repo_tags.unwrap_or_default();
                let names = tags.iter().map(|tag| Reference::parse(tag)).collect::<Result<_, _>>()?;
                Ok(Found { config, layers, names })
            },
        );
        found.collect()
    }

    fn oci_images(&self) -> Result<Vec<Found>, ImageError> {
        let index: Index = parse("index.json", &self.bytes("index.json")?)?;
        let mut found = vec![];
        for descriptor in index.manifests {
            self.follow(&descriptor, &descriptor.names(), 0, &mut found)?;
        }
        Ok(found)
    }

    /// From a descriptor to an image; an index within an index offers the same image for several architectures.
    fn follow(
        &self,
        at: &Descriptor,
        names: &[Reference],
        depth: u8,
        found: &mut Vec<Found>,
    ) -> Result<(), ImageError> {
        let (name, bytes) = self.blob(&at.digest)?;
        let manifest: Manifest = parse(&name, &bytes)?;
        if let Some(config) = manifest.config {
            let (config, _) = self.blob(&config.digest)?;
            let layer = |layer: &Descriptor| Ok(format!("blobs/sha256/{}", hex_digest(&layer.digest)?));
            let layers = manifest.layers.iter().map(layer).collect::<Result<_, ImageError>>()?;
            found.push(Found {
                config,
                layers,
                names: names.to_vec(),
            });
            return Ok(());
        }
        if depth == 3 {
            return Err(ImageError::Archive("an index in an index in an index".into()));
        }
        let ours = |descriptor: &&Descriptor| descriptor.platform.as_ref().is_none_or(Platform::is_ours);
        let wanted = manifest.manifests.iter().filter(ours).find(|descriptor| {
            descriptor
                .annotations
                .get("vnd.docker.reference.type")
                .is_none_or(|kind| kind != "attestation-manifest")
        });
        let wanted = wanted.ok_or_else(|| ImageError::Archive("no image for this kind of machine".into()))?;
        self.follow(wanted, names, depth + 1, found)
    }
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// containerd and Docker write the whole name; plain OCI only a tag, which names nothing by itself.
    fn names(&self) -> Vec<Reference> {
        let full = self.annotations.get("io.containerd.image.name");
        let short = self
            .annotations
            .get("org.opencontainers.image.ref.name")
            .filter(|name| name.contains([':', '/']));
        full.or(short)
            .and_then(|name| Reference::parse(name).ok())
            .into_iter()
            .collect()
    }
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Platform {
    fn is_ours(&self) -> bool {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        self.os == "linux" && self.architecture == architecture
    }
}

#[derive(Deserialize)]
struct ConfigDocument {
    os: Option<String>,
    config: Option<ImageConfig>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::Archive(format!("`{name}`: {error}")))
}

fn hex_digest(digest: &str) -> Result<&str, ImageError> {
    let hex = digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    hex.ok_or_else(|| ImageError::Archive(format!("`{digest}` is not a sha256 digest")))
}

/// By what the bytes are, not by what somebody calls them.
fn decompress(file: &Path) -> io::Result<Box<dyn Read>> {
    let mut magic = [0; 4];
    let length = File::open(file)?.read(&mut magic)?;
    let file = BufReader::with_capacity(256 * 1024, File::open(file)?);
    Ok(match &magic[..length] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(file).map_err(io::Error::other)?;
            Box::new(decoder)
        }
        _ => Box::new(file),
    })
}

struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::*;

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(vec![]);
        for (name, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_uid(nix::unistd::geteuid().as_raw().into());
            header.set_gid(nix::unistd::getegid().as_raw().into());
            builder.append_data(&mut header, name, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn config(layers: &[&[u8]]) -> Vec<u8> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
        let config = json!({ "Cmd": ["/hello"], "Env": null, "WorkingDir": "/w", "User": "7:8" });
        json!({ "os": "linux", "config": config, "rootfs": { "type": "layers", "diff_ids": diff_ids } })
            .to_string()
            .into_bytes()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn what_docker_saves_is_imported() {
        let (lower, upper) = (tar_of(&[("a", b"1"), ("etc/x", b"2")]), tar_of(&[("etc/.wh.x", b"")]));
        let config = config(&[&lower, &upper]);
        let manifest = json!([{ "Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l/layer.tar", "u/layer.tar"] }]);
        let archive = tar_of(&[
            ("l/layer.tar", &lower),
            ("u/layer.tar", &upper),
            ("c.json", &config),
            ("manifest.json", manifest.to_string().as_bytes()),
        ]);
        let (dir, store) = store();
        let images = store.import(&archive[..], &[]).unwrap();
        let image = store.resolve("app:1").unwrap().unwrap();
        assert_eq!(images, std::slice::from_ref(&image));
        assert_eq!(image.id, format!("sha256:{}", sha256(&config)));
        assert_eq!(
            (image.config.cmd[0].as_str(), image.config.user.as_str()),
            ("/hello", "7:8")
        );
        assert_eq!(fs::read(image.layers[0].join("etc/x")).unwrap(), b"2");
        assert!(image.layers[1].join("etc/x").symlink_metadata().is_ok());
        assert!(!dir.path().join("import").exists());
        assert_eq!(
            store.import(&archive[..], &["other:name"]).unwrap()[0].references.len(),
            2
        );
    }

    fn oci(layer: &[u8], stored: &[u8]) -> Vec<u8> {
        let config = config(&[layer]);
        let digest = |bytes: &[u8]| format!("sha256:{}", sha256(bytes));
        let manifest = json!({ "config": { "digest": digest(&config) }, "layers": [{ "digest": digest(stored) }] });
        let manifest = manifest.to_string().into_bytes();
        let index = json!({ "manifests": [
            { "digest": digest(&manifest), "annotations": { "io.containerd.image.name": "docker.io/library/app:2" } }
        ] });
        let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
        tar_of(&[
            ("oci-layout", b"{}"),
            ("index.json", index.to_string().as_bytes()),
            (&blob(&config), &config),
            (&blob(&manifest), &manifest),
            (&blob(stored), stored),
        ])
    }

    #[test]
    fn an_oci_layout_with_a_compressed_layer_is_imported() {
        let layer = tar_of(&[("hello", b"hi")]);
        let (_dir, store) = store();
        let archive = oci(&layer, &gzip(&layer));
        let images = store.import(&archive[..], &[]).unwrap();
        assert_eq!(images[0].references, ["docker.io/library/app:2"]);
        assert_eq!(fs::read(images[0].layers[0].join("hello")).unwrap(), b"hi");
    }

    #[test]
    fn a_layer_that_is_not_the_promised_one_is_refused_and_leaves_nothing() {
        let (dir, store) = store();
        let archive = oci(&tar_of(&[("hello", b"hi")]), &tar_of(&[("hello", b"ho")]));
        let error = store.import(&archive[..], &[]).unwrap_err().to_string();
        assert!(error.contains("expected"), "{error}");
        assert_eq!(fs::read_dir(dir.path().join("layers")).unwrap().count(), 0);
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn an_archive_cut_anywhere_is_an_error_and_nothing_more() {
        let layer = tar_of(&[("hello", b"hi")]);
        let archive = oci(&layer, &gzip(&layer));
        for length in (0..archive.len() - 1024).step_by(97) {
            let (_dir, store) = store();
            assert!(store.import(&archive[..length], &[]).is_err(), "cut at {length}");
            assert!(store.list().unwrap().is_empty());
        }
    }
}
