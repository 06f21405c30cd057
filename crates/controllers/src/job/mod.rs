//! Job: pods that run to their end, as often as asked for. And what is left of it after its time to live.
//!
//! `sync` acts; `pods`, `policy`, `indexes` and `tally` decide, purely. Every finished pod keeps a finalizer until it is
//! counted in the status: no end of a pod is lost, and none is counted twice, whatever crashes in between.
//! (k/k `pkg/controller/{job,ttlafterfinished}`, v1.36.)

mod indexes;
mod pods;
mod policy;
mod sync;
mod tally;
mod ttl;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};

use crate::Context;
use crate::events::Recorder;
use crate::expectations::Expectations;
use crate::informers::{Change, Informers};
use crate::key::Key;
use crate::ownership;
use crate::workqueue::WorkQueue;

pub(crate) use ttl::start as start_ttl;

/// The pause after the first failure; each further one doubles it…
const FIRST_BACK_OFF: Duration = Duration::from_secs(10);
/// … up to this.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(600);

/// Whether the Job has a condition of this type that is true.
pub(crate) fn has(job: &Job, type_: &str) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// `Complete` or `Failed`, if it is.
pub(crate) fn finished(job: &Job) -> Option<&'static str> {
    ["Complete", "Failed"].into_iter().find(|type_| has(job, type_))
}

/// Failures since the last success.
#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: u32,
    last: Option<Timestamp>,
}

pub(crate) struct Jobs {
    context: Context,
    client: Client,
    recorder: Recorder,
    expectations: Arc<Expectations>,
    failures: Mutex<HashMap<Key, Failures>>,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> Jobs {
    let controller = Jobs {
        context: context.clone(),
        client: context.client("job-controller"),
        recorder: context.recorder("job-controller"),
        expectations: Arc::default(),
        failures: Mutex::default(),
        queue: WorkQueue::new(),
    };
    let (queue, expectations) = (controller.queue.clone(), controller.expectations.clone());
    context.informers.jobs.on_change(move |change| {
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
        let Some(key) = owner(pod) else {
            adopters(pod, &informers).into_iter().for_each(|key| queue.add(key));
            return;
        };
        match change {
            Change::Added(_) => expectations.creation_observed(&key),
            Change::Updated { new, .. } if !crate::pods::is_terminating(new) => {}
            _ => expectations.deletion_observed(&key, &pod.uid().unwrap_or_default()),
        }
        queue.add(key);
    });
    controller
}

/// The Job that controls a pod, whether it is still there or not.
fn owner(pod: &Pod) -> Option<Key> {
    let owner = ownership::controller_named(&pod.metadata, "batch", "Job")?;
    Some(Key::new(pod.namespace()?, &owner.name))
}

/// Jobs that would adopt an orphan.
fn adopters(pod: &Pod, informers: &Informers) -> Vec<Key> {
    if ownership::controller_of(&pod.metadata).is_some() {
        return Vec::new();
    }
    let jobs = informers.jobs.in_namespace(&pod.namespace().unwrap_or_default());
    let selects = |job: &Arc<Job>| {
        let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector = selector.and_then(|selector| crate::selector::of(selector).ok());
        selector.is_some_and(|selector| crate::selector::matches(&selector, pod.metadata.labels.as_ref()))
    };
    jobs.iter()
        .filter(|job| selects(job))
        .map(|job| Key::of(&**job))
        .collect()
}

impl Jobs {
    fn failures(&self, key: &Key) -> Failures {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(key).copied().unwrap_or_default()
    }

    fn set_failures(&self, key: &Key, new: Failures) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match new.count {
            0 => drop(failures.remove(key)),
            _ => drop(failures.insert(key.clone(), new)),
        }
    }
}

impl Failures {
    /// How long no pod may be made yet.
    fn wait(&self, now: Timestamp) -> Duration {
        let Some(last) = self.last.filter(|_| self.count > 0) else {
            return Duration::ZERO;
        };
        let pause = FIRST_BACK_OFF
            .saturating_mul(2_u32.saturating_pow(self.count - 1))
            .min(LONGEST_BACK_OFF);
        let until = last.saturating_add(pause).unwrap_or(Timestamp::MAX);
        Duration::try_from(until.duration_since(now)).unwrap_or_default()
    }
}
