use apimachinery::pace::Pace;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};

use super::*;
use crate::runtime::{AdoptedContainer, AdoptedPod, AdoptedState, ContainerConfig, Exit, SandboxConfig, Started};

/// A pod, its state and a clock that the test moves.
struct Life {
    pod: Pod,
    state: PodState,
    now: Timestamp,
    status: PodStatus,
    events: Vec<String>,
}

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn pod(spec: Value) -> Pod {
    let pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u", "generation": 1}, "spec": spec});
    serde_json::from_value(pod).unwrap()
}

fn image() -> ImageInUse {
    ImageInUse {
        name: "i".into(),
        id: "sha256:1".into(),
    }
}

impl Life {
    fn of(spec: Value) -> Self {
        Self::with(pod(spec), PodState::new(start(), Pace::REAL))
    }

    fn with(pod: Pod, state: PodState) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        Self {
            pod,
            state,
            now: start(),
            status,
            events: vec![],
        }
    }

    /// Steps; one line an action, events kept apart.
    fn step(&mut self) -> Vec<String> {
        let mut lines = vec![];
        for action in self.state.step(&self.pod, self.now) {
            match action {
                Action::CreateSandbox => lines.push("sandbox".to_owned()),
                Action::PrepareVolumes => lines.push("volumes".to_owned()),
                Action::Start {
                    name,
                    attempt,
                    may_pull,
                } => {
                    lines.push(format!(
                        "start {name}/{attempt}{}",
                        if may_pull { "" } else { " without a pull" }
                    ));
                }
                Action::RunPreStop { name, .. } => lines.push(format!("preStop {name}")),
                Action::Signal { name, signal, .. } => lines.push(format!("{signal:?} {name}").to_lowercase()),
                Action::Event { reason, message, .. } => self.events.push(format!("{reason}: {message}")),
                Action::Finish => lines.push("finish".to_owned()),
            }
        }
        lines
    }

    fn tell(&mut self, report: Report) -> Vec<String> {
        self.state.apply(&self.pod, report, self.now);
        self.step()
    }

    /// Sandbox and volumes come up.
    fn prepared(spec: Value) -> (Self, Vec<String>) {
        let mut life = Self::of(spec);
        assert_eq!(life.step(), ["sandbox", "volumes"]);
        assert!(life.tell(Report::Sandbox(Ok([10, 244, 0, 2].into()))).is_empty());
        let started = life.tell(Report::Volumes(Ok(())));
        (life, started)
    }

    fn runs(&mut self, name: &str, attempt: u32) -> Vec<String> {
        self.tell(Report::Started {
            name: name.into(),
            attempt,
            since: self.now,
            image: image(),
        })
    }

    fn exits(&mut self, name: &str, attempt: u32, code: i32) -> Vec<String> {
        let how = Terminated {
            code,
            signal: None,
            reason: if code == 0 { "Completed" } else { "Error" }.into(),
            message: String::new(),
            started_at: Some(self.now),
            finished_at: self.now,
        };
        self.tell(Report::Exited {
            name: name.into(),
            attempt,
            how: Some(how),
        })
    }

    fn probe(&mut self, name: &str, kind: ProbeKind, healthy: bool) -> Vec<String> {
        let attempt = self.state.containers[name].attempt.unwrap();
        self.tell(Report::Probe {
            name: name.into(),
            attempt,
            kind,
            healthy,
        })
    }

    fn after(&mut self, seconds: i64) -> Vec<String> {
        self.now = later(self.now, SignedDuration::from_secs(seconds));
        self.step()
    }

    fn deleted(&mut self, grace_seconds: i64) -> Vec<String> {
        self.state.end(Ending::Deleted { grace_seconds }, self.now);
        self.step()
    }

    fn status(&mut self) -> &PodStatus {
        self.status = status::of(&self.pod, &self.state, [127, 0, 0, 1].into(), &self.status, self.now);
        &self.status
    }

    fn phase(&mut self) -> String {
        self.status().phase.clone().unwrap()
    }

    fn container(&mut self, name: &str) -> ContainerStatus {
        let status = self.status();
        let lists = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        lists
            .into_iter()
            .flatten()
            .flatten()
            .find(|status| status.name == name)
            .unwrap()
            .clone()
    }

    fn waiting(&mut self, name: &str) -> (String, String) {
        let waiting = self.container(name).state.unwrap().waiting.unwrap();
        (waiting.reason.unwrap(), waiting.message.unwrap_or_default())
    }

    fn condition(&mut self, name: &str) -> (String, String, String) {
        let condition = self
            .status()
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == name)
            .unwrap()
            .clone();
        (
            condition.status,
            condition.reason.unwrap_or_default(),
            condition.message.unwrap_or_default(),
        )
    }

    fn wakes_in(&self) -> Option<i64> {
        self.state
            .wake_at(&self.pod, self.now)
            .map(|at| at.duration_since(self.now).as_secs())
    }
}

fn two() -> Value {
    json!({"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]})
}

fn one(extra: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "a", "image": "i"}]});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

#[test]
fn sandbox_and_volumes_come_up_side_by_side_and_then_every_container() {
    let (mut life, started) = Life::prepared(two());
    assert_eq!(started, ["start a/0", "start b/0"]);
    assert_eq!(life.phase(), "Pending");
    assert_eq!(life.waiting("a").0, "ContainerCreating");
    assert_eq!(life.condition("PodReadyToStartContainers").0, "True");
    life.runs("a", 0);
    assert_eq!(life.phase(), "Pending");
    let unready = "containers with unready status: [b]".to_owned();
    assert_eq!(
        life.condition("Ready"),
        ("False".into(), "ContainersNotReady".into(), unready)
    );
    life.runs("b", 0);
    assert_eq!(life.phase(), "Running");
    assert_eq!(life.condition("Ready").0, "True");
    assert_eq!(life.condition("ContainersReady").0, "True");
    assert_eq!(life.status().pod_ip.as_deref(), Some("10.244.0.2"));
}

#[test]
fn init_containers_run_one_after_the_other_and_sidecars_stay() {
    let (mut life, started) = Life::prepared(one(json!({"initContainers": [
        {"name": "i1"}, {"name": "s", "restartPolicy": "Always", "startupProbe": {}}, {"name": "i2"}]})));
    assert_eq!(started, ["start i1/0"]);
    assert_eq!(life.waiting("a").0, "PodInitializing");
    let incomplete = "containers with incomplete status: [i1 s i2]".to_owned();
    assert_eq!(
        life.condition("Initialized"),
        ("False".into(), "ContainersNotInitialized".into(), incomplete)
    );
    assert!(life.runs("i1", 0).is_empty());
    assert_eq!(life.exits("i1", 0, 0), ["start s/0"]);
    assert!(life.runs("s", 0).is_empty());
    assert_eq!(life.probe("s", ProbeKind::Startup, true), ["start i2/0"]);
    life.runs("i2", 0);
    assert_eq!(life.exits("i2", 0, 0), ["start a/0"]);
    life.runs("a", 0);
    assert_eq!(life.condition("Initialized").0, "True");
    assert_eq!(life.phase(), "Running");
    // A sidecar that dies is started again and holds nobody up.
    assert_eq!(life.exits("s", 0, 1), ["start s/1"]);
    assert_eq!(life.phase(), "Running");
}

#[test]
fn a_failed_init_container_fails_the_pod_or_is_tried_again() {
    let spec = |policy: &str| one(json!({"restartPolicy": policy, "initContainers": [{"name": "i"}]}));
    let (mut never, _) = Life::prepared(spec("Never"));
    never.runs("i", 0);
    assert_eq!(never.exits("i", 0, 1), ["finish"]);
    assert_eq!(never.phase(), "Failed");
    let (mut always, _) = Life::prepared(spec("Always"));
    always.runs("i", 0);
    assert_eq!(always.exits("i", 0, 1), ["start i/1"]);
    assert_eq!(always.phase(), "Pending");
}

#[test]
fn a_crashing_container_is_restarted_at_once_and_then_ever_later() {
    let (mut life, _) = Life::prepared(one(json!({})));
    life.runs("a", 0);
    assert_eq!(life.exits("a", 0, 1), ["start a/1"]);
    for (attempt, delay, text) in [
        (1, 10, "10s"),
        (2, 20, "20s"),
        (3, 40, "40s"),
        (4, 80, "1m20s"),
        (5, 160, "2m40s"),
        (6, 300, "5m0s"),
        (7, 300, "5m0s"),
    ] {
        life.runs("a", attempt);
        assert!(life.exits("a", attempt, 1).is_empty());
        let message = format!("back-off {text} restarting failed container=a pod=p_d(u)");
        assert_eq!(life.waiting("a"), ("CrashLoopBackOff".into(), message));
        let status = life.container("a");
        assert_eq!(
            (
                status.restart_count,
                status.last_state.unwrap().terminated.unwrap().exit_code
            ),
            (attempt as i32, 1)
        );
        assert_eq!(life.phase(), "Running");
        assert_eq!(life.wakes_in(), Some(delay));
        assert!(life.after(delay - 1).is_empty());
        assert_eq!(life.after(1), [format!("start a/{}", attempt + 1)]);
    }
    assert_eq!(
        life.events[0],
        "BackOff: Back-off restarting failed container a in pod p_d(u)"
    );
}

#[test]
fn what_comes_after_an_exit_depends_on_policy_and_code() {
    for (policy, code, restarted, phase) in [
        ("Always", 0, true, "Running"),
        ("Always", 1, true, "Running"),
        ("OnFailure", 0, false, "Succeeded"),
        ("OnFailure", 3, true, "Running"),
        ("Never", 0, false, "Succeeded"),
        ("Never", 3, false, "Failed"),
    ] {
        let (mut life, _) = Life::prepared(one(json!({"restartPolicy": policy})));
        life.runs("a", 0);
        let next = life.exits("a", 0, code);
        assert_eq!(
            next,
            [if restarted { "start a/1" } else { "finish" }],
            "{policy} {code}"
        );
        assert_eq!(life.phase(), phase, "{policy} {code}");
    }
}

#[test]
fn a_succeeded_pod_says_completed_everywhere() {
    let (mut life, _) = Life::prepared(one(json!({"restartPolicy": "Never"})));
    life.runs("a", 0);
    life.exits("a", 0, 0);
    assert_eq!(
        life.condition("Ready"),
        ("False".into(), "PodCompleted".into(), String::new())
    );
    assert_eq!(life.condition("ContainersReady").1, "PodCompleted");
    assert_eq!(
        life.condition("Initialized"),
        ("True".into(), "PodCompleted".into(), String::new())
    );
    assert_eq!(
        life.container("a").state.unwrap().terminated.unwrap().reason.unwrap(),
        "Completed"
    );
}

#[test]
fn a_rule_of_the_container_outranks_its_policy() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a", "restartPolicy": "Never", "restartPolicyRules": [
        {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]});
    let (mut life, _) = Life::prepared(spec);
    life.runs("a", 0);
    assert_eq!(life.exits("a", 0, 42), ["start a/1"]);
    life.runs("a", 1);
    assert_eq!(life.exits("a", 1, 1), ["finish"]);
}

#[test]
fn deletion_sends_term_then_kill_and_ends_in_a_terminal_phase() {
    let (mut life, _) = Life::prepared(one(json!({})));
    life.runs("a", 0);
    assert_eq!(life.deleted(30), ["stop a"]);
    assert_eq!(life.events, ["Killing: Stopping container a"]);
    assert_eq!(life.phase(), "Running");
    assert!(life.after(29).is_empty());
    assert_eq!(life.after(1), ["kill a"]);
    assert_eq!(life.exits("a", 0, 137), ["finish"]);
    assert_eq!(life.phase(), "Failed");
    assert_eq!(life.condition("Ready").1, "PodFailed");
}

#[test]
fn a_container_that_obeys_ends_its_pod_in_success() {
    let (mut life, _) = Life::prepared(one(json!({})));
    life.runs("a", 0);
    life.deleted(30);
    assert_eq!(life.exits("a", 0, 0), ["finish"]);
    assert_eq!(life.phase(), "Succeeded");
}

#[test]
fn no_grace_still_leaves_two_seconds() {
    let (mut life, _) = Life::prepared(one(json!({})));
    life.runs("a", 0);
    assert_eq!(life.deleted(0), ["stop a"]);
    assert!(life.after(1).is_empty());
    assert_eq!(life.after(1), ["kill a"]);
}

#[test]
fn a_second_deletion_with_less_grace_cuts_the_first_short() {
    let (mut life, _) = Life::prepared(one(json!({})));
    life.runs("a", 0);
    life.deleted(300);
    assert!(life.deleted(5).is_empty());
    assert_eq!(life.wakes_in(), Some(5));
}

#[test]
fn the_pre_stop_hook_runs_inside_the_grace_period() {
    let spec = || json!({"containers": [{"name": "a", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}]});
    let (mut life, _) = Life::prepared(spec());
    life.runs("a", 0);
    assert_eq!(life.deleted(30), ["preStop a"]);
    life.after(10);
    assert_eq!(
        life.tell(Report::PreStop {
            name: "a".into(),
            attempt: 0
        }),
        ["stop a"]
    );
    assert_eq!(life.wakes_in(), Some(20));

    let (mut overrun, _) = Life::prepared(spec());
    overrun.runs("a", 0);
    overrun.deleted(5);
    assert_eq!(overrun.after(5), ["stop a"]);
    assert_eq!(overrun.wakes_in(), Some(2));
    assert_eq!(overrun.after(2), ["kill a"]);

    let (mut without, _) = Life::prepared(spec());
    without.runs("a", 0);
    assert_eq!(without.deleted(0), ["stop a"]);
}

#[test]
fn sidecars_are_ended_last_and_in_reverse() {
    let (mut life, _) = Life::prepared(one(json!({"initContainers": [
        {"name": "s1", "restartPolicy": "Always"},
        {"name": "s2", "restartPolicy": "Always", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]})));
    life.runs("s1", 0);
    life.runs("s2", 0);
    life.runs("a", 0);
    assert_eq!(
        life.deleted(30),
        ["stop a", "prestop s2"].map(|s| s.replace("prestop", "preStop"))
    );
    life.after(1);
    assert!(
        life.tell(Report::PreStop {
            name: "s2".into(),
            attempt: 0
        })
        .is_empty()
    );
    assert_eq!(life.exits("a", 0, 0), ["stop s2"]);
    assert_eq!(life.exits("s2", 0, 0), ["stop s1"]);
    assert_eq!(life.exits("s1", 0, 143), ["finish"]);
    assert_eq!(life.phase(), "Succeeded");
}

#[test]
fn sidecars_end_when_the_work_is_done() {
    let (mut life, _) = Life::prepared(one(json!({"restartPolicy": "OnFailure",
        "initContainers": [{"name": "s", "restartPolicy": "Always"}]})));
    life.runs("s", 0);
    life.runs("a", 0);
    assert_eq!(life.exits("a", 0, 0), ["stop s"]);
    assert_eq!(life.phase(), "Running");
    assert_eq!(life.exits("s", 0, 143), ["finish"]);
    assert_eq!(life.phase(), "Succeeded");
}

#[test]
fn a_failed_liveness_probe_restarts_with_its_own_grace() {
    let (mut life, _) = Life::prepared(json!({"containers": [{"name": "a",
        "livenessProbe": {"terminationGracePeriodSeconds": 7}}]}));
    life.runs("a", 0);
    assert_eq!(life.probe("a", ProbeKind::Liveness, false), ["stop a"]);
    assert_eq!(
        life.events,
        ["Killing: Container a failed liveness probe, will be restarted"]
    );
    assert_eq!(life.wakes_in(), Some(7));
    assert_eq!(life.exits("a", 0, 143), ["start a/1"]);
}

#[test]
fn readiness_needs_startup_first() {
    let (mut life, _) =
        Life::prepared(json!({"containers": [{"name": "a", "startupProbe": {}, "readinessProbe": {}}]}));
    life.runs("a", 0);
    assert_eq!(
        (life.container("a").started, life.container("a").ready),
        (Some(false), false)
    );
    life.probe("a", ProbeKind::Startup, true);
    assert_eq!(
        (life.container("a").started, life.container("a").ready),
        (Some(true), false)
    );
    life.probe("a", ProbeKind::Readiness, true);
    assert!(life.container("a").ready);
    life.probe("a", ProbeKind::Readiness, false);
    assert!(!life.container("a").ready);
}

#[test]
fn the_next_container_waits_for_a_post_start_hook() {
    let (mut life, started) = Life::prepared(json!({"containers": [
        {"name": "a", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}, {"name": "b"}]}));
    assert_eq!(started, ["start a/0"]);
    assert!(life.runs("a", 0).is_empty());
    assert!(!life.container("a").ready);
    let done = Report::PostStart {
        name: "a".into(),
        attempt: 0,
        succeeded: true,
    };
    assert_eq!(life.tell(done), ["start b/0"]);
    assert!(life.container("a").ready);
}

#[test]
fn a_failed_post_start_hook_kills_the_container() {
    let (mut life, _) = Life::prepared(json!({"containers": [
        {"name": "a", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}]}));
    life.runs("a", 0);
    let failed = Report::PostStart {
        name: "a".into(),
        attempt: 0,
        succeeded: false,
    };
    assert_eq!(life.tell(failed), ["stop a"]);
    assert_eq!(life.events, ["Killing: FailedPostStartHook"]);
}

#[test]
fn the_deadline_fails_the_pod() {
    let (mut life, _) = Life::prepared(one(
        json!({"activeDeadlineSeconds": 60, "terminationGracePeriodSeconds": 10}),
    ));
    life.runs("a", 0);
    assert_eq!(life.wakes_in(), Some(60));
    assert_eq!(life.after(60), ["stop a"]);
    assert_eq!(life.exits("a", 0, 0), ["finish"]);
    let status = life.status().clone();
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
    assert_eq!(
        status.message.as_deref(),
        Some("Pod was active on the node longer than the specified deadline")
    );
}

#[test]
fn an_image_that_cannot_be_pulled_alternates_between_error_and_backoff() {
    let (mut life, _) = Life::prepared(one(json!({})));
    let fail = |life: &mut Life, reason| {
        let failure = StartFailure::new(reason, "text");
        life.tell(Report::StartFailed {
            name: "a".into(),
            attempt: 0,
            failure,
        })
    };
    assert!(fail(&mut life, "ErrImagePull").is_empty());
    assert_eq!(life.waiting("a"), ("ErrImagePull".into(), "text".into()));
    assert_eq!(life.after(1), ["start a/0 without a pull"]);
    assert!(fail(&mut life, "ImagePullBackOff").is_empty());
    assert_eq!(life.phase(), "Pending");
    assert_eq!(life.after(10), ["start a/0"]);
    fail(&mut life, "ErrImagePull");
    assert_eq!(life.after(1), ["start a/0 without a pull"]);
    fail(&mut life, "ImagePullBackOff");
    assert_eq!(life.after(10), ["start a/0 without a pull"]);
}

#[test]
fn a_program_that_cannot_be_executed_counts_as_a_crash() {
    let (mut life, _) = Life::prepared(one(json!({"restartPolicy": "Never"})));
    let ended = Terminated {
        code: 128,
        signal: None,
        reason: "StartError".into(),
        message: "no such file".into(),
        started_at: None,
        finished_at: life.now,
    };
    let failure = StartFailure {
        reason: "RunContainerError",
        message: String::new(),
        ended: Some(ended),
    };
    assert_eq!(
        life.tell(Report::StartFailed {
            name: "a".into(),
            attempt: 0,
            failure
        }),
        ["finish"]
    );
    assert_eq!(life.phase(), "Failed");
    let ended = life.container("a").state.unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (128, Some("StartError")));
}

#[test]
fn a_dead_sandbox_is_replaced_and_init_containers_run_again() {
    let (mut life, _) = Life::prepared(one(json!({"initContainers": [{"name": "i"}]})));
    life.runs("i", 0);
    life.exits("i", 0, 0);
    life.runs("a", 0);
    assert_eq!(
        life.tell(Report::SandboxGone { name: "a".into() }),
        ["sandbox", "volumes"]
    );
    life.tell(Report::Volumes(Ok(())));
    assert_eq!(life.tell(Report::Sandbox(Ok([10, 244, 0, 3].into()))), ["start i/1"]);
    let last = life.container("a").state.unwrap().terminated.unwrap();
    assert_eq!(
        (last.exit_code, last.reason.as_deref()),
        (137, Some("ContainerStatusUnknown"))
    );
    life.runs("i", 1);
    assert_eq!(life.exits("i", 1, 0), ["start a/1"]);
}

#[test]
fn another_image_in_the_spec_replaces_the_container() {
    let (mut life, _) = Life::prepared(one(json!({})));
    life.runs("a", 0);
    life.pod.spec.as_mut().unwrap().containers[0].image = Some("i:2".into());
    assert_eq!(life.step(), ["stop a"]);
    assert_eq!(
        life.events,
        ["Killing: Container a definition changed, will be restarted"]
    );
    assert_eq!(life.exits("a", 0, 143), ["start a/1"]);
}

#[test]
fn what_is_due_but_blocked_does_not_wake_anybody() {
    let (mut life, _) = Life::prepared(json!({"containers": [
        {"name": "a", "image": "i", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}, {"name": "b", "image": "i"}]}));
    life.runs("a", 0);
    let succeeded = Report::PostStart {
        name: "a".into(),
        attempt: 0,
        succeeded: true,
    };
    life.tell(succeeded);
    let failure = StartFailure::new("CreateContainerConfigError", "text");
    life.tell(Report::StartFailed {
        name: "b".into(),
        attempt: 0,
        failure,
    });
    assert_eq!(life.wakes_in(), Some(10));
    assert_eq!(life.exits("a", 0, 1), ["start a/1"]);
    life.runs("a", 1);
    assert!(life.after(10).is_empty());
    assert_eq!(life.wakes_in(), None);
    assert_eq!(
        life.tell(Report::PostStart {
            name: "a".into(),
            attempt: 1,
            succeeded: true
        }),
        ["start b/0"]
    );
}

#[test]
fn a_changed_config_map_makes_what_failed_for_want_of_it_due() {
    let (mut life, _) = Life::prepared(one(json!({})));
    let failure = StartFailure::new("CreateContainerConfigError", "configmap \"x\" not found");
    life.tell(Report::StartFailed {
        name: "a".into(),
        attempt: 0,
        failure,
    });
    assert!(life.step().is_empty());
    life.state.inputs_changed(life.now);
    assert_eq!(life.step(), ["start a/0"]);
}

#[test]
fn a_pod_that_never_ran_is_not_given_a_new_sandbox_for_nothing() {
    let (mut life, _) = Life::prepared(one(json!({"restartPolicy": "Never"})));
    life.runs("a", 0);
    assert_eq!(life.tell(Report::SandboxGone { name: "a".into() }), ["finish"]);
    assert_eq!(life.phase(), "Failed");
}

#[test]
fn a_pod_deleted_before_it_began_fails() {
    let mut life = Life::of(two());
    life.step();
    assert!(life.deleted(30).is_empty());
    life.tell(Report::Volumes(Ok(())));
    assert_eq!(life.tell(Report::Sandbox(Ok([10, 244, 0, 2].into()))), ["finish"]);
    assert_eq!(life.phase(), "Failed");
    let ended = life.container("a").state.unwrap().terminated.unwrap();
    assert_eq!(
        (ended.exit_code, ended.reason.as_deref()),
        (137, Some("ContainerStatusUnknown"))
    );
}

#[test]
fn a_node_that_stops_leaves_the_phase_alone() {
    let (mut life, _) = Life::prepared(one(json!({})));
    life.runs("a", 0);
    life.state.end(Ending::NodeStops, life.now);
    assert_eq!(life.step(), ["stop a"]);
    assert_eq!(life.exits("a", 0, 0), ["finish"]);
    assert!(life.container("a").state.unwrap().terminated.is_some());
}

#[test]
fn an_ephemeral_container_runs_once_and_does_not_count() {
    let (mut life, _) = Life::prepared(one(json!({})));
    life.runs("a", 0);
    life.pod.spec.as_mut().unwrap().ephemeral_containers =
        serde_json::from_value(json!([{"name": "debug", "image": "i"}])).unwrap();
    assert_eq!(life.step(), ["start debug/0"]);
    life.runs("debug", 0);
    assert!(life.exits("debug", 0, 1).is_empty());
    assert_eq!(life.phase(), "Running");
    assert!(life.container("debug").state.unwrap().terminated.is_some());
}

fn left(attempt: u32, state: AdoptedState, alive: bool) -> AdoptedPod {
    let config = ContainerConfig {
        name: "a".into(),
        attempt,
        ..Default::default()
    };
    AdoptedPod {
        config: SandboxConfig {
            uid: "u".into(),
            ..Default::default()
        },
        ip: [10, 244, 0, 9].into(),
        alive,
        containers: vec![AdoptedContainer { config, state }],
    }
}

fn told(restarts: i32, ready: bool) -> Pod {
    let mut pod = pod(one(json!({})));
    pod.status = serde_json::from_value(json!({"phase": "Running", "startTime": "2027-01-15T08:00:00Z",
        "containerStatuses": [{"name": "a", "image": "i", "imageID": "x", "ready": ready, "restartCount": restarts, "started": true,
            "state": {"running": {"startedAt": "2027-01-15T08:00:00Z"}}}]}))
    .unwrap();
    pod
}

#[test]
fn a_running_container_is_adopted_as_it_is() {
    let (pod, adopted) = (
        told(3, true),
        left(
            3,
            AdoptedState::Running(Started {
                pid: 7,
                started_at: start(),
            }),
            true,
        ),
    );
    let mut life = Life::with(pod.clone(), restore(&pod, Some(&adopted), start(), Pace::REAL));
    assert_eq!(life.step(), ["volumes"]);
    let status = life.container("a");
    assert_eq!(
        (
            status.restart_count,
            status.ready,
            status.state.unwrap().running.is_some()
        ),
        (3, true, true)
    );
    assert!(life.tell(Report::Volumes(Ok(()))).is_empty());
    assert_eq!(life.status().pod_ip.as_deref(), Some("10.244.0.9"));
}

#[test]
fn a_container_that_vanished_gets_an_unknown_end_and_a_successor() {
    let pod = told(3, true);
    let mut life = Life::with(pod.clone(), restore(&pod, None, start(), Pace::REAL));
    assert_eq!(life.step(), ["sandbox", "volumes"]);
    life.tell(Report::Volumes(Ok(())));
    assert_eq!(life.tell(Report::Sandbox(Ok([10, 244, 0, 2].into()))), ["start a/4"]);
    life.runs("a", 4);
    let status = life.container("a");
    let last = status.last_state.unwrap().terminated.unwrap();
    assert_eq!(
        (status.restart_count, last.exit_code, last.reason.as_deref()),
        (4, 137, Some("ContainerStatusUnknown"))
    );
}

#[test]
fn an_exit_that_nobody_reported_is_reported_after_adoption() {
    let exit = Exit {
        code: 5,
        signal: None,
        oom_killed: false,
        started_at: start(),
        finished_at: start(),
        message: "bye".into(),
    };
    let (pod, adopted) = (told(0, true), left(0, AdoptedState::Exited(exit), true));
    let mut life = Life::with(pod.clone(), restore(&pod, Some(&adopted), start(), Pace::REAL));
    life.step();
    assert_eq!(life.tell(Report::Volumes(Ok(()))), ["start a/1"]);
    life.runs("a", 1);
    let last = life.container("a").last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.message.as_deref()), (5, Some("bye")));
}

#[test]
fn a_finished_pod_stays_finished_after_a_restart() {
    let mut pod = pod(one(json!({"restartPolicy": "Never"})));
    pod.status = serde_json::from_value(
        json!({"phase": "Succeeded", "containerStatuses": [{"name": "a", "image": "i", "imageID": "x",
        "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
    )
    .unwrap();
    let mut life = Life::with(pod.clone(), restore(&pod, None, start(), Pace::REAL));
    assert_eq!(life.step(), ["finish"]);
    assert_eq!(life.phase(), "Succeeded");
}

#[test]
fn transition_times_move_only_when_a_condition_changes() {
    let (mut life, _) = Life::prepared(one(json!({})));
    life.runs("a", 0);
    let time = |life: &mut Life, name: &str| {
        life.status()
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == name)
            .unwrap()
            .last_transition_time
            .clone()
            .unwrap()
            .0
    };
    assert_eq!(time(&mut life, "Ready"), start());
    life.after(5);
    assert_eq!(time(&mut life, "Ready"), start());
    life.exits("a", 0, 1);
    assert_eq!(time(&mut life, "Ready"), later(start(), SignedDuration::from_secs(5)));
    assert_eq!(time(&mut life, "Initialized"), start());
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    let class =
        |resources: Value| status::qos_class(&pod(json!({"containers": [{"name": "a", "resources": resources}]})));
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    let full = json!({"cpu": "1", "memory": "1Gi"});
    assert_eq!(
        class(json!({"requests": full, "limits": {"cpu": "1000m", "memory": "1024Mi"}})),
        "Guaranteed"
    );
    assert_eq!(class(json!({"limits": full})), "Guaranteed");
    assert_eq!(
        class(json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": full})),
        "Burstable"
    );
}
