//! From what the metrics ask for to what is done: stabilization, rate limits, minimum and maximum.
//!
//! Pure, over a [`History`] that lives in memory only: a restart forgets it, as upstream's does. Two ways, as upstream:
//! the limiter for autoscalers without `behavior`, and the policies of `behavior`.
//! (k/k `pkg/controller/podautoscaler/horizontal.go`, v1.36.)

use std::time::Duration;

use apimachinery::pace::Pace;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};
use tokio::time::Instant;

use super::calculator::Tolerances;

/// `--horizontal-pod-autoscaler-downscale-stabilization`
pub(super) const DOWNSCALE_STABILIZATION: Duration = Duration::from_secs(300);
const SCALE_UP_FACTOR: f64 = 2.0;
const SCALE_UP_MINIMUM: f64 = 4.0;
const POLICY_PERIOD: i32 = 15;

/// What was recommended and done lately.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    recommendations: Vec<Recommendation>,
    ups: Vec<Event>,
    downs: Vec<Event>,
}

#[derive(Clone, Copy, Debug)]
struct Recommendation {
    replicas: i32,
    at: Instant,
}

/// So many replicas were added or taken away.
#[derive(Clone, Copy, Debug)]
struct Event {
    change: i32,
    at: Instant,
}

/// What is asked for, and within which bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) current: i32,
    /// What the metrics ask for.
    pub(super) desired: i32,
    pub(super) min: i32,
    pub(super) max: i32,
    pub(super) now: Instant,
}

/// A verdict with its reason and message, for a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) reason: &'static str,
    pub(super) message: &'static str,
}

const fn verdict(reason: &'static str, message: &'static str) -> Verdict {
    Verdict { reason, message }
}

const READY: Verdict = verdict("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILIZED: Verdict = verdict(
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const UP_STABILIZED: Verdict = verdict(
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const UP_LIMIT: Verdict = verdict(
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const DOWN_LIMIT: Verdict = verdict(
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);
const TOO_MANY: Verdict = verdict(
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
);
const TOO_FEW: Verdict = verdict(
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
);
const IN_RANGE: Verdict = verdict("DesiredWithinRange", "the desired count is within the acceptable range");

/// What is to be done, and why it is not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Normalized {
    pub(super) replicas: i32,
    /// For condition AbleToScale, which is true.
    pub(super) able: Verdict,
    /// For condition ScalingLimited, true if `is_limited`.
    pub(super) limited: Verdict,
    pub(super) is_limited: bool,
    /// The most replicas the rate would allow now, whatever the maximum is.
    pub(super) rate_limit: Option<i32>,
}

/// Policies of both directions, complete, in lab time.
#[derive(Clone, Debug)]
pub(super) struct Behavior {
    up: Rules,
    down: Rules,
}

#[derive(Clone, Debug)]
struct Rules {
    window: Duration,
    select: Select,
    policies: Vec<Policy>,
    tolerance: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Select {
    /// The policy that changes most.
    Max,
    /// The policy that changes least.
    Min,
    Disabled,
}

#[derive(Clone, Copy, Debug)]
struct Policy {
    amount: Amount,
    period: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Amount {
    Pods(i32),
    Percent(i32),
}

impl Behavior {
    /// Fills in what is missing, as the API server's defaulting does, and brings it to lab time.
    pub(super) fn of(spec: &HorizontalPodAutoscalerBehavior, pace: Pace) -> Self {
        let up = [(Amount::Pods(4), POLICY_PERIOD), (Amount::Percent(100), POLICY_PERIOD)];
        let down = [(Amount::Percent(100), POLICY_PERIOD)];
        Self {
            up: Rules::of(spec.scale_up.as_ref(), Duration::ZERO, &up, pace),
            down: Rules::of(spec.scale_down.as_ref(), DOWNSCALE_STABILIZATION, &down, pace),
        }
    }

    pub(super) fn tolerances(&self) -> Tolerances {
        let usual = Tolerances::default();
        Tolerances {
            up: self.up.tolerance.unwrap_or(usual.up),
            down: self.down.tolerance.unwrap_or(usual.down),
        }
    }
}

impl Rules {
    fn of(spec: Option<&HPAScalingRules>, window: Duration, policies: &[(Amount, i32)], pace: Pace) -> Self {
        let seconds = |seconds: i32| pace.scale(Duration::from_secs(seconds.unsigned_abs().into()));
        let given = spec
            .and_then(|rules| rules.policies.as_deref())
            .filter(|policies| !policies.is_empty());
        let policies = match given {
            Some(given) => given
                .iter()
                .map(|policy| Policy {
                    amount: match policy.type_.as_str() {
                        "Pods" => Amount::Pods(policy.value),
                        _ => Amount::Percent(policy.value),
                    },
                    period: seconds(policy.period_seconds),
                })
                .collect(),
            None => policies
                .iter()
                .map(|&(amount, period)| Policy {
                    amount,
                    period: seconds(period),
                })
                .collect(),
        };
        let tolerance = spec.and_then(|rules| rules.tolerance.as_ref());
        Self {
            window: spec
                .and_then(|rules| rules.stabilization_window_seconds)
                .map_or(pace.scale(window), seconds),
            select: match spec.and_then(|rules| rules.select_policy.as_deref()) {
                Some("Min") => Select::Min,
                Some("Disabled") => Select::Disabled,
                _ => Select::Max,
            },
            policies,
            tolerance: tolerance
                .and_then(|tolerance| Some(tolerance.0.parse::<apimachinery::quantity::Quantity>().ok()?.as_f64())),
        }
    }

    fn longest_period(&self) -> Duration {
        self.policies
            .iter()
            .map(|policy| policy.period)
            .max()
            .unwrap_or_default()
    }
}

impl History {
    /// The size a target has when it is first seen counts as recommended.
    pub(super) fn begin(&mut self, replicas: i32, now: Instant) {
        if self.recommendations.is_empty() {
            self.recommendations.push(Recommendation { replicas, at: now });
        }
    }

    /// Without `behavior`: the highest recommendation of the window, growing at most to twice the size or to four.
    pub(super) fn limit(&mut self, request: Request, window: Duration) -> Normalized {
        let Request {
            current,
            desired,
            min,
            max,
            now,
        } = request;
        let is_old = |at: Instant| now.duration_since(at) > window;
        let recent = self.recommendations.iter().filter(|earlier| !is_old(earlier.at));
        let stabilized = recent.map(|earlier| earlier.replicas).fold(desired, i32::max);
        self.recommend(desired, now, is_old);
        let rate_limit = (SCALE_UP_FACTOR * f64::from(current)).max(SCALE_UP_MINIMUM) as i32;
        let (most, too_many) = if max > rate_limit {
            (rate_limit, UP_LIMIT)
        } else {
            (max, TOO_MANY)
        };
        let (replicas, limited) = if stabilized < min {
            (min, TOO_FEW)
        } else if stabilized > most {
            (most, too_many)
        } else {
            (stabilized, IN_RANGE)
        };
        Normalized {
            replicas,
            able: if stabilized == desired { READY } else { DOWN_STABILIZED },
            limited,
            is_limited: replicas != stabilized,
            rate_limit: Some(rate_limit),
        }
    }

    /// With `behavior`.
    pub(super) fn apply(&mut self, request: Request, behavior: &Behavior) -> Normalized {
        let Request {
            current,
            desired,
            min,
            max,
            now,
        } = request;
        let within = |at: Instant, window: Duration| now.duration_since(at) < window;
        let (mut up, mut down) = (desired, desired);
        for earlier in &self.recommendations {
            if within(earlier.at, behavior.up.window) {
                up = up.min(earlier.replicas);
            }
            if within(earlier.at, behavior.down.window) {
                down = down.max(earlier.replicas);
            }
        }
        let stabilized = current.max(up).min(down);
        let longest = behavior.up.window.max(behavior.down.window);
        self.recommend(desired, now, |at| now.duration_since(at) > longest);

        let rate_limit = self.up_limit(current, &behavior.up, now).max(current);
        let (replicas, limited) = if stabilized > current {
            let (most, why) = if max > rate_limit {
                (rate_limit, UP_LIMIT)
            } else {
                (max, TOO_MANY)
            };
            if stabilized > most {
                (most, why)
            } else {
                (stabilized, IN_RANGE)
            }
        } else if stabilized < current {
            let rate_limit = self.down_limit(current, &behavior.down, now).min(current);
            let (least, why) = if min < rate_limit {
                (rate_limit, DOWN_LIMIT)
            } else {
                (min, TOO_FEW)
            };
            if stabilized < least {
                (least, why)
            } else {
                (stabilized, IN_RANGE)
            }
        } else {
            (stabilized, IN_RANGE)
        };
        let stabilization = if desired >= current {
            UP_STABILIZED
        } else {
            DOWN_STABILIZED
        };
        Normalized {
            replicas,
            able: if stabilized == desired { READY } else { stabilization },
            limited,
            is_limited: replicas != stabilized,
            rate_limit: Some(rate_limit),
        }
    }

    /// Remembers a recommendation in the place of one that is over, if there is one.
    fn recommend(&mut self, replicas: i32, at: Instant, is_old: impl Fn(Instant) -> bool) {
        let new = Recommendation { replicas, at };
        match self.recommendations.iter_mut().rfind(|earlier| is_old(earlier.at)) {
            Some(place) => *place = new,
            None => self.recommendations.push(new),
        }
    }

    /// Remembers that the target was scaled; only policies ask for it later.
    pub(super) fn scaled(&mut self, from: i32, to: i32, behavior: &Behavior, now: Instant) {
        let (events, period) = if to > from {
            (&mut self.ups, behavior.up.longest_period())
        } else {
            (&mut self.downs, behavior.down.longest_period())
        };
        let new = Event {
            change: (to - from).abs(),
            at: now,
        };
        match events.iter_mut().rfind(|event| now.duration_since(event.at) >= period) {
            Some(place) => *place = new,
            None => events.push(new),
        }
    }

    fn up_limit(&self, current: i32, rules: &Rules, now: Instant) -> i32 {
        let proposals = rules.policies.iter().map(|policy| {
            let start = self.at_start_of(policy.period, current, now);
            match policy.amount {
                Amount::Pods(pods) => start.saturating_add(pods),
                // Rounded up: a few percent of one pod must still be a pod.
                Amount::Percent(percent) => (f64::from(start) * (1.0 + f64::from(percent) / 100.0)).ceil() as i32,
            }
        });
        match rules.select {
            Select::Disabled => current,
            Select::Max => proposals.max().unwrap_or(current),
            Select::Min => proposals.min().unwrap_or(current),
        }
    }

    fn down_limit(&self, current: i32, rules: &Rules, now: Instant) -> i32 {
        let proposals = rules.policies.iter().map(|policy| {
            let start = self.at_start_of(policy.period, current, now);
            match policy.amount {
                Amount::Pods(pods) => start.saturating_sub(pods),
                Amount::Percent(percent) => (f64::from(start) * (1.0 - f64::from(percent) / 100.0)) as i32,
            }
        });
        match rules.select {
            Select::Disabled => current,
            Select::Max => proposals.min().unwrap_or(current),
            Select::Min => proposals.max().unwrap_or(current),
        }
    }

    fn at_start_of(&self, period: Duration, current: i32, now: Instant) -> i32 {
        let within = |events: &[Event]| -> i32 {
            events
                .iter()
                .filter(|event| now.duration_since(event.at) < period)
                .map(|event| event.change)
                .sum()
        };
        current - within(&self.ups) + within(&self.downs)
    }

    /// What keeps the target from shrinking below `current`: the highest recommendation of the down window that does
    /// so, and when the last such one leaves the window. Nothing if the metrics do not ask for less.
    pub(super) fn held(&self, request: Request, window: Duration) -> Option<(i32, Instant)> {
        if request.desired >= request.current {
            return None;
        }
        let holds = |earlier: &&Recommendation| {
            earlier.replicas >= request.current && request.now.duration_since(earlier.at) < window
        };
        let holding: Vec<&Recommendation> = self.recommendations.iter().filter(holds).collect();
        let highest = holding.iter().map(|earlier| earlier.replicas).max()?;
        let last = holding.iter().map(|earlier| earlier.at).max()?;
        Some((highest, last + window))
    }

    /// When a policy that counts past scale events lets go of the oldest of them.
    pub(super) fn limit_until(&self, behavior: &Behavior, now: Instant) -> Option<Instant> {
        let ends = behavior.up.policies.iter().flat_map(|policy| {
            self.ups
                .iter()
                .map(|event| event.at + policy.period)
                .filter(|&end| end > now)
        });
        ends.min()
    }
}

impl Behavior {
    /// How long a recommendation keeps the target from shrinking.
    pub(super) fn down_window(&self) -> Duration {
        self.down.window
    }
}

#[cfg(test)]
mod tests;
