//! Job and CronJob.

use apimachinery::duration;
use jiff::Timestamp;
use serde_json::Value;

use super::column::{AGE, Column, NAME, containers, count, images, selector, shown, text};
use super::show;
use crate::strategy::walk::{self, at};

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    Some(match kind {
        "CronJob" => CRON_JOB,
        "Job" => JOB,
        _ => return None,
    })
}

static JOB: &[Column] = &[
    NAME,
    shown("Status", "How far the job is, in a word", status),
    shown("Completions", "Pods that succeeded, of those wanted", completions),
    shown("Duration", "How long the job has taken", job_duration),
    AGE,
    containers(&["spec", "template", "spec", "containers"]).wide(),
    images(&["spec", "template", "spec", "containers"]).wide(),
    selector("Selector", "Labels of the job's pods", &["spec", "selector"]).wide(),
];

static CRON_JOB: &[Column] = &[
    NAME,
    text("Schedule", "When jobs are made", &["spec", "schedule"]),
    shown("Timezone", "Time zone of the schedule", |job, _| {
        at(job, &["spec", "timeZone"])
            .map_or_else(|| "<none>".to_owned(), show::plain)
            .into()
    }),
    shown("Suspend", "Whether no more jobs are made", |job, _| {
        show::optional_bool(job, &["spec", "suspend"]).into()
    })
    .of_type("boolean"),
    count("Active", "Jobs that run", &["status", "active"]),
    shown("Last Schedule", "Time since a job was made", |job, now| {
        let last = show::time(job, &["status", "lastScheduleTime"]);
        last.map_or_else(|| "<none>".to_owned(), |last| duration::age(Some(last), now))
            .into()
    }),
    AGE,
    containers(&["spec", "jobTemplate", "spec", "template", "spec", "containers"]).wide(),
    images(&["spec", "jobTemplate", "spec", "template", "spec", "containers"]).wide(),
    selector(
        "Selector",
        "Labels of the jobs' pods",
        &["spec", "jobTemplate", "spec", "selector"],
    )
    .wide(),
];

fn status(job: &Value, _: Timestamp) -> Value {
    let first = |conditions: &[&'static str]| conditions.iter().copied().find(|kind| show::is_true(job, kind));
    first(&["Complete", "Failed"])
        .or_else(|| show::is_deleting(job).then_some("Terminating"))
        .or_else(|| first(&["Suspended", "FailureTarget", "SuccessCriteriaMet"]))
        .unwrap_or("Running")
        .into()
}

fn completions(job: &Value, _: Timestamp) -> Value {
    let succeeded = walk::int(job, &["status", "succeeded"]).unwrap_or_default();
    match (
        walk::int(job, &["spec", "completions"]),
        walk::int(job, &["spec", "parallelism"]),
    ) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}").into(),
        // A work queue: done when one pod says so.
        (None, Some(parallelism)) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}").into(),
        (None, _) => format!("{succeeded}/1").into(),
    }
}

fn job_duration(job: &Value, now: Timestamp) -> Value {
    match show::time(job, &["status", "startTime"]) {
        None => "".into(),
        Some(start) => {
            let end = show::time(job, &["status", "completionTime"]).unwrap_or(now);
            duration::human(end.duration_since(start)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::{headings, now, row};

    #[test]
    fn a_job_from_start_to_end() {
        let mut job = json!({
            "metadata": {"name": "migrate", "creationTimestamp": "2026-01-02T11:50:00Z"},
            "spec": {"completions": 3, "parallelism": 1, "selector": {"matchLabels": {"job": "m"}},
                "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}},
        });
        assert_eq!(
            headings("batch/v1", "Job"),
            "Name  Status  Completions  Duration  Age | Containers  Images  Selector"
        );
        assert_eq!(
            row("batch/v1", "Job", &job),
            "migrate  Running  0/3    10m | c  i  job=m"
        );
        job["status"] = json!({"startTime": "2026-01-02T11:51:00Z", "succeeded": 2});
        assert_eq!(
            row("batch/v1", "Job", &job),
            "migrate  Running  2/3  9m  10m | c  i  job=m"
        );
        job["status"] = json!({"startTime": "2026-01-02T11:51:00Z", "completionTime": "2026-01-02T11:51:07Z",
            "succeeded": 3, "conditions": [{"type": "SuccessCriteriaMet", "status": "True"},
                {"type": "Complete", "status": "True"}]});
        assert_eq!(
            row("batch/v1", "Job", &job),
            "migrate  Complete  3/3  7s  10m | c  i  job=m"
        );
    }

    #[test]
    fn a_job_is_what_its_first_true_condition_says() {
        let of = |deleting: bool, conditions: &[&str]| {
            let conditions: Vec<_> = conditions
                .iter()
                .map(|kind| json!({"type": kind, "status": "True"}))
                .collect();
            let mut job = json!({"metadata": {}, "status": {"conditions": conditions}});
            if deleting {
                job["metadata"]["deletionTimestamp"] = json!("2026-01-02T12:00:00Z");
            }
            status(&job, now())
        };
        assert_eq!(of(false, &["Failed", "FailureTarget"]), "Failed");
        assert_eq!(of(true, &["Failed"]), "Failed");
        assert_eq!(of(true, &["Suspended"]), "Terminating");
        assert_eq!(of(false, &["Suspended"]), "Suspended");
        assert_eq!(of(false, &["FailureTarget"]), "FailureTarget");
        assert_eq!(of(false, &["SuccessCriteriaMet"]), "SuccessCriteriaMet");
    }

    #[test]
    fn a_work_queue_needs_one_success() {
        let of = |parallelism: i32| completions(&json!({"spec": {"parallelism": parallelism}}), now());
        assert_eq!((of(1), of(5)), (json!("0/1"), json!("0/1 of 5")));
    }

    #[test]
    fn a_cron_job_shows_when_it_last_ran() {
        let mut job = json!({
            "metadata": {"name": "nightly", "creationTimestamp": "2025-12-01T12:00:00Z"},
            "spec": {"schedule": "0 3 * * *", "suspend": false,
                "jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}},
        });
        assert_eq!(
            row("batch/v1", "CronJob", &job),
            "nightly  0 3 * * *  <none>  False  0  <none>  32d | c  i  <none>"
        );
        job["spec"]["timeZone"] = json!("Europe/Rome");
        job["status"] = json!({"active": [{}], "lastScheduleTime": "2026-01-02T03:00:00Z"});
        assert_eq!(
            row("batch/v1", "CronJob", &job),
            "nightly  0 3 * * *  Europe/Rome  False  1  9h  32d | c  i  <none>"
        );
    }
}
