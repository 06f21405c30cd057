//! Which pods a ReplicaSet gives up first.
//!
//! Pure. The order is Kubernetes' (k/k `pkg/controller/controller_utils.go`, `ActivePodsWithRanks`, v1.36) with one
//! difference: two pods whose ages fall into the same power of two go on to be compared by restarts before their UIDs
//! decide. Upstream stops at the UIDs there, which is not a total order, and a sort may insist on one.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pods;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` of `pods` that go first. `related` are all pods of the same owner's ReplicaSets: a node that holds many
/// of them gives up its own first.
pub(crate) fn first_to_go(pods: &[Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if count >= pods.len() {
        return pods.to_vec();
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *on_node.entry(node(pod)).or_default() += 1;
    }
    let siblings = |pod: &Pod| on_node.get(node(pod)).copied().unwrap_or_default();
    let mut ranked: Vec<(Rank<'_>, &Arc<Pod>)> = pods
        .iter()
        .map(|pod| (Rank::of(pod, siblings(pod), now), pod))
        .collect();
    ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
    ranked.into_iter().take(count).map(|(_, pod)| pod.clone()).collect()
}

/// Smaller goes first; the fields are compared from top to bottom.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    assigned: bool,
    phase: u8,
    ready: bool,
    deletion_cost: i32,
    siblings_on_node: Reverse<usize>,
    /// Not since ever < a short time < a long time, in powers of two.
    ready_for: Option<i32>,
    restarts: Reverse<i32>,
    sidecar_restarts: Reverse<i32>,
    /// Newer before older.
    age: Option<i32>,
    uid: &'a str,
}

impl<'a> Rank<'a> {
    fn of(pod: &'a Pod, siblings: usize, now: Timestamp) -> Self {
        let (restarts, sidecar_restarts) = restarts(pod);
        Self {
            assigned: !node(pod).is_empty(),
            phase: match pods::phase(pod) {
                "Pending" => 0,
                "Running" => 2,
                _ => 1,
            },
            ready: pods::is_ready(pod),
            deletion_cost: deletion_cost(pod),
            siblings_on_node: Reverse(siblings),
            ready_for: pods::ready_since(pod).map(|since| magnitude(since, now)),
            restarts: Reverse(restarts),
            sidecar_restarts: Reverse(sidecar_restarts),
            age: pod
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|created| magnitude(created.0, now)),
            uid: pod.metadata.uid.as_deref().unwrap_or_default(),
        }
    }
}

fn node(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

/// Zero if absent or not a number: the API server refuses the latter.
fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or_default()
}

/// The most restarts of a container, and of a sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = &pod.status else { return (0, 0) };
    let most = |statuses: &[k8s_openapi::api::core::v1::ContainerStatus], counts: &dyn Fn(&str) -> bool| {
        statuses
            .iter()
            .filter(|status| counts(&status.name))
            .map(|status| status.restart_count)
            .max()
            .unwrap_or(0)
    };
    let init = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default();
    let is_sidecar = |name: &str| {
        init.iter()
            .any(|container| container.name == name && container.restart_policy.as_deref() == Some("Always"))
    };
    (
        most(status.container_statuses.as_deref().unwrap_or_default(), &|_| true),
        most(
            status.init_container_statuses.as_deref().unwrap_or_default(),
            &is_sidecar,
        ),
    )
}

/// The binary order of magnitude of a duration in nanoseconds: pods of about the same age are equal, so that scaling
/// down does not always hit the newest.
fn magnitude(since: Timestamp, now: Timestamp) -> i32 {
    let nanoseconds = now.duration_since(since).as_nanos();
    match nanoseconds.cmp(&0) {
        Ordering::Greater => 127 - nanoseconds.leading_zeros() as i32,
        _ => -1,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodSpec, PodStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn ago(seconds: i64) -> Time {
        Time(now() - SignedDuration::from_secs(seconds))
    }

    /// A running pod on node `n1`, ready for a day.
    fn pod(name: &str, change: impl Fn(&mut Pod)) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.uid = Some(name.into());
        pod.metadata.creation_timestamp = Some(ago(86_400));
        pod.spec = Some(PodSpec {
            node_name: Some("n1".into()),
            ..Default::default()
        });
        let ready = PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(ago(86_400)),
            ..Default::default()
        };
        pod.status = Some(PodStatus {
            phase: Some("Running".into()),
            conditions: Some(vec![ready]),
            ..Default::default()
        });
        change(&mut pod);
        Arc::new(pod)
    }

    fn status(pod: &mut Pod) -> &mut PodStatus {
        pod.status.as_mut().unwrap()
    }

    fn ready(pod: &mut Pod) -> &mut PodCondition {
        &mut status(pod).conditions.as_mut().unwrap()[0]
    }

    fn cost(pod: &mut Pod, cost: &str) {
        pod.metadata.annotations = Some([(DELETION_COST.to_owned(), cost.to_owned())].into());
    }

    fn restarted(pod: &mut Pod, times: i32) {
        let container = ContainerStatus {
            name: "c".into(),
            restart_count: times,
            ..Default::default()
        };
        status(pod).container_statuses = Some(vec![container]);
    }

    fn order(pods: &[Arc<Pod>], related: &[Arc<Pod>]) -> Vec<String> {
        // One fewer than there are, else nothing is sorted; the last one is what is missing.
        let first = first_to_go(pods, related, pods.len() - 1, now());
        let names =
            |pods: &[Arc<Pod>]| -> Vec<String> { pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect() };
        let mut names_in_order = names(&first);
        names_in_order.extend(names(pods).into_iter().filter(|name| !names(&first).contains(name)));
        names_in_order
    }

    #[test]
    fn every_criterion_counts_only_where_those_before_it_are_equal() {
        let in_order = [
            pod("1-unassigned", |pod| pod.spec.as_mut().unwrap().node_name = None),
            pod("2-pending", |pod| status(pod).phase = Some("Pending".into())),
            pod("3-unknown", |pod| status(pod).phase = Some("Unknown".into())),
            pod("4-not-ready", |pod| ready(pod).status = "False".into()),
            pod("5-cheap", |pod| cost(pod, "-5")),
            pod("6-crowded", |pod| {
                pod.spec.as_mut().unwrap().node_name = Some("n2".into())
            }),
            pod("7-ready-for-a-second", |pod| {
                ready(pod).last_transition_time = Some(ago(1))
            }),
            pod("8-ready-for-a-minute", |pod| {
                ready(pod).last_transition_time = Some(ago(60))
            }),
            pod("9-restarted", |pod| restarted(pod, 3)),
            pod("a-new", |pod| pod.metadata.creation_timestamp = Some(ago(10))),
            pod("b-plain", |_| {}),
            pod("c-dear", |pod| cost(pod, "100")),
        ];
        let crowd = |n: usize| (0..n).map(|_| pod("x", |pod| pod.spec.as_mut().unwrap().node_name = Some("n2".into())));
        let related: Vec<_> = in_order.iter().cloned().chain(crowd(20)).collect();
        let names: Vec<_> = in_order.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
        let mut shuffled = in_order.to_vec();
        shuffled.reverse();
        shuffled.swap(2, 7);
        assert_eq!(order(&shuffled, &related), names);
    }

    #[test]
    fn pods_of_about_the_same_age_go_by_uid() {
        let old = pod("b", |pod| ready(pod).last_transition_time = Some(ago(100)));
        let older = pod("a", |pod| ready(pod).last_transition_time = Some(ago(110)));
        assert_eq!(order(&[old, older], &[]), ["a", "b"]);
    }

    #[test]
    fn all_go_when_as_many_are_asked_for() {
        let pods = [pod("a", |_| {}), pod("b", |_| {})];
        assert_eq!(first_to_go(&pods, &[], 2, now()).len(), 2);
        assert_eq!(first_to_go(&pods, &[], 5, now()).len(), 2);
        assert!(first_to_go(&pods, &[], 0, now()).is_empty());
    }
}
