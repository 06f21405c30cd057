//! The loop: looks at each autoscaler every fifteen seconds of lab time, and acts.
//!
//! Owns when to look, what is remembered between two looks, and the writing of scales, statuses and events. What to do
//! is computed by its neighbours.
//!
//! One stated difference from Kubernetes, for speed of start (design §7): until an autoscaler first reaches
//! ScalingActive it is looked at as soon as it appears and whenever the readiness of its pods changes, then every
//! [`RETRY`] while a pod that just became ready has no sample yet. Such an early look that finds nothing says nothing:
//! failures are reported at the ordinary interval, as upstream's are. From the first success on there is only the
//! interval. (k/k `pkg/controller/podautoscaler/horizontal.go`, v1.36.)

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use apimachinery::labels::Selector;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus,
    MetricTarget, ResourceMetricSource,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

use super::calculator::{Tolerances, Youth};
use super::conditions::{self, Type};
use super::metric::{Failure, Metrics, Subject};
use super::metrics_client::MetricsClient;
use super::moves::{Held, Limit, Moves, NextMove};
use super::normalize::{Behavior, DOWNSCALE_STABILIZATION, History, Normalized, Request};
use super::scale::{Found, ScaleClient};
use crate::Context;
use crate::error::{self, Doing, Result};
use crate::events::Recorder;
use crate::informers::Change;
use crate::key::Key;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;
use crate::{pods, selector};

/// `--horizontal-pod-autoscaler-sync-period`
const SYNC: Duration = Duration::from_secs(15);
/// `--horizontal-pod-autoscaler-cpu-initialization-period`
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);
/// `--horizontal-pod-autoscaler-initial-readiness-delay`
const INITIAL_READINESS: Duration = Duration::from_secs(30);
/// Pause between early looks while a sample is awaited…
const RETRY: Duration = Duration::from_millis(250);
/// … which is so long after a pod became ready.
const AWAIT_SAMPLES: SignedDuration = SignedDuration::from_secs(30);

pub(crate) struct Autoscalers {
    context: Context,
    client: Client,
    recorder: Recorder,
    metrics: MetricsClient,
    scales: ScaleClient,
    queue: Arc<WorkQueue<Key>>,
    watched: Watched,
    histories: Mutex<HashMap<Key, History>>,
    moves: Moves,
}

/// When to look at an autoscaler.
#[derive(Clone, Debug)]
struct Watch {
    /// The next ordinary look.
    due: Instant,
    /// ScalingActive was true once: no more early looks.
    was_active: bool,
    /// The target's pods; unknown until its scale was read.
    selector: Option<Selector>,
}

#[derive(Clone, Default)]
struct Watched(Arc<Mutex<HashMap<Key, Watch>>>);

impl Watched {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Watch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context, moves: Moves) -> Autoscalers {
    let client = context.client(Autoscalers::NAME);
    let controller = Autoscalers {
        context: context.clone(),
        recorder: context.recorder(Autoscalers::NAME),
        metrics: MetricsClient::new(client.clone()),
        scales: ScaleClient::new(client.clone()),
        client,
        queue: WorkQueue::new(),
        watched: Watched::default(),
        histories: Mutex::default(),
        moves,
    };
    let (queue, watched) = (controller.queue.clone(), controller.watched.clone());
    context.informers.autoscalers.on_change(move |change| match change {
        Change::Added(autoscaler) | Change::Deleted(autoscaler) => queue.add(Key::of(&**autoscaler)),
        Change::Updated { old, new } => {
            // Later than that, a new spec waits for the next look, as upstream's does.
            let key = Key::of(&**new);
            let is_early = watched.lock().get(&key).is_none_or(|watch| !watch.was_active);
            if old.spec != new.spec && is_early {
                queue.add(key);
            }
        }
    });
    let (queue, watched) = (controller.queue.clone(), controller.watched.clone());
    context.informers.pods.on_change(move |change| {
        if let Change::Updated { old, new } = change
            && pods::is_ready(old) == pods::is_ready(new)
            && pods::phase(old) == pods::phase(new)
        {
            return;
        }
        let pod = change.object();
        for (key, watch) in watched.lock().iter().filter(|(_, watch)| !watch.was_active) {
            let is_in = pod.metadata.namespace.as_deref() == Some(&key.namespace);
            let labels = pod.metadata.labels.as_ref();
            if is_in
                && watch
                    .selector
                    .as_ref()
                    .is_none_or(|wanted| selector::matches(wanted, labels))
            {
                queue.add(key.clone());
            }
        }
    });
    controller
}

/// One look at one autoscaler: everything that is to be written, nothing written yet.
struct Look {
    status: HorizontalPodAutoscalerStatus,
    /// Warnings as reason and message.
    warnings: Vec<(&'static str, String)>,
    rescale: Option<Rescale>,
    /// What the metrics asked for and what became of it.
    normalized: Option<(Request, Normalized)>,
    /// Why there is nothing to do.
    failure: Option<String>,
}

struct Rescale {
    found: Found,
    replicas: i32,
    reason: String,
}

impl Look {
    fn failed(mut self, reason: &'static str, text: String) -> Self {
        self.warnings.push((reason, text.clone()));
        self.failure = Some(text);
        self
    }
}

impl Reconcile for Autoscalers {
    const NAME: &'static str = "horizontal-pod-autoscaler";
    const WORKERS: usize = 5;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let Some(autoscaler) = self.context.informers.autoscalers.get(key) else {
            self.watched.lock().remove(key);
            self.histories().remove(key);
            self.moves.remove(key);
            return Ok(());
        };
        let now = Instant::now();
        let interval = self.context.pace.scale(SYNC);
        let watch = self.watch(key, &autoscaler, now + interval);
        let is_due = now >= watch.due;
        if !is_due && watch.was_active {
            self.queue.add_after(key.clone(), watch.due - now);
            return Ok(());
        }
        let mut history = self.histories().remove(key).unwrap_or_default();
        let look = self.look(&autoscaler, key, &mut history).await;
        let is_active = conditions::is_active(Some(&look.status));
        let nothing_to_say = !is_due && look.failure.is_some();
        let mut due = watch.due;
        let acted = if nothing_to_say {
            Ok(())
        } else {
            due = now + interval;
            self.act(&autoscaler, key, look, &mut history, due).await
        };
        if let Some(watch) = self.watched.lock().get_mut(key) {
            watch.due = due;
            watch.was_active |= is_active && !nothing_to_say;
        }
        self.histories().insert(key.clone(), history);
        let early = !(watch.was_active || is_active) && self.awaits_samples(key);
        let wait = if early { RETRY.min(due - now) } else { due - now };
        self.queue.add_after(key.clone(), wait);
        if let Err(error) = acted {
            // The next look is soon enough: upstream does not hurry either.
            tracing::warn!(controller = Self::NAME, %key, error = error.chain(), "reconciling");
        }
        Ok(())
    }
}

impl Autoscalers {
    fn histories(&self) -> MutexGuard<'_, HashMap<Key, History>> {
        self.histories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When to look at `key`; one that is seen for the first time is next due at `due`.
    fn watch(&self, key: &Key, autoscaler: &HorizontalPodAutoscaler, due: Instant) -> Watch {
        let was_active = conditions::is_active(autoscaler.status.as_ref());
        let new = || Watch {
            due,
            was_active,
            selector: None,
        };
        self.watched.lock().entry(key.clone()).or_insert_with(new).clone()
    }

    /// True while a pod of the target is ready, but so freshly that its first sample may come any moment.
    fn awaits_samples(&self, key: &Key) -> bool {
        let Some(wanted) = self.watched.lock().get(key).and_then(|watch| watch.selector.clone()) else {
            return false;
        };
        let now = self.context.clock.now();
        let fresh = |since: Timestamp| now.duration_since(since) < AWAIT_SAMPLES;
        self.pods(&key.namespace, &wanted)
            .iter()
            .any(|pod| pods::ready_since(pod).is_some_and(fresh))
    }

    fn pods(&self, namespace: &str, wanted: &Selector) -> Vec<Arc<Pod>> {
        let mut pods = self.context.informers.pods.in_namespace(namespace);
        pods.retain(|pod| selector::matches(wanted, pod.metadata.labels.as_ref()));
        pods
    }

    /// Reads the target's scale and the metrics, and decides.
    async fn look(&self, autoscaler: &HorizontalPodAutoscaler, key: &Key, history: &mut History) -> Look {
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
            std::cmp::Ordering::Greater => format!("{metric} above target"),
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            std::cmp::Ordering::Equal => String::new(),
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

    /// Writes what the look decided: events, the target's scale, the status; and what comes next on the board.
    async fn act(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        key: &Key,
        look: Look,
        history: &mut History,
        due: Instant,
    ) -> Result<()> {
        let Look {
            mut status,
            warnings,
            rescale,
            normalized,
            failure,
        } = look;
        let (now, instant) = (self.context.clock.now(), Instant::now());
        for (reason, message) in warnings {
            self.recorder.warning(autoscaler, reason, message);
        }
        if let Some(failure) = &failure {
            tracing::debug!(controller = Self::NAME, %key, failure, "not scaled");
        }
        let behavior = autoscaler.spec.behavior.as_ref();
        let behavior = behavior.map(|behavior| Behavior::of(behavior, self.context.pace));
        let mut replicas = status.current_replicas.unwrap_or_default();
        if let Some(Rescale {
            found,
            replicas: to,
            reason,
        }) = rescale
        {
            let from = found.replicas();
            match self.scales.set(found, to).await {
                Ok(()) => {
                    let message = format!("the HPA controller was able to update the target scale to {to}");
                    conditions::set(&mut status, Type::AbleToScale, true, "SucceededRescale", message, now);
                    let message = format!("New size: {to}; reason: {reason}");
                    self.recorder.normal(autoscaler, "SuccessfulRescale", message);
                    if let Some(behavior) = &behavior {
                        history.scaled(from, to, behavior, instant);
                    }
                    status.desired_replicas = to;
                    status.last_scale_time = Some(Time(now));
                    replicas = to;
                }
                Err(error) => {
                    let message = format!("New size: {to}; reason: {reason}; error: {error}");
                    self.recorder.warning(autoscaler, "FailedRescale", message);
                    let message = format!("the HPA controller was unable to update the target scale: {error}");
                    conditions::set(&mut status, Type::AbleToScale, false, "FailedUpdateScale", message, now);
                    let before = autoscaler.status.as_ref();
                    status.desired_replicas = before.map_or(0, |status| status.desired_replicas);
                }
            }
        }
        self.announce(key, history, normalized, replicas, behavior.as_ref(), due);
        self.write_status(autoscaler, key, status).await
    }

    fn announce(
        &self,
        key: &Key,
        history: &History,
        normalized: Option<(Request, Normalized)>,
        replicas: i32,
        behavior: Option<&Behavior>,
        due: Instant,
    ) {
        let (now, instant) = (self.context.clock.now(), Instant::now());
        let at = |when: Instant| {
            now.saturating_add(when.saturating_duration_since(instant))
                .unwrap_or(Timestamp::MAX)
        };
        let request = normalized.as_ref().map(|(request, _)| Request {
            current: replicas,
            now: instant,
            ..*request
        });
        let window = behavior.map_or_else(
            || self.context.pace.scale(DOWNSCALE_STABILIZATION),
            Behavior::down_window,
        );
        let held = request.and_then(|request| history.held(request, window));
        let limit = normalized.filter(|(_, found)| found.is_limited && found.limited.reason == "ScaleUpLimit");
        let until = behavior.and_then(|behavior| history.limit_until(behavior, instant));
        let next = NextMove {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            next_sync: Some(at(due)),
            current_replicas: replicas,
            recommended_replicas: request.map(|request| request.desired),
            scale_down_held: held.map(|(replicas, until)| Held {
                replicas,
                until: at(until),
            }),
            scale_up_limit: limit.and_then(|(_, found)| found.rate_limit).map(|replicas| Limit {
                replicas,
                until: Some(at(until.unwrap_or(due))),
            }),
        };
        self.moves.set(key.clone(), next);
    }

    async fn write_status(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        key: &Key,
        status: HorizontalPodAutoscalerStatus,
    ) -> Result<()> {
        if autoscaler.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut changed = autoscaler.clone();
        changed.status = Some(status);
        loop {
            match api.replace_status(&key.name, &PostParams::default(), &changed).await {
                Err(error) if error::is_not_found(&error) => return Ok(()),
                // Fifteen seconds are long: somebody else's edit must not cost a look's result.
                Err(error) if error::is_conflict(&error) => {
                    let fresh = api.get(&key.name).await;
                    let fresh = fresh.doing(|| format!("reading HorizontalPodAutoscaler `{key}` again"))?;
                    if fresh.metadata.uid != changed.metadata.uid {
                        return Ok(());
                    }
                    changed.metadata = fresh.metadata;
                }
                written => {
                    return written
                        .map(drop)
                        .doing(|| format!("writing the status of HorizontalPodAutoscaler `{key}`"));
                }
            }
        }
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
