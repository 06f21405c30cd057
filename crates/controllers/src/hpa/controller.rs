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
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

use super::conditions::{self, Type};
use super::look::{Look, Rescale};
use super::metrics_client::MetricsClient;
use super::moves::{Held, Limit, Moves, NextMove};
use super::normalize::{Behavior, DOWNSCALE_STABILIZATION, History, Normalized, Request};
use super::scale::ScaleClient;
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
/// Pause between early looks while a sample is awaited…
const RETRY: Duration = Duration::from_millis(250);
/// … which is so long after a pod became ready.
const AWAIT_SAMPLES: SignedDuration = SignedDuration::from_secs(30);

pub(crate) struct Autoscalers {
    pub(super) context: Context,
    client: Client,
    recorder: Recorder,
    pub(super) metrics: MetricsClient,
    pub(super) scales: ScaleClient,
    queue: Arc<WorkQueue<Key>>,
    pub(super) watched: Watched,
    histories: Mutex<HashMap<Key, History>>,
    moves: Moves,
}

/// When to look at an autoscaler.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Whom the rest is about: a name may come back.
    uid: Option<String>,
    /// The next ordinary look.
    due: Instant,
    /// ScalingActive was true once: no more early looks.
    was_active: bool,
    /// The target's pods; unknown until its scale was read.
    pub(super) selector: Option<Selector>,
}

#[derive(Clone, Default)]
pub(super) struct Watched(Arc<Mutex<HashMap<Key, Watch>>>);

impl Watched {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<Key, Watch>> {
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
            let current = look.status.current_replicas.unwrap_or_default();
            self.announce(key, &history, None, current, None, due);
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

    /// When to look at `key`; one that is seen for the first time is next due at `due`, and has no history.
    fn watch(&self, key: &Key, autoscaler: &HorizontalPodAutoscaler, due: Instant) -> Watch {
        let (was_active, uid) = (
            conditions::is_active(autoscaler.status.as_ref()),
            &autoscaler.metadata.uid,
        );
        let watched = &mut *self.watched.lock();
        if let Some(watch) = watched.get(key).filter(|watch| watch.uid == *uid) {
            return watch.clone();
        }
        self.histories().remove(key);
        let watch = Watch {
            uid: uid.clone(),
            due,
            was_active,
            selector: None,
        };
        watched.insert(key.clone(), watch.clone());
        watch
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

    pub(super) fn pods(&self, namespace: &str, wanted: &Selector) -> Vec<Arc<Pod>> {
        let mut pods = self.context.informers.pods.in_namespace(namespace);
        pods.retain(|pod| selector::matches(wanted, pod.metadata.labels.as_ref()));
        pods
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
