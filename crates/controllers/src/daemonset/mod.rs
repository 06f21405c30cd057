//! DaemonSet: a pod on every node that takes one.
//!
//! Owns making and deleting the pods and the status; `placement` says which nodes, `plan` which pods. Pods are tied to
//! their node by affinity and bound by the scheduler. (k/k `pkg/controller/daemon`, v1.36.)

mod placement;
mod plan;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

use crate::Context;
use crate::error::{self, Doing, Result};
use crate::events::Recorder;
use crate::expectations::Expectations;
use crate::history::{HASH_LABEL, History, REVISION_LABEL};
use crate::informers::Change;
use crate::key::Key;
use crate::ownership::{self, Claim};
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;
use crate::{pods, selector};
use plan::{Changes, View};

/// Pods made or deleted in one pass at most.
const BURST: usize = 250;
/// The pause before a failed pod is replaced; it doubles with each…
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(15 * 60);

/// Since when a node's pods fail: the current pause, and when it began.
type BackOff = (Duration, Instant);

pub(crate) struct DaemonSets {
    context: Context,
    client: Client,
    recorder: Recorder,
    expectations: Arc<Expectations>,
    back_off: Mutex<HashMap<(Key, String), BackOff>>,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> DaemonSets {
    let controller = DaemonSets {
        context: context.clone(),
        client: context.client(DaemonSets::NAME),
        recorder: context.recorder(DaemonSets::NAME),
        expectations: Arc::default(),
        back_off: Mutex::default(),
        queue: WorkQueue::new(),
    };
    let (queue, expectations) = (controller.queue.clone(), controller.expectations.clone());
    context.informers.daemon_sets.on_change(move |change| {
        let key = Key::of(&**change.object());
        if let Change::Deleted(_) = change {
            expectations.forget(&key);
        }
        queue.add(key);
    });
    let (queue, expectations) = (controller.queue.clone(), controller.expectations.clone());
    let sets = context.informers.daemon_sets.clone();
    context.informers.pods.on_change(move |change| {
        let pod = change.object();
        let namespace = pod.namespace().unwrap_or_default();
        let Some(owner) = ownership::controller_named(&pod.metadata, "apps", "DaemonSet") else {
            if ownership::controller_of(&pod.metadata).is_none() {
                for set in sets.in_namespace(&namespace) {
                    let wanted = set.spec.as_ref().and_then(|spec| selector::of(&spec.selector).ok());
                    if wanted.is_some_and(|wanted| selector::matches(&wanted, pod.metadata.labels.as_ref())) {
                        queue.add(Key::of(&*set));
                    }
                }
            }
            return;
        };
        let key = Key::new(namespace, &owner.name);
        match change {
            Change::Added(_) => expectations.creation_observed(&key),
            Change::Updated { new, .. } if !pods::is_terminating(new) => {}
            _ => expectations.deletion_observed(&key, &pod.uid().unwrap_or_default()),
        }
        queue.add(key);
    });
    let (queue, sets) = (controller.queue.clone(), context.informers.daemon_sets.clone());
    context.informers.nodes.on_change(move |change| {
        let relevant = match change {
            Change::Updated { old, new } => {
                old.metadata.labels != new.metadata.labels
                    || old.spec.as_ref().map(|spec| &spec.taints) != new.spec.as_ref().map(|spec| &spec.taints)
            }
            Change::Added(_) | Change::Deleted(_) => true,
        };
        if relevant {
            sets.all().iter().for_each(|set| queue.add(Key::of(&**set)));
        }
    });
    controller
}

impl Reconcile for DaemonSets {
    const NAME: &'static str = "daemon-set-controller";
    const WORKERS: usize = 2;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let Some(set) = self.context.informers.daemon_sets.get(key) else {
            self.expectations.forget(key);
            return Ok(());
        };
        // Decided before the pods are read: what is seen from here on belongs to the next pass.
        let may_act = self.expectations.satisfied(key);
        let Some(spec) = &set.spec else { return Ok(()) };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let pods = self.pods(&set, spec).await?;
        let history = History {
            owner: &*set,
            template: &spec.template,
            selector: &spec.selector,
            collisions: set.status.as_ref().and_then(|status| status.collision_count),
            client: &self.client,
        };
        let revisions = history.sync(&self.context.informers).await?;
        let hash = revisions.update.labels().get(HASH_LABEL).cloned().unwrap_or_default();
        let template = spec.template.spec.clone().unwrap_or_default();
        let nodes = self.context.informers.nodes.all();
        let nodes = nodes
            .iter()
            .map(|node| (node.name_any(), placement::judge(&template, node)));
        let view = View {
            spec,
            nodes: &nodes.collect(),
            pods: &pods,
            hash: &hash,
            now: self.context.clock.now(),
        };
        let acted = match may_act {
            true => self.act(key, &set, &view).await,
            false => Ok(()),
        };
        self.write_status(&set, status(&set, &view, revisions.collisions))
            .await?;
        acted?;
        let live = |label: &String| {
            pods.values()
                .flatten()
                .any(|pod| pod.labels().get(REVISION_LABEL) == Some(label))
        };
        let mut used: BTreeSet<String> = revisions
            .all
            .iter()
            .filter(|revision| revision.labels().get(HASH_LABEL).is_some_and(live))
            .map(|revision| revision.name_any())
            .collect();
        used.insert(revisions.update.name_any());
        let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or_default();
        history.truncate(&revisions.all, &used, limit).await?;
        self.requeue_for_availability(key, &view);
        Ok(())
    }
}

impl DaemonSets {
    /// The set's pods by the node they stand for.
    async fn pods(&self, set: &DaemonSet, spec: &DaemonSetSpec) -> Result<BTreeMap<String, Vec<Arc<Pod>>>> {
        let wanted = selector::of(&spec.selector)?;
        let claim = Claim {
            owner: set,
            selector: &wanted,
            client: &self.client,
        };
        let candidates = self
            .context
            .informers
            .pods
            .in_namespace(&set.namespace().unwrap_or_default());
        let mut by_node = BTreeMap::<String, Vec<Arc<Pod>>>::new();
        for pod in claim.of(candidates).await? {
            let node = placement::node_of(&pod).unwrap_or_default().to_owned();
            by_node.entry(node).or_default().push(pod);
        }
        Ok(by_node)
    }

    async fn act(&self, key: &Key, set: &DaemonSet, view: &View<'_>) -> Result<()> {
        let mut changes = view.manage();
        self.hold_back(key, set, &mut changes);
        // Only a set that has what it wants is rolled.
        if changes == Changes::default() {
            changes = view.roll();
        }
        if !changes.create.is_empty() {
            changes.create.truncate(BURST);
            self.expectations.expect_creations(key, changes.create.len());
            let made = join_all(changes.create.iter().map(|node| self.create(set, view, node))).await;
            for _ in made.iter().filter(|made| made.is_err()) {
                self.expectations.creation_observed(key);
            }
            return made.into_iter().find(Result::is_err).unwrap_or(Ok(()));
        }
        changes.delete.truncate(BURST);
        if changes.delete.is_empty() {
            return Ok(());
        }
        let uids = changes.delete.iter().filter_map(|pod| pod.uid());
        self.expectations.expect_deletions(key, uids);
        let deleted = join_all(changes.delete.iter().map(|pod| self.delete(key, set, pod))).await;
        deleted.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }

    /// Says which pods have ended, and leaves a failed one alone while its node's pause lasts.
    fn hold_back(&self, key: &Key, set: &DaemonSet, changes: &mut Changes) {
        let now = Instant::now();
        let mut waiting = Vec::new();
        for (node, pod) in &changes.ended {
            let name = pod.name_any();
            if pods::phase(pod) == "Succeeded" {
                let message = format!(
                    "Found succeeded daemon pod {} on node {node}, will try to delete it",
                    Key::of(&**pod)
                );
                self.recorder.normal(set, "SucceededDaemonPod", message);
                continue;
            }
            let mut all = self.back_off.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = (key.clone(), node.clone());
            let known = all.get(&slot).copied();
            if let Some((pause, since)) = known
                && now < since + pause
            {
                self.queue.add_after(key.clone(), since + pause - now);
                waiting.push(name);
                continue;
            }
            // Quiet for twice the longest pause: it starts small again.
            let pause = match known {
                Some((pause, since)) if now < since + 2 * LONGEST_BACK_OFF => (pause * 2).min(LONGEST_BACK_OFF),
                _ => FIRST_BACK_OFF,
            };
            all.insert(slot, (pause, now));
            drop(all);
            let message = format!(
                "Found failed daemon pod {} on node {node}, will try to kill it",
                Key::of(&**pod)
            );
            self.recorder.warning(set, "FailedDaemonPod", message);
        }
        changes.delete.retain(|pod| !waiting.contains(&pod.name_any()));
        changes.ended.retain(|(_, pod)| !waiting.contains(&pod.name_any()));
    }

    async fn create(&self, set: &DaemonSet, view: &View<'_>, node: &str) -> Result<()> {
        let template = view.spec.template.clone();
        let meta = template.metadata.unwrap_or_default();
        let mut labels = meta.labels.unwrap_or_default();
        labels.insert(REVISION_LABEL.to_owned(), view.hash.to_owned());
        if let Some(generation) = set.annotations().get("deprecated.daemonset.template.generation") {
            labels.insert("pod-template-generation".to_owned(), generation.clone());
        }
        let mut spec = template.spec.unwrap_or_default();
        placement::tie(&mut spec, node);
        let pod = Pod {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", set.name_any())),
                namespace: set.namespace(),
                labels: Some(labels),
                annotations: meta.annotations,
                finalizers: meta.finalizers,
                owner_references: Some(vec![ownership::controller_ref(set)]),
                ..Default::default()
            },
            spec: Some(spec),
            status: None,
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        match api.create(&PostParams::default(), &pod).await {
            Ok(pod) => {
                let message = format!("Created pod: {}", pod.name_any());
                self.recorder.normal(set, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                if !error::is_namespace_terminating(&error) {
                    let message = format!("Error creating: {}", error::message(&error));
                    self.recorder.warning(set, "FailedCreate", message);
                }
                Err(error).doing(|| format!("creating a pod of DaemonSet `{}`", Key::of(set)))
            }
        }
    }

    async fn delete(&self, key: &Key, set: &DaemonSet, pod: &Pod) -> Result<()> {
        let Key { namespace, name } = Key::of(pod);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let Err(error) = api.delete(&name, &DeleteParams::default()).await else {
            self.recorder
                .normal(set, "SuccessfulDelete", format!("Deleted pod: {name}"));
            return Ok(());
        };
        // No change will come of it.
        self.expectations.deletion_observed(key, &pod.uid().unwrap_or_default());
        if error::is_not_found(&error) {
            return Ok(());
        }
        let message = format!("Error deleting: {}", error::message(&error));
        self.recorder.warning(set, "FailedDelete", message);
        Err(error).doing(|| format!("deleting pod `{namespace}/{name}` of DaemonSet `{key}`"))
    }

    async fn write_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<()> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let key = Key::of(set);
        let mut changed = set.clone();
        changed.status = Some(status);
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.replace_status(&key.name, &PostParams::default(), &changed).await {
            Err(error) if error::is_not_found(&error) => Ok(()),
            written => written
                .map(drop)
                .doing(|| format!("writing the status of DaemonSet `{key}`")),
        }
    }

    /// Nothing happens when a ready pod becomes available, but time: look again then.
    fn requeue_for_availability(&self, key: &Key, view: &View<'_>) {
        let pending = view.pods.values().flatten().filter(|pod| !view.is_available(pod));
        if let Some(since) = pending.filter_map(|pod| pods::ready_since(pod)).min() {
            let min_ready = view.spec.min_ready_seconds.unwrap_or_default();
            let wait = pods::available_at(since, min_ready).duration_since(view.now);
            self.queue
                .add_after(key.clone(), Duration::try_from(wait).unwrap_or_default());
        }
    }
}

/// Pure: the status that follows from nodes and pods. Of several pods on a node the oldest counts.
fn status(set: &DaemonSet, view: &View<'_>, collisions: i32) -> DaemonSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: old.collision_count.or((collisions > 0).then_some(collisions)),
        conditions: old.conditions,
        ..Default::default()
    };
    let (mut updated, mut available) = (0, 0);
    for (node, verdict) in view.nodes {
        let mut here: Vec<_> = view.pods.get(node).into_iter().flatten().collect();
        here.sort_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()));
        if !verdict.should_run {
            status.number_misscheduled += i32::from(!here.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        status.current_number_scheduled += i32::from(!here.is_empty());
        if let Some(ready) = here
            .iter()
            .find(|pod| pods::is_ready(pod) && !pods::is_terminating(pod))
        {
            status.number_ready += 1;
            available += i32::from(view.is_available(ready));
        }
        updated += i32::from(here.iter().any(|pod| view.is_new(pod) && !pods::is_terminating(pod)));
    }
    // Left out of the wire form when zero, as Go's `omitempty` does.
    let nonzero = |count: i32| (count != 0).then_some(count);
    status.updated_number_scheduled = nonzero(updated);
    status.number_available = nonzero(available);
    status.number_unavailable = nonzero(status.desired_number_scheduled - available);
    status
}
