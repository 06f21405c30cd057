//! Questions about one Pod: is it active, ready, available?
//!
//! Pure. (k/k `pkg/api/v1/pod/util.go`, `pkg/controller/controller_utils.go`, v1.36.)

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition};

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Ended, for good or ill.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Counts as a replica.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == type_)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when it is ready, if it is.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Ready for at least `min_ready_seconds`.
pub(crate) fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    if !is_ready(pod) {
        return false;
    }
    min_ready_seconds == 0 || ready_since(pod).is_some_and(|since| available_at(since, min_ready_seconds) <= now)
}

/// When a pod that is ready since `since` counts as available.
pub(crate) fn available_at(since: Timestamp, min_ready_seconds: i32) -> Timestamp {
    since
        .saturating_add(SignedDuration::from_secs(min_ready_seconds.into()))
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_pod_is_available_once_it_was_ready_for_long_enough() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let ready = PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(Time(since)),
            ..Default::default()
        };
        let status = PodStatus {
            conditions: Some(vec![ready]),
            ..Default::default()
        };
        let pod = Pod {
            status: Some(status),
            ..Default::default()
        };
        let after = |seconds| since + SignedDuration::from_secs(seconds);
        assert!(is_available(&pod, 0, since));
        assert!(!is_available(&pod, 10, after(9)));
        assert!(is_available(&pod, 10, after(10)));
        assert!(!is_available(&Pod::default(), 0, since));
    }
}
