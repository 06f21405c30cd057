//! Finished Jobs with `ttlSecondsAfterFinished` go when their time is over.
//!
//! (k/k `pkg/controller/ttlafterfinished`, v1.36.)

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};
use kube::{Api, Client, ResourceExt};

use crate::Context;
use crate::error::{self, Doing, Result};
use crate::key::Key;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;

pub(crate) struct Ttl {
    context: Context,
    client: Client,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> Ttl {
    let controller = Ttl {
        context: context.clone(),
        client: context.client(Ttl::NAME),
        queue: WorkQueue::new(),
    };
    let queue = controller.queue.clone();
    context.informers.jobs.on_change(move |change| {
        if expiry(change.object()).is_some() {
            queue.add(Key::of(&**change.object()));
        }
    });
    controller
}

/// When a finished Job is to go.
fn expiry(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let type_ = super::finished(job)?;
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let since = conditions.iter().find(|condition| condition.type_ == type_)?;
    let since = since.last_transition_time.as_ref()?.0;
    since.checked_add(SignedDuration::from_secs(ttl.into())).ok()
}

impl Reconcile for Ttl {
    const NAME: &'static str = "ttl-after-finished-controller";
    const WORKERS: usize = 5;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let Some(job) = self.context.informers.jobs.get(key) else {
            return Ok(());
        };
        let Some(at) = expiry(&job).filter(|_| job.metadata.deletion_timestamp.is_none()) else {
            return Ok(());
        };
        let wait = Duration::try_from(at.duration_since(self.context.clock.now())).unwrap_or_default();
        if !wait.is_zero() {
            self.queue.add_after(key.clone(), wait);
            return Ok(());
        }
        let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions {
                uid: job.uid(),
                resource_version: job.resource_version(),
            }),
            ..Default::default()
        };
        match api.delete(&key.name, &params).await {
            Err(error) if error::is_not_found(&error) => Ok(()),
            deleted => deleted.map(drop).doing(|| format!("deleting the finished Job `{key}`")),
        }
    }
}
