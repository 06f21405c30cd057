//! What a scenario promises, looked at: a check is done, and what came of it is written down.
//!
//! Owns what a check means and the reports. Must not know how a lab comes up or who asked.

pub mod report;

use std::time::Duration;

use serde_json::Value;

use crate::k8s::ready::Standing;
use crate::k8s::wait::{self, Patience};
use crate::k8s::{Error, ObjectName, Resources};
use crate::scenario::model::Check;

/// A check has at least this long, whatever the speed of lab time: pods start in real time.
const LEAST: Duration = Duration::from_secs(60);

/// What a check is called: `burn: Deployment cpu-burner has 5 replicas`.
pub fn title(check: &Check) -> String {
    let action = check
        .action
        .as_ref()
        .map(|action| format!("{action}: "))
        .unwrap_or_default();
    format!(
        "{action}Deployment {} has {}",
        check.deployment,
        replicas(check.replicas.into())
    )
}

/// How long a check may take: its `within` is lab time, `speed` divides it.
pub fn limit(check: &Check, speed: u32) -> Duration {
    (check.within / speed.max(1)).max(LEAST.min(check.within))
}

/// Waits until what the check expects is so.
pub async fn wait(
    resources: &Resources,
    namespace: &str,
    check: &Check,
    patience: &Patience<'_>,
) -> Result<Standing, Error> {
    let name = ObjectName {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        namespace: Some(namespace.to_owned()),
        name: check.deployment.clone(),
    };
    let what = format!("{name} to have {}", replicas(check.replicas.into()));
    wait::until(resources, &name, what, None, patience, |object| {
        judge(object, check.replicas)
    })
    .await
}

/// As many as expected are asked for, there are no others, and all of them are ready.
fn judge(deployment: &Value, expected: u32) -> Standing {
    let expected = u64::from(expected);
    let number = |pointer: &str, default: u64| deployment.pointer(pointer).and_then(Value::as_u64).unwrap_or(default);
    let (asked, there, ready) = (
        number("/spec/replicas", 1),
        number("/status/replicas", 0),
        number("/status/readyReplicas", 0),
    );
    let name = deployment
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    Standing {
        ready: (asked, there, ready) == (expected, expected, expected),
        summary: format!(
            "Deployment {name}: {} asked for, {there} there, {ready} ready",
            replicas(asked)
        ),
        why: None,
    }
}

fn replicas(count: u64) -> String {
    match count {
        1 => "1 replica".to_owned(),
        count => format!("{count} replicas"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(within: u64) -> Check {
        Check {
            action: Some("burn".to_owned()),
            deployment: "cart".to_owned(),
            replicas: 5,
            within: Duration::from_secs(within),
        }
    }

    #[test]
    fn a_limit_is_lab_time_but_never_so_short_that_pods_cannot_start() {
        assert_eq!(limit(&check(480), 1), Duration::from_secs(480));
        assert_eq!(limit(&check(480), 2), Duration::from_secs(240));
        assert_eq!(limit(&check(480), 10), LEAST);
        assert_eq!(limit(&check(20), 10), Duration::from_secs(20));
        assert_eq!(title(&check(1)), "burn: Deployment cart has 5 replicas");
    }

    #[test]
    fn replicas_count_when_they_are_asked_for_there_and_ready() {
        let deployment = |asked: u32, there: u32, ready: u32| {
            json!({"metadata": {"name": "cart"}, "spec": {"replicas": asked},
                "status": {"replicas": there, "readyReplicas": ready}})
        };
        assert!(judge(&deployment(5, 5, 5), 5).ready);
        for not_yet in [deployment(5, 5, 4), deployment(5, 6, 5), deployment(4, 5, 5), json!({})] {
            assert!(!judge(&not_yet, 5).ready, "{not_yet}");
        }
        assert!(judge(&json!({"spec": {"replicas": 0}}), 0).ready);
    }
}
