//! The first broken link of a lab's chain: image → pod → ready → metric → HPA → replicas. Pure.

use apimachinery::labels::Selector;
use serde_json::Value;

use super::pods::{self, Link};
use super::ready::{self, judge};
use super::snapshot::Snapshot;

/// Something in the chain that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Broken {
    /// Which link, in a word or two.
    pub link: String,
    /// Whose.
    pub object: String,
    /// What was seen, in the words of whoever knows.
    pub seen: String,
    /// What to do.
    pub hint: String,
}

/// The first broken link, walking from the containers up to what scales them; `None` when all hold.
pub fn first_broken_link(lab: &Snapshot) -> Option<Broken> {
    let unready = lab.workloads.iter().find(|workload| !judge(workload, None).ready);
    if let Some(workload) = unready {
        return Some(workload_link(lab, workload));
    }
    // Pods of nobody, or of something that is not a workload here.
    let stray = lab
        .pods
        .iter()
        .filter(|pod| pod.pointer("/metadata/ownerReferences").is_none());
    if let Some((pod, trouble)) = pods::worst(stray).filter(|(_, trouble)| trouble.link != Link::Ending) {
        return Some(pod_link(pod, &trouble));
    }
    lab.autoscalers.iter().find_map(|hpa| autoscaler_link(lab, hpa))
}

fn named(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{} `{}`", text("/kind"), text("/metadata/name"))
}

fn workload_link(lab: &Snapshot, workload: &Value) -> Broken {
    let selector = workload
        .pointer("/spec/selector")
        .and_then(|selector| Selector::from_label_selector(selector).ok());
    let own = lab
        .pods
        .iter()
        .filter(|pod| selector.as_ref().is_some_and(|selector| selector.matches_object(pod)));
    if let Some((pod, trouble)) = pods::worst(own).filter(|(_, trouble)| trouble.link != Link::Ending) {
        return pod_link(pod, &trouble);
    }
    let standing = judge(workload, None);
    let failure = ready::condition(workload, "ReplicaFailure").filter(|at| at.status == "True");
    let (link, hint) = match failure {
        Some(_) => (
            "creating pods",
            "the API server refused the pods: quota, admission or an invalid template",
        ),
        None => (
            "replicas",
            "its controller is still at work, or a rollout is stuck: look at its conditions and events",
        ),
    };
    Broken {
        link: link.to_owned(),
        object: named(workload),
        seen: standing.why.unwrap_or(standing.summary),
        hint: hint.to_owned(),
    }
}

fn pod_link(pod: &Value, trouble: &pods::Trouble) -> Broken {
    let hint = match trouble.link {
        Link::Scheduling if trouble.words.contains("taint") => {
            "the node carries a taint: `kubectl describe node` says why (not ready, disk or memory pressure)"
        }
        Link::Scheduling => "ask for less (`--set request=…`), or free what other pods hold",
        Link::Sandbox => "look at the pod's events: a volume, a Secret or a ConfigMap may be missing",
        Link::Image => "is the image's name right, and is it on the node? `k8slab image ls` shows what is",
        Link::Container => "read its last words: `k8slab logs`",
        Link::Readiness => "the readiness probe fails: is the port right, and does the path answer?",
        Link::Ending => "it is on its way out",
    };
    Broken {
        link: trouble.link.name().to_owned(),
        object: format!(
            "Pod `{}`",
            pod.pointer("/metadata/name")
                .and_then(Value::as_str)
                .unwrap_or_default()
        ),
        seen: trouble.words.clone(),
        hint: hint.to_owned(),
    }
}

fn autoscaler_link(lab: &Snapshot, hpa: &Value) -> Option<Broken> {
    let broken = |link: &str, seen: String, hint: &str| {
        Some(Broken {
            link: link.to_owned(),
            object: named(hpa),
            seen,
            hint: hint.to_owned(),
        })
    };
    for name in ["AbleToScale", "ScalingActive"] {
        let Some(at) = ready::condition(hpa, name).filter(|at| at.status != "True") else {
            continue;
        };
        let seen = at.to_string();
        if name == "AbleToScale" {
            return broken(
                "scale target",
                seen,
                "does `scaleTargetRef` name an object that is there?",
            );
        }
        if let Some(why) = &lab.no_usage {
            return broken(
                "metrics API",
                why.clone(),
                "is metrics.k8s.io served? `kubectl get apiservice v1beta1.metrics.k8s.io`",
            );
        }
        let hint = match at.reason {
            _ if at.message.contains("missing request") => {
                "the container has no CPU request, so a utilization cannot be computed"
            }
            "ScalingDisabled" => "the target has 0 replicas: scale it to 1 to switch the HPA on again",
            "FailedGetResourceMetric" => "no samples of these pods yet: they come some seconds after a pod is ready",
            _ => "the HPA's conditions and events say what it could not read",
        };
        return broken("metric", seen, hint);
    }
    if hpa.pointer("/status/conditions").is_none() {
        return broken(
            "HPA controller",
            "it was not evaluated yet".to_owned(),
            "the next sync comes within 15 s",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(available: i64) -> Value {
        json!({"kind": "Deployment", "metadata": {"name": "cart", "generation": 1},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "cart"}}},
            "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": available, "availableReplicas": available}})
    }

    fn pod(status: Value) -> Value {
        json!({"kind": "Pod", "metadata": {"name": "cart-x", "labels": {"app": "cart"}, "ownerReferences": [{}]}, "spec": {"nodeName": "n"}, "status": status})
    }

    fn hpa(reason: &str, message: &str) -> Value {
        json!({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "cart"}, "status": {"conditions": [
            {"type": "AbleToScale", "status": "True"},
            {"type": "ScalingActive", "status": "False", "reason": reason, "message": message}]}})
    }

    #[test]
    fn the_link_furthest_from_the_user_is_named_first() {
        let image = json!({"phase": "Pending", "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ErrImageNeverPull", "message": "not present"}}}]});
        let lab = Snapshot {
            workloads: vec![deployment(1)],
            pods: vec![pod(image)],
            autoscalers: vec![hpa("FailedGetResourceMetric", "no metrics")],
            ..Snapshot::default()
        };
        let broken = first_broken_link(&lab).unwrap();
        assert_eq!(
            (broken.link.as_str(), broken.object.as_str()),
            ("image", "Pod `cart-x`")
        );
        assert_eq!(broken.seen, "ErrImageNeverPull: not present");
    }

    #[test]
    fn a_refused_pod_a_missing_metrics_api_and_a_missing_request_are_told_apart() {
        let mut refused = deployment(0);
        refused["status"]["updatedReplicas"] = 0.into();
        refused["status"]["conditions"] = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}]);
        let lab = Snapshot {
            workloads: vec![refused],
            ..Snapshot::default()
        };
        assert_eq!(first_broken_link(&lab).unwrap().link, "creating pods");
        let mut lab = Snapshot {
            workloads: vec![deployment(2)],
            autoscalers: vec![hpa("FailedGetResourceMetric", "x")],
            ..Snapshot::default()
        };
        lab.no_usage = Some("the server could not find the requested resource".into());
        assert_eq!(first_broken_link(&lab).unwrap().link, "metrics API");
        lab.no_usage = None;
        lab.autoscalers = vec![hpa(
            "FailedGetResourceMetric",
            "missing request for cpu in container c of Pod cart-x",
        )];
        assert!(first_broken_link(&lab).unwrap().hint.contains("no CPU request"));
        lab.autoscalers.clear();
        assert_eq!(first_broken_link(&lab), None);
    }
}
