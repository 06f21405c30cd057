//! Counts a Job's pods: which run, which have ended, and which of those the status has yet to count.
//!
//! Pure. (k/k `pkg/controller/job/job_controller.go`, `trackJobStatusAndRemoveFinalizers`, v1.36.)

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::indexes::{self, Indexes};
use super::pods::{failures_before, has_failed, index_of, is_indexed, is_tracked};
use super::policy::{self, Verdict};
use crate::pods;

/// What there is of a Job.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Neither ended nor on their way out.
    pub(super) active: Vec<Arc<Pod>>,
    pub(super) ready: i32,
    pub(super) terminating: i32,
    /// Counted for good: the finalizers are gone.
    pub(super) counted_succeeded: i32,
    pub(super) counted_failed: i32,
    /// To be counted once their finalizers are gone.
    pub(super) uncounted_succeeded: Vec<String>,
    pub(super) uncounted_failed: Vec<String>,
    pub(super) completed: Indexes,
    pub(super) failed_indexes: Indexes,
    /// May lose their finalizers as soon as the status says what is above.
    pub(super) release: Vec<Arc<Pod>>,
    /// Ends seen for the first time.
    pub(super) new_successes: u32,
    pub(super) new_failures: u32,
    /// The failure policy gives the Job up.
    pub(super) give_up: Option<String>,
}

impl Tally {
    /// `finishing`: the Job's fate is decided, and what still runs is being deleted.
    pub(super) fn of(job: &Job, spec: &JobSpec, pods: &[Arc<Pod>], finishing: bool) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let completions = spec.completions.unwrap_or_default();
        let mut tally = Self {
            counted_succeeded: status.succeeded.unwrap_or_default(),
            counted_failed: status.failed.unwrap_or_default(),
            completed: indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions),
            failed_indexes: indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), completions),
            ..Self::default()
        };
        let tracked = |uid: &String| {
            pods.iter()
                .any(|pod| pod.metadata.uid.as_ref() == Some(uid) && is_tracked(pod))
        };
        let uncounted = status.uncounted_terminated_pods.unwrap_or_default();
        for uid in uncounted.succeeded.into_iter().flatten() {
            match tracked(&uid) {
                true => tally.uncounted_succeeded.push(uid),
                false => tally.counted_succeeded += 1,
            }
        }
        for uid in uncounted.failed.into_iter().flatten() {
            match tracked(&uid) {
                true => tally.uncounted_failed.push(uid),
                false => tally.counted_failed += 1,
            }
        }
        for pod in pods {
            tally.add(job, spec, pod, finishing);
        }
        if is_indexed(spec) {
            tally.counted_succeeded = i32::try_from(tally.completed.len()).unwrap_or(i32::MAX);
            // What succeeded in the end has not failed.
            let Self {
                completed,
                failed_indexes,
                ..
            } = &mut tally;
            failed_indexes.retain(|index| !completed.contains(index));
        }
        tally
    }

    fn add(&mut self, job: &Job, spec: &JobSpec, pod: &Arc<Pod>, finishing: bool) {
        let (ended, going) = (pods::is_terminal(pod), pods::is_terminating(pod));
        if !ended && going {
            self.terminating += 1;
        } else if !ended {
            self.active.push(pod.clone());
            self.ready += i32::from(pods::is_ready(pod));
        }
        let succeeded = pods::phase(pod) == "Succeeded";
        let failed = has_failed(spec, pod);
        if failed {
            self.note_failed_index(spec, pod);
        }
        let decided = failed || succeeded || (finishing && going) || job.metadata.deletion_timestamp.is_some();
        if !is_tracked(pod) || !decided {
            return;
        }
        self.release.push(pod.clone());
        let uid = pod.uid().unwrap_or_default();
        if succeeded {
            self.succeeded(spec, pod, uid);
        } else if !self.uncounted_failed.contains(&uid) {
            match policy::judge(spec, pod) {
                Verdict::Ignore => return,
                Verdict::FailJob(why) => drop(self.give_up.get_or_insert(why)),
                Verdict::Count | Verdict::FailIndex => {}
            }
            self.uncounted_failed.push(uid);
            self.new_failures += 1;
        }
    }

    fn succeeded(&mut self, spec: &JobSpec, pod: &Pod, uid: String) {
        let is_new = match is_indexed(spec) {
            true => {
                let index = index_of(pod).filter(|index| (0..spec.completions.unwrap_or_default()).contains(index));
                index.is_some_and(|index| self.completed.insert(index))
            }
            false if self.uncounted_succeeded.contains(&uid) => false,
            false => {
                self.uncounted_succeeded.push(uid);
                true
            }
        };
        self.new_successes += u32::from(is_new);
    }

    /// An index fails for good with its last permitted failure, or by policy.
    fn note_failed_index(&mut self, spec: &JobSpec, pod: &Pod) {
        let (Some(limit), Some(index)) = (spec.backoff_limit_per_index, index_of(pod)) else {
            return;
        };
        let verdict = policy::judge(spec, pod);
        let exhausted = verdict != Verdict::Ignore && failures_before(pod) >= limit;
        if exhausted || verdict == Verdict::FailIndex {
            self.failed_indexes.insert(index);
        }
    }

    pub(super) fn total_succeeded(&self) -> i32 {
        self.counted_succeeded + count(self.uncounted_succeeded.len())
    }

    pub(super) fn total_failed(&self) -> i32 {
        self.counted_failed + count(self.uncounted_failed.len())
    }

    /// Nothing runs, and every end is counted.
    pub(super) fn is_settled(&self) -> bool {
        self.active.is_empty()
            && self.terminating == 0
            && self.release.is_empty()
            && self.uncounted_succeeded.is_empty()
            && self.uncounted_failed.is_empty()
    }
}

pub(super) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::job::pods::FINALIZER;

    fn pod(uid: &str, phase: &str, tracked: bool) -> Arc<Pod> {
        let finalizers = if tracked { json!([FINALIZER]) } else { json!([]) };
        let pod = json!({"metadata": {"name": uid, "uid": uid, "finalizers": finalizers}, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn tally(status: Value, pods: &[Arc<Pod>]) -> Tally {
        let job: Job = serde_json::from_value(json!({"spec": {"template": {}}, "status": status})).unwrap();
        Tally::of(&job, job.spec.as_ref().unwrap(), pods, false)
    }

    #[test]
    fn an_end_is_counted_once_whatever_is_seen_in_between() {
        let seen = tally(
            json!({}),
            &[
                pod("a", "Succeeded", true),
                pod("b", "Failed", true),
                pod("c", "Running", true),
            ],
        );
        assert_eq!(
            (seen.total_succeeded(), seen.total_failed(), seen.active.len()),
            (1, 1, 1)
        );
        assert_eq!((seen.new_successes, seen.new_failures, seen.release.len()), (1, 1, 2));
        // Written down, finalizers still there; then gone, with the pod or without.
        let written = json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["b"]}});
        let again = tally(
            written.clone(),
            &[pod("a", "Succeeded", true), pod("b", "Failed", true)],
        );
        assert_eq!(
            (again.total_succeeded(), again.total_failed(), again.new_failures),
            (1, 1, 0)
        );
        let after = tally(written, &[pod("a", "Succeeded", false)]);
        assert_eq!(
            (after.counted_succeeded, after.counted_failed, after.is_settled()),
            (1, 1, true)
        );
        let last = tally(json!({"succeeded": 1, "failed": 1}), &[pod("a", "Succeeded", false)]);
        assert_eq!((last.total_succeeded(), last.total_failed()), (1, 1));
    }
}
