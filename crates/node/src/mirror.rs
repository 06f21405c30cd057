//! A local copy of one kind of object, kept fresh by a watch, and a bell that rings when it changes.
//!
//! Owns reconnecting and pruning (nobody here reads `managedFields`). Must not know what the objects mean.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, StreamExt};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use tokio::sync::watch;

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        Self {
            namespace: object.meta().namespace.clone().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The changes of a kind, for ever: a broken watch is taken up again after a back-off, and said in the log.
pub(crate) fn changes<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Event<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let path = api.resource_url().to_owned();
    watcher(api, config).default_backoff().filter_map(move |event| {
        let event = match event {
            Ok(event) => Some(event.modify(|object| object.meta_mut().managed_fields = None)),
            Err(error) => {
                tracing::warn!("watching `{path}`: {error}");
                None
            }
        };
        std::future::ready(event)
    })
}

/// All objects of a kind that match a watch.
pub(crate) struct Mirror<K> {
    objects: RwLock<HashMap<Key, Arc<K>>>,
    /// Counts changes; 0 until the first list is complete.
    changed: watch::Sender<u64>,
}

impl<K> Mirror<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            objects: RwLock::default(),
            changed: watch::Sender::new(0),
        })
    }

    /// Follows the watch for ever. `trim` drops what nobody reads.
    pub(crate) async fn follow(self: Arc<Self>, api: Api<K>, config: watcher::Config, trim: fn(&mut K)) {
        let mut changes = std::pin::pin!(changes(api, config));
        let mut listed = HashMap::new();
        while let Some(event) = changes.next().await {
            match event.modify(trim) {
                watcher::Event::Init => {
                    listed = HashMap::new();
                    continue;
                }
                watcher::Event::InitApply(object) => {
                    listed.insert(Key::of(&object), Arc::new(object));
                    continue;
                }
                watcher::Event::InitDone => *self.write() = std::mem::take(&mut listed),
                watcher::Event::Apply(object) => {
                    self.write().insert(Key::of(&object), Arc::new(object));
                }
                watcher::Event::Delete(object) => {
                    self.write().remove(&Key::of(&object));
                }
            }
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// As if the watch had told it.
    #[cfg(test)]
    pub(crate) fn put(&self, object: K) {
        self.write().insert(Key::of(&object), Arc::new(object));
        self.changed.send_modify(|count| *count += 1);
    }

    /// Rings after each change. The value is 0 until the mirror is complete for the first time.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until the first list is complete.
    pub(crate) async fn ready(&self) {
        // The sender lives in `self`: the wait cannot fail.
        let _ = self.subscribe().wait_for(|count| *count > 0).await;
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().get(&Key::new(namespace, name)).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.read().values().cloned().collect()
    }

    pub(crate) fn select(&self, keep: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.read().values().filter(|object| keep(object)).cloned().collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Key, Arc<K>>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<Key, Arc<K>>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}
