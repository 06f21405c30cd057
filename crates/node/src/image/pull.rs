//! `Puller`: fetches images from registries into the store.
//!
//! Owns the conversation with a registry: which endpoint, which login, which of an index' images, what need not be
//! fetched because it is there. Blobs go to disk as they come, each is checked against its digest, and a layer again
//! against the digest of what is in it. Must not know pods, pull policies or back-off (`kubelet`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as Remote};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::registries::{Endpoint, Login, Logins, Registries};
use super::{Image, ImageError, Reference, Store};
use crate::runtime::folder::remove_dir;

/// A registry that does not even take a connection within this time is not there.
const CONNECT: Duration = Duration::from_secs(10);
/// One that sends nothing for so long has forgotten us.
const SILENCE: Duration = Duration::from_secs(60);
/// Layers fetched at a time, as in containerd.
const AT_ONCE: usize = 3;

/// An image that was fetched, or found to be the newest.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// The time it took without waiting for other pulls.
    pub took: Duration,
    /// All the time.
    pub altogether: Duration,
    /// Bytes as the registry has them.
    pub size: u64,
}

/// Why an image could not be fetched.
#[derive(Clone, Debug, thiserror::Error)]
#[error("failed to pull image \"{image}\": {why}")]
pub struct PullError {
    image: String,
    why: String,
}

impl PullError {
    /// `why` says what, where.
    pub(crate) fn new(image: &str, why: impl Into<String>) -> Self {
        Self {
            image: image.to_owned(),
            why: why.into(),
        }
    }
}

/// Pulls one image at a time, as a kubelet does unless it is told otherwise.
pub struct Puller {
    store: Store,
    registries: Registries,
    turn: Arc<Mutex<()>>,
    /// Why the last pull of a name failed, for those who wait for the next.
    failures: Lock<BTreeMap<String, String>>,
}

impl Puller {
    /// Pulls into `store`.
    pub fn new(store: Store, registries: Registries) -> Self {
        // Whoever came first has chosen; ours is the only one in this program.
        rustls::crypto::ring::default_provider().install_default().ok();
        Self {
            store,
            registries,
            turn: Arc::default(),
            failures: Lock::default(),
        }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Why the last pull of `reference` failed.
    pub fn last_failure(&self, reference: &str) -> Option<String> {
        self.failures().get(reference).cloned()
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches `reference`. `secrets` are tried before the logins that this machine has, in order.
    pub fn pull<'a>(&'a self, reference: &'a str, secrets: &'a [Logins]) -> BoxFuture<'a, Result<Pulled, PullError>> {
        Box::pin(async move {
            let asked = Instant::now();
            let _turn = self.turn.lock().await;
            let begin = Instant::now();
            match self.try_pull(reference, secrets).await {
                Ok((image, size)) => {
                    self.failures().remove(reference);
                    Ok(Pulled {
                        image,
                        size,
                        took: begin.elapsed(),
                        altogether: asked.elapsed(),
                    })
                }
                Err(why) => {
                    let error = PullError::new(reference, why);
                    self.failures().insert(reference.to_owned(), error.to_string());
                    Err(error)
                }
            }
        })
    }

    async fn try_pull(&self, reference: &str, secrets: &[Logins]) -> Result<(Image, u64), String> {
        let image = Reference::parse(reference).map_err(|error| error.to_string())?;
        let (endpoints, logins) = self.registries.read(&image)?;
        let mut last = String::new();
        for endpoint in &endpoints {
            let host = &endpoint.host;
            let ways = ways(host, secrets, &logins);
            for auth in ways {
                match self.pull_from(endpoint, &auth, &image).await {
                    Ok(pulled) => return Ok(pulled),
                    Err(error) => {
                        last = error;
                        tracing::debug!("pulling `{reference}` from {host}: {last}");
                    }
                }
            }
        }
        Err(last)
    }

    async fn pull_from(
        &self,
        endpoint: &Endpoint,
        auth: &RegistryAuth,
        image: &Reference,
    ) -> Result<(Image, u64), String> {
        let remote = remote(endpoint, image);
        let words = |error: OciDistributionError| describe(&error, &remote.whole());
        let client = Client::try_from(ClientConfig {
            protocol: if endpoint.plain_http {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            user_agent: concat!("k8slab/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        })
        .map_err(words)?;
        let answer = client.pull_manifest_and_config_and_list_digest(&remote, auth).await;
        let (manifest, digest, config, index) = answer.map_err(words)?;
        let digest = index.unwrap_or(digest);
        let size = manifest
            .layers
            .iter()
            .map(|layer| u64::try_from(layer.size).unwrap_or(0))
            .sum();
        let spool = self.store.spool("pull").map_err(|error| chain(&error))?;
        let fetched = async {
            // Each blob once, and none whose layer is there already.
            let missing = self
                .store
                .missing(&config, &digests(&manifest.layers))
                .map_err(|error| chain(&error))?;
            let wanted = manifest.layers.iter().filter(|layer| missing.contains(&layer.digest));
            let jobs: Vec<_> = wanted
                .map(|layer| fetch(client.clone(), remote.clone(), layer.clone(), spool.clone()))
                .collect();
            let jobs = futures::stream::iter(jobs).buffer_unordered(AT_ONCE);
            jobs.try_collect::<Vec<()>>().await.map_err(words)?;
            let (store, name, spool) = (self.store.clone(), image.clone(), spool.clone());
            let layers = digests(&manifest.layers);
            tokio::task::spawn_blocking(move || store.add_pulled(&spool, &config, &layers, &name, &digest))
                .await
                .map_err(|error| error.to_string())?
                .map_err(|error| chain(&error))
        };
        let fetched = fetched.await;
        if let Err(error) = remove_dir(&spool) {
            tracing::warn!("removing `{}`: {error}", spool.display());
        }
        Ok((fetched?, size))
    }
}

fn digests(layers: &[OciDescriptor]) -> Vec<String> {
    layers.iter().map(|layer| layer.digest.clone()).collect()
}

async fn fetch(
    client: Client,
    remote: Remote,
    layer: OciDescriptor,
    spool: PathBuf,
) -> Result<(), OciDistributionError> {
    let mut file = tokio::fs::File::create(spool.join(layer.digest.replace(':', "-"))).await?;
    client.pull_blob(&remote, &layer, &mut file).await
}

/// As whom `host` is asked: with every login for it in turn, or as nobody if there is none.
fn ways(host: &str, secrets: &[Logins], logins: &Logins) -> Vec<RegistryAuth> {
    let known = secrets.iter().chain([logins]).flat_map(|logins| logins.matching(host));
    let mut ways: Vec<RegistryAuth> = known.map(basic).collect();
    if ways.is_empty() {
        ways.push(RegistryAuth::Anonymous);
    }
    ways
}

fn basic(login: &Login) -> RegistryAuth {
    RegistryAuth::Basic(login.user.clone(), login.password.clone())
}

fn remote(endpoint: &Endpoint, image: &Reference) -> Remote {
    let path = match endpoint.prefix.as_str() {
        "" => image.path.clone(),
        prefix => format!("{prefix}/{}", image.path),
    };
    match &image.digest {
        Some(digest) => Remote::with_digest(endpoint.host.clone(), path, digest.clone()),
        None => Remote::with_tag(
            endpoint.host.clone(),
            path,
            image.tag.clone().unwrap_or_else(|| "latest".to_owned()),
        ),
    }
}

/// In containerd's words where it has some.
fn describe(error: &OciDistributionError, image: &str) -> String {
    use OciDistributionError as E;
    let missing = |code: &OciErrorCode| matches!(code, OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown);
    match error {
        E::ImageManifestNotFoundError(_) | E::ServerError { code: 404, .. } => format!("{image}: not found"),
        E::RegistryError { envelope, .. } if envelope.errors.iter().any(|error| missing(&error.code)) => {
            format!("{image}: not found")
        }
        E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => format!(
            "{image}: pull access denied, repository does not exist or may require authorization: authorization failed"
        ),
        E::RequestError(error) if error.is_connect() || error.is_timeout() => format!(
            "{image}: the registry cannot be reached: {} (an image that is only on this machine: `k8slab image import`)",
            chain(error)
        ),
        error => format!("{image}: {}", chain(error)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    crate::kubelet::with_cause(error)
}

impl Store {
    /// An empty folder of one's own below the store.
    fn spool(&self, purpose: &str) -> Result<PathBuf, ImageError> {
        let dir = self.dir.join(purpose);
        remove_dir(&dir).map_err(super::doing(format!("clearing `{}`", dir.display())))?;
        std::fs::create_dir_all(&dir).map_err(super::doing(format!("making `{}`", dir.display())))?;
        Ok(dir)
    }
}
