//! What a Deployment says of itself: counts, conditions, and whether it still makes progress.
//!
//! Pure. (k/k `pkg/controller/deployment/{sync,progress}.go`, `util/deployment_util.go`, v1.36.)

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rolling::Bounds;
use super::{available, desired, replicas};
use crate::replicaset::REPLICA_FAILURE;

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";

// Reasons of `Progressing`.
pub(super) const NEW_SET_CREATED: &str = "NewReplicaSetCreated";
pub(super) const NEW_SET_FOUND: &str = "FoundNewReplicaSet";
pub(super) const SET_CREATE_ERROR: &str = "ReplicaSetCreateError";
const SET_UPDATED: &str = "ReplicaSetUpdated";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

pub(super) fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .as_deref()?
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn reason(condition: &DeploymentCondition) -> &str {
    condition.reason.as_deref().unwrap_or_default()
}

/// Puts `new` at the end, unless the condition is there with the same status and reason. The time of transition moves
/// only with the status.
pub(super) fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(current) = find(status, &new.type_) {
        if current.status == new.status && current.reason == new.reason {
            return;
        }
        if current.status == new.status {
            new.last_transition_time = current.last_transition_time.clone();
        }
    }
    remove(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

fn remove(status: &mut DeploymentStatus, type_: &str) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != type_);
    if conditions.is_empty() {
        status.conditions = None;
    }
}

/// The deadline for progress, if there is one.
fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| SignedDuration::from_secs(seconds.into()))
}

pub(super) fn has_deadline(deployment: &Deployment) -> bool {
    deadline(deployment).is_some()
}

/// True if progress is estimated and nothing has been said about it yet.
pub(super) fn lacks_progress_condition(deployment: &Deployment) -> bool {
    has_deadline(deployment)
        && deployment
            .status
            .as_ref()
            .and_then(|status| find(status, PROGRESSING))
            .is_none()
}

/// The condition for a Deployment that was just paused or resumed. The progress clock stands still meanwhile.
pub(super) fn pause_condition(deployment: &Deployment, now: Timestamp) -> Option<DeploymentCondition> {
    if !has_deadline(deployment) {
        return None;
    }
    let current = deployment
        .status
        .as_ref()
        .and_then(|status| find(status, PROGRESSING))
        .map(reason);
    // What was reported as stuck stays so.
    if current == Some(TIMED_OUT) {
        return None;
    }
    let paused = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.paused)
        .unwrap_or_default();
    match (paused, current == Some(PAUSED)) {
        (true, false) => Some(condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused", now)),
        (false, true) => Some(condition(PROGRESSING, "Unknown", RESUMED, "Deployment is resumed", now)),
        _ => None,
    }
}

/// Counts and `Available` from the ReplicaSets; other conditions stay.
pub(super) fn counts(
    deployment: &Deployment,
    old: &[ReplicaSet],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let all = || old.iter().chain(new);
    let reported = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let ready = |set: &ReplicaSet| {
        set.status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or_default()
    };
    let terminating = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.terminating_replicas);
    let available: i32 = all().map(available).sum();
    let total: i32 = all().map(replicas).sum();
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(all().map(reported).sum()),
        updated_replicas: nonzero(new.map_or(0, reported)),
        ready_replicas: nonzero(all().map(ready).sum()),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((total - available).max(0)),
        terminating_replicas: all().map(terminating).sum(),
        collision_count: before.collision_count,
        conditions: before.conditions,
    };
    let enough = available >= desired(deployment) - Bounds::of(deployment).unavailable;
    let verdict = if enough {
        condition(
            AVAILABLE,
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
            now,
        )
    } else {
        let message = "Deployment does not have minimum availability.";
        condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message, now)
    };
    set(&mut status, verdict);
    status
}

/// Zero is left out of the wire form, as Go's `omitempty` does.
fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// Everything that was asked for is there and available.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let all = Some(desired(deployment));
    let or_zero = |count: Option<i32>| Some(count.unwrap_or_default());
    or_zero(status.updated_replicas) == all
        && or_zero(status.replicas) == all
        && or_zero(status.available_replicas) == all
        && status.observed_generation >= deployment.metadata.generation
}

/// Judges a rollout: adds what it says of its progress, and of failing ReplicaSets, to `status`.
pub(super) fn judge(
    deployment: &Deployment,
    old: &[ReplicaSet],
    new: Option<&ReplicaSet>,
    status: &mut DeploymentStatus,
    now: Timestamp,
) {
    let before = deployment.status.clone().unwrap_or_default();
    let current = find(&before, PROGRESSING);
    // One active set and it was complete: a resync, not a rollout.
    let is_over = status.replicas == status.updated_replicas
        && current.is_some_and(|condition| reason(condition) == NEW_SET_AVAILABLE);
    match deadline(deployment) {
        None => remove(status, PROGRESSING),
        Some(_) if is_over => {}
        Some(deadline) => {
            let about = |what: &str| match new {
                Some(set) => format!(
                    "ReplicaSet \"{}\" {what}",
                    set.metadata.name.as_deref().unwrap_or_default()
                ),
                None => format!(
                    "Deployment \"{}\" {what}",
                    deployment.metadata.name.as_deref().unwrap_or_default()
                ),
            };
            if is_complete(deployment, status) {
                let message = about("has successfully progressed.");
                set(status, condition(PROGRESSING, "True", NEW_SET_AVAILABLE, message, now));
            } else if has_progressed(&before, status) {
                let mut progress = condition(PROGRESSING, "True", SET_UPDATED, about("is progressing."), now);
                if let Some(current) = current.filter(|current| current.status == "True") {
                    progress.last_transition_time = current.last_transition_time.clone();
                }
                // Not `set`: every bit of progress starts the clock again, under the same reason.
                remove(status, PROGRESSING);
                status.conditions.get_or_insert_default().push(progress);
            } else if is_late(current, deadline, now) {
                let message = about("has timed out progressing.");
                set(status, condition(PROGRESSING, "False", TIMED_OUT, message, now));
            }
        }
    }
    match failure(old, new) {
        Some(failure) => set(status, failure),
        None => remove(status, REPLICA_FAILURE),
    }
}

fn has_progressed(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or_default();
    let old_pods = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(now.updated_replicas) > count(before.updated_replicas)
        || old_pods(now) < old_pods(before)
        || count(now.ready_replicas) > count(before.ready_replicas)
        || count(now.available_replicas) > count(before.available_replicas)
}

fn is_late(current: Option<&DeploymentCondition>, deadline: SignedDuration, now: Timestamp) -> bool {
    let Some(current) = current else { return false };
    match reason(current) {
        // The last rollout ended well; this one's clock has not started.
        NEW_SET_AVAILABLE => false,
        TIMED_OUT => true,
        _ => current
            .last_update_time
            .as_ref()
            .is_some_and(|since| now.duration_since(since.0) > deadline),
    }
}

/// When to look again although nothing changed: just after the deadline of a rollout that is stuck.
pub(super) fn look_again(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let deadline = deadline(deployment)?;
    let current = deployment
        .status
        .as_ref()
        .and_then(|status| find(status, PROGRESSING))?;
    if is_complete(deployment, status) || reason(current) == TIMED_OUT {
        return None;
    }
    let left = deadline - now.duration_since(current.last_update_time.as_ref()?.0);
    // A second more: timestamps are in whole seconds.
    Some(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1))
}

/// The failure of the new ReplicaSet, or of an old one.
fn failure(old: &[ReplicaSet], new: Option<&ReplicaSet>) -> Option<DeploymentCondition> {
    new.into_iter().chain(old).find_map(|set| {
        let conditions = set.status.as_ref()?.conditions.as_deref()?;
        let failure = conditions.iter().find(|condition| condition.type_ == REPLICA_FAILURE)?;
        Some(DeploymentCondition {
            type_: failure.type_.clone(),
            status: failure.status.clone(),
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            last_transition_time: failure.last_transition_time.clone(),
            last_update_time: failure.last_transition_time.clone(),
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn deployment(status: DeploymentStatus) -> Deployment {
        let mut deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 1},
            "spec": {"replicas": 3, "progressDeadlineSeconds": 600, "selector": {}, "template": {},
                     "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}},
        }))
        .unwrap();
        deployment.status = Some(status);
        deployment
    }

    fn set(name: &str, replicas: i32, status: Value) -> ReplicaSet {
        let spec = json!({"replicas": replicas, "selector": {}});
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec, "status": status})).unwrap()
    }

    fn pass(before: DeploymentStatus, new: &ReplicaSet, now: i64) -> DeploymentStatus {
        let deployment = deployment(before);
        let mut status = counts(&deployment, &[], Some(new), at(now));
        judge(&deployment, &[], Some(new), &mut status, at(now));
        status
    }

    fn told(status: &DeploymentStatus) -> Vec<String> {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let line = |c: &DeploymentCondition| {
            let since = |time: &Option<Time>| time.as_ref().map_or(-1, |time| time.0.as_second() - 1_000_000);
            format!(
                "{}={} {} {:?} @{}/{}",
                c.type_,
                c.status,
                reason(c),
                c.message.as_deref().unwrap_or_default(),
                since(&c.last_transition_time),
                since(&c.last_update_time)
            )
        };
        conditions.iter().map(line).collect()
    }

    #[test]
    fn a_rollout_tells_its_story_in_conditions() {
        let mut status = DeploymentStatus::default();
        super::set(
            &mut status,
            condition(
                PROGRESSING,
                "True",
                NEW_SET_CREATED,
                "Created new replica set \"web-1\"",
                at(0),
            ),
        );
        let status = pass(status, &set("web-1", 3, json!({"replicas": 0})), 1);
        insta::assert_debug_snapshot!(told(&status), @r#"
        [
            "Progressing=True NewReplicaSetCreated \"Created new replica set \\\"web-1\\\"\" @0/0",
            "Available=False MinimumReplicasUnavailable \"Deployment does not have minimum availability.\" @1/1",
        ]
        "#);
        let some = set(
            "web-1",
            3,
            json!({"replicas": 3, "readyReplicas": 1, "availableReplicas": 1}),
        );
        let status = pass(status, &some, 5);
        assert_eq!(status.unavailable_replicas, Some(2));
        let all = set(
            "web-1",
            3,
            json!({"replicas": 3, "readyReplicas": 3, "availableReplicas": 3}),
        );
        let status = pass(status, &all, 9);
        insta::assert_debug_snapshot!(told(&status), @r#"
        [
            "Available=True MinimumReplicasAvailable \"Deployment has minimum availability.\" @9/9",
            "Progressing=True NewReplicaSetAvailable \"ReplicaSet \\\"web-1\\\" has successfully progressed.\" @0/9",
        ]
        "#);
        assert_eq!(
            pass(status.clone(), &all, 5000),
            status,
            "a resync long after changes nothing"
        );
    }

    #[test]
    fn a_rollout_without_progress_is_late_after_its_deadline() {
        let mut status = DeploymentStatus::default();
        super::set(&mut status, condition(PROGRESSING, "True", NEW_SET_CREATED, "", at(0)));
        let stuck = set("web-1", 3, json!({"replicas": 3}));
        let status = pass(status, &stuck, 10);
        assert_eq!(
            look_again(&deployment(status.clone()), &status, at(100)),
            Some(Duration::from_secs(511))
        );
        let status = pass(status, &stuck, 610);
        assert!(told(&status).iter().any(|line| line.contains("ReplicaSetUpdated")));
        let status = pass(status, &stuck, 611);
        assert!(told(&status).contains(
            &"Progressing=False ProgressDeadlineExceeded \"ReplicaSet \\\"web-1\\\" has timed out progressing.\" @611/611"
                .to_owned()
        ));
        assert_eq!(look_again(&deployment(status.clone()), &status, at(700)), None);
    }

    #[test]
    fn the_failure_of_a_set_is_the_deployments() {
        let failing = set(
            "web-1",
            3,
            json!({"replicas": 0, "conditions": [
                {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]}),
        );
        let status = pass(DeploymentStatus::default(), &failing, 0);
        assert!(
            told(&status)
                .iter()
                .any(|line| line.starts_with("ReplicaFailure=True FailedCreate \"quota\""))
        );
        let status = pass(status, &set("web-1", 3, json!({"replicas": 0})), 1);
        assert!(!told(&status).iter().any(|line| line.starts_with("ReplicaFailure")));
    }

    #[test]
    fn pausing_and_resuming_are_told_once() {
        let mut paused = deployment(DeploymentStatus::default());
        paused.spec.as_mut().unwrap().paused = Some(true);
        let told = pause_condition(&paused, at(0)).unwrap();
        assert_eq!((told.status.as_str(), reason(&told)), ("Unknown", "DeploymentPaused"));
        super::set(paused.status.as_mut().unwrap(), told);
        assert_eq!(pause_condition(&paused, at(1)), None);
        paused.spec.as_mut().unwrap().paused = None;
        assert_eq!(reason(&pause_condition(&paused, at(2)).unwrap()), "DeploymentResumed");
    }
}
