//! One pass over a Job: count, decide, make or delete pods, write the status, let go of what is counted.
//!
//! (k/k `pkg/controller/job/job_controller.go`, v1.36.)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::pods::{FINALIZER, failures_before, free_indexes, has_failed, index_of, is_indexed, is_tracked, new};
use super::policy::{self, Verdict};
use super::tally::{Tally, count};
use super::{Failures, Jobs, finished, has, indexes};
use crate::error::{self, Doing, Error, Result};
use crate::key::Key;
use crate::ownership::Claim;
use crate::reconcile::Reconcile;
use crate::replicaset::slow_start;
use crate::workqueue::WorkQueue;
use crate::{pods, selector};

/// Pods made or deleted in one pass at most.
const BURST: usize = 500;

/// A condition to be added: type, reason, message.
type Fate = (&'static str, &'static str, String);

impl Reconcile for Jobs {
    const NAME: &'static str = "job-controller";
    const WORKERS: usize = 5;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let job = self.context.informers.jobs.get(key);
        self.release_orphans(key, job.as_deref()).await?;
        let Some(job) = job else {
            self.expectations.forget(key);
            self.set_failures(key, Failures::default());
            return Ok(());
        };
        let Some(spec) = &job.spec else { return Ok(()) };
        if spec
            .managed_by
            .as_deref()
            .is_some_and(|by| by != "kubernetes.io/job-controller")
        {
            return Ok(());
        }
        // Decided before the pods are read: what is seen from here on belongs to the next pass.
        let may_act = self.expectations.satisfied(key);
        let pods = self.pods(&job, spec).await?;
        if finished(&job).is_some() {
            return self.release(pods.iter().filter(|pod| is_tracked(pod))).await;
        }
        Pass {
            jobs: self,
            key,
            job: &job,
            spec,
            pods: &pods,
            now: self.context.clock.now(),
        }
        .run(may_act)
        .await
    }
}

impl Jobs {
    async fn pods(&self, job: &Job, spec: &JobSpec) -> Result<Vec<Arc<Pod>>> {
        let Some(wanted) = &spec.selector else {
            return Err(Error::new(format!("Job `{}` has no selector", Key::of(job))));
        };
        let wanted = selector::of(wanted)?;
        let claim = Claim {
            owner: job,
            selector: &wanted,
            client: &self.client,
        };
        claim
            .of(self
                .context
                .informers
                .pods
                .in_namespace(&job.namespace().unwrap_or_default()))
            .await
    }

    /// Pods of a Job that is gone are counted by nobody.
    async fn release_orphans(&self, key: &Key, job: Option<&Job>) -> Result<()> {
        let uid = job.and_then(|job| job.metadata.uid.as_ref());
        let orphans = self
            .context
            .informers
            .pods
            .in_namespace(&key.namespace)
            .into_iter()
            .filter(|pod| {
                let owner = crate::ownership::controller_named(&pod.metadata, "batch", "Job");
                is_tracked(pod) && owner.is_some_and(|owner| owner.name == key.name && Some(&owner.uid) != uid)
            });
        let orphans: Vec<_> = orphans.collect();
        self.release(orphans.iter()).await
    }

    async fn release(&self, pods: impl Iterator<Item = &Arc<Pod>>) -> Result<()> {
        let released = join_all(pods.map(|pod| async move {
            let Key { namespace, name } = Key::of(&**pod);
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
            let patch = json!({"metadata": {"uid": pod.uid(), "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
            match api
                .patch(&name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                Err(error) if error::is_not_found(&error) => Ok(()),
                patched => patched
                    .map(drop)
                    .doing(|| format!("letting go of pod `{namespace}/{name}`")),
            }
        }));
        released.await.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }
}

struct Pass<'a> {
    jobs: &'a Jobs,
    key: &'a Key,
    job: &'a Job,
    spec: &'a JobSpec,
    pods: &'a [Arc<Pod>],
    now: Timestamp,
}

impl Pass<'_> {
    async fn run(&self, may_act: bool) -> Result<()> {
        let old = self.job.status.clone().unwrap_or_default();
        let decided = ["FailureTarget", "SuccessCriteriaMet"]
            .into_iter()
            .any(|type_| has(self.job, type_));
        let tally = Tally::of(self.job, self.spec, self.pods, decided);
        self.note_ends(&tally);
        let mut status = self.status(&old, &tally);
        let suspended = self.spec.suspend == Some(true);
        let deleted = self.job.metadata.deletion_timestamp.is_some();
        let mut told = None;
        if !decided && !deleted {
            if let Some(fate) = self.fate(&status, &tally, suspended) {
                add(&mut status, fate, self.now);
            } else {
                told = self.suspend_or_resume(&mut status, suspended);
            }
        }
        let over = conditions(&status).any(|it| matches!(it.type_.as_str(), "FailureTarget" | "SuccessCriteriaMet"));
        let acted = match may_act && !deleted {
            true if over || suspended => self.delete(&tally.active).await,
            true => self.manage(&tally).await,
            false => Ok(()),
        };
        let end = (over && tally.is_settled())
            .then(|| end(&mut status, self.now))
            .flatten();
        self.write(&old, &status).await?;
        if let Some(reason) = told {
            self.jobs
                .recorder
                .normal(self.job, reason, format!("Job {}", reason.to_lowercase()));
        }
        match end {
            Some(("Complete", _, _)) => self.jobs.recorder.normal(self.job, "Completed", "Job completed"),
            Some((_, reason, message)) => self.jobs.recorder.warning(self.job, &reason, message),
            None => {}
        }
        // Only now: the status knows of them.
        self.jobs.release(tally.release.iter()).await?;
        acted?;
        self.requeue_at_deadline(&status);
        Ok(())
    }

    fn note_ends(&self, tally: &Tally) {
        if tally.new_successes > 0 {
            self.jobs.set_failures(self.key, Failures::default());
        }
        if tally.new_failures > 0 {
            let before = self.jobs.failures(self.key);
            let failures = Failures {
                count: before.count.saturating_add(tally.new_failures),
                last: Some(self.now),
            };
            self.jobs.set_failures(self.key, failures);
        }
    }

    fn status(&self, old: &JobStatus, tally: &Tally) -> JobStatus {
        let nonzero = |count: i32| (count != 0).then_some(count);
        let some = |uids: &Vec<String>| (!uids.is_empty()).then(|| uids.clone());
        let set = |indexes: &indexes::Indexes| (!indexes.is_empty()).then(|| indexes::format(indexes));
        let started = old.start_time.clone().or(Some(Time(self.now)));
        JobStatus {
            active: nonzero(count(tally.active.len())),
            ready: Some(tally.ready),
            terminating: Some(tally.terminating),
            succeeded: nonzero(tally.counted_succeeded),
            failed: nonzero(tally.counted_failed),
            completed_indexes: set(&tally.completed),
            failed_indexes: self
                .spec
                .backoff_limit_per_index
                .map(|_| indexes::format(&tally.failed_indexes)),
            uncounted_terminated_pods: Some(UncountedTerminatedPods {
                succeeded: some(&tally.uncounted_succeeded),
                failed: some(&tally.uncounted_failed),
            }),
            start_time: started.filter(|_| self.spec.suspend != Some(true) || old.start_time.is_some()),
            ..old.clone()
        }
    }

    /// Whether the Job has failed or has done enough.
    fn fate(&self, status: &JobStatus, tally: &Tally, suspended: bool) -> Option<Fate> {
        let fail = |reason, message: &str| Some(("FailureTarget", reason, message.to_owned()));
        if let Some(why) = &tally.give_up {
            return fail("PodFailurePolicy", why);
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if tally.total_failed() > limit || self.restarts_exceed(limit, tally) {
            return fail("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if !suspended && self.deadline(status).is_some_and(|at| at <= self.now) {
            return fail("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        if is_indexed(self.spec) && self.spec.backoff_limit_per_index.is_some() {
            let failed = count(tally.failed_indexes.len());
            if self.spec.max_failed_indexes.is_some_and(|most| failed > most) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return fail("MaxFailedIndexesExceeded", message);
            }
            let done = failed + count(tally.completed.len()) >= self.spec.completions.unwrap_or_default();
            if failed > 0 && done && tally.active.is_empty() {
                return fail("FailedIndexes", "Job has failed indexes");
            }
        }
        if let Some(rule) = policy::success(self.spec, &tally.completed) {
            return Some((
                "SuccessCriteriaMet",
                "SuccessPolicy",
                format!("Matched rules at index {rule}"),
            ));
        }
        let enough = match self.spec.completions {
            Some(completions) => tally.total_succeeded() >= completions,
            None => tally.total_succeeded() > 0,
        };
        (enough && tally.active.is_empty()).then(|| {
            let message = "Reached expected number of succeeded pods".to_owned();
            ("SuccessCriteriaMet", "CompletionsReached", message)
        })
    }

    /// With `restartPolicy: OnFailure` it is the containers' restarts that count.
    fn restarts_exceed(&self, limit: i32, tally: &Tally) -> bool {
        let spec = self.spec.template.spec.as_ref();
        if spec.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let restarts: i32 = tally
            .active
            .iter()
            .filter_map(|pod| pod.status.as_ref())
            .flat_map(|status| {
                let init = status.init_container_statuses.iter().flatten();
                init.chain(status.container_statuses.iter().flatten())
            })
            .map(|container| container.restart_count)
            .sum();
        match limit {
            0 => restarts > 0,
            _ => restarts >= limit,
        }
    }

    fn deadline(&self, status: &JobStatus) -> Option<Timestamp> {
        let seconds = self.spec.active_deadline_seconds?;
        let started = status.start_time.as_ref()?.0;
        started.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()
    }

    fn requeue_at_deadline(&self, status: &JobStatus) {
        if self.spec.suspend == Some(true) {
            return;
        }
        if let Some(at) = self.deadline(status).filter(|at| *at > self.now) {
            let wait = Duration::try_from(at.duration_since(self.now)).unwrap_or_default();
            self.jobs.queue.add_after(self.key.clone(), wait);
        }
    }

    /// Keeps the condition `Suspended`; says which event it is worth.
    fn suspend_or_resume(&self, status: &mut JobStatus, suspended: bool) -> Option<&'static str> {
        let known = conditions(status).find(|condition| condition.type_ == "Suspended");
        let was = known.map(|condition| condition.status == "True");
        let (value, reason, event) = match (suspended, was) {
            (true, None | Some(false)) => ("True", "JobSuspended", "Suspended"),
            (false, Some(true)) => ("False", "JobResumed", "Resumed"),
            _ => return None,
        };
        status.start_time = (!suspended).then_some(Time(self.now));
        let condition = JobCondition {
            status: value.into(),
            ..condition("Suspended", reason, format!("Job {}", event.to_lowercase()), self.now)
        };
        let all = status.conditions.get_or_insert_default();
        all.retain(|known| known.type_ != "Suspended");
        all.push(condition);
        Some(event)
    }

    /// Makes the pods that are missing, or deletes those too many.
    async fn manage(&self, tally: &Tally) -> Result<()> {
        let (active, parallelism) = (count(tally.active.len()), self.spec.parallelism.unwrap_or(1));
        let given_up = count(tally.failed_indexes.len());
        let wanted = match self.spec.completions {
            // A work queue: once one has succeeded no new one begins.
            None if tally.total_succeeded() > 0 => active,
            None => parallelism,
            Some(completions) => (completions - tally.total_succeeded() - given_up).min(parallelism),
        };
        let wanted = wanted.max(0);
        if active > wanted {
            let surplus = usize::try_from(active - wanted).unwrap_or_default();
            return self.delete(&first_to_go(&tally.active)[..surplus]).await;
        }
        let leaving = match self.spec.pod_replacement_policy.as_deref() {
            Some("Failed") => tally.terminating,
            _ => 0,
        };
        let missing = usize::try_from(wanted - active - leaving)
            .unwrap_or_default()
            .min(BURST);
        if missing == 0 {
            return Ok(());
        }
        let wait = self.jobs.failures(self.key).wait(self.now);
        if !wait.is_zero() {
            self.jobs.queue.add_after(self.key.clone(), wait);
            return Ok(());
        }
        let slots = self.slots(tally, missing);
        self.jobs.expectations.expect_creations(self.key, slots.len());
        let next = AtomicUsize::new(0);
        let (made, result) = slow_start(slots.len(), || {
            let slot = slots[next.fetch_add(1, Ordering::Relaxed)];
            self.create(slot)
        })
        .await;
        for _ in made..slots.len() {
            self.jobs.expectations.creation_observed(self.key);
        }
        result
    }

    /// What each new pod stands for: an index and how often that failed, or nothing in particular.
    fn slots(&self, tally: &Tally, missing: usize) -> Vec<Option<(i32, Option<i32>)>> {
        if !is_indexed(self.spec) {
            return vec![None; missing];
        }
        let mut taken = tally.completed.clone();
        taken.extend(&tally.failed_indexes);
        taken.extend(tally.active.iter().filter_map(|pod| index_of(pod)));
        if self.spec.pod_replacement_policy.as_deref() == Some("Failed") {
            let leaving = self
                .pods
                .iter()
                .filter(|pod| pods::is_terminating(pod) && !pods::is_terminal(pod));
            taken.extend(leaving.filter_map(|pod| index_of(pod)));
        }
        let mut failures = BTreeMap::<i32, i32>::new();
        if self.spec.backoff_limit_per_index.is_some() {
            for pod in self.pods.iter().filter(|pod| has_failed(self.spec, pod)) {
                let own = i32::from(policy::judge(self.spec, pod) != Verdict::Ignore);
                let so_far = failures.entry(index_of(pod).unwrap_or(-1)).or_default();
                *so_far = (*so_far).max(failures_before(pod) + own);
            }
        }
        let per_index = self.spec.backoff_limit_per_index.is_some();
        free_indexes(self.spec.completions.unwrap_or_default(), &taken, missing)
            .into_iter()
            .map(|index| {
                Some((
                    index,
                    per_index.then(|| failures.get(&index).copied().unwrap_or_default()),
                ))
            })
            .collect()
    }

    async fn create(&self, slot: Option<(i32, Option<i32>)>) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.jobs.client.clone(), &self.key.namespace);
        match api
            .create(&PostParams::default(), &new(self.job, self.spec, slot))
            .await
        {
            Ok(pod) => {
                let message = format!("Created pod: {}", pod.name_any());
                self.jobs.recorder.normal(self.job, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) if error::is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!("Error creating: {}", error::message(&error));
                self.jobs.recorder.warning(self.job, "FailedCreate", message);
                Err(error).doing(|| format!("creating a pod of Job `{}`", self.key))
            }
        }
    }

    async fn delete(&self, doomed: &[Arc<Pod>]) -> Result<()> {
        if doomed.is_empty() {
            return Ok(());
        }
        let uids = doomed.iter().filter_map(|pod| pod.uid());
        self.jobs.expectations.expect_deletions(self.key, uids);
        let deleted = join_all(doomed.iter().map(|pod| self.delete_one(pod))).await;
        deleted.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }

    async fn delete_one(&self, pod: &Pod) -> Result<()> {
        let Key { namespace, name } = Key::of(pod);
        let api: Api<Pod> = Api::namespaced(self.jobs.client.clone(), &namespace);
        let Err(error) = api.delete(&name, &DeleteParams::default()).await else {
            self.jobs
                .recorder
                .normal(self.job, "SuccessfulDelete", format!("Deleted pod: {name}"));
            return Ok(());
        };
        // No change will come of it.
        let uid = pod.uid().unwrap_or_default();
        self.jobs.expectations.deletion_observed(self.key, &uid);
        if error::is_not_found(&error) {
            return Ok(());
        }
        let message = format!("Error deleting: {}", error::message(&error));
        self.jobs.recorder.warning(self.job, "FailedDelete", message);
        Err(error).doing(|| format!("deleting pod `{namespace}/{name}` of Job `{}`", self.key))
    }

    async fn write(&self, old: &JobStatus, new: &JobStatus) -> Result<()> {
        if old == new {
            return Ok(());
        }
        let mut changed = self.job.clone();
        changed.status = Some(new.clone());
        let api: Api<Job> = Api::namespaced(self.jobs.client.clone(), &self.key.namespace);
        match api
            .replace_status(&self.key.name, &PostParams::default(), &changed)
            .await
        {
            Err(error) if error::is_not_found(&error) => Ok(()),
            written => written
                .map(drop)
                .doing(|| format!("writing the status of Job `{}`", self.key)),
        }
    }
}

/// Those that have done least: not ready before ready, the youngest first, the highest index first.
fn first_to_go(active: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let mut pods = active.to_vec();
    pods.sort_by_key(|pod| {
        let age = std::cmp::Reverse(pod.creation_timestamp().map(|time| time.0));
        (pods::is_ready(pod), std::cmp::Reverse(index_of(pod)), age)
    });
    pods
}

fn conditions(status: &JobStatus) -> impl Iterator<Item = &JobCondition> {
    status.conditions.iter().flatten()
}

fn condition(type_: &str, reason: &str, message: String, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: type_.to_owned(),
        status: "True".into(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

fn add(status: &mut JobStatus, (type_, reason, message): Fate, now: Timestamp) {
    let all = status.conditions.get_or_insert_default();
    all.push(condition(type_, reason, message, now));
}

/// The end that follows from what was decided: type, reason, message.
fn end(status: &mut JobStatus, now: Timestamp) -> Option<(&'static str, String, String)> {
    let decided = conditions(status).find(|it| matches!(it.type_.as_str(), "FailureTarget" | "SuccessCriteriaMet"))?;
    let type_ = if decided.type_ == "FailureTarget" {
        "Failed"
    } else {
        "Complete"
    };
    let (reason, message) = (decided.reason.clone(), decided.message.clone());
    let (reason, message) = (reason.unwrap_or_default(), message.unwrap_or_default());
    if type_ == "Complete" {
        status.completion_time = Some(Time(now));
    }
    let last = condition(type_, &reason, message.clone(), now);
    status.conditions.get_or_insert_default().push(last);
    Some((type_, reason, message))
}
