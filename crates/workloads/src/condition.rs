//! Conditions as all of Kubernetes has them, and what is wrong with a pod, in one line.
//!
//! `k8s_openapi` has the type too; it has no schema, and a CRD needs one.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The clock, a value, so that a test has its own.
pub(crate) type Now = fn() -> Timestamp;

/// One thing that is or is not so.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True` or `False`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// Since when the status is what it is.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// The generation of the resource that was looked at.
    pub observed_generation: i64,
}

/// A reason and its message.
pub(crate) type Why = (&'static str, String);

/// RFC 3339 in seconds, as all of Kubernetes writes time.
pub(crate) fn written(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Sets a condition; the time of its last transition moves only when its status does.
pub(crate) fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    holds: bool,
    (reason, message): Why,
    generation: i64,
    now: Timestamp,
) {
    let status = if holds { "True" } else { "False" };
    let before = conditions.iter().position(|condition| condition.type_ == type_);
    let before = before.map(|at| conditions.remove(at));
    let since = before.filter(|condition| condition.status == status);
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since.map_or_else(|| written(now), |condition| condition.last_transition_time),
        observed_generation: generation,
    });
}

/// The condition of that type.
pub(crate) fn find<'c>(conditions: &'c [Condition], type_: &str) -> Option<&'c Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// What the API server refused to make, in its own words.
pub(crate) fn refusal(error: &kube::Error) -> Why {
    match error {
        kube::Error::Api(status) => ("Rejected", status.message.clone()),
        other => ("Unreachable", other.to_string()),
    }
}

/// Why a pod does not get on, in the words of the scheduler or the kubelet.
pub(crate) fn trouble(pod: &Pod) -> Option<Why> {
    const NORMAL: [&str; 2] = ["ContainerCreating", "PodInitializing"];
    let status = pod.status.as_ref()?;
    let told = |reason: &str, message: String| {
        // A reason is an identifier of the API; these are the ones that a lab meets.
        let known = [
            "ErrImagePull",
            "ImagePullBackOff",
            "ErrImageNeverPull",
            "InvalidImageName",
            "CrashLoopBackOff",
            "CreateContainerConfigError",
            "CreateContainerError",
            "RunContainerError",
            "Unschedulable",
        ];
        let reason = known.into_iter().find(|known| *known == reason).unwrap_or("PodTrouble");
        Some((reason, message))
    };
    for container in status.container_statuses.iter().flatten() {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        let reason = waiting
            .and_then(|waiting| waiting.reason.as_deref())
            .unwrap_or_default();
        if !reason.is_empty() && !NORMAL.contains(&reason) {
            let words = waiting.and_then(|waiting| waiting.message.clone()).unwrap_or_default();
            return told(reason, format!("pod `{}`: {reason}: {words}", pod.name_any()));
        }
    }
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let words = unscheduled.message.clone().unwrap_or_default();
    told("Unschedulable", format!("pod `{}`: {words}", pod.name_any()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_transition_is_a_change_of_status_and_nothing_else() {
        let mut conditions = Vec::new();
        let (first, later) = (Timestamp::from_second(0).unwrap(), Timestamp::from_second(60).unwrap());
        set(&mut conditions, "Ready", false, ("Waiting", "0 of 2".into()), 1, first);
        set(&mut conditions, "Ready", false, ("Waiting", "1 of 2".into()), 2, later);
        let ready = find(&conditions, "Ready").unwrap();
        assert_eq!((ready.message.as_str(), ready.observed_generation), ("1 of 2", 2));
        assert_eq!(ready.last_transition_time, "1970-01-01T00:00:00Z");
        set(&mut conditions, "Ready", true, ("AllReady", "2 of 2".into()), 2, later);
        assert_eq!(
            find(&conditions, "Ready").unwrap().last_transition_time,
            "1970-01-01T00:01:00Z"
        );
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn the_trouble_of_a_pod_is_told_in_the_kubelets_words() {
        let pod = |status| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "web-1"}, "status": status})).unwrap()
        };
        let waiting = |reason: &str| {
            let state = json!({"waiting": {"reason": reason, "message": "no such image"}});
            pod(
                json!({"containerStatuses": [{"name": "web", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": state}]}),
            )
        };
        assert_eq!(
            trouble(&waiting("ErrImagePull")),
            Some(("ErrImagePull", "pod `web-1`: ErrImagePull: no such image".into()))
        );
        assert_eq!(trouble(&waiting("ContainerCreating")), None);
        let unscheduled = json!({"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"});
        assert_eq!(
            trouble(&pod(json!({"conditions": [unscheduled]}))),
            Some(("Unschedulable", "pod `web-1`: 0/1 nodes are available".into()))
        );
    }
}
