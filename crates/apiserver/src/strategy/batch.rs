//! Job and CronJob. After k/k `pkg/apis/batch/{v1/defaults.go,validation}` and `pkg/registry/batch/job/strategy.go` at
//! 1.36.

use serde_json::{Value, json};

use super::pod::defaults::template;
use super::walk::{Object, each, ensure, ensure_at, fill, fill_zero, flag, inner, object, text};
use super::{Generation, Status, Strategy, empty_status};

/// Rules of Jobs.
pub(super) static JOB: Strategy = Strategy {
    default: default_job,
    prepare_create: prepare_job,
    status: Status::Fresh(empty_status),
    generation: Generation::Spec,
    orphans_dependents: true,
    ..Strategy::PLAIN
};

/// Rules of CronJobs.
pub(super) static CRON_JOB: Strategy = Strategy {
    default: default_cron_job,
    status: Status::Fresh(empty_status),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

fn default_job(job: &mut Value) {
    if let Some(spec) = ensure_at(job, &["spec"]) {
        default_job_spec(spec);
        if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
            spec.insert("completions".to_owned(), 1.into());
        }
        fill(spec, "parallelism", 1);
        let per_index = spec.contains_key("backoffLimitPerIndex");
        fill(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
        fill(spec, "completionMode", "NonIndexed");
        fill(spec, "suspend", false);
        let policy = if spec.contains_key("podFailurePolicy") {
            "Failed"
        } else {
            "TerminatingOrFailed"
        };
        fill(spec, "podReplacementPolicy", policy);
        fill(spec, "manualSelector", false);
    }
    let Some(labels) = object(job, &["spec", "template", "metadata", "labels"]).cloned() else {
        return;
    };
    if let Some(metadata) = ensure_at(job, &["metadata"]) {
        fill_zero(metadata, "labels", Value::Object(labels));
    }
}

/// What a Job and the template of a CronJob have in common.
fn default_job_spec(spec: &mut Object) {
    template(spec);
    if let Some(policy) = inner(spec, "podFailurePolicy") {
        for rule in each(policy, "rules") {
            for pattern in each(rule, "onPodConditions") {
                fill_zero(pattern, "status", "True");
            }
        }
    }
}

fn default_cron_job(job: &mut Value) {
    let Some(spec) = ensure_at(job, &["spec"]) else { return };
    fill_zero(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    if let Some(spec) = inner(spec, "jobTemplate").and_then(|template| ensure(template, "spec")) {
        default_job_spec(spec);
    }
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
}

/// Old and new names of the labels by which a Job knows its Pods.
const JOB_NAME: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const CONTROLLER_UID: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

/// Unless the client does it by hand, a Job selects Pods by its own uid.
fn prepare_job(job: &mut Value) {
    if flag(job, &["spec", "manualSelector"]) {
        return;
    }
    let name = text(job, &["metadata", "name"]).to_owned();
    let uid = text(job, &["metadata", "uid"]).to_owned();
    if let Some(labels) = ensure_at(job, &["spec", "template", "metadata", "labels"]) {
        for key in JOB_NAME {
            fill(labels, key, name.as_str());
        }
        for key in CONTROLLER_UID {
            fill(labels, key, uid.as_str());
        }
    }
    if let Some(labels) = ensure_at(job, &["spec", "selector", "matchLabels"]) {
        fill(labels, CONTROLLER_UID[1], uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_runs_once_and_selects_by_its_uid() {
        let mut job =
            json!({"metadata": {"name": "pi", "uid": "u1"}, "spec": {"template": {"spec": {"containers": []}}}});
        default_job(&mut job);
        JOB.ready_create(&mut job);
        assert_eq!(
            (&job["spec"]["completions"], &job["spec"]["parallelism"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(
            job["spec"]["selector"],
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}})
        );
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "pi");
        // The labels a template had before are copied, generated ones are not.
        assert_eq!(job["metadata"].get("labels"), None);
    }

    #[test]
    fn parallelism_alone_leaves_completions_open() {
        let mut job = json!({"spec": {"parallelism": 3, "template": {}}});
        default_job(&mut job);
        assert_eq!(job["spec"].get("completions"), None);
        assert_eq!(job["spec"]["parallelism"], 3);
    }
}
