//! Debian's `docker-registry` as a process of this test, and an image in it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oci_client::client::{ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::manifest::OciImageIndex;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde_json::json;
use sha2::{Digest, Sha256};

/// A registry that lets nobody in but `lab` with the password `secret`.
pub(crate) struct Registry {
    process: Child,
    pub(crate) address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// `secret` as bcrypt has it.
const LOGIN: &str = "lab:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

impl Registry {
    /// `None` where the package is not installed.
    pub(crate) async fn start(dir: &Path) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let (login, config) = (dir.join("htpasswd"), dir.join("config.json"));
        fs::write(&login, LOGIN).unwrap();
        let settings = json!({
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": dir.join("data")}},
            "auth": {"htpasswd": {"realm": "lab", "path": login}},
            "http": {"addr": address},
        });
        fs::write(&config, settings.to_string()).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let registry = Self { process, address };
        let listens = async {
            while tokio::net::TcpStream::connect(&registry.address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), listens).await.unwrap();
        Some(registry)
    }

    /// Pushes `team/web:1`: an index of which the second image is for this kind of machine. Its lower layer has this
    /// program and two files, its upper one hides one of them and is compressed.
    pub(crate) async fn push(&self, program: &[u8]) {
        let lower = layer(&[("w", program), ("etc/kept", b"kept\n"), ("etc/hidden", b"hidden\n")]);
        let upper = layer(&[("etc/.wh.hidden", b""), ("etc/added", b"added\n")]);
        let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &upper).unwrap();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/w", "w"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&lower), digest(&upper)]},
        });
        let layers = [
            ImageLayer::oci_v1(lower, None),
            ImageLayer::oci_v1_gzip(gzip.finish().unwrap(), None),
        ];
        let client = Client::new(ClientConfig {
            protocol: ClientProtocol::Http,
            ..ClientConfig::default()
        });
        let auth = RegistryAuth::Basic("lab".into(), "secret".into());
        let reference = |tag: &str| Reference::with_tag(self.address.clone(), "team/web".into(), tag.into());
        let config = Config::oci_v1(config.to_string().into_bytes(), None);
        client
            .push(&reference("ours"), &layers, config, &auth, None)
            .await
            .unwrap();
        let other = Config::oci_v1(br#"{"architecture":"s390x","os":"linux"}"#.to_vec(), None);
        client
            .push(&reference("other"), &layers[1..], other, &auth, None)
            .await
            .unwrap();
        let arch = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        };
        let mut entries = vec![];
        for (tag, arch) in [("other", "s390x"), ("ours", arch)] {
            let (bytes, digest) = client
                .pull_manifest_raw(&reference(tag), &auth, &["application/vnd.oci.image.manifest.v1+json"])
                .await
                .unwrap();
            entries.push(json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest, "size": bytes.len(), "platform": {"os": "linux", "architecture": arch},
            }));
        }
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
        });
        let index: OciImageIndex = serde_json::from_value(index).unwrap();
        client.push_manifest_list(&reference("1"), &auth, index).await.unwrap();
    }
}

fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
