//! Which of the nodes that can take a pod is the best.
//!
//! Pure, and deterministic: of equals the first by name. Upstream's weights: least allocated 1, node affinity 2,
//! taints 3.

use k8s_openapi::api::core::v1::Pod;

use super::cluster::{Cluster, NodeInfo, Placed};
use super::filter::{term_matches, tolerated};

/// The best of `feasible`, or `None` if there is none.
pub(super) fn best<'a>(
    pod: &Pod,
    incoming: &Placed,
    feasible: impl Iterator<Item = &'a NodeInfo>,
    cluster: &Cluster,
) -> Option<&'a NodeInfo> {
    let score = |node: &&NodeInfo| {
        least_allocated(incoming, node, cluster) + 2 * preferred(pod, node) - 3 * avoided_taints(pod, node)
    };
    // `max_by_key` would take the last of equals.
    feasible
        .fold(None, |best: Option<(i64, &NodeInfo)>, node| match best {
            Some((highest, _)) if highest >= score(&node) => best,
            _ => Some((score(&node), node)),
        })
        .map(|(_, node)| node)
}

/// Free share of cpu and memory after placing, 0 to 100.
fn least_allocated(incoming: &Placed, node: &NodeInfo, cluster: &Cluster) -> i64 {
    let free = |resource: &str| {
        let allocatable = node.allocatable.get(resource);
        let used: i64 = cluster.on(&node.name).map(|placed| placed.requests.get(resource)).sum();
        let left = (allocatable - used - incoming.requests.get(resource)).max(0);
        if allocatable == 0 {
            0
        } else {
            left.saturating_mul(100) / allocatable
        }
    };
    (free("cpu") + free("memory")) / 2
}

/// The weights of the preferred node affinity terms that hold.
fn preferred(pod: &Pod, node: &NodeInfo) -> i64 {
    let affinity = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let terms = affinity.and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_deref());
    let hold = terms
        .unwrap_or_default()
        .iter()
        .filter(|term| term_matches(&term.preference, node));
    hold.map(|term| i64::from(term.weight)).sum()
}

/// How many `PreferNoSchedule` taints the pod does not tolerate, 100 points each.
fn avoided_taints(pod: &Pod, node: &NodeInfo) -> i64 {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default();
    let avoided = node
        .taints
        .iter()
        .filter(|taint| taint.effect == "PreferNoSchedule" && !tolerated(taint, tolerations));
    100 * avoided.count() as i64
}
