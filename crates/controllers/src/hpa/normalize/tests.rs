//! Limits and stabilization by worked example
//! (k/k `pkg/controller/podautoscaler/horizontal_test.go`: `TestConvertDesiredReplicasWithRules`,
//! `TestScalingWithRules`, `TestNormalizeDesiredReplicas…`, `TestStabilizeRecommendationWithBehaviors`).

use serde_json::{Value, json};

use super::*;

fn request(current: i32, desired: i32, min: i32, max: i32, now: Instant) -> Request {
    Request {
        current,
        desired,
        min,
        max,
        now,
    }
}

fn behavior(spec: Value) -> Behavior {
    Behavior::of(&serde_json::from_value(spec).unwrap(), Pace::REAL)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A controller that is asked every few seconds.
struct Story {
    history: History,
    start: Instant,
    current: i32,
    behavior: Option<Behavior>,
    min: i32,
    max: i32,
}

impl Story {
    fn new(current: i32, max: i32, behavior: Option<Value>) -> Self {
        let start = Instant::now();
        let mut history = History::default();
        history.begin(current, start);
        Self {
            history,
            start,
            current,
            behavior: behavior.map(self::behavior),
            min: 1,
            max,
        }
    }

    /// At second `at` the metrics ask for `desired`.
    fn ask(&mut self, at: u64, desired: i32) -> (i32, &'static str, &'static str) {
        let now = self.start + seconds(at);
        let request = request(self.current, desired, self.min, self.max, now);
        let found = match &self.behavior {
            None => self.history.limit(request, DOWNSCALE_STABILIZATION),
            Some(behavior) => self.history.apply(request, behavior),
        };
        if let Some(behavior) = self.behavior.as_ref().filter(|_| found.replicas != self.current) {
            self.history.scaled(self.current, found.replicas, behavior, now);
        }
        self.current = found.replicas;
        assert_eq!(found.is_limited, found.limited != IN_RANGE);
        (found.replicas, found.able.reason, found.limited.reason)
    }
}

const OK: &str = "ReadyForNewScale";
const DOWN: &str = "ScaleDownStabilized";
const FREE: &str = "DesiredWithinRange";

#[test]
fn the_plain_limiter_lets_one_grow_to_four_and_then_doubles() {
    let mut story = Story::new(1, 20, None);
    assert_eq!(story.ask(0, 10), (4, OK, "ScaleUpLimit"));
    assert_eq!(story.ask(15, 10), (8, OK, "ScaleUpLimit"));
    assert_eq!(story.ask(30, 10), (10, OK, FREE));
    assert_eq!(story.ask(45, 50), (20, OK, "TooManyReplicas"));
    let mut lab = Story::new(1, 5, None);
    assert_eq!(lab.ask(0, 4), (4, OK, FREE));
    assert_eq!(lab.ask(15, 16), (5, OK, "TooManyReplicas"));
}

/// `(min, current, max, desired) → (result, reason)`
#[test]
fn the_plain_limiter_follows_upstreams_table() {
    for (min, current, max, desired, expected) in [
        (10, 10, 20, 5, (10, "TooFewReplicas")),
        (10, 10, 20, 21, (20, "TooManyReplicas")),
        (1, 1, 20, 4, (4, FREE)),
        (1, 10, 10, 11, (10, "TooManyReplicas")),
        (1, 10, 50, 21, (20, "ScaleUpLimit")),
        (1, 3, 12, 7, (6, "ScaleUpLimit")),
        (0, 0, 10, 0, (0, FREE)),
    ] {
        let mut history = History::default();
        let found = history.limit(request(current, desired, min, max, Instant::now()), seconds(0));
        assert_eq!(
            (found.replicas, found.limited.reason),
            expected,
            "{min} {current} {max} {desired}"
        );
    }
}

#[test]
fn a_high_recommendation_holds_for_five_minutes() {
    let mut story = Story::new(10, 20, None);
    assert_eq!(story.ask(10, 4), (10, DOWN, FREE));
    assert_eq!(story.ask(300, 4), (10, DOWN, FREE));
    assert_eq!(story.ask(301, 4), (4, OK, FREE));
}

#[test]
fn what_holds_the_target_up_is_told_with_its_end() {
    let mut story = Story::new(5, 5, None);
    story.ask(20, 5);
    story.ask(35, 1);
    let now = story.start + seconds(35);
    let held = story.history.held(request(5, 1, 1, 5, now), DOWNSCALE_STABILIZATION);
    assert_eq!(held, Some((5, story.start + seconds(320))));
    assert_eq!(
        story.history.held(request(5, 5, 1, 5, now), DOWNSCALE_STABILIZATION),
        None
    );
}

#[test]
fn the_default_policies_allow_four_pods_or_a_doubling_in_fifteen_seconds() {
    let mut story = Story::new(1, 100, Some(json!({})));
    assert_eq!(story.ask(0, 50), (5, OK, "ScaleUpLimit"));
    assert_eq!(story.ask(5, 50), (5, OK, "ScaleUpLimit"), "the period is not over");
    assert_eq!(story.ask(15, 50), (10, OK, "ScaleUpLimit"));
    assert_eq!(story.ask(30, 50), (20, OK, "ScaleUpLimit"));
    assert_eq!(story.ask(45, 50), (40, OK, "ScaleUpLimit"));
    assert_eq!(story.ask(60, 50), (50, OK, FREE));
    assert_eq!(story.ask(75, 200), (100, OK, "TooManyReplicas"));
}

/// `(current, policies, select) → the most it may grow to`
#[test]
fn policies_limit_growth() {
    for (current, policies, select, expected) in [
        (
            10,
            json!([{"type": "Pods", "value": 4, "periodSeconds": 60}]),
            "Max",
            14,
        ),
        (
            10,
            json!([{"type": "Percent", "value": 200, "periodSeconds": 60}]),
            "Max",
            30,
        ),
        (
            1,
            json!([{"type": "Percent", "value": 10, "periodSeconds": 60}]),
            "Max",
            2,
        ),
        (
            100,
            json!([{"type": "Percent", "value": 25, "periodSeconds": 60}, {"type": "Pods", "value": 24, "periodSeconds": 60}]),
            "Max",
            125,
        ),
        (
            100,
            json!([{"type": "Percent", "value": 25, "periodSeconds": 60}, {"type": "Pods", "value": 24, "periodSeconds": 60}]),
            "Min",
            124,
        ),
        (
            7,
            json!([{"type": "Pods", "value": 4, "periodSeconds": 60}]),
            "Disabled",
            7,
        ),
    ] {
        let mut story = Story::new(
            current,
            1000,
            Some(json!({"scaleUp": {"selectPolicy": select, "policies": policies}})),
        );
        assert_eq!(story.ask(0, 999).0, expected, "{policies} {select}");
    }
}

/// `(current, policies, select) → the least it may shrink to`
#[test]
fn policies_limit_shrinking() {
    for (current, policies, select, expected) in [
        (10, json!([{"type": "Pods", "value": 4, "periodSeconds": 60}]), "Max", 6),
        (
            10,
            json!([{"type": "Percent", "value": 20, "periodSeconds": 60}]),
            "Max",
            8,
        ),
        (
            5,
            json!([{"type": "Percent", "value": 30, "periodSeconds": 60}]),
            "Max",
            3,
        ),
        (
            100,
            json!([{"type": "Percent", "value": 20, "periodSeconds": 60}, {"type": "Pods", "value": 5, "periodSeconds": 60}]),
            "Max",
            80,
        ),
        (
            100,
            json!([{"type": "Percent", "value": 20, "periodSeconds": 60}, {"type": "Pods", "value": 5, "periodSeconds": 60}]),
            "Min",
            95,
        ),
        (
            7,
            json!([{"type": "Pods", "value": 4, "periodSeconds": 60}]),
            "Disabled",
            7,
        ),
    ] {
        let rules = json!({"scaleDown": {
            "stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": policies}});
        let mut story = Story::new(current, 1000, Some(rules));
        assert_eq!(story.ask(0, 1).0, expected, "{policies} {select}");
    }
}

#[test]
fn a_limited_shrinking_goes_on_period_by_period() {
    let rules = json!({"scaleDown": {"stabilizationWindowSeconds": 0,
        "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}});
    let mut story = Story::new(9, 20, Some(rules));
    assert_eq!(story.ask(0, 1), (7, OK, "ScaleDownLimit"));
    assert_eq!(story.ask(30, 1), (7, OK, "ScaleDownLimit"));
    assert_eq!(story.ask(60, 1), (5, OK, "ScaleDownLimit"));
    assert_eq!(story.ask(120, 1), (3, OK, "ScaleDownLimit"));
    assert_eq!(story.ask(180, 1), (1, OK, FREE));
}

#[test]
fn growth_waits_for_its_window_too() {
    let mut story = Story::new(2, 20, Some(json!({"scaleUp": {"stabilizationWindowSeconds": 60}})));
    assert_eq!(
        story.ask(10, 6),
        (2, "ScaleUpStabilized", FREE),
        "two was recommended at the start"
    );
    assert_eq!(story.ask(40, 8), (2, "ScaleUpStabilized", FREE));
    assert_eq!(
        story.ask(61, 9),
        (6, "ScaleUpStabilized", FREE),
        "six is the lowest of the last minute"
    );
}

#[test]
fn shrinking_without_a_window_of_its_own_waits_five_minutes() {
    let mut story = Story::new(10, 20, Some(json!({"scaleUp": {}})));
    assert_eq!(story.ask(10, 4), (10, DOWN, FREE));
    assert_eq!(story.ask(299, 4), (10, DOWN, FREE));
    assert_eq!(story.ask(300, 4), (4, OK, FREE));
}

#[test]
fn a_window_of_zero_shrinks_at_once_and_not_below_the_minimum() {
    let mut story = Story::new(10, 20, Some(json!({"scaleDown": {"stabilizationWindowSeconds": 0}})));
    story.min = 3;
    assert_eq!(story.ask(0, 1), (3, OK, "TooFewReplicas"));
}

#[test]
fn lab_time_shortens_windows_and_periods() {
    let spec = serde_json::from_value(json!({"scaleDown": {"stabilizationWindowSeconds": 60}})).unwrap();
    let fast = Behavior::of(&spec, Pace::new(10).unwrap());
    assert_eq!(fast.down.window, seconds(6));
    assert_eq!(fast.up.policies[0].period, Duration::from_millis(1500));
    let spec = serde_json::from_value(json!({})).unwrap();
    assert_eq!(Behavior::of(&spec, Pace::new(10).unwrap()).down.window, seconds(30));
}

#[test]
fn each_direction_may_have_its_own_tolerance() {
    let found = behavior(json!({"scaleUp": {"tolerance": "50m"}})).tolerances();
    assert_eq!((found.up, found.down), (0.05, 0.1));
}
