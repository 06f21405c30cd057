//! The garbage collector: what nobody owns any more goes; what is deleted in the foreground waits; orphans are let go.
//!
//! `graph` says what is worth a look, `monitors` feeds it, and this file looks at the real object and acts. Every delete
//! and patch carries the resource version that was judged, so a decision about an older state fails and is made again.
//! (k/k `pkg/controller/garbagecollector/{garbagecollector,operations}.go`, v1.36.)

mod graph;
mod monitors;

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::ApiResource;
use kube::{Client, Resource};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use self::graph::{FOREGROUND, Graph, Known, ORPHAN, Place, Uid, Work};
use self::monitors::Monitors;
use crate::discovery::{self, Kind};
use crate::error::{self, Doing, Error, Result};
use crate::events::{Recorder, Severity};
use crate::informers::{Change, Informer, Informers};
use crate::namespace::Emptied;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;
use crate::{Context, INFORMERS};

/// How long an owner that was not found counts as gone, and how long a kind's place in the API is remembered.
const REMEMBER: Duration = Duration::from_secs(30);

pub(crate) struct Garbage {
    client: Client,
    recorder: Recorder,
    observer: Observer,
    ready: watch::Receiver<bool>,
    kinds: Mutex<Vec<(Instant, Kind)>>,
    /// References that led nowhere, so that a thousand dependents ask once.
    absent: Mutex<Vec<(Instant, Place, String)>>,
}

/// Registers the collector's handlers; returns it and the loop that feeds it. `emptied` hears of every deletion.
pub(crate) fn start(context: &Context, emptied: Emptied) -> (Garbage, impl Future<Output = ()> + Send + use<>) {
    let observer = Observer {
        graph: Arc::default(),
        queue: WorkQueue::new(),
        emptied,
    };
    let mut shared = HashSet::new();
    let Informers {
        pods,
        replica_sets,
        deployments,
        autoscalers,
        services,
        ..
    } = &context.informers;
    let Informers {
        endpoints,
        endpoint_slices,
        namespaces,
        service_accounts,
        nodes,
        ..
    } = &context.informers;
    observer.listen(pods, &mut shared);
    observer.listen(replica_sets, &mut shared);
    observer.listen(deployments, &mut shared);
    observer.listen(autoscalers, &mut shared);
    observer.listen(services, &mut shared);
    observer.listen(endpoints, &mut shared);
    observer.listen(endpoint_slices, &mut shared);
    observer.listen(namespaces, &mut shared);
    observer.listen(service_accounts, &mut shared);
    observer.listen(nodes, &mut shared);
    let (announce, ready) = watch::channel(false);
    let monitors = Monitors::new(context.client(INFORMERS), observer.clone(), shared).run(announce);
    let collector = Garbage {
        client: context.client(Garbage::NAME),
        recorder: context.recorder("garbage-collector-controller"),
        observer,
        ready,
        kinds: Mutex::default(),
        absent: Mutex::default(),
    };
    (collector, monitors)
}

/// Brings what watches see into the graph, and what follows from it into the queue.
#[derive(Clone)]
struct Observer {
    graph: Arc<Mutex<Graph>>,
    queue: Arc<WorkQueue<Work>>,
    emptied: Emptied,
}

impl Observer {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, work: Vec<Work>) {
        work.into_iter().for_each(|work| self.queue.add(work));
    }

    fn observe(&self, resource: &ApiResource, meta: &ObjectMeta) {
        // Most objects have nothing to do with garbage: nothing is copied for them.
        let place = || Place {
            api_version: resource.api_version.as_str().into(),
            kind: resource.kind.as_str().into(),
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
        };
        let work = self.graph().observe(place, meta);
        self.enqueue(work);
    }

    fn deleted(&self, meta: &ObjectMeta) {
        let work = self.graph().remove(meta.uid.as_deref().unwrap_or_default());
        self.enqueue(work);
        if let Some(namespace) = &meta.namespace {
            self.emptied.tell(namespace);
        }
    }

    /// All objects of a kind are `present`; what else the graph knows of it is gone.
    fn relisted(&self, resource: &ApiResource, present: &HashSet<String>) {
        let known = self.graph().of_kind(&resource.api_version, &resource.kind);
        for uid in known.into_iter().filter(|uid| !present.contains(&**uid)) {
            let work = self.graph().remove(&uid);
            self.enqueue(work);
        }
    }

    /// Hears what an informer sees.
    fn listen<K>(&self, informer: &Informer<K>, shared: &mut HashSet<(String, String)>)
    where
        K: Resource<DynamicType = ()> + Debug + Send + Sync + 'static,
    {
        let (resource, observer) = (ApiResource::erase::<K>(&()), self.clone());
        shared.insert((resource.group.clone(), resource.plural.clone()));
        informer.on_change(move |change| match change {
            Change::Added(object) | Change::Updated { new: object, .. } => observer.observe(&resource, object.meta()),
            Change::Deleted(object) => observer.deleted(object.meta()),
        });
    }
}

impl Reconcile for Garbage {
    const NAME: &'static str = "generic-garbage-collector";
    const WORKERS: usize = 20;
    type Key = Work;

    fn queue(&self) -> &Arc<WorkQueue<Work>> {
        &self.observer.queue
    }

    async fn reconcile(&self, work: &Work) -> Result<()> {
        // Nothing may be concluded from a graph that has not seen everything once.
        let mut ready = self.ready.clone();
        if ready.wait_for(|ready| *ready).await.is_err() {
            return Ok(());
        }
        match work {
            Work::Collect(uid) => self.collect(uid).await,
            Work::Orphan(uid) => self.orphan(uid).await,
            Work::Verify(uid) => self.verify(uid).await,
        }
    }
}

/// What an owner reference leads to.
enum Found {
    /// An owner that is there to stay, or at least is not waiting for us.
    Solid,
    /// Nothing, or something else of the same name.
    Absent,
    /// An owner that waits for the end of its dependents.
    Waiting,
}

impl Garbage {
    /// Looks at an object that may be garbage.
    async fn collect(&self, uid: &Uid) -> Result<()> {
        let Some(known) = self.observer.graph().get(uid) else {
            return Ok(());
        };
        // Its end is decided; what hangs on it is looked at then.
        if known.being_deleted && !known.foreground {
            return Ok(());
        }
        let Some((kind, meta)) = self.look(&known.place, uid).await? else {
            let work = self.observer.graph().remove(uid);
            self.observer.enqueue(work);
            return Ok(());
        };
        if known.foreground {
            return self.wait_for_dependents(uid, &kind, &known.place, &meta).await;
        }
        let references = meta.owner_references.clone().unwrap_or_default();
        if references.is_empty() {
            return Ok(());
        }
        let (mut solid, mut absent, mut waiting) = (0, HashSet::new(), HashSet::new());
        for reference in &references {
            match self.resolve(&known, &meta, reference).await? {
                Found::Solid => solid += 1,
                Found::Absent => {
                    absent.insert(reference.uid.as_str());
                }
                Found::Waiting => {
                    waiting.insert(reference.uid.as_str());
                }
            }
        }
        if solid > 0 {
            // Waiting owners too: nobody waits for what somebody else keeps.
            let lost: HashSet<&str> = absent.union(&waiting).copied().collect();
            if lost.is_empty() {
                return Ok(());
            }
            let left: Vec<_> = references
                .iter()
                .filter(|owner| !lost.contains(owner.uid.as_str()))
                .collect();
            return self.patch_owners(&kind, &known.place, &meta, json!(left)).await;
        }
        let policy = if !waiting.is_empty() && known.has_dependents {
            self.break_circle(uid, &kind, &known, &meta).await?;
            PropagationPolicy::Foreground
        } else {
            let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|have| have == finalizer);
            match (has(ORPHAN), has(FOREGROUND)) {
                (true, _) => PropagationPolicy::Orphan,
                (false, true) => PropagationPolicy::Foreground,
                (false, false) => PropagationPolicy::Background,
            }
        };
        self.delete(&kind, &known.place, &meta, policy).await
    }

    /// The object is deleted in the foreground: let it go if nothing blocks it any more, else see to what does.
    async fn wait_for_dependents(&self, uid: &Uid, kind: &Kind, place: &Place, meta: &ObjectMeta) -> Result<()> {
        let blocking = self.observer.graph().blocking(uid);
        if blocking.is_empty() {
            return self.remove_finalizer(kind, place, meta, FOREGROUND).await;
        }
        for (dependent, waits_itself) in blocking {
            if !waits_itself {
                self.observer.queue.add(Work::Collect(dependent));
            }
        }
        Ok(())
    }

    /// A dependent that itself waits for its dependents might wait for us: then we stop blocking our owners.
    async fn break_circle(&self, uid: &Uid, kind: &Kind, known: &Known, meta: &ObjectMeta) -> Result<()> {
        let waits = |dependent: &Uid| {
            self.observer
                .graph()
                .get(dependent)
                .is_some_and(|known| known.foreground)
        };
        let dependents = self.observer.graph().dependents(uid);
        if !dependents.iter().any(waits) {
            return Ok(());
        }
        let mut owners = meta.owner_references.clone().unwrap_or_default();
        owners
            .iter_mut()
            .for_each(|owner| owner.block_owner_deletion = Some(false));
        self.patch_owners(kind, &known.place, meta, json!(owners)).await
    }

    /// Lets go of an owner's dependents, then of the owner.
    async fn orphan(&self, uid: &Uid) -> Result<()> {
        let Some(known) = self.observer.graph().get(uid) else {
            return Ok(());
        };
        let dependents = self.observer.graph().dependents(uid);
        for dependent in dependents {
            let Some(place) = self.observer.graph().get(&dependent).map(|known| known.place) else {
                continue;
            };
            let Some((kind, meta)) = self.look(&place, &dependent).await? else {
                continue;
            };
            let owners = meta.owner_references.iter().flatten();
            let left: Vec<_> = owners.filter(|owner| *owner.uid != **uid).collect();
            self.patch_owners(&kind, &place, &meta, json!(left)).await?;
        }
        match self.look(&known.place, uid).await? {
            Some((kind, meta)) => self.remove_finalizer(&kind, &known.place, &meta, ORPHAN).await,
            None => Ok(()),
        }
    }

    /// Looks whether an owner is where its dependents say it is.
    async fn verify(&self, uid: &Uid) -> Result<()> {
        let Some(known) = self.observer.graph().get(uid) else {
            return Ok(());
        };
        match self.look(&known.place, uid).await? {
            Some(_) => self.observer.graph().verified(uid),
            None => {
                let dependents = self.observer.graph().dependents(uid);
                self.observer
                    .enqueue(dependents.into_iter().map(Work::Collect).collect());
            }
        }
        Ok(())
    }

    async fn resolve(&self, known: &Known, meta: &ObjectMeta, reference: &OwnerReference) -> Result<Found> {
        let kind = self.kind(&reference.api_version, &reference.kind).await?;
        let of_cluster = known.place.namespace.is_empty();
        if of_cluster && kind.namespaced {
            // There is no namespace to look in. Nothing may be concluded, so nothing is deleted; it is said.
            let message = format!(
                "ownerRef [{}/{}, name: {}, uid: {}] does not exist in namespace \"\"",
                reference.api_version, reference.kind, reference.name, reference.uid
            );
            let about = ObjectReference {
                api_version: Some(known.place.api_version.to_string()),
                kind: Some(known.place.kind.to_string()),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
                ..Default::default()
            };
            self.recorder
                .record_about(about, Severity::Warning, "OwnerRefInvalidNamespace", message);
            return Ok(Found::Solid);
        }
        let place = Place {
            api_version: reference.api_version.as_str().into(),
            kind: reference.kind.as_str().into(),
            namespace: if kind.namespaced {
                known.place.namespace.clone()
            } else {
                "".into()
            },
            name: reference.name.as_str().into(),
        };
        if self.is_absent(&place, &reference.uid) {
            return Ok(Found::Absent);
        }
        let Some((_, owner)) = self.look(&place, &reference.uid).await? else {
            let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
            absent.push((Instant::now(), place, reference.uid.clone()));
            return Ok(Found::Absent);
        };
        let waits = owner
            .finalizers
            .iter()
            .flatten()
            .any(|finalizer| finalizer == FOREGROUND);
        Ok(if owner.deletion_timestamp.is_some() && waits {
            Found::Waiting
        } else {
            Found::Solid
        })
    }

    /// UIDs never come back, so "absent" stays true; it is forgotten to save room.
    fn is_absent(&self, place: &Place, uid: &str) -> bool {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.retain(|(since, ..)| since.elapsed() < REMEMBER);
        absent
            .iter()
            .any(|(_, absent_place, absent_uid)| absent_place == place && absent_uid == uid)
    }

    /// The object itself, not what the graph thinks of it. None if it is gone or another one took its name.
    async fn look(&self, place: &Place, uid: &str) -> Result<Option<(Kind, ObjectMeta)>> {
        let kind = self.kind(&place.api_version, &place.kind).await?;
        let api = kind.api(&self.client, &place.namespace);
        let found = api.get_metadata_opt(&place.name).await;
        let found = found.doing(|| format!("looking at {} `{}/{}`", place.kind, place.namespace, place.name))?;
        let meta = found
            .map(|object| object.metadata)
            .filter(|meta| meta.uid.as_deref() == Some(uid));
        Ok(meta.map(|meta| (kind, meta)))
    }

    /// Where a kind is served.
    async fn kind(&self, api_version: &str, name: &str) -> Result<Kind> {
        {
            let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            kinds.retain(|(since, _)| since.elapsed() < REMEMBER);
            let is_it = |kind: &Kind| kind.resource.api_version == api_version && kind.resource.kind == name;
            if let Some((_, kind)) = kinds.iter().find(|(_, kind)| is_it(kind)) {
                return Ok(kind.clone());
            }
        }
        let served = discovery::kinds_of(&self.client, api_version).await;
        let served = served.doing(|| format!("asking for the kinds of `{api_version}`"))?;
        let mut found = None;
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in served {
            if kind.resource.kind == name {
                found = Some(kind.clone());
            }
            kinds.push((Instant::now(), kind));
        }
        found.ok_or_else(|| {
            Error::new(format!(
                "`{api_version}` has no kind `{name}`: its objects are left alone"
            ))
        })
    }

    async fn patch_owners(
        &self,
        kind: &Kind,
        place: &Place,
        meta: &ObjectMeta,
        owners: serde_json::Value,
    ) -> Result<()> {
        let patch = json!({"metadata": {
            "resourceVersion": meta.resource_version, "uid": meta.uid, "ownerReferences": owners}});
        self.patch(kind, place, &patch).await
    }

    async fn remove_finalizer(&self, kind: &Kind, place: &Place, meta: &ObjectMeta, finalizer: &str) -> Result<()> {
        let have = meta.finalizers.as_deref().unwrap_or_default();
        let left: Vec<&String> = have.iter().filter(|have| *have != finalizer).collect();
        if left.len() == have.len() {
            return Ok(());
        }
        let patch = json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": left}});
        self.patch(kind, place, &patch).await
    }

    /// A merge patch: custom resources know no other.
    async fn patch(&self, kind: &Kind, place: &Place, patch: &serde_json::Value) -> Result<()> {
        let api = kind.api(&self.client, &place.namespace);
        match api
            .patch_metadata(&place.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Err(error) if error::is_not_found(&error) => Ok(()),
            done => done
                .map(drop)
                .doing(|| format!("patching {} `{}/{}`", place.kind, place.namespace, place.name)),
        }
    }

    async fn delete(&self, kind: &Kind, place: &Place, meta: &ObjectMeta, policy: PropagationPolicy) -> Result<()> {
        let parameters = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
            }),
            ..Default::default()
        };
        let api = kind.api(&self.client, &place.namespace);
        match api.delete(&place.name, &parameters).await {
            Err(error) if error::is_not_found(&error) => Ok(()),
            done => done
                .map(drop)
                .doing(|| format!("collecting {} `{}/{}`", place.kind, place.namespace, place.name)),
        }
    }
}
