//! CronJob: makes Jobs at the times its schedule says.
//!
//! Owns when, how many at once, and how many finished ones are kept. What a schedule means is `apimachinery::cron`'s; how
//! a Job runs is the Job controller's. (k/k `pkg/controller/cronjob/{cronjob_controllerv2,utils}.go`, v1.36.)

use std::sync::Arc;
use std::time::Duration;

use apimachinery::cron::Schedule;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, PostParams, PropagationPolicy};
use kube::{Api, Client, Resource, ResourceExt};

use crate::Context;
use crate::error::{self, Doing, Result};
use crate::events::Recorder;
use crate::job::finished;
use crate::key::Key;
use crate::ownership;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Added to the wait for the next time, against clocks that differ a little.
const DELTA: Duration = Duration::from_millis(100);
/// Missed times after which something is said.
const MANY: usize = 100;

pub(crate) struct CronJobs {
    context: Context,
    client: Client,
    recorder: Recorder,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> CronJobs {
    let controller = CronJobs {
        context: context.clone(),
        client: context.client(CronJobs::NAME),
        recorder: context.recorder(CronJobs::NAME),
        queue: WorkQueue::new(),
    };
    let queue = controller.queue.clone();
    context
        .informers
        .cron_jobs
        .on_change(move |change| queue.add(Key::of(&**change.object())));
    let queue = controller.queue.clone();
    context.informers.jobs.on_change(move |change| {
        let job = change.object();
        if let Some(owner) = ownership::controller_named(&job.metadata, "batch", "CronJob") {
            queue.add(Key::new(job.namespace().unwrap_or_default(), &owner.name));
        }
    });
    controller
}

impl Reconcile for CronJobs {
    const NAME: &'static str = "cronjob-controller";
    const WORKERS: usize = 5;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let Some(cron) = self.context.informers.cron_jobs.get(key) else {
            return Ok(());
        };
        let spec = &cron.spec;
        let uid = cron.uid().unwrap_or_default();
        let mut jobs = self.context.informers.jobs.in_namespace(&key.namespace);
        jobs.retain(|job| ownership::is_controlled_by(&job.metadata, &uid));
        let mut status = cron.status.clone().unwrap_or_default();
        self.note_ends(&cron, &jobs, &mut status);
        self.forget_old(&cron, spec, &jobs).await?;
        let next = match cron.metadata.deletion_timestamp {
            None if spec.suspend != Some(true) => self.start_due(&cron, spec, &jobs, &mut status).await,
            _ => Ok(None),
        };
        // What was started is written down even if something else failed.
        self.write_status(&cron, status).await?;
        if let Some(at) = next? {
            let wait = Duration::try_from(at.duration_since(self.context.clock.now())).unwrap_or_default();
            self.queue.add_after(key.clone(), wait + DELTA);
        }
        Ok(())
    }
}

impl CronJobs {
    fn jobs(&self, cron: &CronJob) -> Api<Job> {
        Api::namespaced(self.client.clone(), &cron.namespace().unwrap_or_default())
    }

    /// Brings `status.active` up to date with what has become of the Jobs.
    fn note_ends(&self, cron: &CronJob, jobs: &[Arc<Job>], status: &mut CronJobStatus) {
        let mut active = status.active.take().unwrap_or_default();
        for job in jobs {
            let listed = active.iter().any(|reference| reference.uid == job.metadata.uid);
            match finished(job) {
                None if !listed => {
                    let message = format!(
                        "Saw a job that the controller did not create or forgot: {}",
                        job.name_any()
                    );
                    self.recorder.warning(cron, "UnexpectedJob", message);
                }
                Some(how) if listed => {
                    active.retain(|reference| reference.uid != job.metadata.uid);
                    let message = format!("Saw completed job: {}, condition: {how}", job.name_any());
                    self.recorder.normal(cron, "SawCompletedJob", message);
                }
                _ => {}
            }
            let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
            if finished(job) == Some("Complete") && completed > status.last_successful_time {
                status.last_successful_time = completed;
            }
        }
        active.retain(|reference| {
            let there = jobs.iter().any(|job| job.metadata.uid == reference.uid);
            // One that was just made may not be in the cache yet.
            let fresh = reference.name.as_ref().is_some_and(|name| {
                let last = status.last_schedule_time.as_ref().map(|time| name_at(cron, time.0));
                last.as_ref() == Some(name) && self.context.clock.now() < age_limit(status)
            });
            if !there && !fresh {
                let name = reference.name.as_deref().unwrap_or_default();
                let message = format!("Active job went missing: {name}");
                self.recorder.normal(cron, "MissingJob", message);
            }
            there || fresh
        });
        status.active = (!active.is_empty()).then_some(active);
    }

    /// Deletes the oldest finished Jobs beyond the limits.
    async fn forget_old(&self, cron: &CronJob, spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Result<()> {
        let kinds = [
            ("Complete", spec.successful_jobs_history_limit),
            ("Failed", spec.failed_jobs_history_limit),
        ];
        for (how, limit) in kinds {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
                continue;
            };
            let mut ended: Vec<_> = jobs.iter().filter(|job| finished(job) == Some(how)).collect();
            ended.sort_by_key(|job| {
                let started = job.status.as_ref().and_then(|status| status.start_time.clone());
                (started.map(|time| time.0), job.name_any())
            });
            for job in &ended[..ended.len().saturating_sub(limit)] {
                self.delete(cron, job).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<()> {
        let name = job.name_any();
        if job.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..Default::default()
        };
        match self.jobs(cron).delete(&name, &params).await {
            Ok(_) => {
                self.recorder
                    .normal(cron, "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            Err(error) if error::is_not_found(&error) => Ok(()),
            Err(error) => {
                let message = format!("Deleted job: {}", error::message(&error));
                self.recorder.warning(cron, "FailedDelete", message);
                Err(error).doing(|| format!("deleting job `{name}`"))
            }
        }
    }

    /// Starts the Job that is due, if there is one; says when the next one is.
    async fn start_due(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) -> Result<Option<Timestamp>> {
        let now = self.context.clock.now();
        let Some((schedule, zone)) = self.schedule(cron, spec) else {
            // Nothing changes before somebody changes the CronJob.
            return Ok(None);
        };
        let next = schedule.next(now, &zone);
        let Some(due) = self.last_missed(cron, spec, status, &schedule, &zone) else {
            return Ok(next);
        };
        let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        if deadline.is_some_and(|deadline| due.saturating_add(deadline).is_ok_and(|latest| latest < now)) {
            let at = due.strftime("%a, %d %b %Y %H:%M:%S +0000");
            let message = format!("Missed scheduled time to start a job: {at}");
            self.recorder.warning(cron, "MissSchedule", message);
            return Ok(next);
        }
        let name = name_at(cron, due);
        let listed = |reference: &ObjectReference| reference.name.as_ref() == Some(&name);
        let seen = status.last_schedule_time.as_ref().is_some_and(|last| last.0 == due);
        if seen || status.active.iter().flatten().any(listed) {
            return Ok(next);
        }
        let running = status.active.as_ref().is_some_and(|active| !active.is_empty());
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if running => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.recorder.normal(cron, "JobAlreadyActive", message);
                return Ok(next);
            }
            Some("Replace") => {
                let active = status.active.take().unwrap_or_default();
                for job in jobs
                    .iter()
                    .filter(|job| active.iter().any(|it| it.uid == job.metadata.uid))
                {
                    self.delete(cron, job).await?;
                }
            }
            _ => {}
        }
        self.start(cron, spec, due, name, status).await?;
        Ok(next)
    }

    fn schedule(&self, cron: &CronJob, spec: &CronJobSpec) -> Option<(Schedule, TimeZone)> {
        let zone = match spec.time_zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => match TimeZone::get(name) {
                Ok(zone) => zone,
                Err(error) => {
                    let message = format!("invalid timeZone: {name:?}: {error}");
                    self.recorder.warning(cron, "UnknownTimeZone", message);
                    return None;
                }
            },
        };
        match Schedule::parse(&spec.schedule) {
            Ok(schedule) => Some((schedule, zone)),
            Err(problem) => {
                let message = format!("unparseable schedule: {:?} : {problem}", spec.schedule);
                self.recorder.warning(cron, "UnparseableSchedule", message);
                None
            }
        }
    }

    /// The latest time up to now for which no Job was started.
    fn last_missed(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        status: &CronJobStatus,
        schedule: &Schedule,
        zone: &TimeZone,
    ) -> Option<Timestamp> {
        let now = self.context.clock.now();
        let last = status.last_schedule_time.as_ref().map(|time| time.0);
        let mut earliest = last.or(cron.creation_timestamp().map(|time| time.0))?;
        if let Some(seconds) = spec.starting_deadline_seconds {
            let begin = now.saturating_sub(SignedDuration::from_secs(seconds)).ok()?;
            earliest = earliest.max(begin);
        }
        let (mut due, mut missed) = (None, 0);
        while let Some(next) = schedule.next(due.unwrap_or(earliest), zone).filter(|next| *next <= now) {
            missed += 1;
            due = Some(next);
            if missed == MANY + 1 {
                let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check \
                               clock skew";
                self.recorder.warning(cron, "TooManyMissedTimes", message);
                // From here on the last one is looked for from near its place.
                due = Some(latest(schedule, zone, next, now));
                break;
            }
        }
        due
    }

    async fn start(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        due: Timestamp,
        name: String,
        status: &mut CronJobStatus,
    ) -> Result<()> {
        let template = spec.job_template.clone();
        let meta = template.metadata.unwrap_or_default();
        let mut annotations = meta.annotations.unwrap_or_default();
        annotations.insert(SCHEDULED_AT.to_owned(), apimachinery::time::format(due));
        let job = Job {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: cron.namespace(),
                labels: meta.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![ownership::controller_ref(cron)]),
                ..Default::default()
            },
            spec: template.spec,
            status: None,
        };
        let made = match self.jobs(cron).create(&PostParams::default(), &job).await {
            Ok(made) => {
                self.recorder
                    .normal(cron, "SuccessfulCreate", format!("Created job {name}"));
                made
            }
            Err(error) if error::is_namespace_terminating(&error) => return Ok(()),
            // Made by a pass whose status was not written.
            Err(error) if error::is_already_exists(&error) => {
                let there = self.jobs(cron).get(&name).await;
                let there = there.doing(|| format!("looking at job `{name}`"))?;
                if !ownership::is_controlled_by(&there.metadata, &cron.uid().unwrap_or_default()) {
                    return Err(error).doing(|| format!("creating job `{name}`"));
                }
                there
            }
            Err(error) => {
                let message = format!("Error creating job: {}", error::message(&error));
                self.recorder.warning(cron, "FailedCreate", message);
                return Err(error).doing(|| format!("creating job `{name}`"));
            }
        };
        let mut reference = made.object_ref(&());
        reference.resource_version = made.resource_version();
        if finished(&made).is_none() {
            status.active.get_or_insert_default().push(reference);
        }
        status.last_schedule_time = Some(Time(due));
        Ok(())
    }

    async fn write_status(&self, cron: &CronJob, status: CronJobStatus) -> Result<()> {
        if cron.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let key = Key::of(cron);
        let mut changed = cron.clone();
        changed.status = Some(status);
        let api: Api<CronJob> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.replace_status(&key.name, &PostParams::default(), &changed).await {
            Err(error) if error::is_not_found(&error) => Ok(()),
            written => written
                .map(drop)
                .doing(|| format!("writing the status of CronJob `{key}`")),
        }
    }
}

/// The same time gives the same name: a Job is never started twice for it.
fn name_at(cron: &CronJob, due: Timestamp) -> String {
    format!("{}-{}", cron.name_any(), due.as_second().div_euclid(60))
}

/// Until when a Job that the cache lacks may just be new.
fn age_limit(status: &CronJobStatus) -> Timestamp {
    let since = status.last_schedule_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
    since
        .saturating_add(SignedDuration::from_secs(10))
        .unwrap_or(Timestamp::MAX)
}

/// The last time up to `now`, found by halving: schedules that were missed for years are not walked through.
fn latest(schedule: &Schedule, zone: &TimeZone, known: Timestamp, now: Timestamp) -> Timestamp {
    let mut due = known;
    let mut step = now.duration_since(known);
    while step > SignedDuration::from_secs(30) {
        step /= 2;
        let from = now.saturating_sub(step).unwrap_or(known);
        if let Some(next) = schedule.next(from, zone).filter(|next| *next <= now && *next > due) {
            due = next;
        }
    }
    while let Some(next) = schedule.next(due, zone).filter(|next| *next <= now) {
        due = next;
    }
    due
}
