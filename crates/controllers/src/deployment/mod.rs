//! Deployment: rolls ReplicaSets over from one pod template to the next.
//!
//! `rollout` and `new_set` act; what they do is decided by pure functions: `rolling` (how many pods may be missing or
//! too many), `scaling` (a new size shared among several ReplicaSets), `revision` (annotations, history), `template`
//! (which ReplicaSet is the current one) and `status` (counts, conditions, deadline). Must not look at pods, but to see
//! whether the old ones of a `Recreate` are gone. (k/k `pkg/controller/deployment`, v1.36.)

mod new_set;
mod revision;
mod rolling;
mod rollout;
mod scaling;
mod status;
mod template;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;

use crate::Context;
use crate::error::Result;
use crate::events::Recorder;
use crate::informers::{Change, Informers};
use crate::key::Key;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;
use crate::{ownership, selector};

pub(crate) use rolling::scaled;
pub(crate) use template::hash as template_hash;

pub(crate) struct Deployments {
    context: Context,
    client: Client,
    recorder: Recorder,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> Deployments {
    let controller = Deployments {
        context: context.clone(),
        client: context.client(Deployments::NAME),
        recorder: context.recorder(Deployments::NAME),
        queue: WorkQueue::new(),
    };
    let queue = controller.queue.clone();
    context
        .informers
        .deployments
        .on_change(move |change| queue.add(Key::of(&**change.object())));
    let watcher = SetWatcher {
        informers: context.informers.clone(),
        queue: controller.queue.clone(),
    };
    context
        .informers
        .replica_sets
        .on_change(move |change| watcher.set_changed(change));
    let watcher = SetWatcher {
        informers: context.informers.clone(),
        queue: controller.queue.clone(),
    };
    context
        .informers
        .pods
        .on_change(move |change| watcher.pod_changed(change));
    controller
}

/// Tells the queue what happens to ReplicaSets and pods.
struct SetWatcher {
    informers: Informers,
    queue: Arc<WorkQueue<Key>>,
}

impl SetWatcher {
    fn set_changed(&self, change: &Change<ReplicaSet>) {
        match change {
            Change::Added(set) | Change::Deleted(set) => self.enqueue_for(set),
            Change::Updated { old, new } => {
                let uid = |set: &ReplicaSet| ownership::controller_of(&set.metadata).map(|owner| owner.uid.clone());
                if uid(old) != uid(new) {
                    self.enqueue_owner(&old.metadata);
                }
                self.enqueue_for(new);
            }
        }
    }

    fn enqueue_for(&self, set: &ReplicaSet) {
        if ownership::controller_of(&set.metadata).is_some() {
            return self.enqueue_owner(&set.metadata);
        }
        // An orphan: whoever's selector matches may want it.
        for deployment in self
            .informers
            .deployments
            .in_namespace(set.metadata.namespace.as_deref().unwrap_or_default())
        {
            let wants = deployment
                .spec
                .as_ref()
                .and_then(|spec| selector::of(&spec.selector).ok());
            if wants.is_some_and(|wants| selector::matches(&wants, set.metadata.labels.as_ref())) {
                self.queue.add(Key::of(&*deployment));
            }
        }
    }

    fn enqueue_owner(&self, meta: &ObjectMeta) {
        if let Some(deployment) = self.owner(meta) {
            self.queue.add(Key::of(&*deployment));
        }
    }

    /// The last old pod of a `Recreate` is what its new ReplicaSet waits for.
    fn pod_changed(&self, change: &Change<Pod>) {
        let Change::Deleted(pod) = change else { return };
        let Some(set) = ownership::controller_named(&pod.metadata, "apps", "ReplicaSet") else {
            return;
        };
        let key = Key::new(pod.metadata.namespace.as_deref().unwrap_or_default(), &set.name);
        let Some(set) = self.informers.replica_sets.get(&key) else {
            return;
        };
        if let Some(deployment) = self.owner(&set.metadata)
            && !rolling::is_rolling(&deployment)
        {
            self.queue.add(Key::of(&*deployment));
        }
    }

    fn owner(&self, meta: &ObjectMeta) -> Option<Arc<Deployment>> {
        let owner = ownership::controller_named(meta, "apps", "Deployment")?;
        let deployment = self
            .informers
            .deployments
            .get(&Key::new(meta.namespace.as_deref()?, &owner.name))?;
        (deployment.metadata.uid.as_ref() == Some(&owner.uid)).then_some(deployment)
    }
}

impl Reconcile for Deployments {
    const NAME: &'static str = "deployment-controller";
    const WORKERS: usize = 5;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let Some(deployment) = self.context.informers.deployments.get(key) else {
            return Ok(());
        };
        rollout::Rollout::new(self, key, &deployment).sync().await
    }
}

/// The replicas a Deployment wants.
fn desired(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The replicas a ReplicaSet wants.
fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The available replicas a ReplicaSet reports.
fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or_default()
}
