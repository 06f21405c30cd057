//! What keeps a pod from being ready, in the words of whoever knows: scheduler, kubelet, probe. Pure.

use serde_json::Value;

use super::ready::condition;

/// Where on a pod's way something is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// No node takes it.
    Scheduling,
    /// Volumes, network: before any container.
    Sandbox,
    /// The image is not there.
    Image,
    /// A container does not keep running.
    Container,
    /// It runs, but a probe says no.
    Readiness,
    /// It is on its way out.
    Ending,
}

impl Link {
    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduling => "scheduling",
            Self::Sandbox => "sandbox",
            Self::Image => "image",
            Self::Container => "container",
            Self::Readiness => "readiness",
            Self::Ending => "ending",
        }
    }
}

/// What is wrong with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Where.
    pub link: Link,
    /// In the words of whoever knows.
    pub words: String,
}

/// The first thing that keeps this pod from being ready; nothing when it is, or when it ended well.
pub fn trouble(pod: &Value) -> Option<Trouble> {
    let some = |link, words: String| Some(Trouble { link, words });
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        return some(Link::Ending, "Terminating".to_owned());
    }
    let phase = pod
        .pointer("/status/phase")
        .and_then(Value::as_str)
        .unwrap_or("Pending");
    if phase == "Succeeded" || condition(pod, "Ready").is_some_and(|at| at.status == "True") {
        return None;
    }
    if let Some(scheduled) = condition(pod, "PodScheduled").filter(|at| at.status == "False") {
        return some(Link::Scheduling, scheduled.to_string());
    }
    for list in ["/status/initContainerStatuses", "/status/containerStatuses"] {
        let statuses = pod
            .pointer(list)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        if let Some(trouble) = statuses.iter().find_map(container) {
            return Some(trouble);
        }
    }
    let message = pod.pointer("/status/message").and_then(Value::as_str);
    match (phase, message) {
        ("Failed", message) => some(Link::Container, message.unwrap_or("Failed").to_owned()),
        ("Pending", Some(message)) => some(Link::Sandbox, message.to_owned()),
        ("Pending", None) if pod.pointer("/spec/nodeName").is_none() => {
            some(Link::Scheduling, "waits for a node".to_owned())
        }
        ("Pending", None) => some(Link::Sandbox, "its containers are being created".to_owned()),
        _ => some(
            Link::Readiness,
            condition(pod, "Ready").map_or("not ready".to_owned(), |at| at.to_string()),
        ),
    }
}

fn container(status: &Value) -> Option<Trouble> {
    let name = status["name"].as_str().unwrap_or_default();
    let words = |state: &Value| {
        let reason = state["reason"].as_str().unwrap_or_default();
        match state["message"].as_str().unwrap_or_default() {
            "" => reason.to_owned(),
            message => format!("{reason}: {message}"),
        }
    };
    let last = &status["lastState"]["terminated"];
    if let Some(waiting) = status["state"].get("waiting") {
        let link = match waiting["reason"].as_str().unwrap_or_default() {
            "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError" => {
                Link::Image
            }
            "ContainerCreating" | "PodInitializing" | "" => return None,
            _ => Link::Container,
        };
        let mut said = words(waiting);
        if let Some(code) = last["exitCode"].as_i64() {
            said = format!("{said} (container `{name}` ended with {code}{})", reason_of(last));
        }
        return Some(Trouble { link, words: said });
    }
    let ended = status["state"]
        .get("terminated")
        .filter(|ended| ended["exitCode"].as_i64() != Some(0))?;
    let code = ended["exitCode"].as_i64().unwrap_or_default();
    Some(Trouble {
        link: Link::Container,
        words: format!("container `{name}` ended with {code}{}", reason_of(ended)),
    })
}

fn reason_of(ended: &Value) -> String {
    ended["reason"]
        .as_str()
        .map(|reason| format!(", {reason}"))
        .unwrap_or_default()
}

/// The pod that is furthest from ready, among several: the earliest broken link, then the first name. While a rollout
/// is under way, a pod of the newest template goes before older ones: those are on their way out.
pub fn worst<'p>(pods: impl IntoIterator<Item = &'p Value>) -> Option<(&'p Value, Trouble)> {
    let pods: Vec<&Value> = pods.into_iter().collect();
    let troubles = pods.iter().filter_map(|pod| Some((*pod, trouble(pod)?)));
    troubles.min_by_key(|(pod, trouble)| (is_superseded(pod, &pods), trouble.link, text(pod, "/metadata/name")))
}

/// Whether another pod with the same labels, but for the template's hash, was created later.
fn is_superseded(pod: &Value, pods: &[&Value]) -> bool {
    let own = template_and_labels(pod);
    pods.iter().any(|other| {
        let (template, labels) = template_and_labels(other);
        labels == own.1 && template != own.0 && text(other, CREATED) > text(pod, CREATED)
    })
}

const CREATED: &str = "/metadata/creationTimestamp";

fn template_and_labels(pod: &Value) -> (Option<Value>, Option<Value>) {
    let mut labels = pod.pointer("/metadata/labels").cloned();
    let template = labels
        .as_mut()
        .and_then(Value::as_object_mut)
        .and_then(|labels| labels.remove("pod-template-hash"));
    (template, labels)
}

fn text<'p>(pod: &'p Value, pointer: &str) -> &'p str {
    pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_scheduler_the_kubelet_and_the_probe_are_quoted() {
        let unschedulable = json!({"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}]}});
        assert_eq!(
            trouble(&unschedulable).unwrap().words,
            "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."
        );
        let image = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Pending", "containerStatuses": [{"name": "c", "state": {"waiting": {
            "reason": "ErrImageNeverPull", "message": "Container image \"x:1\" is not present with pull policy of Never"}}}]}});
        assert_eq!(trouble(&image).unwrap().link, Link::Image);
        let crash = json!({"status": {"phase": "Running", "containerStatuses": [{"name": "c",
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}});
        assert_eq!(
            trouble(&crash).unwrap().words,
            "CrashLoopBackOff: back-off 10s (container `c` ended with 137, OOMKilled)"
        );
        let unready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False",
            "reason": "ContainersNotReady", "message": "containers with unready status: [c]"}],
            "containerStatuses": [{"name": "c", "state": {"running": {}}}]}});
        assert_eq!(trouble(&unready).unwrap().link, Link::Readiness);
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(trouble(&ready), None);
        assert_eq!(
            worst([&unready, &ready, &unschedulable]).unwrap().1.link,
            Link::Scheduling
        );
    }
}
