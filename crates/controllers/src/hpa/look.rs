//! One look at one autoscaler: reads its target and its metrics, and decides. Nothing is written here.
//!
//! Owns the order of the questions and the conditions that answer them. (k/k `pkg/controller/podautoscaler/
//! horizontal.go`, `reconcileAutoscaler` and `computeReplicasForMetrics`, v1.36.)

use std::cmp::Ordering;
use std::time::Duration;

use apimachinery::labels::Selector;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus,
    MetricTarget, ResourceMetricSource,
};
use tokio::time::Instant;

use super::calculator::{Tolerances, Youth};
use super::conditions::{self, Type};
use super::controller::{Autoscalers, Watch};
use super::metric::{Failure, Metrics, Subject};
use super::normalize::{Behavior, DOWNSCALE_STABILIZATION, History, Normalized, Request};
use super::scale::Found;
use crate::key::Key;
use crate::selector;

/// `--horizontal-pod-autoscaler-cpu-initialization-period`
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);
/// `--horizontal-pod-autoscaler-initial-readiness-delay`
const INITIAL_READINESS: Duration = Duration::from_secs(30);

/// One look at one autoscaler: everything that is to be written, nothing written yet.
pub(super) struct Look {
    pub(super) status: HorizontalPodAutoscalerStatus,
    /// Warnings as reason and message.
    pub(super) warnings: Vec<(&'static str, String)>,
    pub(super) rescale: Option<Rescale>,
    /// What the metrics asked for and what became of it.
    pub(super) normalized: Option<(Request, Normalized)>,
    /// Why there is nothing to do.
    pub(super) failure: Option<String>,
}

pub(super) struct Rescale {
    pub(super) found: Found,
    pub(super) replicas: i32,
    pub(super) reason: String,
}

impl Look {
    fn failed(mut self, reason: &'static str, text: String) -> Self {
        self.warnings.push((reason, text.clone()));
        self.failure = Some(text);
        self
    }
}

impl Autoscalers {
    /// Reads the target's scale and the metrics, and decides.
    pub(super) async fn look(&self, autoscaler: &HorizontalPodAutoscaler, key: &Key, history: &mut History) -> Look {
        let now = self.context.clock.now();
        let spec = autoscaler.spec.clone();
        let status = autoscaler.status.clone().unwrap_or_default();
        let mut look = Look {
            status,
            warnings: Vec::new(),
            rescale: None,
            normalized: None,
            failure: None,
        };
        let found = match self.scales.get(&key.namespace, &spec.scale_target_ref).await {
            Ok(found) => found,
            Err(error) => {
                let message = format!("the HPA controller was unable to get the target's current scale: {error}");
                conditions::set(
                    &mut look.status,
                    Type::AbleToScale,
                    false,
                    "FailedGetScale",
                    message,
                    now,
                );
                return look.failed("FailedGetScale", error);
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        conditions::set(
            &mut look.status,
            Type::AbleToScale,
            true,
            "SucceededGetScale",
            message,
            now,
        );
        let (current, instant) = (found.replicas(), Instant::now());
        history.begin(current, instant);
        look.status.current_replicas = (current != 0).then_some(current);
        let min = spec.min_replicas.unwrap_or(1);
        let outside = if current == 0 && min != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            conditions::set(
                &mut look.status,
                Type::ScalingActive,
                false,
                "ScalingDisabled",
                message,
                now,
            );
            look.status.current_metrics = None;
            look.status.desired_replicas = 0;
            return look;
        } else if current > spec.max_replicas {
            Some((spec.max_replicas, "Current number of replicas above Spec.MaxReplicas"))
        } else if current < min {
            Some((min, "Current number of replicas below Spec.MinReplicas"))
        } else {
            None
        };
        if let Some((replicas, reason)) = outside {
            look.status.current_metrics = None;
            look.rescale = Some(Rescale {
                found,
                replicas,
                reason: reason.to_owned(),
            });
            return look;
        }

        let behavior = spec
            .behavior
            .as_ref()
            .map(|behavior| Behavior::of(behavior, self.context.pace));
        let tolerances = behavior.as_ref().map(Behavior::tolerances).unwrap_or_default();
        let (desired, metric) = match self.compute(&mut look, key, &spec, &found, tolerances, now).await {
            Ok(proposed) => proposed,
            Err(text) => return look.failed("FailedComputeMetricsReplicas", text),
        };
        let reason = match desired.cmp(&current) {
            Ordering::Greater => format!("{metric} above target"),
            Ordering::Less => "All metrics below target".to_owned(),
            Ordering::Equal => String::new(),
        };
        let request = Request {
            current,
            desired,
            min,
            max: spec.max_replicas,
            now: instant,
        };
        let normalized = match &behavior {
            None => history.limit(request, self.context.pace.scale(DOWNSCALE_STABILIZATION)),
            Some(behavior) => history.apply(request, behavior),
        };
        let Normalized {
            replicas,
            able,
            limited,
            is_limited,
            ..
        } = normalized;
        conditions::set(
            &mut look.status,
            Type::AbleToScale,
            true,
            able.reason,
            able.message,
            now,
        );
        conditions::set(
            &mut look.status,
            Type::ScalingLimited,
            is_limited,
            limited.reason,
            limited.message,
            now,
        );
        look.normalized = Some((request, normalized));
        look.status.desired_replicas = current;
        if replicas != current {
            look.rescale = Some(Rescale {
                found,
                replicas,
                reason,
            });
        }
        look
    }

    /// The largest proposal and its metric. `Err` if the metrics say nothing reliable.
    async fn compute(
        &self,
        look: &mut Look,
        key: &Key,
        spec: &HorizontalPodAutoscalerSpec,
        found: &Found,
        tolerances: Tolerances,
        now: Timestamp,
    ) -> std::result::Result<(i32, String), String> {
        let wanted = self.selector(look, key, found, now)?;
        let pods = self.pods(&key.namespace, &wanted);
        let lab = |real: Duration| SignedDuration::try_from(self.context.pace.scale(real)).unwrap_or_default();
        let metrics = Metrics {
            client: &self.metrics,
            scales: &self.scales,
            subject: Subject {
                namespace: &key.namespace,
                current: found.replicas(),
                status_replicas: found.status_replicas(),
                selector: &wanted,
                pods: &pods,
                tolerances,
                youth: Youth {
                    now,
                    cpu_initialization: lab(CPU_INITIALIZATION),
                    initial_readiness: lab(INITIAL_READINESS),
                },
            },
        };
        let specs = metric_specs(spec);
        let (mut statuses, mut failures) = (Vec::with_capacity(specs.len()), Vec::new());
        let mut best: Option<(i32, String)> = None;
        for spec in &specs {
            match metrics.compute(spec).await {
                Ok(proposal) => {
                    statuses.push(proposal.status);
                    if best
                        .as_ref()
                        .is_none_or(|(most, _)| *most == 0 || proposal.replicas > *most)
                    {
                        best = Some((proposal.replicas, proposal.name));
                    }
                }
                Err(failure) => {
                    // Its place stays: the statuses are in the order of the specs.
                    statuses.push(MetricStatus::default());
                    look.warnings.push((failure.reason, failure.message.clone()));
                    failures.push(failure);
                }
            }
        }
        look.status.current_metrics = Some(statuses);
        let would_shrink = best.as_ref().is_some_and(|(replicas, _)| *replicas < found.replicas());
        match (best, failures.first()) {
            // What is not known might ask for more: never shrink on half the metrics.
            (best, Some(first)) if best.is_none() || would_shrink => {
                let Failure { reason, message, error } = first;
                let told = format!("the HPA was unable to compute the replica count: {message}");
                conditions::set(&mut look.status, Type::ScalingActive, false, reason, told, now);
                let (invalid, all) = (failures.len(), specs.len());
                Err(format!(
                    "invalid metrics ({invalid} invalid out of {all}), first error is: {error}"
                ))
            }
            (Some((replicas, metric)), _) => {
                let told = format!("the HPA was able to successfully calculate a replica count from {metric}");
                conditions::set(
                    &mut look.status,
                    Type::ScalingActive,
                    true,
                    "ValidMetricFound",
                    told,
                    now,
                );
                Ok((replicas, metric))
            }
            (None, _) => Err("invalid metrics (0 invalid out of 0)".to_owned()),
        }
    }

    /// The target's pods; refused where another autoscaler scales some of them too.
    fn selector(
        &self,
        look: &mut Look,
        key: &Key,
        found: &Found,
        now: Timestamp,
    ) -> std::result::Result<Selector, String> {
        let mut refuse = |event: &'static str, reason: &str, told: String, text: String| {
            look.warnings.push((event, text.clone()));
            conditions::set(&mut look.status, Type::ScalingActive, false, reason, told, now);
            Err(text)
        };
        if found.selector().is_empty() {
            let told = "the HPA target's scale is missing a selector".to_owned();
            return refuse(
                "SelectorRequired",
                "InvalidSelector",
                told,
                "selector is required".to_owned(),
            );
        }
        let wanted = match Selector::parse(found.selector()) {
            Ok(wanted) => wanted,
            Err(error) => {
                let text = format!("couldn't convert selector into a corresponding internal selector object: {error}");
                return refuse("InvalidSelector", "InvalidSelector", text.clone(), text);
            }
        };
        let scaling = self.autoscalers_of(key, &wanted);
        if scaling.len() > 1 {
            let list: Vec<String> = scaling
                .iter()
                .map(|key| format!("{{{} {}}}", key.name, key.namespace))
                .collect();
            let text = format!(
                "pods by selector {} are controlled by multiple HPAs: [{}]",
                found.selector(),
                list.join(" ")
            );
            return refuse("AmbiguousSelector", "AmbiguousSelector", text.clone(), text);
        }
        Ok(wanted)
    }

    /// All autoscalers whose targets have a pod in common with what `key` scales, `key` itself if there is a pod.
    fn autoscalers_of(&self, key: &Key, wanted: &Selector) -> Vec<Key> {
        let pods = self.pods(&key.namespace, wanted);
        let watched = &mut *self.watched.lock();
        if let Some(watch) = watched.get_mut(key) {
            watch.selector = Some(wanted.clone());
        }
        let selects = |watch: &Watch| {
            let selector = watch.selector.as_ref();
            selector.is_some_and(|s| {
                pods.iter()
                    .any(|pod| selector::matches(s, pod.metadata.labels.as_ref()))
            })
        };
        let in_namespace = watched.iter().filter(|(other, _)| other.namespace == key.namespace);
        let mut keys: Vec<Key> = in_namespace
            .filter(|(_, watch)| selects(watch))
            .map(|(key, _)| key.clone())
            .collect();
        keys.sort();
        keys
    }
}

/// The metrics; without any it is CPU at 80 %, as defaulting says.
fn metric_specs(spec: &HorizontalPodAutoscalerSpec) -> Vec<MetricSpec> {
    match spec.metrics.as_deref() {
        Some(metrics) if !metrics.is_empty() => metrics.to_vec(),
        _ => {
            let target = MetricTarget {
                type_: "Utilization".into(),
                average_utilization: Some(80),
                ..Default::default()
            };
            let resource = ResourceMetricSource {
                name: "cpu".into(),
                target,
            };
            vec![MetricSpec {
                type_: "Resource".into(),
                resource: Some(resource),
                ..Default::default()
            }]
        }
    }
}
