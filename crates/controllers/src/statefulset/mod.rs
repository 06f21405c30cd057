//! StatefulSet: pods with names, each with claims of its own, in order.
//!
//! Owns carrying out what [`plan`] decides, claims and their owners, and the status. Must not know how claims are bound.
//! (k/k `pkg/controller/statefulset`, v1.36.)

mod members;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

use crate::Context;
use crate::error::{self, Doing, Result};
use crate::events::Recorder;
use crate::expectations::Expectations;
use crate::history::{Current, History};
use crate::informers::{Change, Informers};
use crate::key::Key;
use crate::ownership::{self, Claim};
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;
use crate::{pods, selector};
use plan::{Step, View};

pub(crate) struct StatefulSets {
    context: Context,
    client: Client,
    recorder: Recorder,
    expectations: Arc<Expectations>,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> StatefulSets {
    let controller = StatefulSets {
        context: context.clone(),
        client: context.client(StatefulSets::NAME),
        recorder: context.recorder(StatefulSets::NAME),
        expectations: Arc::default(),
        queue: WorkQueue::new(),
    };
    let (queue, expectations) = (controller.queue.clone(), controller.expectations.clone());
    context.informers.stateful_sets.on_change(move |change| {
        let key = Key::of(&**change.object());
        if let Change::Deleted(_) = change {
            expectations.forget(&key);
        }
        queue.add(key);
    });
    let (queue, expectations) = (controller.queue.clone(), controller.expectations.clone());
    let informers = context.informers.clone();
    context.informers.pods.on_change(move |change| {
        let pod = change.object();
        let Some(key) = owner(pod, &informers) else {
            // An orphan, or just orphaned: somebody may adopt it.
            for set in informers
                .stateful_sets
                .in_namespace(&pod.namespace().unwrap_or_default())
            {
                if plan::ordinal(&set.name_any(), pod).is_some() {
                    queue.add(Key::of(&*set));
                }
            }
            return;
        };
        match change {
            Change::Added(_) => expectations.creation_observed(&key),
            Change::Updated { new, .. } if !pods::is_terminating(new) => {}
            _ => expectations.deletion_observed(&key, &pod.uid().unwrap_or_default()),
        }
        queue.add(key);
    });
    controller
}

fn owner(pod: &Pod, informers: &Informers) -> Option<Key> {
    let owner = ownership::controller_named(&pod.metadata, "apps", "StatefulSet")?;
    let key = Key::new(pod.namespace()?, &owner.name);
    let set = informers.stateful_sets.get(&key)?;
    (set.metadata.uid.as_ref() == Some(&owner.uid)).then_some(key)
}

impl Reconcile for StatefulSets {
    const NAME: &'static str = "statefulset-controller";
    const WORKERS: usize = 5;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let Some(set) = self.context.informers.stateful_sets.get(key) else {
            self.expectations.forget(key);
            return Ok(());
        };
        // Decided before the pods are read: what is seen from here on belongs to the next pass.
        let may_act = self.expectations.satisfied(key);
        let Some(spec) = &set.spec else { return Ok(()) };
        let members = self.members(&set, spec).await?;
        let history = History {
            owner: &*set,
            template: &spec.template,
            selector: &spec.selector,
            collisions: set.status.as_ref().and_then(|status| status.collision_count),
            client: &self.client,
        };
        let revisions = history.sync(&self.context.informers).await?;
        let named = set.status.as_ref().and_then(|status| status.current_revision.clone());
        let current = revisions.all.iter().find(|revision| Some(revision.name_any()) == named);
        let current = current.unwrap_or(&revisions.update).clone();
        let (current_name, update_name) = (current.name_any(), revisions.update.name_any());
        let view = View {
            set: &set,
            spec,
            pods: &members,
            current: &current_name,
            update: &update_name,
            now: self.context.clock.now(),
        };
        let acted = match may_act {
            true => self.act(key, &view, [&current, &revisions.update]).await,
            false => Ok(()),
        };
        self.write_status(&set, self.status(&view, &revisions)).await?;
        acted?;
        let mut used: BTreeSet<String> = members
            .values()
            .filter_map(|pod| plan::revision_of(pod))
            .map(str::to_owned)
            .collect();
        used.extend([current_name.clone(), update_name.clone()]);
        let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or_default();
        history.truncate(&revisions.all, &used, limit).await?;
        self.requeue_for_availability(key, &view);
        Ok(())
    }
}

impl StatefulSets {
    /// The pods that are the set's, by ordinal.
    async fn members(&self, set: &StatefulSet, spec: &StatefulSetSpec) -> Result<BTreeMap<i32, Arc<Pod>>> {
        let wanted = selector::of(&spec.selector)?;
        let name = set.name_any();
        let pods = self
            .context
            .informers
            .pods
            .in_namespace(&set.namespace().unwrap_or_default());
        let candidates = pods.into_iter().filter(|pod| plan::ordinal(&name, pod).is_some());
        let claim = Claim {
            owner: set,
            selector: &wanted,
            client: &self.client,
        };
        let claimed = claim.of(candidates.collect()).await?;
        let by_ordinal = claimed
            .into_iter()
            .filter_map(|pod| Some((plan::ordinal(&name, &pod)?, pod)));
        Ok(by_ordinal.collect())
    }

    async fn act(&self, key: &Key, view: &View<'_>, revisions: [&Arc<ControllerRevision>; 2]) -> Result<()> {
        let steps = view.steps();
        let creations = steps.iter().filter(|step| matches!(step, Step::Create(_))).count();
        let doomed: Vec<String> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Delete(ordinal) => view.pods[ordinal].uid(),
                _ => None,
            })
            .collect();
        // One kind of change a pass: expectations are of one kind.
        if creations > 0 {
            self.expectations.expect_creations(key, creations);
        } else if !doomed.is_empty() {
            self.expectations.expect_deletions(key, doomed);
        }
        let mut failed = Ok(());
        for step in steps {
            let done = match step {
                Step::Create(ordinal) => {
                    let name = view.revision_for(ordinal);
                    let revision = revisions.into_iter().find(|revision| revision.name_any() == name);
                    let made = match (&failed, revision) {
                        (Ok(()), Some(revision)) => self.create(view, ordinal, revision).await,
                        _ => Ok(false),
                    };
                    if !matches!(made, Ok(true)) {
                        self.expectations.creation_observed(key);
                    }
                    made.map(drop)
                }
                Step::Delete(_) if creations > 0 => Ok(()),
                Step::Delete(ordinal) => {
                    let pod = &view.pods[&ordinal];
                    let deleted = self.delete(view.set, pod).await;
                    if !matches!(deleted, Ok(true)) {
                        self.expectations.deletion_observed(key, &pod.uid().unwrap_or_default());
                    }
                    deleted.map(drop)
                }
                Step::MakeClaims(ordinal) => self.make_claims(view.set, view.spec, ordinal).await,
                Step::OwnClaims { ordinal, condemned } => {
                    let pod = condemned.then(|| &*view.pods[&ordinal]);
                    self.own_claims(view.set, view.spec, ordinal, pod).await
                }
                Step::Label(ordinal) => self.label(&view.pods[&ordinal]).await,
            };
            if failed.is_ok() {
                failed = done;
            }
        }
        failed
    }

    fn status(&self, view: &View<'_>, revisions: &Current) -> StatefulSetStatus {
        let old = view.set.status.clone().unwrap_or_default();
        let min_ready = view.spec.min_ready_seconds.unwrap_or_default();
        let count = |keep: &dyn Fn(&Pod) -> bool| {
            i32::try_from(view.pods.values().filter(|pod| keep(pod)).count()).unwrap_or(i32::MAX)
        };
        let running = |pod: &Pod| pods::phase(pod) == "Running";
        let of = |pod: &Pod, revision: &str| !pods::is_terminating(pod) && plan::revision_of(pod) == Some(revision);
        let mut status = StatefulSetStatus {
            observed_generation: view.set.metadata.generation,
            replicas: count(&|pod| !pods::phase(pod).is_empty()),
            ready_replicas: Some(count(&|pod| running(pod) && pods::is_ready(pod))),
            available_replicas: Some(count(&|pod| {
                running(pod) && pods::is_available(pod, min_ready, view.now)
            })),
            current_replicas: Some(count(&|pod| of(pod, view.current))),
            updated_replicas: Some(count(&|pod| of(pod, view.update))),
            current_revision: Some(view.current.to_owned()),
            update_revision: Some(view.update.to_owned()),
            collision_count: Some(revisions.collisions),
            conditions: old.conditions,
        };
        let wanted = plan::replicas(view.spec);
        let strategy = view
            .spec
            .update_strategy
            .as_ref()
            .and_then(|strategy| strategy.type_.as_deref());
        if strategy != Some("OnDelete")
            && status.updated_replicas == Some(wanted)
            && status.ready_replicas == Some(wanted)
            && status.replicas == wanted
        {
            status.current_replicas = status.updated_replicas;
            status.current_revision = status.update_revision.clone();
        }
        for count in [
            &mut status.ready_replicas,
            &mut status.current_replicas,
            &mut status.updated_replicas,
        ] {
            // Left out of the wire form when zero, as Go's `omitempty` does.
            *count = count.filter(|count| *count != 0);
        }
        status
    }

    async fn write_status(&self, set: &StatefulSet, status: StatefulSetStatus) -> Result<()> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let key = Key::of(set);
        let mut changed = set.clone();
        changed.status = Some(status);
        let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.replace_status(&key.name, &PostParams::default(), &changed).await {
            Err(error) if error::is_not_found(&error) => Ok(()),
            written => written
                .map(drop)
                .doing(|| format!("writing the status of StatefulSet `{key}`")),
        }
    }

    /// Nothing happens when a ready pod becomes available, but time: look again then.
    fn requeue_for_availability(&self, key: &Key, view: &View<'_>) {
        let min_ready = view.spec.min_ready_seconds.unwrap_or_default();
        let pending = view
            .pods
            .values()
            .filter(|pod| !pods::is_available(pod, min_ready, view.now));
        if let Some(since) = pending.filter_map(|pod| pods::ready_since(pod)).min() {
            let wait = pods::available_at(since, min_ready).duration_since(view.now);
            self.queue
                .add_after(key.clone(), Duration::try_from(wait).unwrap_or_default());
        }
    }
}
