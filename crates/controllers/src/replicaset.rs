//! ReplicaSet: as many pods as `spec.replicas` says, no more, no fewer.
//!
//! Owns claiming, creating and deleting pods and the ReplicaSet's status. Must not know what a Deployment is, but for the
//! ranking of pods on a node. (k/k `pkg/controller/replicaset/{replica_set,replica_set_utils}.go`, v1.36.)

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};

use crate::Context;
use crate::error::{self, Doing, Error, Result};
use crate::events::Recorder;
use crate::expectations::Expectations;
use crate::informers::{Change, Informers};
use crate::key::Key;
use crate::ownership::{self, Claim};
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;
use crate::{pod_ranking, pods, selector};

/// Pods created or deleted in one pass at most.
const BURST: usize = 500;

pub(crate) struct ReplicaSets {
    context: Context,
    client: Client,
    recorder: Recorder,
    expectations: Arc<Expectations>,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> ReplicaSets {
    let client = context.client(ReplicaSets::NAME);
    let controller = ReplicaSets {
        context: context.clone(),
        recorder: context.recorder(ReplicaSets::NAME),
        client,
        expectations: Arc::default(),
        queue: WorkQueue::new(),
    };
    let (queue, expectations) = (controller.queue.clone(), controller.expectations.clone());
    context.informers.replica_sets.on_change(move |change| {
        let key = Key::of(&**change.object());
        if let Change::Deleted(_) = change {
            expectations.forget(&key);
        }
        queue.add(key);
    });
    let watcher = PodWatcher {
        informers: context.informers.clone(),
        queue: controller.queue.clone(),
        expectations: controller.expectations.clone(),
    };
    context.informers.pods.on_change(move |change| watcher.changed(change));
    controller
}

/// Tells the queue and the expectations what happens to pods.
struct PodWatcher {
    informers: Informers,
    queue: Arc<WorkQueue<Key>>,
    expectations: Arc<Expectations>,
}

impl PodWatcher {
    fn changed(&self, change: &Change<Pod>) {
        match change {
            // Seen for the first time on its way out (after a restart of ours).
            Change::Added(pod) if pods::is_terminating(pod) => self.deleted(pod),
            Change::Added(pod) => match self.owner(&pod.metadata) {
                Some(owner) => {
                    let key = Key::of(&*owner);
                    self.expectations.creation_observed(&key);
                    self.queue.add(key);
                }
                None => self.orphan(pod),
            },
            Change::Updated { old, new } => self.updated(old, new),
            Change::Deleted(pod) => self.deleted(pod),
        }
    }

    fn updated(&self, old: &Pod, new: &Pod) {
        if pods::is_terminating(new) {
            // A replica less from this moment on; labels may have changed in the same write.
            self.deleted(new);
            if old.metadata.labels != new.metadata.labels {
                self.deleted(old);
            }
            return;
        }
        let uid = |meta: &ObjectMeta| ownership::controller_of(meta).map(|owner| owner.uid.clone());
        let moved = uid(&old.metadata) != uid(&new.metadata);
        if moved && let Some(owner) = self.owner(&old.metadata) {
            self.queue.add(Key::of(&*owner));
        }
        match self.owner(&new.metadata) {
            Some(owner) => {
                let key = Key::of(&*owner);
                let min_ready = min_ready_seconds(&owner);
                if min_ready > 0 && !pods::is_ready(old) && pods::is_ready(new) {
                    // A second more than needed: timestamps are in whole seconds.
                    self.queue.add_after(
                        key.clone(),
                        Duration::from_secs(min_ready.unsigned_abs().into()) + SECOND,
                    );
                }
                self.queue.add(key);
            }
            // `orphan` looks whether it is one.
            None if moved || old.metadata.labels != new.metadata.labels => self.orphan(new),
            None => {}
        }
    }

    fn deleted(&self, pod: &Pod) {
        if let Some(owner) = self.owner(&pod.metadata) {
            let key = Key::of(&*owner);
            self.expectations
                .deletion_observed(&key, pod.metadata.uid.as_deref().unwrap_or_default());
            self.queue.add(key);
        }
    }

    /// A pod that nobody controls: whoever's selector matches may want it.
    fn orphan(&self, pod: &Pod) {
        if ownership::controller_of(&pod.metadata).is_some() {
            return;
        }
        for set in self
            .informers
            .replica_sets
            .in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default())
        {
            let wants = set.spec.as_ref().and_then(|spec| selector::of(&spec.selector).ok());
            if wants.is_some_and(|wants| selector::matches(&wants, pod.metadata.labels.as_ref())) {
                self.queue.add(Key::of(&*set));
            }
        }
    }

    fn owner(&self, meta: &ObjectMeta) -> Option<Arc<ReplicaSet>> {
        let owner = ownership::controller_named(meta, "apps", "ReplicaSet")?;
        let set = self
            .informers
            .replica_sets
            .get(&Key::new(meta.namespace.as_deref()?, &owner.name))?;
        (set.metadata.uid.as_ref() == Some(&owner.uid)).then_some(set)
    }
}

const SECOND: Duration = Duration::from_secs(1);

impl Reconcile for ReplicaSets {
    const NAME: &'static str = "replicaset-controller";
    const WORKERS: usize = 5;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let Some(set) = self.context.informers.replica_sets.get(key) else {
            self.expectations.forget(key);
            return Ok(());
        };
        // Decided before the pods are read: what is seen from here on belongs to the next pass.
        let may_act = self.expectations.satisfied(key);
        let Some(spec) = &set.spec else { return Ok(()) };
        let wanted = selector::of(&spec.selector)?;
        let candidates = self.context.informers.pods.in_namespace(&key.namespace);
        let active = candidates.into_iter().filter(|pod| pods::is_active(pod)).collect();
        let claim = Claim {
            owner: &*set,
            selector: &wanted,
            client: &self.client,
        };
        let active: Vec<Arc<Pod>> = claim.of(active).await?;

        let managed = if may_act && set.metadata.deletion_timestamp.is_none() {
            self.manage(&set, key, &active).await
        } else {
            Ok(())
        };
        let terminating = self.terminating(&set);
        let now = self.context.clock.now();
        let status = status(&set, &active, terminating, managed.as_ref().err(), now);
        self.write_status(&set, &status).await?;
        managed?;
        self.requeue_for_availability(&set, key, &status, &active, now);
        Ok(())
    }
}

impl ReplicaSets {
    /// Creates what is missing or deletes what is too much.
    async fn manage(&self, set: &ReplicaSet, key: &Key, active: &[Arc<Pod>]) -> Result<()> {
        let desired = usize::try_from(replicas(set)).unwrap_or_default();
        if active.len() < desired {
            let count = (desired - active.len()).min(BURST);
            self.expectations.expect_creations(key, count);
            let (created, result) = slow_start(count, || self.create_pod(set)).await;
            // What was not even tried is not to be waited for.
            for _ in created..count {
                self.expectations.creation_observed(key);
            }
            return result;
        }
        let count = (active.len() - desired).min(BURST);
        if count == 0 {
            return Ok(());
        }
        let doomed = pod_ranking::first_to_go(active, &self.related(set, active), count, self.context.clock.now());
        self.expectations
            .expect_deletions(key, doomed.iter().filter_map(|pod| pod.metadata.uid.clone()));
        let deleted = join_all(doomed.iter().map(|pod| self.delete_pod(set, key, pod))).await;
        deleted.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }

    async fn create_pod(&self, set: &ReplicaSet) -> Result<()> {
        let pod = pod_from_template(set)?;
        let api: Api<Pod> = Api::namespaced(
            self.client.clone(),
            set.metadata.namespace.as_deref().unwrap_or_default(),
        );
        match api.create(&PostParams::default(), &pod).await {
            Ok(created) => {
                let name = created.metadata.name.unwrap_or_default();
                self.recorder
                    .normal(set, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(error) if error::is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = error::message(&error);
                self.recorder
                    .warning(set, "FailedCreate", format!("Error creating: {message}"));
                Err(error).doing(|| format!("creating a pod of ReplicaSet `{}`", Key::of(set)))
            }
        }
    }

    async fn delete_pod(&self, set: &ReplicaSet, key: &Key, pod: &Pod) -> Result<()> {
        let Key { namespace, name } = Key::of(pod);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let deleted = api.delete(&name, &DeleteParams::default()).await;
        let Err(error) = deleted else {
            self.recorder
                .normal(set, "SuccessfulDelete", format!("Deleted pod: {name}"));
            return Ok(());
        };
        // No change will come of it.
        self.expectations
            .deletion_observed(key, pod.metadata.uid.as_deref().unwrap_or_default());
        if error::is_not_found(&error) {
            return Ok(());
        }
        self.recorder.warning(
            set,
            "FailedDelete",
            format!("Error deleting: {}", error::message(&error)),
        );
        Err(error).doing(|| format!("deleting pod `{namespace}/{name}` of ReplicaSet `{key}`"))
    }

    /// Pods of all ReplicaSets with the same controller as `set`; its own if it has none.
    fn related(&self, set: &ReplicaSet, own: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(controller) = ownership::controller_of(&set.metadata) else {
            return own.to_vec();
        };
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let siblings = self.context.informers.replica_sets.in_namespace(namespace);
        let siblings: Vec<String> = siblings
            .into_iter()
            .filter(|sibling| ownership::is_controlled_by(&sibling.metadata, &controller.uid))
            .filter_map(|sibling| sibling.metadata.uid.clone())
            .collect();
        let pods = self.context.informers.pods.in_namespace(namespace);
        let is_related =
            |pod: &Pod| ownership::controller_of(&pod.metadata).is_some_and(|owner| siblings.contains(&owner.uid));
        pods.into_iter().filter(|pod| is_related(pod)).collect()
    }

    fn terminating(&self, set: &ReplicaSet) -> i32 {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let pods = self.context.informers.pods.in_namespace(namespace);
        let counts = |pod: &Pod| {
            pods::is_terminating(pod) && !pods::is_terminal(pod) && ownership::is_controlled_by(&pod.metadata, uid)
        };
        count(pods.iter().filter(|pod| counts(pod)))
    }

    async fn write_status(&self, set: &ReplicaSet, status: &ReplicaSetStatus) -> Result<()> {
        if set.status.as_ref() == Some(status) {
            return Ok(());
        }
        let Key { namespace, name } = Key::of(set);
        let mut changed = set.clone();
        changed.status = Some(status.clone());
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &namespace);
        match api.replace_status(&name, &PostParams::default(), &changed).await {
            Err(error) if error::is_not_found(&error) => Ok(()),
            written => written
                .map(drop)
                .doing(|| format!("writing the status of ReplicaSet `{namespace}/{name}`")),
        }
    }

    /// Nothing happens when a ready pod becomes available, but time: look again then.
    fn requeue_for_availability(
        &self,
        set: &ReplicaSet,
        key: &Key,
        status: &ReplicaSetStatus,
        active: &[Arc<Pod>],
        now: Timestamp,
    ) {
        let min_ready = min_ready_seconds(set);
        if min_ready == 0 || status.ready_replicas == status.available_replicas {
            return;
        }
        let pending = active.iter().filter(|pod| !pods::is_available(pod, min_ready, now));
        let next = pending.filter_map(|pod| pods::ready_since(pod)).min();
        if let Some(since) = next {
            let wait = pods::available_at(since, min_ready).duration_since(now);
            self.queue
                .add_after(key.clone(), Duration::try_from(wait).unwrap_or_default());
        }
    }
}

/// Runs `action` `count` times in batches of 1, 2, 4, …; stops after the first batch with a failure, so that a set that
/// cannot create pods does not ask five hundred times. Returns how many succeeded.
pub(crate) async fn slow_start<F: Future<Output = Result<()>>>(
    count: usize,
    action: impl Fn() -> F,
) -> (usize, Result<()>) {
    let (mut done, mut batch) = (0, 1);
    while done < count {
        batch = batch.min(count - done);
        let results = join_all((0..batch).map(|_| action())).await;
        done += results.iter().filter(|result| result.is_ok()).count();
        if let Some(failed) = results.into_iter().find(Result::is_err) {
            return (done, failed);
        }
        batch *= 2;
    }
    (done, Ok(()))
}

/// A pod as the set's template says, controlled by the set.
fn pod_from_template(set: &ReplicaSet) -> Result<Pod> {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let Some(PodTemplateSpec { metadata, spec }) = template else {
        return Err(Error::new(format!("ReplicaSet `{}` has no pod template", Key::of(set))));
    };
    let meta = metadata.clone().unwrap_or_default();
    Ok(Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.metadata.name.as_deref().unwrap_or_default())),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![ownership::controller_ref(set)]),
            ..Default::default()
        },
        spec: spec.clone(),
        status: None,
    })
}

/// Pure: the status that follows from the set's active pods.
fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: i32,
    failure: Option<&Error>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.as_ref());
    let labelled =
        |pod: &&Arc<Pod>| template.is_none_or(|template| selector::matches_map(template, pod.metadata.labels.as_ref()));
    let min_ready = min_ready_seconds(set);
    ReplicaSetStatus {
        replicas: count(active.iter()),
        fully_labeled_replicas: nonzero(count(active.iter().filter(labelled))),
        ready_replicas: nonzero(count(active.iter().filter(|pod| pods::is_ready(pod)))),
        available_replicas: nonzero(count(
            active.iter().filter(|pod| pods::is_available(pod, min_ready, now)),
        )),
        terminating_replicas: Some(terminating),
        observed_generation: set.metadata.generation,
        conditions: conditions(old.conditions, active.len(), replicas(set), failure, now),
    }
}

/// `ReplicaFailure` comes with the first failure, keeps its text while there are more, and goes with the first success.
fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    active: usize,
    desired: i32,
    failure: Option<&Error>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.unwrap_or_default();
    let failing = conditions.iter().any(|condition| condition.type_ == REPLICA_FAILURE);
    match failure {
        Some(failure) if !failing => {
            let too_few = i64::try_from(active).unwrap_or(i64::MAX) < i64::from(desired);
            conditions.push(ReplicaSetCondition {
                type_: REPLICA_FAILURE.into(),
                status: "True".into(),
                reason: Some(if too_few { "FailedCreate" } else { "FailedDelete" }.into()),
                message: Some(failure.cause()),
                last_transition_time: Some(Time(now)),
            });
        }
        Some(_) => {}
        None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
    }
    (!conditions.is_empty()).then_some(conditions)
}

pub(crate) const REPLICA_FAILURE: &str = "ReplicaFailure";

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn min_ready_seconds(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or_default()
}

fn count(items: impl Iterator) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

/// Zero is left out of the wire form, as Go's `omitempty` does.
fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn creations_double_until_one_fails() {
        let calls = AtomicUsize::new(0);
        let failing_from = |limit: usize| {
            calls.store(0, Ordering::Relaxed);
            let calls = &calls;
            move || async move {
                match calls.fetch_add(1, Ordering::Relaxed) < limit {
                    true => Ok(()),
                    false => Err(Error::new("no")),
                }
            }
        };
        let (done, result) = slow_start(10, failing_from(usize::MAX)).await;
        assert_eq!((done, calls.load(Ordering::Relaxed), result.is_ok()), (10, 10, true));
        // 1, 2, then a batch of four of which the last two fail; the remaining three are never tried.
        let (done, result) = slow_start(10, failing_from(5)).await;
        assert_eq!((done, calls.load(Ordering::Relaxed), result.is_err()), (5, 7, true));
        let (done, _) = slow_start(10, failing_from(0)).await;
        assert_eq!((done, calls.load(Ordering::Relaxed)), (0, 1));
    }

    #[test]
    fn the_first_failure_is_told_and_a_success_takes_it_back() {
        let now = Timestamp::UNIX_EPOCH;
        let first = conditions(None, 1, 3, Some(&Error::new("quota")), now);
        let told = &first.as_ref().unwrap()[0];
        assert_eq!(
            (told.reason.as_deref(), told.message.as_deref()),
            (Some("FailedCreate"), Some("quota"))
        );
        let second = conditions(first.clone(), 5, 3, Some(&Error::new("other")), now);
        assert_eq!(second, first);
        assert_eq!(conditions(second, 3, 3, None, now), None);
    }
}
