//! Jobs and CronJobs.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, PropagationPolicy};
use serde_json::{Value, json};

use crate::lab::Lab;

fn job(name: &str, image: &str, more: Value) -> Value {
    let mut job = json!({"metadata": {"name": name}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}}}});
    job["spec"]
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    job
}

/// The conditions that are true, as `Type Reason: message`.
fn conditions(job: &Job) -> Vec<String> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    conditions
        .filter(|condition| condition.status == "True")
        .map(|it| format!("{} {}: {}", it.type_, text(&it.reason), text(&it.message)))
        .collect()
}

fn is_finished(job: &Job) -> bool {
    conditions(job)
        .iter()
        .any(|text| text.starts_with("Complete ") || text.starts_with("Failed "))
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_its_pods_to_their_end_and_lets_them_go() {
    let lab = Lab::start().await;
    lab.kubelet.ends_with("done", 0);
    lab.create::<Job>(job("work", "done", json!({"completions": 5, "parallelism": 2})))
        .await;
    let done = lab.until("work", is_finished).await;
    assert_eq!(
        conditions(&done),
        [
            "SuccessCriteriaMet CompletionsReached: Reached expected number of succeeded pods",
            "Complete CompletionsReached: Reached expected number of succeeded pods"
        ]
    );
    let status = done.status.unwrap();
    assert_eq!((status.succeeded, status.failed, status.active), (Some(5), None, None));
    assert!(status.completion_time.is_some() && status.start_time.is_some());
    let pods = lab
        .until_all(|pods: &[Pod]| pods.iter().all(|pod| pod.finalizers().is_empty()))
        .await;
    assert_eq!(pods.len(), 5);
    let told = lab.events("Job", "work").await;
    assert_eq!(
        told.last().map(String::as_str),
        Some("Normal Completed 1: Job completed")
    );
    assert!(
        told[0].starts_with("Normal SuccessfulCreate 1: Created pod: work-"),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_is_tried_again_later_and_given_up() {
    let lab = Lab::start().await;
    lab.kubelet.ends_with("broken", 1);
    let start = lab.clock.now();
    lab.create::<Job>(job("work", "broken", json!({"backoffLimit": 3})))
        .await;
    let failed = lab.until("work", is_finished).await;
    assert_eq!(
        conditions(&failed).last().map(String::as_str),
        Some("Failed BackoffLimitExceeded: Job has reached the specified backoff limit")
    );
    assert_eq!(failed.status.unwrap().failed, Some(4));
    // 10, 20 and 40 seconds between the four attempts.
    assert_eq!(lab.clock.now().duration_since(start).as_secs(), 70);
    let told = lab.events("Job", "work").await;
    let expected = "Warning BackoffLimitExceeded 1: Job has reached the specified backoff limit";
    assert_eq!(told.last().map(String::as_str), Some(expected));
}

#[tokio::test(start_paused = true)]
async fn an_indexed_job_has_a_pod_for_every_index_and_policies_decide_about_failures() {
    let lab = Lab::start().await;
    let more = json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0,
        "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [3]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [7]}}]}});
    lab.create::<Job>(job("work", "wait", more)).await;
    let pods = lab.until_all(|pods: &[Pod]| pods.len() == 4).await;
    let of_index = |pods: &[Pod], index: &str| {
        let found = pods.iter().find(|pod| {
            pod.annotations()["batch.kubernetes.io/job-completion-index"] == index
                && pod.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Failed")
        });
        found.unwrap().name_any()
    };
    let spec = pods[0].spec.as_ref().unwrap();
    assert!(spec.hostname.as_ref().unwrap().starts_with("work-"));
    assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
    for index in ["0", "1"] {
        lab.kubelet.end(&of_index(&pods, index), 0).await;
    }
    lab.kubelet.end(&of_index(&pods, "2"), 7).await;
    lab.kubelet.end(&of_index(&pods, "3"), 3).await;
    let pods = lab.until_all(|pods: &[Pod]| pods.len() == 5).await;
    lab.kubelet.end(&of_index(&pods, "3"), 0).await;
    let failed = lab.until("work", is_finished).await;
    let status = failed.status.clone().unwrap();
    assert_eq!(status.completed_indexes.as_deref(), Some("0,1,3"));
    assert_eq!(status.failed_indexes.as_deref(), Some("2"));
    assert_eq!(
        conditions(&failed).last().map(String::as_str),
        Some("Failed FailedIndexes: Job has failed indexes")
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_too_long_fails_and_a_suspended_one_waits() {
    let lab = Lab::start().await;
    lab.create::<Job>(job("slow", "wait", json!({"activeDeadlineSeconds": 30})))
        .await;
    let failed = lab.until("slow", is_finished).await;
    assert_eq!(
        conditions(&failed).last().map(String::as_str),
        Some("Failed DeadlineExceeded: Job was active longer than specified deadline")
    );
    lab.until_all(|pods: &[Pod]| pods.is_empty()).await;

    lab.create::<Job>(job("later", "wait", json!({"suspend": true}))).await;
    let waiting = lab.until("later", |job| !conditions(job).is_empty()).await;
    assert_eq!(conditions(&waiting), ["Suspended JobSuspended: Job suspended"]);
    assert_eq!(lab.list::<Pod>().await.len(), 0);
    lab.merge::<Job>("later", json!({"spec": {"suspend": false}})).await;
    lab.until_all(|pods: &[Pod]| pods.len() == 1).await;
    lab.merge::<Job>("later", json!({"spec": {"suspend": true}})).await;
    lab.until_all(|pods: &[Pod]| pods.is_empty()).await;
    let told = lab.events("Job", "later").await;
    for expected in ["Normal Suspended 2: Job suspended", "Normal Resumed 1: Job resumed"] {
        assert!(told.iter().any(|text| text == expected), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_job_goes_with_it_or_after_its_time_to_live() {
    let lab = Lab::start().await;
    lab.kubelet.ends_with("done", 0);
    lab.create::<Job>(job("short", "done", json!({"ttlSecondsAfterFinished": 100})))
        .await;
    lab.until("short", is_finished).await;
    let start = lab.clock.now();
    lab.until_all(|jobs: &[Job]| jobs.is_empty()).await;
    assert_eq!(lab.clock.now().duration_since(start).as_secs(), 100);
    lab.until_all(|pods: &[Pod]| pods.is_empty()).await;

    lab.create::<Job>(job("gone", "wait", json!({"parallelism": 2, "completions": 2})))
        .await;
    lab.until_all(|pods: &[Pod]| pods.len() == 2).await;
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        ..Default::default()
    };
    lab.api::<Job>().delete("gone", &params).await.unwrap();
    lab.until_all(|pods: &[Pod]| pods.is_empty()).await;
}

fn cron(schedule: &str, image: &str, more: Value) -> Value {
    let mut cron =
        json!({"metadata": {"name": "tick"}, "spec": {"schedule": schedule, "jobTemplate": job("", image, json!({}))}});
    cron["spec"]["jobTemplate"].as_object_mut().unwrap().remove("metadata");
    cron["spec"]
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    cron
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_starts_a_job_a_minute_and_keeps_the_last_ones() {
    let lab = Lab::start().await;
    lab.kubelet.ends_with("done", 0);
    lab.create::<CronJob>(cron("* * * * *", "done", json!({"successfulJobsHistoryLimit": 2})))
        .await;
    tokio::time::sleep(Duration::from_secs(5 * 60 + 5)).await;
    let jobs = lab.list::<Job>().await;
    let minute = "2026-01-01T00:05:00Z".parse::<jiff::Timestamp>().unwrap().as_second() / 60;
    let names: Vec<_> = jobs.iter().map(|job| job.name_any()).collect();
    assert_eq!(names, [format!("tick-{}", minute - 1), format!("tick-{minute}")]);
    assert_eq!(
        jobs[1].annotations()["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        "2026-01-01T00:05:00Z"
    );
    let status = lab.api::<CronJob>().get("tick").await.unwrap().status.unwrap();
    assert_eq!(status.active, None);
    assert!(status.last_successful_time.is_some());
    let told = lab.events("CronJob", "tick").await;
    assert!(
        told.contains(&format!("Normal SuccessfulCreate 1: Created job tick-{minute}")),
        "{told:?}"
    );
    let saw = format!("Normal SawCompletedJob 1: Saw completed job: tick-{minute}, condition: Complete");
    assert!(told.contains(&saw), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_running_job_is_waited_for_or_replaced_as_the_policy_says() {
    let lab = Lab::start().await;
    lab.create::<CronJob>(cron("* * * * *", "wait", json!({"concurrencyPolicy": "Forbid"})))
        .await;
    tokio::time::sleep(Duration::from_secs(3 * 60 + 5)).await;
    let first = lab.list::<Job>().await;
    assert_eq!(first.len(), 1);
    lab.merge::<CronJob>("tick", json!({"spec": {"concurrencyPolicy": "Replace"}}))
        .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let second = lab.list::<Job>().await;
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].name_any(), first[0].name_any());
    lab.merge::<CronJob>("tick", json!({"spec": {"suspend": true}})).await;
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert_eq!(lab.list::<Job>().await.len(), 1);
}
