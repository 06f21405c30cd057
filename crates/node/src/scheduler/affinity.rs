//! Rules between pods: affinity, anti-affinity, topology spread.
//!
//! Pure. Namespace selectors see one label only, `kubernetes.io/metadata.name`: that is the one people use, and it
//! spares the scheduler a watch on namespaces.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

use super::cluster::{Cluster, NodeInfo, Placed};
use super::filter::{Refusal, wants_node};

/// InterPodAffinity.
pub(super) fn between_pods(pod: &Pod, incoming: &Placed, node: &NodeInfo, cluster: &Cluster) -> Result<(), Refusal> {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let near = affinity
        .and_then(|affinity| {
            affinity
                .pod_affinity
                .as_ref()?
                .required_during_scheduling_ignored_during_execution
                .as_deref()
        })
        .unwrap_or_default();
    if !near.is_empty() && !near_enough(near, incoming, node, cluster) {
        return Err(Refusal::fixed("node(s) didn't match pod affinity rules"));
    }
    let clashes = |term: &PodAffinityTerm| {
        neighbours(&term.topology_key, node, cluster).any(|other| selects(term, &incoming.namespace, other))
    };
    if incoming.anti_affinity.iter().any(clashes) {
        return Err(Refusal::resolvable("node(s) didn't match pod anti-affinity rules"));
    }
    let keeps_away = |other: &Placed| {
        let theirs = cluster.nodes.get(&other.node);
        other.anti_affinity.iter().any(|term| {
            let there = theirs.and_then(|theirs| theirs.labels.get(&term.topology_key));
            there.is_some() && there == node.labels.get(&term.topology_key) && selects(term, &other.namespace, incoming)
        })
    };
    if cluster.placed.values().any(keeps_away) {
        return Err(Refusal::resolvable(
            "node(s) didn't satisfy existing pods anti-affinity rules",
        ));
    }
    Ok(())
}

fn near_enough(terms: &[PodAffinityTerm], incoming: &Placed, node: &NodeInfo, cluster: &Cluster) -> bool {
    if terms.iter().any(|term| !node.labels.contains_key(&term.topology_key)) {
        return false;
    }
    let all_select = |other: &Placed| terms.iter().all(|term| selects(term, &incoming.namespace, other));
    let satisfied = terms.iter().all(|term| {
        neighbours(&term.topology_key, node, cluster).any(|other| selects(term, &incoming.namespace, other))
    });
    // The first pod of a group that wants to be near itself may go anywhere.
    satisfied || (!cluster.placed.values().any(all_select) && all_select(incoming))
}

/// The pods in the same domain of `key` as `node`.
fn neighbours<'a>(key: &'a str, node: &'a NodeInfo, cluster: &'a Cluster) -> impl Iterator<Item = &'a Placed> {
    let here = node.labels.get(key);
    cluster.placed.values().filter(move |other| {
        let there = cluster.nodes.get(&other.node).and_then(|node| node.labels.get(key));
        here.is_some() && here == there
    })
}

/// Whether a term that belongs to a pod in `namespace` speaks of `other`.
fn selects(term: &PodAffinityTerm, namespace: &str, other: &Placed) -> bool {
    let named = term.namespaces.as_deref().unwrap_or_default();
    let in_namespace = match &term.namespace_selector {
        None if named.is_empty() => other.namespace == namespace,
        None => named.contains(&other.namespace),
        Some(selector) => {
            let labels = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), other.namespace.clone())]);
            named.contains(&other.namespace) || matches(Some(selector), &labels)
        }
    };
    in_namespace && matches(term.label_selector.as_ref(), &other.labels)
}

/// No selector selects nothing, an empty one everything.
fn matches(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else { return false };
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

/// PodTopologySpread, `DoNotSchedule` constraints.
pub(super) fn spread(pod: &Pod, node: &NodeInfo, cluster: &Cluster) -> Result<(), Refusal> {
    let constraints = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.topology_spread_constraints.as_deref())
        .unwrap_or_default();
    for constraint in constraints
        .iter()
        .filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule")
    {
        let Some(domain) = node.labels.get(&constraint.topology_key) else {
            return Err(Refusal::fixed(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ));
        };
        if skew(pod, constraint, domain, cluster) > i64::from(constraint.max_skew) {
            return Err(Refusal::resolvable(
                "node(s) didn't match pod topology spread constraints",
            ));
        }
    }
    Ok(())
}

/// How far `domain` would be above the emptiest domain with this pod in it.
fn skew(pod: &Pod, constraint: &TopologySpreadConstraint, domain: &str, cluster: &Cluster) -> i64 {
    let honours_affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let eligible = |node: &&NodeInfo| !honours_affinity || wants_node(pod, node);
    let domain_of = |node: &NodeInfo| node.labels.get(&constraint.topology_key).cloned();
    let domains: BTreeSet<_> = cluster.nodes.values().filter(eligible).filter_map(domain_of).collect();
    let incoming = Placed::read(pod, "");
    let count = |domain: &str| {
        let counted = |other: &&Placed| {
            let node = cluster.nodes.get(&other.node);
            !other.terminating
                && other.namespace == incoming.namespace
                && node.and_then(domain_of).as_deref() == Some(domain)
                && matches(constraint.label_selector.as_ref(), &other.labels)
        };
        cluster.placed.values().filter(counted).count() as i64
    };
    let too_few = constraint
        .min_domains
        .is_some_and(|least| (domains.len() as i64) < i64::from(least));
    let emptiest = if too_few {
        0
    } else {
        domains.iter().map(|domain| count(domain)).min().unwrap_or(0)
    };
    let itself = i64::from(matches(constraint.label_selector.as_ref(), &incoming.labels));
    count(domain) + itself - emptiest
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::filter::place;
    use super::*;

    fn pod(affinity: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "d", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c"}], "affinity": affinity},
        }))
        .unwrap()
    }

    fn two_nodes() -> Cluster {
        let node = |name: &str| {
            let node =
                json!({"metadata": {"name": name, "labels": {"host": name}}, "status": {"allocatable": {"pods": "9"}}});
            (name.to_owned(), NodeInfo::read(&serde_json::from_value(node).unwrap()))
        };
        Cluster {
            nodes: [node("a"), node("b")].into(),
            ..Default::default()
        }
    }

    fn terms(kind: &str) -> Value {
        json!({kind: {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "host", "labelSelector": {"matchLabels": {"app": "web"}}}]}})
    }

    #[test]
    fn anti_affinity_spreads_and_then_says_no() {
        let mut cluster = two_nodes();
        let apart = pod(terms("podAntiAffinity"));
        for uid in ["1", "2"] {
            let node = place(&apart, &cluster).unwrap();
            cluster.placed.insert(uid.into(), Placed::read(&apart, &node));
        }
        let refused = place(&apart, &cluster).unwrap_err();
        assert!(
            refused.starts_with("0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."),
            "{refused}"
        );
        let plain = place(&pod(json!({})), &cluster).unwrap_err();
        assert!(
            plain.contains("2 node(s) didn't satisfy existing pods anti-affinity rules."),
            "{plain}"
        );
    }

    #[test]
    fn the_first_of_a_group_goes_anywhere_and_the_next_goes_there_too() {
        let mut cluster = two_nodes();
        let together = pod(terms("podAffinity"));
        assert!(place(&together, &cluster).is_ok());
        cluster.placed.insert("1".into(), Placed::read(&together, "b"));
        assert_eq!(place(&together, &cluster).as_deref(), Ok("b"));
    }

    #[test]
    fn spread_keeps_the_skew() {
        let mut cluster = two_nodes();
        let mut spread = pod(json!({}));
        let constraint = json!([{"maxSkew": 1, "topologyKey": "host", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}}}]);
        spread.spec.as_mut().unwrap().topology_spread_constraints = serde_json::from_value(constraint).unwrap();
        cluster.placed.insert("1".into(), Placed::read(&spread, "a"));
        assert_eq!(place(&spread, &cluster).as_deref(), Ok("b"));
        cluster.nodes.get_mut("b").unwrap().unschedulable = true;
        let refused = place(&spread, &cluster).unwrap_err();
        assert!(
            refused.contains("1 node(s) didn't match pod topology spread constraints,"),
            "{refused}"
        );
    }
}
