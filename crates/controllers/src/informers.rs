//! Shared caches: one watch a kind for the whole crate, read by every controller.
//!
//! Owns list, watch, relist and the difference between two states. Must not know what a controller does with a change.
//! `kube::runtime::watcher` does the talking; the store is our own and not `kube::runtime::reflector`'s, and the loops
//! are our own and not `kube::runtime::Controller`'s, for three reasons. Kubernetes' algorithms need the object before
//! *and* after a change (expectations, released pods, moved selectors), which a reflector does not tell. Handlers here
//! run synchronously after the store has the change, so a controller never hears of an object that its cache lacks.
//! And a `Controller` brings a scheduler of its own, where client-go's work queue (see `workqueue`) is what the
//! algorithms' retry texts and intervals assume.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::key::Key;

/// What happened to an object, as the cache saw it. A relist may skip states in between, never the last one.
#[derive(Clone, Debug)]
pub(crate) enum Change<K> {
    Added(Arc<K>),
    Updated { old: Arc<K>, new: Arc<K> },
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The newest state that is known, the last one for a deleted object.
    pub(crate) fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) => object,
            Self::Updated { new, .. } => new,
        }
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// The cache of one kind.
pub(crate) struct Informer<K>(Arc<Cache<K>>);

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Cache<K> {
    objects: RwLock<BTreeMap<Key, Arc<K>>>,
    /// Until the watch starts, which takes them away.
    handlers: RwLock<Option<Vec<Handler<K>>>>,
    synced: watch::Sender<bool>,
}

impl<K> Informer<K> {
    fn new() -> Self {
        Self(Arc::new(Cache {
            objects: RwLock::default(),
            handlers: RwLock::new(Some(Vec::new())),
            synced: watch::Sender::new(false),
        }))
    }

    /// Calls `handler` on every change, in order. Only before [`Informers::run`]; it must not block.
    pub(crate) fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let handlers = &mut *self.0.handlers.write().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(
            handlers.is_some(),
            "a handler added to a running informer hears nothing"
        );
        handlers.get_or_insert_default().push(Box::new(handler));
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.0
            .objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// The objects of `namespace`, by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.0.objects.read().unwrap_or_else(PoisonError::into_inner);
        let from = Key::new(namespace, "");
        let in_it = objects.range(from..).take_while(|(key, _)| key.namespace == namespace);
        in_it.map(|(_, object)| object.clone()).collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.0
            .objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Returns once the first list is in.
    async fn synced(&self) {
        // The sender lives in `self`, so this cannot fail before it is true.
        let _ = self.0.synced.subscribe().wait_for(|synced| *synced).await;
    }
}

/// Brings what the watch says into the cache, and tells the handlers. It owns them: they hold caches in their turn, and
/// all of it goes when the watch ends.
struct Feed<K> {
    cache: Informer<K>,
    handlers: Vec<Handler<K>>,
}

impl<K: Cached> Feed<K> {
    fn new(cache: Informer<K>) -> Self {
        let handlers = cache.0.handlers.write().unwrap_or_else(PoisonError::into_inner).take();
        Self {
            cache,
            handlers: handlers.unwrap_or_default(),
        }
    }

    fn tell(&self, change: &Change<K>) {
        self.handlers.iter().for_each(|handler| handler(change));
    }

    fn objects(&self) -> RwLockWriteGuard<'_, BTreeMap<Key, Arc<K>>> {
        self.cache.0.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, object: K) {
        let (key, new) = (Key::of(&object), Arc::new(object));
        let old = self.objects().insert(key, new.clone());
        match old {
            None => self.tell(&Change::Added(new)),
            // A watch that is resumed may tell the last change again.
            Some(old) if old.meta().resource_version == new.meta().resource_version => {}
            // Deleted and created again while we did not look.
            Some(old) if old.meta().uid != new.meta().uid => {
                self.tell(&Change::Deleted(old));
                self.tell(&Change::Added(new));
            }
            Some(old) => self.tell(&Change::Updated { old, new }),
        }
    }

    fn delete(&self, last: K) {
        let key = Key::of(&last);
        if self.objects().remove(&key).is_some() {
            self.tell(&Change::Deleted(Arc::new(last)));
        }
    }

    /// Everything that is not in `listed` is gone.
    fn replace(&self, listed: BTreeMap<Key, K>) {
        let vanished: Vec<Arc<K>> = {
            let objects = &mut *self.objects();
            let gone: Vec<Key> = objects
                .keys()
                .filter(|key| !listed.contains_key(key))
                .cloned()
                .collect();
            gone.iter().filter_map(|key| objects.remove(key)).collect()
        };
        for object in vanished {
            self.tell(&Change::Deleted(object));
        }
        for object in listed.into_values() {
            self.apply(object);
        }
        self.cache.0.synced.send_replace(true);
    }

    /// Lists and watches until cancelled; errors are retried with back-off.
    async fn run(self, api: Api<K>, config: watcher::Config) {
        let mut events = pin!(watcher(api, config).default_backoff());
        let mut listed = BTreeMap::new();
        loop {
            match events.try_next().await {
                Ok(Some(event)) => match event.modify(K::slim) {
                    Event::Init => listed.clear(),
                    Event::InitApply(object) => {
                        listed.insert(Key::of(&object), object);
                    }
                    Event::InitDone => self.replace(std::mem::take(&mut listed)),
                    Event::Apply(object) => self.apply(object),
                    Event::Delete(object) => self.delete(object),
                },
                Ok(None) => return,
                Err(error) => tracing::debug!(kind = %K::kind(&()), %error, "watching"),
            }
        }
    }
}

/// A kind that is cached, and what of it need not be.
pub(crate) trait Cached:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Drops what no controller reads. Kinds that are written back whole lose only `managedFields`, which an update
    /// without them leaves as they are.
    fn slim(&mut self) {
        self.meta_mut().managed_fields = None;
    }
}

impl Cached for Pod {
    /// Pods are patched and deleted, never written back.
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        let Some(spec) = &mut self.spec else { return };
        // Which claims it uses is all that is asked of its volumes.
        if let Some(volumes) = &mut spec.volumes {
            volumes.retain(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some());
        }
        // A DaemonSet's pod says there which node it is for.
        let daemon = crate::ownership::controller_named(&self.metadata, "apps", "DaemonSet").is_some();
        spec.affinity = spec.affinity.take().filter(|_| daemon);
        spec.security_context = None;
        for container in spec
            .containers
            .iter_mut()
            .chain(spec.init_containers.iter_mut().flatten())
        {
            container.args = None;
            container.command = None;
            container.env = None;
            container.env_from = None;
            container.lifecycle = None;
            container.liveness_probe = None;
            container.readiness_probe = None;
            container.security_context = None;
            container.startup_probe = None;
            container.volume_mounts = None;
        }
    }
}
impl Cached for ReplicaSet {}
impl Cached for Deployment {}
impl Cached for HorizontalPodAutoscaler {}
impl Cached for Service {}
impl Cached for Endpoints {}
impl Cached for EndpointSlice {}
impl Cached for Namespace {}
impl Cached for ServiceAccount {}
impl Cached for ConfigMap {}
impl Cached for Node {
    /// Nodes are patched, never written back; the image list is the bulk of them.
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        if let Some(status) = &mut self.status {
            status.images = None;
        }
    }
}
impl Cached for Lease {}
impl Cached for StatefulSet {}
impl Cached for DaemonSet {}
impl Cached for ControllerRevision {}
impl Cached for Job {}
impl Cached for CronJob {}
impl Cached for PersistentVolumeClaim {}
impl Cached for PersistentVolume {}
impl Cached for StorageClass {}
impl Cached for ClusterRole {}

/// The caches of this crate. A new controller that needs another kind adds a field, a line in `each!` and, above, its
/// `Cached`.
#[derive(Clone)]
pub(crate) struct Informers {
    pub(crate) pods: Informer<Pod>,
    pub(crate) replica_sets: Informer<ReplicaSet>,
    pub(crate) deployments: Informer<Deployment>,
    pub(crate) autoscalers: Informer<HorizontalPodAutoscaler>,
    pub(crate) services: Informer<Service>,
    pub(crate) endpoints: Informer<Endpoints>,
    pub(crate) endpoint_slices: Informer<EndpointSlice>,
    pub(crate) namespaces: Informer<Namespace>,
    pub(crate) service_accounts: Informer<ServiceAccount>,
    /// ConfigMaps called `kube-root-ca.crt`, no others.
    pub(crate) root_cas: Informer<ConfigMap>,
    pub(crate) nodes: Informer<Node>,
    /// Heartbeats: the Leases of namespace `kube-node-lease`.
    pub(crate) node_leases: Informer<Lease>,
    pub(crate) stateful_sets: Informer<StatefulSet>,
    pub(crate) daemon_sets: Informer<DaemonSet>,
    pub(crate) controller_revisions: Informer<ControllerRevision>,
    pub(crate) jobs: Informer<Job>,
    pub(crate) cron_jobs: Informer<CronJob>,
    pub(crate) claims: Informer<PersistentVolumeClaim>,
    pub(crate) volumes: Informer<PersistentVolume>,
    pub(crate) storage_classes: Informer<StorageClass>,
    pub(crate) cluster_roles: Informer<ClusterRole>,
}

/// Name of the ConfigMap that carries the cluster's CA certificate into every namespace.
pub(crate) const ROOT_CA: &str = "kube-root-ca.crt";
/// Namespace of the nodes' heartbeats.
pub(crate) const NODE_LEASES: &str = "kube-node-lease";

impl Informers {
    pub(crate) fn new() -> Self {
        Self {
            pods: Informer::new(),
            replica_sets: Informer::new(),
            deployments: Informer::new(),
            autoscalers: Informer::new(),
            services: Informer::new(),
            endpoints: Informer::new(),
            endpoint_slices: Informer::new(),
            namespaces: Informer::new(),
            service_accounts: Informer::new(),
            root_cas: Informer::new(),
            nodes: Informer::new(),
            node_leases: Informer::new(),
            stateful_sets: Informer::new(),
            daemon_sets: Informer::new(),
            controller_revisions: Informer::new(),
            jobs: Informer::new(),
            cron_jobs: Informer::new(),
            claims: Informer::new(),
            volumes: Informer::new(),
            storage_classes: Informer::new(),
            cluster_roles: Informer::new(),
        }
    }

    /// Starts every watch. Handlers are fixed from here on.
    pub(crate) fn run(&self, client: &Client, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
        let mut watches = Watches {
            client,
            tasks,
            shutdown,
        };
        watches.all(&self.pods);
        watches.all(&self.replica_sets);
        watches.all(&self.deployments);
        watches.all(&self.autoscalers);
        watches.all(&self.services);
        watches.all(&self.endpoints);
        watches.all(&self.endpoint_slices);
        watches.all(&self.namespaces);
        watches.all(&self.service_accounts);
        watches.all(&self.nodes);
        watches.all(&self.stateful_sets);
        watches.all(&self.daemon_sets);
        watches.all(&self.controller_revisions);
        watches.all(&self.jobs);
        watches.all(&self.cron_jobs);
        watches.all(&self.claims);
        watches.all(&self.volumes);
        watches.all(&self.storage_classes);
        watches.all(&self.cluster_roles);
        let by_name = watcher::Config::default().fields(&format!("metadata.name={ROOT_CA}"));
        watches.some(&self.root_cas, Api::all(client.clone()), by_name);
        let leases = Api::namespaced(client.clone(), NODE_LEASES);
        watches.some(&self.node_leases, leases, watcher::Config::default());
    }

    /// Returns once every cache has its first list: before that, nothing may be concluded from absence.
    pub(crate) async fn synced(&self) {
        self.pods.synced().await;
        self.replica_sets.synced().await;
        self.deployments.synced().await;
        self.autoscalers.synced().await;
        self.services.synced().await;
        self.endpoints.synced().await;
        self.endpoint_slices.synced().await;
        self.namespaces.synced().await;
        self.service_accounts.synced().await;
        self.root_cas.synced().await;
        self.nodes.synced().await;
        self.node_leases.synced().await;
        self.stateful_sets.synced().await;
        self.daemon_sets.synced().await;
        self.controller_revisions.synced().await;
        self.jobs.synced().await;
        self.cron_jobs.synced().await;
        self.claims.synced().await;
        self.volumes.synced().await;
        self.storage_classes.synced().await;
        self.cluster_roles.synced().await;
    }
}

/// Starts watches as tasks.
struct Watches<'a> {
    client: &'a Client,
    tasks: &'a mut JoinSet<()>,
    shutdown: &'a CancellationToken,
}

impl Watches<'_> {
    fn all<K: Cached>(&mut self, informer: &Informer<K>) {
        self.some(informer, Api::all(self.client.clone()), watcher::Config::default());
    }

    fn some<K: Cached>(&mut self, informer: &Informer<K>, api: Api<K>, config: watcher::Config) {
        let (informer, shutdown) = (informer.clone(), self.shutdown.clone());
        self.tasks.spawn(async move {
            shutdown.run_until_cancelled(Feed::new(informer).run(api, config)).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn config_map(name: &str, uid: &str, version: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map.metadata.namespace = Some("default".to_owned());
        map.metadata.uid = Some(uid.to_owned());
        map.metadata.resource_version = Some(version.to_owned());
        map
    }

    /// A cache whose changes are written down as text.
    fn recorded() -> (Feed<ConfigMap>, Arc<Mutex<Vec<String>>>) {
        let (informer, told) = (Informer::new(), Arc::new(Mutex::new(Vec::new())));
        let version = |map: &ConfigMap| map.metadata.resource_version.clone().unwrap();
        let into = told.clone();
        informer.on_change(move |change| {
            into.lock().unwrap().push(match change {
                Change::Added(new) => format!("+{}", version(new)),
                Change::Updated { old, new } => format!("{}→{}", version(old), version(new)),
                Change::Deleted(old) => format!("-{}", version(old)),
            });
        });
        (Feed::new(informer), told)
    }

    fn told(log: &Mutex<Vec<String>>) -> Vec<String> {
        std::mem::take(&mut *log.lock().unwrap())
    }

    #[test]
    fn a_change_tells_the_state_before_and_after() {
        let (feed, log) = recorded();
        feed.apply(config_map("a", "u", "1"));
        feed.apply(config_map("a", "u", "2"));
        feed.apply(config_map("a", "u", "2"));
        feed.delete(config_map("a", "u", "3"));
        assert_eq!(told(&log), ["+1", "1→2", "-3"]);
    }

    #[test]
    fn a_name_that_came_back_with_another_uid_was_deleted_in_between() {
        let (feed, log) = recorded();
        feed.apply(config_map("a", "u", "1"));
        feed.apply(config_map("a", "v", "5"));
        assert_eq!(told(&log), ["+1", "-1", "+5"]);
    }

    #[test]
    fn a_relist_tells_what_vanished_and_what_changed_only() {
        let (feed, log) = recorded();
        feed.apply(config_map("a", "a", "1"));
        feed.apply(config_map("b", "b", "2"));
        feed.apply(config_map("c", "c", "3"));
        told(&log);
        let listed = [
            config_map("b", "b", "2"),
            config_map("c", "c", "7"),
            config_map("d", "d", "8"),
        ];
        feed.replace(listed.into_iter().map(|map| (Key::of(&map), map)).collect());
        assert_eq!(told(&log), ["-1", "3→7", "+8"]);
        assert_eq!(feed.cache.in_namespace("default").len(), 3);
        assert!(feed.cache.in_namespace("defaul").is_empty());
    }
}
