//! Whether an object has become what its spec asks for, and in a few words how it stands. Pure.
//!
//! Deployments, StatefulSets and DaemonSets by the rules of `kubectl rollout status`; an HPA is ready when it scales on
//! a metric that it has seen.

use serde_json::Value;

/// How an object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether nothing more has to happen.
    pub ready: bool,
    /// In a few words: `Deployment cart 2/3`.
    pub summary: String,
    /// Why it is not ready, in Kubernetes' words where it has some.
    pub why: Option<String>,
}

/// Judges an object; with `condition`, by that condition alone.
pub fn judge(object: &Value, condition: Option<&str>) -> Standing {
    let kind = text(object, "/kind");
    let head = format!("{kind} {}", text(object, "/metadata/name"));
    let (ready, tail, why) = match kind {
        "Deployment" => deployment(object),
        "ReplicaSet" | "ReplicationController" => replicas(object, "/status/readyReplicas"),
        "StatefulSet" => stateful_set(object),
        "DaemonSet" => daemon_set(object),
        "Job" => job(object),
        "Pod" => pod(object),
        "HorizontalPodAutoscaler" => autoscaler(object),
        "CustomResourceDefinition" => by_condition(object, "Established"),
        "APIService" => by_condition(object, "Available"),
        "Namespace" => (text(object, "/status/phase") != "Terminating", String::new(), None),
        _ => (true, String::new(), None),
    };
    let summary = if tail.is_empty() {
        head
    } else {
        format!("{head} {tail}")
    };
    match condition {
        None => Standing { ready, summary, why },
        Some(name) => {
            let (ready, _, why) = by_condition(object, name);
            Standing { ready, summary, why }
        }
    }
}

/// Whether an object of this kind becomes ready some time after it was applied.
pub fn takes_time(kind: &str) -> bool {
    matches!(
        kind,
        "Deployment"
            | "StatefulSet"
            | "DaemonSet"
            | "Pod"
            | "HorizontalPodAutoscaler"
            | "CustomResourceDefinition"
            | "APIService"
    )
}

/// A condition's status, reason and message.
pub fn condition<'o>(object: &'o Value, name: &str) -> Option<Condition<'o>> {
    let list = object.pointer("/status/conditions")?.as_array()?;
    let found = list.iter().find(|condition| condition["type"] == name)?;
    let text = |field| found.get(field).and_then(Value::as_str).unwrap_or_default();
    Some(Condition {
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
    })
}

/// A condition, borrowed from its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition<'o> {
    /// `True`, `False`, `Unknown`.
    pub status: &'o str,
    /// One word.
    pub reason: &'o str,
    /// A sentence.
    pub message: &'o str,
}

impl std::fmt::Display for Condition<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.reason, self.message) {
            ("", "") => f.write_str(self.status),
            (reason, "") => f.write_str(reason),
            ("", message) => f.write_str(message),
            (reason, message) => write!(f, "{reason}: {message}"),
        }
    }
}

type Judged = (bool, String, Option<String>);

fn text<'o>(object: &'o Value, pointer: &str) -> &'o str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

fn count(object: &Value, pointer: &str) -> i64 {
    number(object, pointer).unwrap_or(0)
}

/// Whether the controller has seen the newest spec.
fn observed(object: &Value) -> bool {
    count(object, "/status/observedGeneration") >= count(object, "/metadata/generation")
}

fn by_condition(object: &Value, name: &str) -> Judged {
    match condition(object, name) {
        Some(condition) if condition.status == "True" => (true, String::new(), None),
        Some(condition) => (
            false,
            String::new(),
            Some(format!("{name} is {}: {condition}", condition.status)),
        ),
        None => (false, String::new(), Some(format!("the condition {name} is not set"))),
    }
}

fn replicas(object: &Value, ready: &str) -> Judged {
    let want = number(object, "/spec/replicas").unwrap_or(1);
    let have = count(object, ready);
    let why = (have < want).then(|| format!("{have} of {want} replicas are ready"));
    (observed(object) && have >= want, format!("{have}/{want}"), why)
}

fn deployment(object: &Value) -> Judged {
    let want = number(object, "/spec/replicas").unwrap_or(1);
    let (updated, total) = (
        count(object, "/status/updatedReplicas"),
        count(object, "/status/replicas"),
    );
    let available = count(object, "/status/availableReplicas");
    let shown = format!("{}/{want}", count(object, "/status/readyReplicas"));
    let why = if !observed(object) {
        Some("its newest spec was not looked at yet".to_owned())
    } else if let Some(stuck) = condition(object, "Progressing").filter(|at| at.reason == "ProgressDeadlineExceeded") {
        Some(stuck.to_string())
    } else if let Some(failure) = condition(object, "ReplicaFailure").filter(|at| at.status == "True") {
        Some(failure.to_string())
    } else if updated < want {
        Some(format!("{updated} of {want} replicas are of the newest template"))
    } else if total > updated {
        Some(format!("{} old replicas are still there", total - updated))
    } else if available < want {
        Some(format!("{available} of {want} replicas are available"))
    } else {
        None
    };
    (why.is_none(), shown, why)
}

fn stateful_set(object: &Value) -> Judged {
    let (ready, shown, why) = replicas(object, "/status/readyReplicas");
    let want = number(object, "/spec/replicas").unwrap_or(1);
    let rolled = count(object, "/status/updatedReplicas") >= want;
    (
        ready && rolled,
        shown,
        why.or_else(|| (!rolled).then(|| "older replicas are being replaced".to_owned())),
    )
}

fn daemon_set(object: &Value) -> Judged {
    let want = count(object, "/status/desiredNumberScheduled");
    let have = count(object, "/status/numberAvailable").min(count(object, "/status/updatedNumberScheduled"));
    let why = (have < want).then(|| format!("available on {have} of {want} nodes"));
    (observed(object) && have >= want, format!("{have}/{want}"), why)
}

fn job(object: &Value) -> Judged {
    let failed = condition(object, "Failed")
        .filter(|at| at.status == "True")
        .map(|at| at.to_string());
    let done = condition(object, "Complete").is_some_and(|at| at.status == "True");
    let shown = format!(
        "{}/{}",
        count(object, "/status/succeeded"),
        number(object, "/spec/completions").unwrap_or(1)
    );
    (
        done,
        shown,
        failed.or_else(|| (!done).then(|| format!("{} pods are active", count(object, "/status/active")))),
    )
}

fn pod(object: &Value) -> Judged {
    let phase = text(object, "/status/phase");
    let ready = phase == "Succeeded" || condition(object, "Ready").is_some_and(|at| at.status == "True");
    (ready, phase.to_owned(), (!ready).then(|| format!("it is {phase}")))
}

fn autoscaler(object: &Value) -> Judged {
    let metrics: Vec<String> = object
        .pointer("/spec/metrics")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(index, metric)| {
            let current = object.pointer(&format!("/status/currentMetrics/{index}"));
            metric_line(metric, current.unwrap_or(&Value::Null))
        })
        .collect();
    let bounds = format!(
        "{}–{}",
        number(object, "/spec/minReplicas").unwrap_or(1),
        count(object, "/spec/maxReplicas")
    );
    let shown = format!(
        "{}, {} of {bounds}",
        metrics.join(", "),
        count(object, "/status/currentReplicas")
    );
    let active = condition(object, "ScalingActive");
    let seen = metrics.iter().any(|line| !line.starts_with("<unknown>"));
    let why = match active {
        Some(at) if at.status == "True" && seen => None,
        Some(at) if at.status == "True" => Some("no metric was seen yet".to_owned()),
        Some(at) => Some(at.to_string()),
        None => Some("it was not evaluated yet".to_owned()),
    };
    (why.is_none(), shown, why)
}

/// A metric as `kubectl get hpa` writes it: `current/target`.
pub fn metric_line(metric: &Value, current: &Value) -> String {
    let source = match text(metric, "/type") {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "?".to_owned(),
    };
    let target = &metric[source]["target"];
    let now = &current[source]["current"];
    let of = |field: &str, unit: &str| {
        let shown = |value: &Value| match value {
            Value::Null => "<unknown>".to_owned(),
            Value::String(text) => format!("{text}{unit}"),
            other => format!("{other}{unit}"),
        };
        format!("{}/{}", shown(&now[field]), shown(&target[field]))
    };
    match text(target, "/type") {
        "Utilization" => of("averageUtilization", "%"),
        "AverageValue" => of("averageValue", ""),
        _ => of("value", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deployment_is_ready_when_its_newest_replicas_are_available() {
        let mut cart = json!({"kind": "Deployment", "metadata": {"name": "cart", "generation": 2}, "spec": {"replicas": 3},
            "status": {"observedGeneration": 1, "replicas": 4, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3}});
        assert_eq!(judge(&cart, None).why.unwrap(), "its newest spec was not looked at yet");
        cart["status"]["observedGeneration"] = 2.into();
        assert_eq!(judge(&cart, None).why.unwrap(), "1 old replicas are still there");
        cart["status"]["replicas"] = 3.into();
        assert_eq!(
            judge(&cart, None),
            Standing {
                ready: true,
                summary: "Deployment cart 3/3".into(),
                why: None
            }
        );
        cart["status"]["availableReplicas"] = 1.into();
        assert_eq!(judge(&cart, None).why.unwrap(), "1 of 3 replicas are available");
    }

    #[test]
    fn an_autoscaler_is_ready_when_it_has_seen_its_metric() {
        let mut hpa = json!({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "cart"},
            "spec": {"minReplicas": 1, "maxReplicas": 5, "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]},
            "status": {"currentReplicas": 1, "conditions": [{"type": "ScalingActive", "status": "False",
                "reason": "FailedGetResourceMetric", "message": "no metrics returned"}]}});
        let early = judge(&hpa, None);
        assert_eq!(early.summary, "HorizontalPodAutoscaler cart <unknown>/50%, 1 of 1–5");
        assert_eq!(early.why.unwrap(), "FailedGetResourceMetric: no metrics returned");
        hpa["status"]["conditions"][0]["status"] = "True".into();
        assert!(!judge(&hpa, None).ready);
        assert!(judge(&hpa, Some("ScalingActive")).ready);
        hpa["status"]["currentMetrics"] =
            json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 2}}}]);
        let late = judge(&hpa, None);
        assert!(late.ready);
        assert_eq!(late.summary, "HorizontalPodAutoscaler cart 2%/50%, 1 of 1–5");
    }

    #[test]
    fn what_has_no_standing_is_ready_at_once() {
        assert_eq!(
            judge(&json!({"kind": "ConfigMap", "metadata": {"name": "c"}}), None).summary,
            "ConfigMap c"
        );
        let job = json!({"kind": "Job", "metadata": {"name": "j"}, "status": {"conditions": [
            {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}]}});
        assert_eq!(judge(&job, None).why.unwrap(), "BackoffLimitExceeded: too often");
        assert!(judge(&job, Some("Failed")).ready);
    }
}
