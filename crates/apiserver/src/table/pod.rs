//! Pod and PodTemplate.

use apimachinery::duration;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell::{NONE, age, condition, containers, labels, name, text_or, when};
use super::{AGE, CONTAINERS, Column, IMAGES, NAME, Printer};
use crate::strategy::walk::{at, flag, int, list, text};

pub(super) static POD: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Ready", "Containers that are ready, of those that should be."),
        Column::text("Status", "What the Pod is doing, or what keeps it from doing it."),
        Column::text(
            "Restarts",
            "How often its containers were restarted, and when the last time.",
        ),
        AGE,
        Column::text("IP", "Address of the Pod.").wide(),
        Column::text("Node", "Node on which it runs.").wide(),
        Column::text("Nominated Node", "Node on which others make room for it.").wide(),
        Column::text(
            "Readiness Gates",
            "Further conditions that are met, of those it waits for.",
        )
        .wide(),
    ],
    cells: pod,
};

pub(super) static POD_TEMPLATE: Printer = Printer {
    columns: &[
        NAME,
        Column {
            priority: 0,
            ..CONTAINERS
        },
        Column { priority: 0, ..IMAGES },
        Column::text("Pod Labels", "Labels of the template."),
    ],
    cells: |template, _| {
        let [names, images] = containers(template, &["template", "spec"]);
        vec![
            name(template),
            names,
            images,
            labels(template, &["template", "metadata", "labels"]).into(),
        ]
    },
};

/// That a Pod has ended, for clients that wait for it.
pub(super) fn completed(pod: &Value) -> Option<Vec<Value>> {
    let message = match text(pod, &["status", "phase"]) {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    let phase = text(pod, &["status", "phase"]);
    Some(vec![
        json!({"type": "Completed", "status": "True", "reason": phase, "message": message}),
    ])
}

fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart {
        Some(at) if summary.restarts > 0 => {
            format!("{} ({} ago)", summary.restarts, duration::age(Some(at), now))
        }
        _ => summary.restarts.to_string(),
    };
    let address = list(pod, &["status", "podIPs"])
        .first()
        .map(|ip| text(ip, &["ip"]))
        .unwrap_or_default();
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.into(),
        restarts.into(),
        age(pod, now),
        if address.is_empty() {
            NONE.into()
        } else {
            address.into()
        },
        text_or(pod, &["spec", "nodeName"], NONE),
        text_or(pod, &["status", "nominatedNodeName"], NONE),
        readiness_gates(pod).into(),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let met = gates
        .iter()
        .filter(|gate| is_true(pod, text(gate, &["conditionType"])))
        .count();
    format!("{met}/{}", gates.len())
}

fn is_true(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|condition| text(condition, &["status"]) == "True")
}

/// What a Pod's container statuses come to.
struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let phase = text(pod, &["status", "phase"]);
        let reason = text(pod, &["status", "reason"]);
        let mut summary = Self {
            ready: 0,
            total: list(pod, &["spec", "containers"]).len(),
            status: if reason.is_empty() {
                phase.to_owned()
            } else {
                reason.to_owned()
            },
            restarts: 0,
            last_restart: None,
        };
        let gated =
            condition(pod, "PodScheduled").is_some_and(|condition| text(condition, &["reason"]) == "SchedulingGated");
        if gated {
            summary.status = "SchedulingGated".to_owned();
        }
        summary.total += list(pod, &["spec", "initContainers"])
            .iter()
            .filter(|init| is_sidecar(init))
            .count();
        let sidecars = summary.read_init(pod);
        if sidecars.is_done || is_true(pod, "Initialized") {
            // Restarts of what ran before are history now.
            (summary.restarts, summary.last_restart) = (sidecars.restarts, sidecars.last_restart);
            summary.read_main(pod);
        }
        if at(pod, &["metadata", "deletionTimestamp"]).is_some() {
            if reason == "NodeLost" {
                summary.status = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                summary.status = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Goes through the init containers up to the first that is not done.
    fn read_init(&mut self, pod: &Value) -> Sidecars {
        let specs = list(pod, &["spec", "initContainers"]);
        let mut sidecars = Sidecars {
            is_done: true,
            restarts: 0,
            last_restart: None,
        };
        for (index, container) in list(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
            self.count_restarts(container);
            let own = text(container, &["name"]);
            let sidecar = specs
                .iter()
                .any(|spec| text(spec, &["name"]) == own && is_sidecar(spec));
            if sidecar {
                sidecars.restarts += int(container, &["restartCount"]).unwrap_or(0);
                sidecars.last_restart = sidecars.last_restart.max(last_finish(container));
            }
            let terminated = at(container, &["state", "terminated"]);
            if terminated.is_some_and(|terminated| exit_code(terminated) == 0) {
                continue;
            }
            if sidecar && flag(container, &["started"]) {
                self.ready += usize::from(flag(container, &["ready"]));
                continue;
            }
            let waiting = text(container, &["state", "waiting", "reason"]);
            self.status = match terminated {
                Some(terminated) => format!("Init:{}", termination(terminated)),
                None if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
                None => format!("Init:{index}/{}", specs.len()),
            };
            sidecars.is_done = false;
            break;
        }
        sidecars
    }

    /// Goes through the containers from the last to the first, so that the first has the last word.
    fn read_main(&mut self, pod: &Value) {
        let mut running = false;
        let mut failure = None;
        for container in list(pod, &["status", "containerStatuses"]).iter().rev() {
            self.count_restarts(container);
            let waiting = text(container, &["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                self.status = waiting.to_owned();
            } else if let Some(terminated) = at(container, &["state", "terminated"]) {
                self.status = termination(terminated);
                if exit_code(terminated) != 0 {
                    failure = Some(self.status.clone());
                }
            } else if flag(container, &["ready"]) && at(container, &["state", "running"]).is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.status == "Completed" {
            if running && is_true(pod, "Ready") {
                self.status = "Running".to_owned();
            } else if let Some(failure) = failure {
                self.status = failure;
            } else if running {
                self.status = "NotReady".to_owned();
            }
        }
    }

    fn count_restarts(&mut self, container: &Value) {
        self.restarts += int(container, &["restartCount"]).unwrap_or(0);
        self.last_restart = self.last_restart.max(last_finish(container));
    }
}

/// What the init containers that go on running have seen.
struct Sidecars {
    is_done: bool,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

fn is_sidecar(container: &Value) -> bool {
    text(container, &["restartPolicy"]) == "Always"
}

fn last_finish(container: &Value) -> Option<Timestamp> {
    when(container, &["lastState", "terminated", "finishedAt"])
}

fn exit_code(terminated: &Value) -> i64 {
    int(terminated, &["exitCode"]).unwrap_or(0)
}

fn termination(terminated: &Value) -> String {
    match (text(terminated, &["reason"]), int(terminated, &["signal"]).unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", exit_code(terminated)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::testing::row;

    /// Ready, status and restarts of a Pod with this status.
    fn shown(status: Value, spec: Value) -> [String; 3] {
        let mut pod = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec});
        pod["status"] = status;
        let cells = row(&POD, &pod);
        [cells[1].clone(), cells[2].clone(), cells[3].clone()]
    }

    fn one() -> Value {
        json!({"containers": [{"name": "a"}]})
    }

    #[test]
    fn a_running_pod_is_shown_with_its_last_restart() {
        let status = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}], "containerStatuses": [{
            "name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:50:00Z"}}}]});
        let mut spec = one();
        spec["nodeName"] = json!("node");
        let pod = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status});
        assert_eq!(
            row(&POD, &pod),
            [
                "a",
                "1/1",
                "Running",
                "2 (10m ago)",
                "60m",
                "10.0.0.2",
                "node",
                "<none>",
                "<none>"
            ]
        );
    }

    #[test]
    fn a_container_that_waits_says_why() {
        let status = json!({"phase": "Pending", "containerStatuses": [{
            "name": "a", "restartCount": 0, "state": {"waiting": {"reason": "ErrImageNeverPull"}}}]});
        assert_eq!(shown(status, one()), ["0/1", "ErrImageNeverPull", "0"]);
        let status = json!({"phase": "Running", "containerStatuses": [{
            "name": "a", "restartCount": 5, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]});
        assert_eq!(shown(status, one()), ["0/1", "CrashLoopBackOff", "5"]);
    }

    #[test]
    fn init_containers_come_first() {
        let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]});
        let status = |state: Value| {
            json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "restartCount": 1, "state": state}]})
        };
        assert_eq!(
            shown(status(json!({"running": {}})), spec.clone()),
            ["0/1", "Init:1/2", "1"]
        );
        assert_eq!(
            shown(status(json!({"waiting": {"reason": "PodInitializing"}})), spec.clone())[1],
            "Init:1/2"
        );
        assert_eq!(
            shown(status(json!({"waiting": {"reason": "ErrImagePull"}})), spec.clone())[1],
            "Init:ErrImagePull"
        );
        assert_eq!(
            shown(status(json!({"terminated": {"exitCode": 3}})), spec.clone())[1],
            "Init:ExitCode:3"
        );
        assert_eq!(
            shown(status(json!({"terminated": {"exitCode": 1, "reason": "Error"}})), spec)[1],
            "Init:Error"
        );
    }

    #[test]
    fn sidecars_count_as_containers() {
        let spec = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]});
        let status = json!({"phase": "Running",
            "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
            "containerStatuses": [{"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}}]});
        assert_eq!(shown(status, spec), ["2/2", "Running", "1"]);
    }

    #[test]
    fn a_completed_container_beside_a_running_one_is_not_the_end() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let status = |ready: &str, code: i64| {
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [
                {"name": "a", "state": {"terminated": {"reason": "Completed", "exitCode": 0}}},
                {"name": "b", "ready": true, "state": {"running": {}}},
                {"name": "c", "state": {"terminated": {"reason": if code == 0 { "Completed" } else { "Error" }, "exitCode": code}}},
            ]})
        };
        assert_eq!(shown(status("True", 0), spec.clone())[1], "Running");
        assert_eq!(shown(status("False", 0), spec.clone())[1], "NotReady");
        assert_eq!(shown(status("False", 1), spec)[1], "Error");
    }

    #[test]
    fn a_pod_that_goes_is_terminating_until_it_is_done() {
        let mut pod =
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z"}, "status": {"phase": "Running"}});
        assert_eq!(row(&POD, &pod)[2], "Terminating");
        pod["status"]["phase"] = json!("Succeeded");
        assert_eq!(row(&POD, &pod)[2], "Succeeded");
        pod["status"] = json!({"phase": "Running", "reason": "NodeLost"});
        assert_eq!(row(&POD, &pod)[2], "Unknown");
    }

    #[test]
    fn a_gated_pod_says_so_and_a_finished_one_is_marked() {
        let status = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]});
        assert_eq!(shown(status, one())[1], "SchedulingGated");
        let conditions = completed(&json!({"status": {"phase": "Failed"}})).unwrap();
        assert_eq!(conditions[0]["message"], "The pod failed.");
    }
}
