//! Pod: the one word that sums up its containers, and how often they restarted.

use apimachinery::duration;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::strategy::walk::{self, at};
use crate::table::column::{AGE, Column, NAME, shown, text};
use crate::table::show;

pub(super) static POD: &[Column] = &[
    NAME,
    shown(
        "Ready",
        "Containers that are ready, of those that stay running",
        |pod, _| {
            let summary = Summary::of(pod);
            format!("{}/{}", summary.ready, summary.total).into()
        },
    ),
    shown("Status", "What the containers are doing, in a word", |pod, _| {
        Summary::of(pod).status.into()
    }),
    shown(
        "Restarts",
        "How often containers were restarted, and when last",
        |pod, now| Summary::of(pod).restarts(now).into(),
    ),
    AGE,
    shown("IP", "Address of the pod", |pod, _| {
        let addresses = walk::list(pod, &["status", "podIPs"]);
        let first = addresses.first().map_or("", |address| walk::text(address, &["ip"]));
        show::or(first, "<none>").into()
    })
    .wide(),
    text("Node", "Node the pod is bound to", &["spec", "nodeName"])
        .or("<none>")
        .wide(),
    text(
        "Nominated Node",
        "Node where room is being made for the pod",
        &["status", "nominatedNodeName"],
    )
    .or("<none>")
    .wide(),
    shown("Readiness Gates", "Readiness gates that are open, of all", |pod, _| {
        readiness_gates(pod).into()
    })
    .wide(),
];

/// The condition of the row of a pod that has ended.
pub(in crate::table) fn completed(pod: &Value) -> Option<Value> {
    let (reason, message) = match walk::text(pod, &["status", "phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

/// What is said of a pod's containers taken together.
struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: Restarts,
}

/// Restarts counted so far and the end of the last run before one.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += walk::int(container, &["restartCount"]).unwrap_or_default();
        self.last = self
            .last
            .max(show::time(container, &["lastState", "terminated", "finishedAt"]));
    }
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let sidecars = || {
            let init = walk::list(pod, &["spec", "initContainers"]).iter();
            init.filter(|container| walk::text(container, &["restartPolicy"]) == "Always")
        };
        let is_sidecar = |status: &Value| {
            let name = walk::text(status, &["name"]);
            sidecars().any(|container| walk::text(container, &["name"]) == name)
        };
        let mut summary = Self {
            ready: 0,
            total: walk::list(pod, &["spec", "containers"]).len() + sidecars().count(),
            status: phase_or_reason(pod).to_owned(),
            restarts: Restarts::default(),
        };

        // Once the pod is initialized, what ended with the initialization no longer counts; sidecars do.
        let mut of_sidecars = Restarts::default();
        let mut initializing = false;
        for (i, container) in walk::list(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
            let sidecar = is_sidecar(container);
            summary.restarts.add(container);
            if sidecar {
                of_sidecars.add(container);
            }
            if succeeded(container) {
                continue;
            }
            if sidecar && walk::flag(container, &["started"]) {
                summary.ready += usize::from(walk::flag(container, &["ready"]));
                continue;
            }
            initializing = true;
            summary.status = initializing_with(pod, container, i);
            break;
        }
        if !initializing || show::is_true(pod, "Initialized") {
            summary.restarts = of_sidecars;
            summary.run(pod);
        }

        if show::is_deleting(pod) {
            let phase = walk::text(pod, &["status", "phase"]);
            if walk::text(pod, &["status", "reason"]) == "NodeLost" {
                "Unknown".clone_into(&mut summary.status);
            } else if !matches!(phase, "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut summary.status);
            }
        }
        summary
    }

    /// Of the containers that are not init containers, the first one with something to say gives the status.
    fn run(&mut self, pod: &Value) {
        let mut running = false;
        let mut failure = None;
        for container in walk::list(pod, &["status", "containerStatuses"]).iter().rev() {
            self.restarts.add(container);
            let waiting = walk::text(container, &["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.status);
            } else if let Some(terminated) = at(container, &["state", "terminated"]) {
                self.status = end_of(terminated);
                if walk::int(terminated, &["exitCode"]).unwrap_or_default() != 0 {
                    failure = Some(self.status.clone());
                }
            } else if walk::flag(container, &["ready"]) && at(container, &["state", "running"]).is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.status == "Completed" {
            if running && show::is_true(pod, "Ready") {
                "Running".clone_into(&mut self.status);
            } else if let Some(failure) = failure {
                self.status = failure;
            } else if running {
                "NotReady".clone_into(&mut self.status);
            }
        }
    }

    fn restarts(&self, now: Timestamp) -> String {
        let Restarts { count, last } = self.restarts;
        match last {
            Some(last) if count != 0 => format!("{count} ({} ago)", duration::age(Some(last), now)),
            _ => count.to_string(),
        }
    }
}

fn phase_or_reason(pod: &Value) -> &str {
    let gated = walk::list(pod, &["status", "conditions"]).iter().any(|condition| {
        walk::text(condition, &["type"]) == "PodScheduled" && walk::text(condition, &["reason"]) == "SchedulingGated"
    });
    if gated {
        return "SchedulingGated";
    }
    show::or(
        walk::text(pod, &["status", "reason"]),
        walk::text(pod, &["status", "phase"]),
    )
}

fn succeeded(container: &Value) -> bool {
    at(container, &["state", "terminated"])
        .is_some_and(|terminated| walk::int(terminated, &["exitCode"]).unwrap_or_default() == 0)
}

/// The status while init container `i` is the one that is waited for.
fn initializing_with(pod: &Value, container: &Value, i: usize) -> String {
    if let Some(terminated) = at(container, &["state", "terminated"]) {
        return format!("Init:{}", end_of(terminated));
    }
    match walk::text(container, &["state", "waiting", "reason"]) {
        "" | "PodInitializing" => format!("Init:{i}/{}", walk::list(pod, &["spec", "initContainers"]).len()),
        reason => format!("Init:{reason}"),
    }
}

/// Why a container ended: `Error`, `Signal:9`, `ExitCode:3`.
fn end_of(terminated: &Value) -> String {
    let reason = walk::text(terminated, &["reason"]);
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match walk::int(terminated, &["signal"]).unwrap_or_default() {
        0 => format!("ExitCode:{}", walk::int(terminated, &["exitCode"]).unwrap_or_default()),
        signal => format!("Signal:{signal}"),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = walk::list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| show::is_true(pod, walk::text(gate, &["conditionType"])));
    format!("{}/{}", open.count(), gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::testing::{headings, row};

    /// Name, Ready, Status, Restarts of a pod `p` made 90 s ago.
    fn shown(spec: &Value, status: &Value) -> String {
        shown_of(&json!({
            "metadata": {"name": "p", "creationTimestamp": "2026-01-02T11:58:30Z"}, "spec": spec, "status": status,
        }))
    }

    fn shown_of(pod: &Value) -> String {
        let row = row("v1", "Pod", pod);
        let (narrow, _) = row.split_once(" | ").unwrap();
        narrow
            .strip_prefix("p  ")
            .unwrap()
            .strip_suffix("  90s")
            .unwrap()
            .to_owned()
    }

    fn containers(n: usize) -> Value {
        json!({"containers": (0..n).map(|i| json!({"name": format!("c{i}")})).collect::<Vec<_>>()})
    }

    fn with_init(init: &Value) -> Value {
        json!({"initContainers": init, "containers": [{"name": "c0"}]})
    }

    fn running() -> Value {
        json!({"ready": true, "started": true, "state": {"running": {"startedAt": "2026-01-02T11:59:00Z"}}})
    }

    fn waiting(reason: &str) -> Value {
        json!({"ready": false, "state": {"waiting": {"reason": reason}}})
    }

    fn ended(code: i32, reason: &str) -> Value {
        json!({"ready": false, "state": {"terminated": {"exitCode": code, "reason": reason}}})
    }

    #[test]
    fn the_headings_are_kubectls() {
        let expected = "Name  Ready  Status  Restarts  Age | IP  Node  Nominated Node  Readiness Gates";
        assert_eq!(headings("v1", "Pod"), expected);
    }

    #[test]
    fn a_pod_that_nobody_has_seen_yet_is_pending() {
        assert_eq!(shown(&containers(2), &json!({"phase": "Pending"})), "0/2  Pending  0");
    }

    #[test]
    fn wide_cells_tell_where_the_pod_is() {
        let pod = json!({
            "metadata": {"name": "p", "creationTimestamp": "2026-01-02T11:58:30Z"},
            "spec": {"containers": [{"name": "c"}], "nodeName": "k8slab", "readinessGates":
                [{"conditionType": "a"}, {"conditionType": "b"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.244.0.7"}], "containerStatuses": [running()],
                "conditions": [{"type": "a", "status": "True"}, {"type": "b", "status": "False"}]},
        });
        assert_eq!(
            row("v1", "Pod", &pod),
            "p  1/1  Running  0  90s | 10.244.0.7  k8slab  <none>  1/2"
        );
        let nowhere = row("v1", "Pod", &json!({"metadata": {"name": "p"}}));
        assert_eq!(nowhere, "p  0/0    0  <unknown> | <none>  <none>  <none>  <none>");
    }

    #[test]
    fn gates_and_reasons_go_before_the_phase() {
        let gated = json!({"phase": "Pending", "conditions":
            [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]});
        assert_eq!(shown(&containers(1), &gated), "0/1  SchedulingGated  0");
        let evicted = json!({"phase": "Failed", "reason": "Evicted"});
        assert_eq!(shown(&containers(1), &evicted), "0/1  Evicted  0");
    }

    #[test]
    fn a_container_that_waits_gives_the_status() {
        let creating = json!({"phase": "Pending", "containerStatuses": [waiting("ContainerCreating")]});
        assert_eq!(shown(&containers(1), &creating), "0/1  ContainerCreating  0");
        // Of two, the first.
        let both =
            json!({"phase": "Pending", "containerStatuses": [waiting("ErrImagePull"), waiting("ImagePullBackOff")]});
        assert_eq!(shown(&containers(2), &both), "0/2  ErrImagePull  0");
    }

    #[test]
    fn a_crash_loop_tells_when_it_last_crashed() {
        let mut crashing = waiting("CrashLoopBackOff");
        crashing["restartCount"] = json!(3);
        crashing["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": "2026-01-02T11:57:00Z"}});
        let mut other = running();
        other["restartCount"] = json!(1);
        other["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": "2026-01-02T11:30:00Z"}});
        let status = json!({"phase": "Running", "containerStatuses": [other, crashing]});
        assert_eq!(shown(&containers(2), &status), "1/2  CrashLoopBackOff  4 (3m ago)");
    }

    #[test]
    fn restarts_without_a_time_are_a_number_alone() {
        let mut container = running();
        container["restartCount"] = json!(2);
        let status = json!({"phase": "Running", "containerStatuses": [container]});
        assert_eq!(shown(&containers(1), &status), "1/1  Running  2");
    }

    #[test]
    fn an_ended_container_says_how() {
        for (container, expected) in [
            (ended(0, "Completed"), "Completed"),
            (ended(1, "Error"), "Error"),
            (ended(137, "OOMKilled"), "OOMKilled"),
            (ended(3, ""), "ExitCode:3"),
            (
                json!({"state": {"terminated": {"exitCode": 137, "signal": 9}}}),
                "Signal:9",
            ),
        ] {
            let status = json!({"phase": "Running", "containerStatuses": [container]});
            assert_eq!(shown(&containers(1), &status), format!("0/1  {expected}  0"));
        }
    }

    #[test]
    fn completed_gives_way_to_what_still_runs_or_failed() {
        let of = |containers_of: &[Value], ready: &str| {
            let status = json!({"phase": "Running", "containerStatuses": containers_of,
                "conditions": [{"type": "Ready", "status": ready}]});
            shown(&containers(containers_of.len()), &status)
        };
        let done = || ended(0, "Completed");
        assert_eq!(of(&[done(), running()], "True"), "1/2  Running  0");
        assert_eq!(of(&[done(), running()], "False"), "1/2  NotReady  0");
        assert_eq!(of(&[done(), ended(1, "Error")], "False"), "0/2  Error  0");
        assert_eq!(of(&[done(), running(), ended(2, "")], "False"), "1/3  ExitCode:2  0");
        assert_eq!(of(&[done(), done()], "False"), "0/2  Completed  0");
    }

    #[test]
    fn init_containers_are_counted_until_one_does_not_end_well() {
        let spec = with_init(&json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]));
        let of = |init: Value| shown(&spec, &json!({"phase": "Pending", "initContainerStatuses": init}));
        assert_eq!(of(json!([waiting("PodInitializing")])), "0/1  Init:0/3  0");
        assert_eq!(of(json!([ended(0, "Completed"), running()])), "0/1  Init:1/3  0");
        assert_eq!(
            of(json!([ended(0, "Completed"), waiting("CrashLoopBackOff")])),
            "0/1  Init:CrashLoopBackOff  0"
        );
        assert_eq!(of(json!([ended(1, "Error")])), "0/1  Init:Error  0");
        assert_eq!(of(json!([ended(7, "")])), "0/1  Init:ExitCode:7  0");
        assert_eq!(
            of(json!([{"state": {"terminated": {"exitCode": 143, "signal": 15}}}])),
            "0/1  Init:Signal:15  0"
        );
    }

    #[test]
    fn restarts_of_init_containers_are_forgotten_when_the_pod_runs() {
        let spec = with_init(&json!([{"name": "a"}]));
        let mut init = waiting("CrashLoopBackOff");
        init["restartCount"] = json!(2);
        init["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": "2026-01-02T11:59:00Z"}});
        let status = json!({"phase": "Pending", "initContainerStatuses": [init]});
        assert_eq!(shown(&spec, &status), "0/1  Init:CrashLoopBackOff  2 (60s ago)");
        init = ended(0, "Completed");
        init["restartCount"] = json!(2);
        let status = json!({"phase": "Running", "initContainerStatuses": [init], "containerStatuses": [running()]});
        assert_eq!(shown(&spec, &status), "1/1  Running  0");
    }

    #[test]
    fn sidecars_count_as_containers() {
        let spec = with_init(&json!([{"name": "mesh", "restartPolicy": "Always"}, {"name": "setup"}]));
        let mut mesh = running();
        mesh["name"] = json!("mesh");
        mesh["restartCount"] = json!(1);
        mesh["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": "2026-01-02T11:50:00Z"}});
        let mut setup = ended(0, "Completed");
        setup["name"] = json!("setup");
        let status =
            json!({"phase": "Running", "initContainerStatuses": [mesh, setup], "containerStatuses": [running()]});
        assert_eq!(shown(&spec, &status), "2/2  Running  1 (10m ago)");
        // Not started yet: it is waited for.
        let status = json!({"phase": "Pending", "initContainerStatuses": [{"name": "mesh", "started": false,
            "state": {"running": {}}}]});
        assert_eq!(shown(&spec, &status), "0/2  Init:0/2  0");
    }

    #[test]
    fn an_initialized_pod_whose_sidecar_crashes_still_shows_its_containers() {
        let spec = with_init(&json!([{"name": "mesh", "restartPolicy": "Always"}]));
        let mut mesh = waiting("CrashLoopBackOff");
        mesh["name"] = json!("mesh");
        let status = json!({"phase": "Running", "initContainerStatuses": [mesh], "containerStatuses": [running()],
            "conditions": [{"type": "Initialized", "status": "True"}]});
        assert_eq!(shown(&spec, &status), "1/2  Init:CrashLoopBackOff  0");
    }

    #[test]
    fn deletion_is_shown_until_the_pod_has_ended() {
        let of = |status: Value| {
            shown_of(&json!({
                "metadata": {"name": "p", "creationTimestamp": "2026-01-02T11:58:30Z",
                    "deletionTimestamp": "2026-01-02T12:00:25Z"},
                "spec": containers(1), "status": status,
            }))
        };
        let status = json!({"phase": "Running", "containerStatuses": [running()]});
        assert_eq!(of(status), "1/1  Terminating  0");
        let status = json!({"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]});
        assert_eq!(of(status), "0/1  Completed  0");
        assert_eq!(of(json!({"phase": "Running", "reason": "NodeLost"})), "0/1  Unknown  0");
    }

    #[test]
    fn only_an_ended_pod_has_a_condition() {
        let of = |phase: &str| completed(&json!({"status": {"phase": phase}}));
        assert_eq!(of("Running"), None);
        assert_eq!(
            of("Succeeded").unwrap()["message"],
            "The pod has completed successfully."
        );
        let failed = json!({"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."});
        assert_eq!(of("Failed"), Some(failed));
    }
}
