//! Job and CronJob.

use apimachinery::duration;
use jiff::Timestamp;
use serde_json::Value;

use super::cell::{NONE, age, condition, containers, count, name, selector, since, size, text_or, when};
use super::{AGE, CONTAINERS, Column, IMAGES, NAME, Printer, SELECTOR};
use crate::strategy::walk::{at, int, text};

pub(super) static JOB: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "Whether the Job is at work, done or failed."),
        Column::text("Completions", "How many Pods have succeeded, of those that must."),
        Column::text("Duration", "How long it took, or has taken until now."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |job, now| {
        let [names, images] = containers(job, &["spec", "template", "spec"]);
        vec![
            name(job),
            status(job).into(),
            completions(job).into(),
            taken(job, now).into(),
            age(job, now),
            names,
            images,
            selector(job, &["spec", "selector"]).into(),
        ]
    },
};

pub(super) static CRON_JOB: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Schedule", "When Jobs are made, in Cron format."),
        Column::text("Timezone", "Time zone of the schedule."),
        Column::boolean("Suspend", "Whether no further Jobs are made."),
        Column::integer("Active", "How many of its Jobs are at work."),
        Column::text("Last Schedule", "Time since the last Job was made."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |job, now| {
        let [names, images] = containers(job, &["spec", "jobTemplate", "spec", "template", "spec"]);
        let last = match at(job, &["status", "lastScheduleTime"]) {
            Some(_) => since(job, &["status", "lastScheduleTime"], now),
            None => NONE.to_owned(),
        };
        let suspend = at(job, &["spec", "suspend"]).and_then(Value::as_bool);
        vec![
            name(job),
            text(job, &["spec", "schedule"]).into(),
            text_or(job, &["spec", "timeZone"], NONE),
            // A boolean column, yet a text: so does upstream.
            match suspend {
                Some(true) => "True".into(),
                Some(false) => "False".into(),
                None => super::cell::UNSET.into(),
            },
            size(job, &["status", "active"]).into(),
            last.into(),
            age(job, now),
            names,
            images,
            selector(job, &["spec", "jobTemplate", "spec", "selector"]).into(),
        ]
    },
};

fn status(job: &Value) -> &'static str {
    let holds = |kind: &str| condition(job, kind).is_some_and(|condition| text(condition, &["status"]) == "True");
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if at(job, &["metadata", "deletionTimestamp"]).is_some() => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let succeeded = count(job, &["status", "succeeded"]);
    match (
        int(job, &["spec", "completions"]),
        int(job, &["spec", "parallelism"]).unwrap_or(0),
    ) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn taken(job: &Value, now: Timestamp) -> String {
    let Some(start) = when(job, &["status", "startTime"]) else {
        return String::new();
    };
    let end = when(job, &["status", "completionTime"]).unwrap_or(now);
    duration::human(end.duration_since(start))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    #[test]
    fn a_job_shows_how_far_it_is() {
        let mut job = json!({"metadata": {"name": "pi"}, "spec": {"completions": 3},
            "status": {"succeeded": 1, "startTime": "2026-01-01T00:58:30Z"}});
        assert_eq!(row(&JOB, &job)[..4], ["pi", "Running", "1/3", "90s"]);
        job["status"]["completionTime"] = json!("2026-01-01T00:58:35Z");
        job["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
        job["spec"] = json!({"parallelism": 5});
        assert_eq!(row(&JOB, &job)[..4], ["pi", "Complete", "1/1 of 5", "5s"]);
    }

    #[test]
    fn a_cron_job_shows_its_schedule() {
        let job = json!({"metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *", "suspend": false}});
        assert_eq!(
            row(&CRON_JOB, &job)[..6],
            ["c", "*/5 * * * *", "<none>", "False", "0", "<none>"]
        );
    }
}
