//! The worked examples of Kubernetes' documentation and of its own tests
//! (k/k `pkg/controller/podautoscaler/replica_calculator_test.go`), as data.

use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

/// A pod of a table: `request` and `usage` in thousandths; by default running, ready since long ago and old.
#[derive(Clone, Copy)]
struct P {
    request: i64,
    usage: Option<i64>,
    ready: bool,
    phase: &'static str,
    deleted: bool,
    /// Seconds ago.
    started: i64,
    ready_since: i64,
    /// How long ago the sample's window ended.
    sampled: i64,
}

const LONG: i64 = 100_000;

fn pod(request: i64, usage: impl Into<Option<i64>>) -> P {
    let (phase, ready_since) = ("Running", LONG - 100);
    P {
        request,
        usage: usage.into(),
        ready: true,
        phase,
        deleted: false,
        started: LONG,
        ready_since,
        sampled: 0,
    }
}

/// Never became ready.
fn unready(request: i64, usage: impl Into<Option<i64>>) -> P {
    P {
        ready: false,
        ready_since: LONG,
        ..pod(request, usage)
    }
}

fn phase(phase: &'static str, request: i64, usage: impl Into<Option<i64>>) -> P {
    P {
        phase,
        ready: false,
        ..pod(request, usage)
    }
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

const WINDOW: SignedDuration = SignedDuration::from_secs(15);

fn build(table: &[P], resource: &str) -> (Vec<Arc<Pod>>, Samples) {
    let mut samples = Samples::new();
    let pods = table.iter().enumerate().map(|(index, p)| {
        let name = format!("pod-{index}");
        if let Some(value) = p.usage {
            samples.insert(
                name.clone(),
                Sample {
                    timestamp: ago(p.sampled),
                    window: WINDOW,
                    value,
                },
            );
        }
        let mut pod = Pod::default();
        pod.metadata.name = Some(name);
        pod.metadata.deletion_timestamp = p.deleted.then(|| Time(now()));
        let mut container = Container {
            name: "c".into(),
            ..Default::default()
        };
        let amount = WireQuantity(format!("{}m", p.request));
        container.resources = Some(ResourceRequirements {
            requests: (p.request > 0).then(|| [(resource.to_owned(), amount)].into()),
            ..Default::default()
        });
        pod.spec = Some(PodSpec {
            containers: vec![container],
            ..Default::default()
        });
        let ready = PodCondition {
            type_: "Ready".into(),
            status: if p.ready { "True" } else { "False" }.into(),
            last_transition_time: Some(Time(ago(p.ready_since))),
            ..Default::default()
        };
        pod.status = Some(PodStatus {
            phase: Some(p.phase.into()),
            start_time: Some(Time(ago(p.started))),
            conditions: Some(vec![ready]),
            ..Default::default()
        });
        Arc::new(pod)
    });
    (pods.collect(), samples)
}

fn target(current: i32, pods: &[Arc<Pod>]) -> Target<'_> {
    let youth = Youth {
        now: now(),
        cpu_initialization: SignedDuration::from_mins(5),
        initial_readiness: SignedDuration::from_secs(30),
    };
    Target {
        current,
        pods,
        tolerances: Tolerances::default(),
        youth,
    }
}

fn utilization(current: i32, percent: i32, table: &[P]) -> Result<(i32, i32), Unable> {
    let (pods, samples) = build(table, "cpu");
    let resource = Resource {
        name: "cpu",
        container: None,
    };
    let found = target(current, &pods).for_utilization(resource, samples, percent)?;
    Ok((found.replicas, found.utilization))
}

fn average(current: i32, resource: Option<&str>, per_pod: i64, table: &[P]) -> Result<(i32, i64), Unable> {
    let (pods, samples) = build(table, resource.unwrap_or("cpu"));
    target(current, &pods).for_average(resource, samples, per_pod)
}

#[test]
fn the_documented_examples_come_out() {
    let four = [pod(100, 90); 4];
    assert_eq!(utilization(4, 50, &four), Ok((8, 90)));
    assert_eq!(
        utilization(3, 50, &[pod(100, 54); 3]),
        Ok((3, 54)),
        "within the tolerance"
    );
    assert_eq!(utilization(10, 50, &[pod(100, 20); 10]), Ok((4, 20)));
    let one_silent = |usage| [pod(100, usage), pod(100, usage), pod(100, usage), pod(100, None)];
    assert_eq!(
        utilization(4, 50, &one_silent(100)),
        Ok((6, 100)),
        "missing counts as 0 on the way up"
    );
    assert_eq!(
        utilization(4, 50, &one_silent(20)),
        Ok((4, 20)),
        "missing counts as 100 % on the way down"
    );
    let pending = phase("Pending", 100, None);
    assert_eq!(
        utilization(4, 50, &[pod(100, 100), pod(100, 100), pending, pending]),
        Ok((4, 100))
    );
    let mi = 1024 * 1024 * 1000;
    let memory = [pod(1, 150 * mi), pod(1, 151 * mi)];
    assert_eq!(average(2, Some("memory"), 100 * mi, &memory), Ok((4, 301 * mi / 2)));
}

/// `(current, target %, pods) → (replicas, utilization %)`
#[test]
fn utilization_follows_upstreams_table() {
    for (name, current, percent, table, expected) in [
        (
            "scale up",
            3,
            30,
            vec![pod(1000, 300), pod(1000, 500), pod(1000, 700)],
            (5, 50),
        ),
        (
            "an unready pod softens it",
            3,
            30,
            vec![unready(1000, 300), pod(1000, 500), pod(1000, 700)],
            (4, 60),
        ),
        (
            "unready pods may undo it",
            3,
            30,
            vec![pod(1000, 400), unready(1000, 500), unready(1000, 700)],
            (3, 40),
        ),
        (
            "failed pods do not count",
            2,
            30,
            vec![
                pod(1000, 500),
                pod(1000, 700),
                phase("Failed", 1000, 900),
                phase("Failed", 1000, None),
            ],
            (4, 60),
        ),
        (
            "deleted pods do not count",
            2,
            30,
            vec![
                pod(1000, 500),
                pod(1000, 700),
                P {
                    deleted: true,
                    ..pod(1000, 900)
                },
            ],
            (4, 60),
        ),
        (
            "scale down",
            5,
            50,
            vec![
                pod(1000, 100),
                pod(1000, 300),
                pod(1000, 500),
                pod(1000, 250),
                pod(1000, 250),
            ],
            (3, 28),
        ),
        (
            "unready pods do not hold it up",
            5,
            50,
            vec![
                pod(1000, 100),
                pod(1000, 300),
                pod(1000, 500),
                unready(1000, 250),
                unready(1000, 250),
            ],
            (2, 30),
        ),
        (
            "tolerance",
            3,
            100,
            vec![pod(900, 1010), pod(1000, 1030), pod(1100, 1020)],
            (3, 102),
        ),
        (
            "missing, no change",
            2,
            100,
            vec![pod(1000, 1000), pod(1000, None)],
            (2, 100),
        ),
        (
            "missing, would turn the other way",
            2,
            100,
            vec![pod(1000, 1900), pod(1000, None)],
            (2, 190),
        ),
        (
            "missing, would turn back",
            2,
            100,
            vec![pod(1000, 600), pod(1000, None)],
            (2, 60),
        ),
        (
            "missing, scale down",
            4,
            100,
            vec![pod(1000, 400), pod(1000, 95), pod(1000, None), pod(1000, None)],
            (3, 24),
        ),
        (
            "missing and unready",
            3,
            50,
            vec![unready(1000, 100), pod(1000, 450), pod(1000, None)],
            (3, 45),
        ),
        (
            "missing and unready, up",
            3,
            50,
            vec![unready(1000, 100), pod(1000, 2000), pod(1000, None)],
            (4, 200),
        ),
        (
            "missing and unready, down",
            4,
            50,
            vec![unready(1000, 100), pod(1000, 100), pod(1000, 100), pod(1000, None)],
            (3, 10),
        ),
        (
            "a target above 100 % fills in the target",
            3,
            200,
            vec![pod(1000, 500), pod(1000, 500), pod(1000, None)],
            (2, 50),
        ),
        (
            "more pods than replicas, as during a rolling update",
            2,
            50,
            vec![pod(1000, 100), pod(1000, 100), unready(1000, None)],
            (2, 10),
        ),
    ] {
        assert_eq!(utilization(current, percent, &table), Ok(expected), "{name}");
    }
}

#[test]
fn what_cannot_be_computed_says_why_in_kubernetes_words() {
    let text = |result: Result<(i32, i32), Unable>| result.unwrap_err().to_string();
    assert_eq!(
        text(utilization(1, 50, &[])),
        "no pods returned by selector while calculating replica count"
    );
    let silent = "did not receive metrics for targeted pods (pods might be unready)";
    assert_eq!(text(utilization(1, 50, &[pod(100, None)])), silent);
    assert_eq!(text(utilization(1, 50, &[phase("Pending", 100, 10)])), silent);
    assert_eq!(
        text(utilization(1, 50, &[pod(0, 10)])),
        "missing request for cpu in container c of Pod pod-0"
    );
    let (pods, mut samples) = build(&[pod(100, None)], "cpu");
    samples.insert(
        "stranger".into(),
        Sample {
            timestamp: now(),
            window: WINDOW,
            value: 1,
        },
    );
    let resource = Resource {
        name: "cpu",
        container: None,
    };
    let unknown = target(1, &pods).for_utilization(resource, samples, 50).unwrap_err();
    assert_eq!(unknown.to_string(), "no metrics returned matched known pods");
}

#[test]
fn the_cpu_of_a_young_pod_counts_from_a_window_after_it_became_ready() {
    let young = |ready_since, sampled| P {
        started: 60,
        ready_since,
        sampled,
        ..pod(100, 100)
    };
    let counts = |p: P| utilization(1, 50, &[p]).is_ok();
    assert!(!counts(young(10, 0)), "ready for 10 s, window 15 s");
    assert!(counts(young(15, 0)));
    assert!(!counts(young(15, 1)), "the window began before");
    assert!(
        !counts(P {
            ready: false,
            ..young(50, 0)
        }),
        "not ready"
    );
    // After five minutes only a pod that was never ready is left out.
    let old = |ready_since| P {
        started: 400,
        ready: false,
        ready_since,
        ..pod(100, 100)
    };
    assert!(
        !counts(old(380)),
        "turned unready 20 s after its start: it never was ready"
    );
    assert!(counts(old(100)), "it was ready once");
    // None of this holds for memory.
    let (pods, samples) = build(&[young(10, 0)], "memory");
    assert!(target(1, &pods).for_average(Some("memory"), samples, 50).is_ok());
}

/// `(current, target, pods) → (replicas, mean)`
#[test]
fn averages_follow_upstreams_table() {
    for (name, current, per_pod, table, expected) in [
        (
            "scale up",
            3,
            15_000,
            vec![pod(1, 20_000), pod(1, 10_000), pod(1, 30_000)],
            (4, 20_000),
        ),
        (
            "an unready pod counts with its metric",
            3,
            15_000,
            vec![pod(1, 50_000), unready(1, 10_000), pod(1, 30_000)],
            (6, 30_000),
        ),
        (
            "a pending pod counts as nothing",
            3,
            15_000,
            vec![pod(1, 50_000), phase("Pending", 1, None), pod(1, 30_000)],
            (6, 40_000),
        ),
        ("scale down", 5, 20_000, vec![pod(1, 12_000); 5], (3, 12_000)),
        (
            "tolerance",
            3,
            20_000,
            vec![pod(1, 20_000), pod(1, 21_000), pod(1, 21_000)],
            (3, 20_666),
        ),
        (
            "missing counts as the target on the way down",
            3,
            20_000,
            vec![pod(1, 10_000), pod(1, 10_000), pod(1, None)],
            (2, 10_000),
        ),
        (
            "missing counts as nothing on the way up",
            2,
            20_000,
            vec![pod(1, 50_000), pod(1, None)],
            (3, 50_000),
        ),
    ] {
        assert_eq!(average(current, None, per_pod, &table), Ok(expected), "{name}");
    }
}

#[test]
fn one_container_is_measured_alone() {
    let (mut pods, samples) = build(&[pod(100, 90)], "cpu");
    let extra = Container {
        name: "sidecar".into(),
        ..Default::default()
    };
    let spec = Arc::get_mut(&mut pods[0]).unwrap().spec.as_mut().unwrap();
    spec.containers.push(extra);
    let resource = |container| Resource { name: "cpu", container };
    let whole = target(1, &pods).for_utilization(resource(None), samples.clone(), 50);
    assert_eq!(
        whole.unwrap_err().to_string(),
        "missing request for cpu in container sidecar of Pod pod-0"
    );
    let alone = target(1, &pods)
        .for_utilization(resource(Some("c")), samples, 50)
        .unwrap();
    assert_eq!((alone.replicas, alone.utilization), (2, 90));
}

#[test]
fn requests_of_the_pod_as_a_whole_win() {
    let (mut pods, samples) = build(&[pod(100, 90)], "cpu");
    let whole = [("cpu".to_owned(), WireQuantity("200m".into()))].into();
    Arc::get_mut(&mut pods[0]).unwrap().spec.as_mut().unwrap().resources = Some(ResourceRequirements {
        requests: Some(whole),
        ..Default::default()
    });
    let resource = Resource {
        name: "cpu",
        container: None,
    };
    let found = target(1, &pods).for_utilization(resource, samples, 50).unwrap();
    assert_eq!((found.replicas, found.utilization), (1, 45));
}

#[test]
fn the_value_of_something_else_is_in_proportion_to_ready_pods() {
    let value = |current, value, per, table: &[P]| {
        let (pods, _) = build(table, "cpu");
        target(current, &pods).for_value(value, per)
    };
    assert_eq!(value(2, 25_000, 10_000, &[pod(1, 1); 2]), Ok(5));
    assert_eq!(value(2, 10_500, 10_000, &[pod(1, 1); 2]), Ok(2), "within the tolerance");
    assert_eq!(
        value(3, 25_000, 10_000, &[pod(1, 1), unready(1, 1), phase("Pending", 1, 1)]),
        Ok(3)
    );
    assert_eq!(value(0, 25_000, 10_000, &[]), Ok(3));
    assert_eq!(value(2, 25_000, 10_000, &[]), Err(Unable::NothingSelected));
}

#[test]
fn a_total_is_shared_among_the_replicas_of_the_status() {
    assert_eq!(per_replica(25_000, 10_000, 2, Tolerances::default()), (3, 12_500));
    assert_eq!(per_replica(20_500, 10_000, 2, Tolerances::default()), (2, 10_250));
    assert_eq!(per_replica(1_000, 10_000, 3, Tolerances::default()), (1, 334));
}

#[test]
fn the_tolerances_of_both_directions_are_their_own() {
    let tolerances = Tolerances { up: 0.3, down: 0.0 };
    assert!(tolerances.allow(1.3) && !tolerances.allow(1.31) && !tolerances.allow(0.99));
    assert!(Tolerances::default().allow(54.0 / 50.0));
}
