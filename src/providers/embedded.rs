//! k8slab's own one-node cluster, as a provider: a daemon that is found or started, and an image store on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use apimachinery::pace::Pace;
use cluster::client::{self, Running, Settings};
use cluster::{Home, image, transfer};
use futures::future::BoxFuture;
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use serde::Serialize;

use super::{Cluster, Explained, NextMove, Presence, Provider};
use crate::exec::script::Script;
use crate::images::Recipe;
use crate::k8s::wait::{self, Patience};
use crate::k8s::{self, ObjectName};
use crate::paths::{self, Owner, Paths};
use crate::scenario::model::Feature;
use crate::steps::{Done, FailureKind, Session, StepError};

/// The name of the one embedded cluster of a state folder.
const NAME: &str = "default";
/// Says in the cluster's folder that `up` made it, so that it goes with its last lab.
const MADE_BY_UP: &str = "made-by-up";
const METRICS: &str = "resource metrics, served by the cluster";

/// The embedded cluster of a state folder.
#[derive(Clone, Debug)]
pub struct Embedded {
    home: Home,
    path: PathBuf,
    owner: Owner,
    speed: Option<Pace>,
}

/// What there is of the embedded cluster, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum State {
    /// Nothing.
    Absent,
    /// Objects are kept, nothing runs.
    Stopped,
    /// Its daemon is gone without having been stopped.
    Crashed {
        /// The daemon.
        pid: i32,
    },
    /// It answers.
    Running {
        /// The API server's address.
        api: String,
        /// The daemon.
        pid: i32,
        /// Lab time's divisor.
        speed: u32,
        /// The daemon's k8slab.
        version: String,
        /// Why CPU and memory limits are not enforced, where they are not.
        limits_not_enforced: Option<String>,
    },
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// Its name.
    pub reference: String,
    /// Its id.
    pub id: String,
}

/// The images in the store, by name.
pub fn images(paths: &Paths) -> Result<Vec<StoredImage>, StepError> {
    let path = paths.images();
    paths.owner.act(|| {
        if !path.exists() {
            return Ok(Vec::new());
        }
        let store = image::Store::open(&path).map_err(|error| store_error("opening the image store", &error))?;
        let list = store
            .list()
            .map_err(|error| store_error("reading the image store", &error))?;
        let mut images: Vec<StoredImage> = list.into_iter().flat_map(named).collect();
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(images)
    })
}

/// Puts the images of an archive (`docker save`, or an OCI layout in a tar) into the store, under `names` if there are any.
pub fn import_images(paths: &Paths, archive: &Path, names: &[String]) -> Result<Vec<StoredImage>, StepError> {
    let path = paths.images();
    paths.owner.act(|| {
        let doing = format!("importing `{}`", archive.display());
        let file = std::fs::File::open(archive).map_err(|error| StepError::failed(&doing, &error))?;
        let store = image::Store::open(&path).map_err(|error| store_error("opening the image store", &error))?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let images = store
            .import(file, &names)
            .map_err(|error| store_error(&doing, &error))?;
        Ok(images.into_iter().flat_map(named).collect())
    })
}

/// An image, once for each of its names.
fn named(image: image::Image) -> impl Iterator<Item = StoredImage> {
    let id = image.id;
    image.references.into_iter().map(move |name| StoredImage {
        // As people write it: the long form is the store's own.
        reference: name.trim_start_matches("docker.io/library/").to_owned(),
        id: id.clone(),
    })
}

fn store_error(doing: &str, error: &image::ImageError) -> StepError {
    StepError::failed(doing, error).hint("check that the disk has space and that the state folder is yours")
}

impl Embedded {
    /// The embedded cluster of these folders. `speed` is for a cluster that has to be made.
    pub fn new(paths: &Paths, speed: Option<Pace>) -> Self {
        Self {
            home: Home::new(&paths.home),
            path: paths.home.clone(),
            owner: paths.owner,
            speed,
        }
    }

    /// What there is.
    pub fn state(&self) -> Result<State, StepError> {
        Ok(
            match client::status(&self.home, NAME).map_err(|error| daemon_error(&error))? {
                client::Status::Absent => State::Absent,
                client::Status::Stopped => State::Stopped,
                client::Status::Crashed { pid } => State::Crashed { pid },
                client::Status::Running(record) => State::Running {
                    api: format!("https://127.0.0.1:{}", record.port),
                    pid: record.pid,
                    speed: record.speed,
                    version: record.version.clone(),
                    limits_not_enforced: record.limits_not_enforced.clone(),
                },
            },
        )
    }

    /// Starts it for its own sake: it stays until it is deleted.
    pub async fn start(&self, note: &(dyn Fn(String) + Send + Sync)) -> Result<Cluster, StepError> {
        let running = self.launch(note).await?;
        // Whoever asks for the cluster by name wants to keep it.
        let _ = std::fs::remove_file(self.marker());
        running
    }

    /// Ends its containers and keeps its objects; whether there was something to end.
    pub async fn stop(&self) -> Result<bool, StepError> {
        client::stop(&self.home, NAME)
            .await
            .map_err(|error| daemon_error(&error))
    }

    /// Takes it away; whether there was one.
    pub async fn delete(&self) -> Result<bool, StepError> {
        client::delete(&self.home, NAME)
            .await
            .map_err(|error| daemon_error(&error))
    }

    /// Writes every object to `file`; says how many there are.
    pub async fn export(&self, file: &Path) -> Result<usize, StepError> {
        transfer::export(&self.home, NAME, file)
            .await
            .map_err(|error| transfer_error(&error))
    }

    /// Replaces every object by those in `file`. The cluster must not run.
    pub async fn import(&self, file: &Path) -> Result<transfer::Imported, StepError> {
        let made = self.owner.act(|| paths::create_private_folder(&self.path));
        made.map_err(|error| StepError::failed(format!("making the state folder `{}`", self.path.display()), &error))?;
        transfer::import(&self.home, NAME, file)
            .await
            .map_err(|error| transfer_error(&error))
    }

    fn marker(&self) -> PathBuf {
        self.home.cluster(NAME).path().join(MADE_BY_UP)
    }

    /// The daemon may be root's; the folder that it lives in is the user's.
    fn make_home(&self) -> Result<(), StepError> {
        let made = self.owner.act(|| paths::create_private_folder(&self.path));
        made.map_err(|error| {
            let doing = format!("making the state folder `{}`", self.path.display());
            StepError::failed(doing, &error).hint("set `K8SLAB_HOME` to a folder that is yours")
        })?;
        // So is the image store, which the daemon would make as well.
        let made = self.owner.act(|| image::Store::open(self.home.images()));
        made.map(drop)
            .map_err(|error| store_error("making the image store", &error))
    }

    async fn launch(&self, note: &(dyn Fn(String) + Send + Sync)) -> Result<Result<Cluster, StepError>, StepError> {
        self.make_home()?;
        let settings = Settings {
            name: NAME.to_owned(),
            speed: self.speed,
        };
        let running = client::ensure(&self.home, &settings, note)
            .await
            .map_err(|error| daemon_error(&error))?;
        Ok(connect(running).await)
    }
}

/// The daemon's words, and what they mean for the exit code.
fn daemon_error(error: &client::Error) -> StepError {
    let (kind, hints) = match error {
        client::Error::Format(_) => (FailureKind::Newer, Vec::new()),
        client::Error::Refused(why) if why.newer => (FailureKind::Newer, why.hints.clone()),
        // Privileges, kernel features: the daemon tells itself what is missing and what to do.
        client::Error::Refused(why) if why.prerequisite => (FailureKind::Prerequisite, why.hints.clone()),
        client::Error::Refused(why) => (FailureKind::Failed, why.hints.clone()),
        client::Error::OtherSpeed { .. } => (FailureKind::Prerequisite, Vec::new()),
        client::Error::NotReady { .. } => (FailureKind::NotReady, Vec::new()),
        client::Error::Folder { .. } => {
            let hint = "set `K8SLAB_HOME` to a folder that is yours";
            (FailureKind::Failed, vec![hint.to_owned()])
        }
        _ => (FailureKind::Failed, Vec::new()),
    };
    let mut failed = StepError::new(kind, crate::steps::chain(error));
    failed.hints = hints;
    failed
}

fn transfer_error(error: &transfer::Error) -> StepError {
    use transfer::{DumpError, Error};
    let (kind, hint) = match error {
        Error::Client(error) => return daemon_error(error),
        Error::Runs => (FailureKind::Prerequisite, Some("k8slab cluster stop")),
        Error::Absent => (FailureKind::Prerequisite, Some("k8slab cluster start")),
        Error::Dump {
            source: DumpError::Newer { .. },
            ..
        } => (FailureKind::Newer, None),
        Error::Store(transfer::BackendError::Format { .. }) => (FailureKind::Newer, None),
        _ => (FailureKind::Failed, None),
    };
    let mut failed = StepError::new(kind, crate::steps::chain(error));
    failed.hints = hint.map(str::to_owned).into_iter().collect();
    failed
}

async fn connect(running: Running) -> Result<Cluster, StepError> {
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(running.kubeconfig.clone(), &options).await;
    let mut config = config.map_err(|error| StepError::failed("reading the cluster's kubeconfig", &error))?;
    // A person waits: a refusal is an answer, and whoever wants to try again does so with a limit of its own.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|error| StepError::failed("connecting to the cluster", &error))?;
    let speed = match running.speed.speed() {
        1 => String::new(),
        speed => format!(", lab time ×{speed}"),
    };
    let limits = running
        .limits_not_enforced
        .map(|why| format!("CPU and memory limits are not enforced: {why}"));
    Ok(Cluster {
        client,
        kubeconfig: running.kubeconfig,
        summary: format!("embedded, API at {}{speed}", running.api_url),
        node_address: "127.0.0.1".to_owned(),
        warnings: limits.into_iter().collect(),
        started: running.started_by_us,
    })
}

impl Provider for Embedded {
    fn key(&self) -> String {
        format!("{}/{NAME}", self.path.display())
    }

    fn find(&self) -> BoxFuture<'_, Result<Presence, StepError>> {
        Box::pin(async {
            // A daemon of another version or speed is not what `up` wants: `ensure` says what is to be done about it.
            let state = self.state()?;
            let other = match &state {
                State::Absent => return Ok(Presence::Absent),
                State::Stopped | State::Crashed { .. } => return Ok(Presence::Stopped),
                State::Running { speed, version, .. } => {
                    version != env!("CARGO_PKG_VERSION") || self.speed.is_some_and(|wanted| wanted.speed() != *speed)
                }
            };
            if other {
                return Ok(Presence::Stopped);
            }
            match client::find(&self.home, NAME)
                .await
                .map_err(|error| daemon_error(&error))?
            {
                Some(running) => Ok(Presence::Running(Box::new(connect(running).await?))),
                None => Ok(Presence::Stopped),
            }
        })
    }

    fn ensure<'a>(&'a self, note: &'a (dyn Fn(String) + Send + Sync)) -> BoxFuture<'a, Result<Cluster, StepError>> {
        Box::pin(async move {
            if self.state()? == State::Absent {
                // Before there is anything to mark: whoever is killed from here on leaves nothing that `down` would
                // take for somebody else's. Beside what it is about, so that it goes when that goes.
                self.make_home()?;
                let written = self
                    .home
                    .cluster(NAME)
                    .create()
                    .and_then(|()| std::fs::write(self.marker(), b""));
                written.map_err(|error| StepError::failed("marking the cluster as made by `up`", &error))?;
            }
            self.launch(note).await?
        })
    }

    fn has_image<'a>(&'a self, image: &'a Recipe) -> BoxFuture<'a, Result<bool, StepError>> {
        Box::pin(async move { self.owner.act(|| has(&self.home, image)) })
    }

    fn load_image<'a>(&'a self, image: &'a Recipe) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(async move {
            let (home, owner, image) = (self.home.clone(), self.owner, image.clone());
            let added = tokio::task::spawn_blocking(move || owner.act(|| add(&home, &image))).await;
            added.unwrap_or_else(|error| Err(StepError::failed("assembling the image", &error)))
        })
    }

    fn has_feature<'a>(
        &'a self,
        at: &'a Session,
        feature: Feature,
    ) -> BoxFuture<'a, Result<Option<String>, StepError>> {
        Box::pin(async move {
            let Feature::ResourceMetrics = feature;
            let served = !at.resources.of_version("metrics.k8s.io/v1beta1").await?.is_empty();
            Ok(served.then(|| METRICS.to_owned()))
        })
    }

    fn ensure_feature<'a>(
        &'a self,
        at: &'a Session,
        feature: Feature,
        patience: &'a Patience<'a>,
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            let Feature::ResourceMetrics = feature;
            // The cluster brings it; it may need a moment to say so.
            let service = ObjectName {
                api_version: "apiregistration.k8s.io/v1".to_owned(),
                kind: "APIService".to_owned(),
                namespace: None,
                name: "v1beta1.metrics.k8s.io".to_owned(),
            };
            wait::ready(&at.resources, &service, None, None, patience).await?;
            Ok(Done::unchanged(METRICS))
        })
    }

    fn next_moves<'a>(&'a self, at: &'a Session) -> BoxFuture<'a, Vec<NextMove>> {
        Box::pin(async move {
            let Ok(request) = http::Request::get("/debug/next-moves").body(Vec::new()) else {
                return Vec::new();
            };
            // Of interest, not of importance: an older daemon may not tell.
            match at.cluster.client.request(request).await {
                Ok(moves) => moves,
                Err(error) => {
                    let error = k8s::Error::of("asking for the next moves", error);
                    tracing::debug!("{}", crate::steps::chain(&error));
                    Vec::new()
                }
            }
        })
    }

    fn release(&self, force: bool) -> BoxFuture<'_, Result<String, StepError>> {
        Box::pin(async move {
            let absent = self.state()? == State::Absent;
            if self.marker().exists() || (force && !absent) {
                self.delete().await?;
            } else if !absent {
                return Ok("the cluster stays".to_owned());
            }
            Ok(if absent {
                "the cluster was gone".to_owned()
            } else {
                "the cluster went with its last lab".to_owned()
            })
        })
    }

    fn explain(&self, what: &Explained<'_>, script: &mut Script) {
        match what {
            Explained::Cluster { context, namespace } => {
                script.run(&["k8slab", "cluster", "start"]);
                let merge = [
                    "k8slab",
                    "cluster",
                    "kubeconfig",
                    "--merge",
                    "--context",
                    context,
                    "--namespace",
                    namespace,
                ];
                script.run(&merge);
            }
            Explained::Feature {
                feature: Feature::ResourceMetrics,
                context,
            } => {
                script.comment("the embedded cluster serves metrics.k8s.io itself; on minikube:");
                script.comment("minikube addons enable metrics-server");
                script.run(&[
                    "kubectl",
                    "--context",
                    context,
                    "get",
                    "--raw",
                    "/apis/metrics.k8s.io/v1beta1",
                ]);
            }
            Explained::Image { name, dockerfile } => {
                script.comment("the image is assembled in the cluster's image store by `k8slab up`; with Docker:");
                script.comment(&format!(
                    "docker build -t {name}:lab -f - . <<'END'\n{}\nEND",
                    dockerfile.trim_end()
                ));
                script.run(&["k8slab", "image", "ls"]);
            }
            Explained::Release => script.run(&["k8slab", "cluster", "delete"]),
        }
    }
}

fn has(home: &Home, wanted: &Recipe) -> Result<bool, StepError> {
    if !home.images().exists() {
        return Ok(false);
    }
    let store = image::Store::open(home.images()).map_err(|error| store_error("opening the image store", &error))?;
    let resolve = |reference: &str| {
        store
            .resolve(reference)
            .map_err(|error| store_error(&format!("looking for the image `{reference}`"), &error))
    };
    // Both names must lead to the same content: `lab` may still be that of an older build.
    let (by_content, by_name) = (resolve(&wanted.reference())?, resolve(&wanted.lab_reference())?);
    Ok(matches!((by_content, by_name), (Some(content), Some(name)) if content.id == name.id))
}

fn add(home: &Home, wanted: &Recipe) -> Result<(), StepError> {
    let store = image::Store::open(home.images()).map_err(|error| store_error("opening the image store", &error))?;
    let config = image::ImageConfig {
        entrypoint: wanted.config.entrypoint.clone(),
        cmd: wanted.config.cmd.clone(),
        env: wanted
            .config
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        working_dir: wanted.config.workdir.clone(),
        user: wanted.config.user.clone(),
        exposed_ports: ports(&wanted.config.exposed),
        labels: wanted.config.labels.clone(),
        ..image::ImageConfig::default()
    };
    let files: Vec<image::ImageFile> = wanted
        .files
        .iter()
        .map(|file| image::ImageFile {
            source: file.source.clone(),
            path: file.target.clone().into(),
            mode: file.mode,
        })
        .collect();
    let references = [wanted.reference(), wanted.lab_reference()];
    let added = store.add(&config, &files, &references.each_ref().map(String::as_str));
    added
        .map(drop)
        .map_err(|error| store_error(&format!("assembling the image `{}`", wanted.reference()), &error))
}

/// OCI's way of writing a set.
fn ports(exposed: &[String]) -> BTreeMap<String, serde_json::Value> {
    exposed
        .iter()
        .map(|port| (port.clone(), serde_json::json!({})))
        .collect()
}
