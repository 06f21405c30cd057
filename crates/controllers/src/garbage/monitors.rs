//! One watch a kind for the garbage collector, of metadata only, for every kind that can be deleted.
//!
//! Owns which kinds are watched, and follows discovery as custom resources come and go. Kinds that other controllers
//! cache anyway are not watched a second time: their informers tell the graph.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use kube::api::DynamicObject;
use kube::core::{ApiResource, PartialObjectMeta};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::Observer;
use crate::discovery::{self, Kind};

/// Events come and go by the hour and own nothing; upstream ignores them too.
const IGNORED: &[(&str, &str)] = &[("", "events"), ("events.k8s.io", "events")];
/// Kinds whose changes mean that there are other kinds now.
const KINDS_OF_KINDS: &[&str] = &["customresourcedefinitions", "apiservices"];
/// A definition changes several times until it is served.
const SETTLE: Duration = Duration::from_millis(100);
/// When to ask again for what did not answer.
const AGAIN: Duration = Duration::from_secs(30);

/// Objects of any kind without what is in them; an `Api` of these asks for no more.
type Metadata = PartialObjectMeta<DynamicObject>;
/// A resource by group and plural.
type Name = (String, String);

pub(super) struct Monitors {
    /// Under the identity of the shared caches.
    client: Client,
    observer: Observer,
    /// Kinds that informers tell about.
    shared: HashSet<Name>,
    running: HashMap<Name, Monitor>,
    tasks: JoinSet<()>,
    /// Something about the kinds themselves changed.
    changed: Arc<Notify>,
}

struct Monitor {
    resource: Arc<ApiResource>,
    task: AbortHandle,
    synced: watch::Receiver<bool>,
}

impl Monitors {
    pub(super) fn new(client: Client, observer: Observer, shared: HashSet<Name>) -> Self {
        Self {
            client,
            observer,
            shared,
            running: HashMap::new(),
            tasks: JoinSet::new(),
            changed: Arc::new(Notify::new()),
        }
    }

    /// Keeps a watch on every kind. `ready` becomes true once all that were there at first have been listed.
    pub(super) async fn run(mut self, ready: watch::Sender<bool>) {
        loop {
            let complete = self.follow().await;
            if !*ready.borrow() && complete {
                self.wait_for_lists().await;
                ready.send_replace(true);
            }
            let again = async {
                if complete {
                    std::future::pending().await
                } else {
                    tokio::time::sleep(AGAIN).await
                }
            };
            tokio::select! {
                () = self.changed.notified() => tokio::time::sleep(SETTLE).await,
                () = again => {}
                // Only to let go of what ended.
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    /// Watches what is new and lets go of what is gone. False if discovery was not complete.
    async fn follow(&mut self) -> bool {
        let discovered = match discovery::discover(&self.client).await {
            Ok(discovered) => discovered,
            Err(error) => {
                tracing::debug!(error = error.chain(), "asking for kinds to watch");
                return false;
            }
        };
        let mut served = HashSet::new();
        for kind in discovered.kinds {
            let name = (kind.resource.group.clone(), kind.resource.plural.clone());
            let watched = kind.can("list") && kind.can("watch") && kind.can("delete");
            let ignored = IGNORED.contains(&(name.0.as_str(), name.1.as_str()));
            if !watched || ignored || self.shared.contains(&name) {
                continue;
            }
            let is_same = |monitor: &Monitor| monitor.resource.api_version == kind.resource.api_version;
            if !self.running.get(&name).is_some_and(is_same) {
                self.watch(name.clone(), &kind);
            }
            served.insert(name);
        }
        if discovered.failures.is_empty() {
            let gone: Vec<Name> = self
                .running
                .keys()
                .filter(|name| !served.contains(*name))
                .cloned()
                .collect();
            for name in gone {
                self.unwatch(&name);
            }
        }
        discovered.failures.is_empty()
    }

    fn watch(&mut self, name: Name, kind: &Kind) {
        self.unwatch(&name);
        let api: Api<Metadata> = Api::all_with(self.client.clone(), &*kind.resource);
        let (listed, synced) = watch::channel(false);
        let changed = KINDS_OF_KINDS.contains(&name.1.as_str()).then(|| self.changed.clone());
        let task = monitor(api, kind.resource.clone(), self.observer.clone(), listed, changed);
        let task = self.tasks.spawn(task);
        self.running.insert(
            name,
            Monitor {
                resource: kind.resource.clone(),
                task,
                synced,
            },
        );
    }

    /// The kind is no longer served: its objects are gone.
    fn unwatch(&mut self, name: &Name) {
        if let Some(monitor) = self.running.remove(name) {
            monitor.task.abort();
            self.observer.relisted(&monitor.resource, &HashSet::new());
        }
    }

    async fn wait_for_lists(&self) {
        let lists = self.running.values().map(|monitor| {
            let mut synced = monitor.synced.clone();
            async move {
                // An error means that the monitor has ended: nothing to wait for.
                let _ = synced.wait_for(|synced| *synced).await;
            }
        });
        // One kind that cannot be listed must not keep all garbage.
        if tokio::time::timeout(AGAIN, futures::future::join_all(lists))
            .await
            .is_err()
        {
            tracing::warn!("some kinds cannot be listed; garbage is collected without them");
        }
    }
}

/// Watches one kind until aborted.
async fn monitor(
    api: Api<Metadata>,
    resource: Arc<ApiResource>,
    observer: Observer,
    listed: watch::Sender<bool>,
    changed: Option<Arc<Notify>>,
) {
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut present = HashSet::new();
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(kind = resource.kind, %error, "watching");
                continue;
            }
        };
        let observe = |object: &Metadata| observer.observe(&resource, &object.metadata);
        match event {
            Event::Init => present.clear(),
            Event::InitApply(object) => {
                observe(&object);
                present.extend(object.metadata.uid);
            }
            Event::InitDone => {
                observer.relisted(&resource, &present);
                present = HashSet::new();
                listed.send_replace(true);
            }
            Event::Apply(object) => observe(&object),
            Event::Delete(object) => observer.deleted(&object.metadata),
        }
        if let Some(changed) = &changed {
            changed.notify_one();
        }
    }
}
