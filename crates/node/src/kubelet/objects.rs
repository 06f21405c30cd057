//! ConfigMaps and Secrets that pods of this node refer to: one watch for each, as long as somebody needs it.
//!
//! Owns the watches and the decoded contents, shared by all pods. Must not know what the contents are used for.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::serde::de::DeserializeOwned;
use k8s_openapi::{Metadata, NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use tokio::sync::watch;

use super::lifecycle::{containers, ephemeral_containers, find_container};
use crate::mirror::changes;

/// How long a pod waits for the first answer (upstream's words for what then comes).
const PATIENCE: Duration = Duration::from_secs(10);

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    /// As in `configmap "x" not found`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }

    /// As in `couldn't find key k in ConfigMap ns/x`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// What is in it. `binary` entries reach volumes but never the environment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Payload {
    pub(crate) data: BTreeMap<String, Vec<u8>>,
    pub(crate) binary: BTreeMap<String, Vec<u8>>,
}

impl Payload {
    pub(crate) fn get(&self, key: &str) -> Option<&Vec<u8>> {
        self.data.get(key).or_else(|| self.binary.get(key))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.data.iter().chain(&self.binary)
    }
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq)]
enum Known {
    NotYet,
    Missing,
    There(Arc<Payload>),
}

/// A watch under way; ends when the last pod lets go of it.
pub(crate) struct Lease {
    known: watch::Receiver<Known>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lease {
    /// The content, or `None` if there is no such object.
    pub(crate) async fn get(&self, kind: Kind) -> Result<Option<Arc<Payload>>, String> {
        let mut known = self.known.clone();
        let timed_out = || {
            format!(
                "failed to sync {} cache: timed out waiting for the condition",
                kind.word()
            )
        };
        let first = tokio::time::timeout(PATIENCE, known.wait_for(|known| *known != Known::NotYet));
        match &*first.await.map_err(|_| timed_out())?.map_err(|_| timed_out())? {
            Known::There(payload) => Ok(Some(payload.clone())),
            Known::Missing | Known::NotYet => Ok(None),
        }
    }

    /// Rings at every change from now on.
    pub(crate) fn bell(&self) -> Bell {
        let mut known = self.known.clone();
        known.mark_unchanged();
        Bell(known)
    }
}

/// See [`Lease::bell`].
pub(crate) struct Bell(watch::Receiver<Known>);

impl Bell {
    pub(crate) async fn ring(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody watches any more: there is nothing left to wait for.
            std::future::pending::<()>().await;
        }
    }
}

type Name = (Kind, String, String);

/// All objects that are watched.
pub(crate) struct Objects {
    client: Client,
    leases: Mutex<HashMap<Name, Weak<Lease>>>,
}

impl Objects {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            leases: Mutex::default(),
        }
    }

    /// Watches an object for as long as the lease lives.
    pub(crate) fn lease(&self, kind: Kind, namespace: &str, name: &str) -> Arc<Lease> {
        let key = (kind, namespace.to_owned(), name.to_owned());
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = leases.get(&key).and_then(Weak::upgrade) {
            return lease;
        }
        leases.retain(|_, lease| lease.strong_count() > 0);
        let (sender, known) = watch::channel(Known::NotYet);
        let client = self.client.clone();
        let task = match kind {
            Kind::ConfigMap => tokio::spawn(follow(client, key.clone(), sender, |object: ConfigMap| Payload {
                data: object
                    .data
                    .into_iter()
                    .flatten()
                    .map(|(key, text)| (key, text.into_bytes()))
                    .collect(),
                binary: object
                    .binary_data
                    .into_iter()
                    .flatten()
                    .map(|(key, bytes)| (key, bytes.0))
                    .collect(),
            })),
            Kind::Secret => tokio::spawn(follow(client, key.clone(), sender, |object: Secret| Payload {
                data: object
                    .data
                    .into_iter()
                    .flatten()
                    .map(|(key, bytes)| (key, bytes.0))
                    .collect(),
                binary: BTreeMap::new(),
            })),
        };
        let lease = Arc::new(Lease { known, task });
        leases.insert(key, Arc::downgrade(&lease));
        lease
    }
}

async fn follow<K>(client: Client, (_, namespace, name): Name, known: watch::Sender<Known>, read: fn(K) -> Payload)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Metadata<Ty = ObjectMeta>,
    K: Clone + Debug + DeserializeOwned + Send + 'static,
{
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = pin!(changes(Api::<K>::namespaced(client, &namespace), only));
    let mut listed = None;
    while let Some(event) = events.next().await {
        let new = match event {
            watcher::Event::Init => {
                listed = None;
                continue;
            }
            watcher::Event::InitApply(object) => {
                listed = Some(object);
                continue;
            }
            watcher::Event::InitDone => listed
                .take()
                .map_or(Known::Missing, |object| Known::There(Arc::new(read(object)))),
            watcher::Event::Apply(object) => Known::There(Arc::new(read(object))),
            watcher::Event::Delete(_) => Known::Missing,
        };
        known.send_if_modified(|old| {
            let changed = *old != new;
            *old = new;
            changed
        });
    }
}

/// Every object that a pod's containers and volumes refer to.
pub(crate) fn references(pod: &Pod) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    let ephemeral = ephemeral_containers(pod)
        .filter_map(|spec| find_container(pod, &spec.name))
        .map(|(_, spec)| spec);
    for container in containers(pod).map(|(_, spec)| spec.clone()).chain(ephemeral) {
        for source in container.env_from.iter().flatten() {
            found.extend(
                source
                    .config_map_ref
                    .as_ref()
                    .map(|source| (Kind::ConfigMap, source.name.clone())),
            );
            found.extend(
                source
                    .secret_ref
                    .as_ref()
                    .map(|source| (Kind::Secret, source.name.clone())),
            );
        }
        for source in container
            .env
            .iter()
            .flatten()
            .filter_map(|variable| variable.value_from.as_ref())
        {
            found.extend(
                source
                    .config_map_key_ref
                    .as_ref()
                    .map(|source| (Kind::ConfigMap, source.name.clone())),
            );
            found.extend(
                source
                    .secret_key_ref
                    .as_ref()
                    .map(|source| (Kind::Secret, source.name.clone())),
            );
        }
    }
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        found.extend(
            volume
                .config_map
                .as_ref()
                .map(|source| (Kind::ConfigMap, source.name.clone())),
        );
        found.extend(
            volume
                .secret
                .as_ref()
                .and_then(|source| Some((Kind::Secret, source.secret_name.clone()?))),
        );
        for source in volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten())
        {
            found.extend(
                source
                    .config_map
                    .as_ref()
                    .map(|source| (Kind::ConfigMap, source.name.clone())),
            );
            found.extend(source.secret.as_ref().map(|source| (Kind::Secret, source.name.clone())));
        }
    }
    found.sort();
    found.dedup();
    found
}
