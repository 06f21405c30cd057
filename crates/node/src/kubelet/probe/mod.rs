//! Probes: one task for each probe of a running container.
//!
//! Owns when a probe is run and when its outcome counts. The outcome goes to the pod's worker as a report; events go to
//! the recorder. Must not know what follows from it (`lifecycle`).
//!
//! One stated difference from upstream: between a container's start and the first regular turn, startup and readiness
//! probes are tried in quick succession, silently, until one succeeds. A real kubelet tries again whenever it happens to
//! look at the pod; so a pod here is ready as soon as it answers.

mod check;
mod grpc;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::time::{Instant, sleep_until};

pub(crate) use check::{Check, ContainerCheck, Outcome};

use super::lifecycle::ProbeKind;

/// The first pause between quick tries, and what each pause is multiplied by.
const QUICK: Duration = Duration::from_millis(10);
/// Commands cost more than connections.
const QUICK_EXEC: Duration = Duration::from_millis(100);
const SLOWEST_QUICK: Duration = Duration::from_secs(1);

/// The probe of a kind in a container's spec.
pub(crate) fn probe_of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

/// Numbers of a probe, defaults filled in.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    initial_delay: Duration,
    period: Duration,
    successes: u32,
    failures: u32,
}

impl Schedule {
    fn of(probe: &Probe) -> Self {
        let number = |value: Option<i32>, default: u32| {
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| *value > 0)
                .unwrap_or(default)
        };
        Self {
            initial_delay: Duration::from_secs(number(probe.initial_delay_seconds, 0).into()),
            period: Duration::from_secs(number(probe.period_seconds, 10).into()),
            successes: number(probe.success_threshold, 1),
            failures: number(probe.failure_threshold, 3),
        }
    }
}

/// What the prober tells.
pub(crate) enum News {
    /// The result that counts has changed.
    Healthy(bool),
    /// A `Warning` event: reason and message.
    Event(&'static str, String),
}

/// Runs a probe until its container is gone (the task is aborted) or nothing is left to learn.
///
/// `started`: when the container was started. `healthy`: the result so far (after a daemon restart it may be true).
pub(crate) async fn run(
    kind: ProbeKind,
    probe: Probe,
    check: Arc<dyn Check>,
    started: Instant,
    healthy: bool,
    tell: impl Fn(News) + Send,
) {
    let schedule = Schedule::of(&probe);
    let mut count = Count {
        schedule,
        kind,
        healthy,
        run: 0,
        last: None,
    };
    let first_turn = first_turn(started, schedule);
    if kind != ProbeKind::Liveness && !healthy {
        sleep_until(started + schedule.initial_delay).await;
        let mut pause = if probe.exec.is_some() { QUICK_EXEC } else { QUICK };
        while Instant::now() < first_turn {
            if matches!(check.run(&probe).await, Outcome::Success | Outcome::Warning(_)) {
                if count.add(true).is_some() {
                    tell(News::Healthy(true));
                }
                break;
            }
            sleep_until((Instant::now() + pause).min(first_turn)).await;
            pause = (pause * 3 / 2).min(SLOWEST_QUICK);
        }
    }
    if kind == ProbeKind::Startup && count.healthy {
        return;
    }
    let mut turn = first_turn;
    loop {
        sleep_until(turn).await;
        let word = capitalised(kind);
        let success = match check.run(&probe).await {
            Outcome::Success => Some(true),
            Outcome::Warning(text) => {
                tell(News::Event("ProbeWarning", format!("{word} probe warning: {text}")));
                Some(true)
            }
            Outcome::Failure(text) => {
                tell(News::Event("Unhealthy", format!("{word} probe failed: {text}")));
                Some(false)
            }
            // Neither way: the probe itself did not work.
            Outcome::Error(text) => {
                tell(News::Event(
                    "Unhealthy",
                    format!("{word} probe errored and resulted in unknown state: {text}"),
                ));
                None
            }
        };
        if let Some(healthy) = success.and_then(|success| count.add(success)) {
            tell(News::Healthy(healthy));
            let over = if healthy {
                kind == ProbeKind::Startup
            } else {
                kind != ProbeKind::Readiness
            };
            if over {
                return;
            }
        }
        turn = (turn + schedule.period).max(Instant::now());
    }
}

/// The first multiple of the period after `started` that is in the future and not before the initial delay.
fn first_turn(started: Instant, schedule: Schedule) -> Instant {
    let earliest = Instant::now()
        .saturating_duration_since(started)
        .max(schedule.initial_delay);
    let period = schedule.period.as_millis().max(1);
    let turns = (earliest.as_millis().div_ceil(period)).max(1);
    started + schedule.period.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX))
}

fn capitalised(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Liveness => "Liveness",
        ProbeKind::Readiness => "Readiness",
    }
}

/// Counts outcomes in a row against the thresholds.
struct Count {
    schedule: Schedule,
    kind: ProbeKind,
    healthy: bool,
    run: u32,
    last: Option<bool>,
}

impl Count {
    /// The new result, if it changed by this outcome.
    fn add(&mut self, success: bool) -> Option<bool> {
        self.run = if self.last == Some(success) { self.run + 1 } else { 1 };
        self.last = Some(success);
        let enough = if success {
            self.schedule.successes
        } else {
            self.schedule.failures
        };
        if self.run < enough {
            return None;
        }
        // A startup probe that was never healthy still fails for good.
        let changed = self.healthy != success || (!success && self.kind == ProbeKind::Startup);
        self.healthy = success;
        changed.then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::future::BoxFuture;
    use serde_json::json;

    use super::*;

    /// Answers what the test says for the moment of the call.
    struct Scripted {
        start: Instant,
        healthy: fn(f64) -> bool,
        calls: Mutex<Vec<f64>>,
    }

    impl Check for Scripted {
        fn run<'a>(&'a self, _: &'a Probe) -> BoxFuture<'a, Outcome> {
            Box::pin(async {
                let at = self.start.elapsed().as_secs_f64();
                self.calls.lock().unwrap().push(at);
                if (self.healthy)(at) {
                    Outcome::Success
                } else {
                    Outcome::Failure("no".into())
                }
            })
        }
    }

    /// Runs a probe for `seconds` of paused time; returns what it told, with times, and when it looked.
    async fn play(
        kind: ProbeKind,
        probe: serde_json::Value,
        seconds: u64,
        healthy: fn(f64) -> bool,
    ) -> (Vec<String>, Vec<f64>) {
        let start = Instant::now();
        let check = Arc::new(Scripted {
            start,
            healthy,
            calls: Mutex::default(),
        });
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = {
            let told = told.clone();
            move |news| {
                let at = start.elapsed().as_secs_f64();
                told.lock().unwrap().push(match news {
                    News::Healthy(healthy) => format!("{at:.2} {}", if healthy { "healthy" } else { "unhealthy" }),
                    News::Event(reason, message) => format!("{at:.2} {reason}: {message}"),
                });
            }
        };
        let initially = kind == ProbeKind::Liveness;
        let probing = run(
            kind,
            serde_json::from_value(probe).unwrap(),
            check.clone(),
            start,
            initially,
            tell,
        );
        let _ = tokio::time::timeout(Duration::from_secs(seconds), probing).await;
        let told = told.lock().unwrap().clone();
        let calls = check.calls.lock().unwrap().clone();
        (told, calls)
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_answers_after_200_ms_is_ready_before_300() {
        let (told, _) = play(ProbeKind::Readiness, json!({}), 25, |at| at >= 0.2).await;
        assert_eq!(told.len(), 1);
        let at: f64 = told[0].split(' ').next().unwrap().parse().unwrap();
        assert!(told[0].ends_with(" healthy") && at < 0.3, "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn quick_tries_are_silent_and_turns_come_every_period() {
        let (told, calls) = play(ProbeKind::Readiness, json!({"periodSeconds": 10}), 35, |_| false).await;
        assert_eq!(
            told,
            [
                "10.00 Unhealthy: Readiness probe failed: no",
                "20.00 Unhealthy: Readiness probe failed: no",
                "30.00 Unhealthy: Readiness probe failed: no",
                "30.00 unhealthy"
            ]
            .map(str::to_owned)[..3]
                .to_vec()
        );
        let turns: Vec<_> = calls.iter().filter(|at| **at >= 10.0).collect();
        assert_eq!(turns.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_is_lost_after_three_failures_and_comes_back_with_one_success() {
        let (told, _) = play(ProbeKind::Readiness, json!({"periodSeconds": 5}), 35, |at| {
            !(4.0..22.0).contains(&at)
        })
        .await;
        let results: Vec<_> = told.iter().filter(|line| line.ends_with("healthy")).collect();
        assert_eq!(results, ["0.00 healthy", "15.00 unhealthy", "25.00 healthy"]);
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_is_not_tried_before_its_first_turn_and_ends_with_its_verdict() {
        let probe = json!({"periodSeconds": 2, "initialDelaySeconds": 5, "failureThreshold": 2});
        let (told, calls) = play(ProbeKind::Liveness, probe, 60, |_| false).await;
        assert_eq!(calls, [6.0, 8.0]);
        assert_eq!(told.last().unwrap(), "8.00 unhealthy");
    }

    #[tokio::test(start_paused = true)]
    async fn a_startup_probe_ends_at_its_first_success_or_after_its_last_failure() {
        let probe = json!({"periodSeconds": 1, "failureThreshold": 3});
        let (told, _) = play(ProbeKind::Startup, probe.clone(), 60, |at| at > 1.5).await;
        assert_eq!(told.last().unwrap(), "2.00 healthy");
        let (told, _) = play(ProbeKind::Startup, probe, 60, |_| false).await;
        assert_eq!(told.last().unwrap(), "3.00 unhealthy");
    }

    #[tokio::test(start_paused = true)]
    async fn the_initial_delay_is_kept() {
        let (told, calls) = play(ProbeKind::Readiness, json!({"initialDelaySeconds": 3}), 20, |_| true).await;
        assert_eq!((told[0].as_str(), calls[0]), ("3.00 healthy", 3.0));
    }

    #[tokio::test(start_paused = true)]
    async fn two_successes_are_needed_where_the_spec_says_two() {
        let (told, _) = play(ProbeKind::Readiness, json!({"successThreshold": 2}), 20, |_| true).await;
        assert_eq!(told, ["10.00 healthy"]);
    }
}
