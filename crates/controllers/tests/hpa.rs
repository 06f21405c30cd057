//! The HorizontalPodAutoscaler against the API server in process, with metrics that a test turns up and down.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lab;

use std::sync::atomic::Ordering;
use std::time::Duration;

use apimachinery::pace::Pace;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use lab::{Lab, deployment};
use serde_json::{Value, json};
use tokio::time::Instant;

fn autoscaler(more: Value) -> Value {
    let mut autoscaler = json!({
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": 5,
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        },
    });
    autoscaler["spec"]
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    autoscaler
}

fn use_cpu(lab: &Lab, milli: i64) {
    lab.metrics.cpu.store(milli, Ordering::Relaxed);
}

/// `Type=Status Reason: message` of each condition.
fn conditions(autoscaler: &HorizontalPodAutoscaler) -> Vec<String> {
    let conditions = autoscaler
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    conditions
        .iter()
        .map(|c| format!("{}={} {}: {}", c.type_, c.status, text(&c.reason), text(&c.message)))
        .collect()
}

fn is_active(autoscaler: &HorizontalPodAutoscaler) -> bool {
    conditions(autoscaler)
        .iter()
        .any(|condition| condition.starts_with("ScalingActive=True"))
}

async fn replicas(lab: &Lab, wanted: i32) {
    let is_there = |deployment: &Deployment| deployment.spec.as_ref().unwrap().replicas == Some(wanted);
    lab.until("web", is_there).await;
}

/// A Deployment of one pod and an autoscaler that has seen its first metric; and how long that took.
async fn active(lab: &Lab) -> Duration {
    use_cpu(lab, 2);
    lab.create::<Deployment>(deployment(1, "web:1", json!({}))).await;
    lab.create::<HorizontalPodAutoscaler>(autoscaler(json!({}))).await;
    let start = Instant::now();
    lab.until("web", is_active).await;
    start.elapsed()
}

const ACTIVE: &str = "ScalingActive=True ValidMetricFound: the HPA was able to successfully calculate a replica count \
    from cpu resource utilization (percentage of request)";
const IN_RANGE: &str = "ScalingLimited=False DesiredWithinRange: the desired count is within the acceptable range";
const UP: &str = "cpu resource utilization (percentage of request) above target";

#[tokio::test(start_paused = true)]
async fn load_scales_one_to_four_to_five_and_rest_brings_it_back_to_one() {
    let lab = Lab::start().await;
    assert!(
        active(&lab).await < Duration::from_secs(3),
        "the first look does not wait for the interval"
    );
    let first = lab.until("web", is_active).await;
    let ready = "AbleToScale=True ReadyForNewScale: recommended size matches current size";
    assert_eq!(conditions(&first), [ready, ACTIVE, IN_RANGE]);
    let metric = &first.status.as_ref().unwrap().current_metrics.as_ref().unwrap()[0];
    let current = &metric.resource.as_ref().unwrap().current;
    assert_eq!(
        (
            current.average_utilization,
            current.average_value.as_ref().unwrap().0.as_str()
        ),
        (Some(2), "2m")
    );

    use_cpu(&lab, 200);
    let start = Instant::now();
    replicas(&lab, 4).await;
    assert!(start.elapsed() <= Duration::from_secs(15));
    let (_, four) = (lab.until_complete("web").await, Instant::now());
    replicas(&lab, 5).await;
    // One or two looks: the new pods' samples count from the first whole window on.
    assert!(four.elapsed() <= Duration::from_secs(30), "{:?}", four.elapsed());
    let limited = |autoscaler: &HorizontalPodAutoscaler| {
        conditions(autoscaler)
            .iter()
            .any(|condition| condition.starts_with("ScalingLimited=True"))
    };
    let five = lab.until("web", limited).await;
    assert_eq!(
        conditions(&five)[2],
        "ScalingLimited=True TooManyReplicas: the desired replica count is more than the maximum replica count"
    );

    use_cpu(&lab, 1);
    let start = Instant::now();
    let held = |autoscaler: &HorizontalPodAutoscaler| {
        conditions(autoscaler)
            .iter()
            .any(|condition| condition.contains("ScaleDownStabilized"))
    };
    lab.until("web", held).await;
    let next = lab.next_moves().remove(0);
    assert_eq!((next.current_replicas, next.recommended_replicas), (5, Some(1)));
    let hold = next.scale_down_held.unwrap();
    assert!(hold.replicas >= 5);
    let in_how_long = hold.until.duration_since(lab.clock.now());
    assert!(
        in_how_long.as_secs() > 250 && in_how_long.as_secs() <= 300,
        "{in_how_long}"
    );
    replicas(&lab, 1).await;
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(285) && took <= Duration::from_secs(330),
        "{took:?}"
    );
    assert_eq!(
        lab.events("HorizontalPodAutoscaler", "web").await,
        [
            format!("Normal SuccessfulRescale 1: New size: 4; reason: {UP}"),
            format!("Normal SuccessfulRescale 1: New size: 5; reason: {UP}"),
            "Normal SuccessfulRescale 1: New size: 1; reason: All metrics below target".to_owned(),
        ]
    );
    let last = lab
        .until("web", |autoscaler: &HorizontalPodAutoscaler| {
            autoscaler
                .status
                .as_ref()
                .is_some_and(|status| status.desired_replicas == 1)
        })
        .await;
    let status = last.status.unwrap();
    assert_eq!(
        (status.current_replicas, status.last_scale_time.is_some()),
        (Some(5), true)
    );
}

#[tokio::test(start_paused = true)]
async fn speed_ten_is_ten_times_as_fast() {
    let lab = Lab::at(Pace::new(10).unwrap()).await;
    active(&lab).await;
    use_cpu(&lab, 200);
    let start = Instant::now();
    replicas(&lab, 4).await;
    assert!(start.elapsed() <= Duration::from_millis(1500));
    replicas(&lab, 5).await;
    use_cpu(&lab, 1);
    let start = Instant::now();
    replicas(&lab, 1).await;
    assert!(start.elapsed() >= Duration::from_millis(28_500) && start.elapsed() <= Duration::from_secs(33));
}

#[tokio::test(start_paused = true)]
async fn missing_metrics_are_told_at_the_interval_and_not_before() {
    let lab = Lab::start().await;
    lab.create::<Deployment>(deployment(1, "web:1", json!({}))).await;
    lab.create::<HorizontalPodAutoscaler>(autoscaler(json!({}))).await;
    lab.until_complete("web").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(lab.events("HorizontalPodAutoscaler", "web").await.is_empty());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let text = "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from \
                resource metrics API";
    let told = [
        format!("Warning FailedGetResourceMetric 1: {text}"),
        format!(
            "Warning FailedComputeMetricsReplicas 1: invalid metrics (1 invalid out of 1), first error is: failed to get \
             cpu resource metric value: {text}"
        ),
    ];
    assert_eq!(lab.events("HorizontalPodAutoscaler", "web").await, told);
    let failing = lab.until("web", |autoscaler| !conditions(autoscaler).is_empty()).await;
    assert_eq!(
        conditions(&failing),
        [
            "AbleToScale=True SucceededGetScale: the HPA controller was able to get the target's current scale"
                .to_owned(),
            format!(
                "ScalingActive=False FailedGetResourceMetric: the HPA was unable to compute the replica count: {text}"
            ),
        ]
    );
    tokio::time::sleep(Duration::from_secs(15)).await;
    let again = lab.events("HorizontalPodAutoscaler", "web").await;
    assert!(again[0].starts_with("Warning FailedGetResourceMetric 2: "), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_not_there_is_told() {
    let lab = Lab::start().await;
    lab.create::<HorizontalPodAutoscaler>(autoscaler(json!({}))).await;
    let missing = lab.until("web", |autoscaler| !conditions(autoscaler).is_empty()).await;
    let text = "deployments.apps \"web\" not found";
    let prefix = "AbleToScale=False FailedGetScale: the HPA controller was unable to get the target's current scale";
    assert_eq!(conditions(&missing), [format!("{prefix}: {text}")]);
    assert_eq!(
        lab.events("HorizontalPodAutoscaler", "web").await,
        [format!("Warning FailedGetScale 1: {text}")]
    );
}

#[tokio::test(start_paused = true)]
async fn limits_are_kept_without_metrics_and_nothing_is_scaled_from_zero() {
    let lab = Lab::start().await;
    lab.create::<Deployment>(deployment(8, "web:1", json!({}))).await;
    lab.create::<HorizontalPodAutoscaler>(autoscaler(json!({}))).await;
    replicas(&lab, 5).await;
    lab.until_complete("web").await;
    let told = lab.events("HorizontalPodAutoscaler", "web").await;
    assert_eq!(
        told[0],
        "Normal SuccessfulRescale 1: New size: 5; reason: Current number of replicas above Spec.MaxReplicas"
    );
    lab.merge::<HorizontalPodAutoscaler>("web", json!({"spec": {"minReplicas": 6, "maxReplicas": 9}}))
        .await;
    replicas(&lab, 6).await;
    lab.merge::<Deployment>("web", json!({"spec": {"replicas": 0}})).await;
    let disabled = |autoscaler: &HorizontalPodAutoscaler| {
        conditions(autoscaler)
            .iter()
            .any(|condition| condition.starts_with("ScalingActive=False ScalingDisabled"))
    };
    lab.until("web", disabled).await;
    replicas(&lab, 0).await;
}

#[tokio::test(start_paused = true)]
async fn two_autoscalers_of_the_same_pods_are_refused() {
    let lab = Lab::start().await;
    active(&lab).await;
    let mut second = autoscaler(json!({}));
    second["metadata"]["name"] = json!("web-too");
    lab.create::<HorizontalPodAutoscaler>(second).await;
    let refused = |autoscaler: &HorizontalPodAutoscaler| {
        conditions(autoscaler)
            .iter()
            .any(|condition| condition.contains("AmbiguousSelector"))
    };
    let told = lab.until("web-too", refused).await;
    let text = "pods by selector app=web are controlled by multiple HPAs: [{web default} {web-too default}]";
    assert!(conditions(&told).contains(&format!("ScalingActive=False AmbiguousSelector: {text}")));
    lab.until("web", refused).await;
}

#[tokio::test(start_paused = true)]
async fn external_and_object_metrics_are_read_through_their_apis() {
    let lab = Lab::start().await;
    lab.create::<Deployment>(deployment(2, "web:1", json!({}))).await;
    lab.until_complete("web").await;
    let at = "2026-01-01T00:00:00Z";
    lab.metrics.other.lock().unwrap().extend([
        (
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue?labelSelector=name%3Da".to_owned(),
            json!({"items": [{"metricName": "queue", "timestamp": at, "value": "20"},
                {"metricName": "queue", "timestamp": at, "value": "5"}]}),
        ),
        (
            "/apis/custom.metrics.k8s.io".to_owned(),
            json!({"name": "custom.metrics.k8s.io", "versions": [
                {"groupVersion": "custom.metrics.k8s.io/v1beta1", "version": "v1beta1"}]}),
        ),
        (
            "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/services/web/hits".to_owned(),
            json!({"items": [{"describedObject": {"kind": "Service", "name": "web"}, "metricName": "hits",
                "timestamp": at, "value": "10"}]}),
        ),
    ]);
    let metrics = json!([
        {"type": "External", "external": {"metric": {"name": "queue", "selector": {"matchLabels": {"name": "a"}}},
            "target": {"type": "AverageValue", "averageValue": "10"}}},
        {"type": "Object", "object": {"metric": {"name": "hits"}, "target": {"type": "Value", "value": "10"},
            "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "web"}}},
    ]);
    lab.create::<HorizontalPodAutoscaler>(autoscaler(json!({"metrics": metrics})))
        .await;
    replicas(&lab, 3).await;
    let name = "external metric queue(&LabelSelector{MatchLabels:map[string]string{name: a,},\
                MatchExpressions:[]LabelSelectorRequirement{},})";
    assert_eq!(
        lab.events("HorizontalPodAutoscaler", "web").await,
        [format!(
            "Normal SuccessfulRescale 1: New size: 3; reason: {name} above target"
        )]
    );
    let told = lab.until("web", is_active).await;
    let metrics = told.status.unwrap().current_metrics.unwrap();
    let queue = metrics[0]
        .external
        .as_ref()
        .unwrap()
        .current
        .average_value
        .clone()
        .unwrap();
    let hits = metrics[1].object.as_ref().unwrap().current.value.clone().unwrap();
    assert_eq!((queue.0.as_str(), hits.0.as_str()), ("12500m", "10"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_controllers_goes_on_at_the_interval() {
    let mut lab = Lab::start().await;
    active(&lab).await;
    lab.stop_controllers().await;
    lab.start_controllers();
    use_cpu(&lab, 200);
    let start = Instant::now();
    replicas(&lab, 4).await;
    assert!(start.elapsed() <= Duration::from_secs(15));
}
