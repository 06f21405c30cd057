//! Which nodes can take a pod, and in which words the others refuse it.
//!
//! Pure. Plugins, their order and their texts follow `pkg/scheduler/framework` of kubernetes 1.36: on each node the
//! first plugin that refuses ends the walk.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};

use super::affinity;
use super::cluster::{Cluster, NodeInfo, Placed};
use super::score;
use super::volumes::Wanted;

/// Why a node refuses a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One text a reason; several only from resource fit.
    pub reasons: Vec<String>,
    /// Evicting pods might help (upstream: `Unschedulable` rather than `UnschedulableAndUnresolvable`).
    pub resolvable: bool,
}

impl Refusal {
    pub(super) fn resolvable(reason: &str) -> Self {
        Self {
            reasons: vec![reason.to_owned()],
            resolvable: true,
        }
    }

    pub(super) fn fixed(reason: &str) -> Self {
        Self {
            reasons: vec![reason.to_owned()],
            resolvable: false,
        }
    }
}

/// Picks a node for a pod, or says why there is none, as the `FailedScheduling` event says it.
pub fn place(pod: &Pod, cluster: &Cluster) -> Result<String, String> {
    place_with(pod, Ok(&Wanted::default()), cluster)
}

/// [`place`] for a pod with claims: what they ask of a node, or why none will do.
pub(super) fn place_with(pod: &Pod, claims: Result<&Wanted, &String>, cluster: &Cluster) -> Result<String, String> {
    if cluster.nodes.is_empty() {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let claims = match claims {
        Ok(claims) => claims,
        Err(reason) => return Err(refuse_all(pod, reason, cluster.nodes.len())),
    };
    let incoming = Placed::read(pod, "");
    let verdicts: Vec<_> = cluster
        .nodes
        .values()
        .map(|node| (node, check(pod, &incoming, claims, node, cluster)))
        .collect();
    let feasible = verdicts
        .iter()
        .filter(|(_, verdict)| verdict.is_ok())
        .map(|(node, _)| *node);
    match score::best(pod, &incoming, feasible, cluster) {
        Some(node) => Ok(node.name.clone()),
        None => {
            let refusals: Vec<_> = verdicts.into_iter().filter_map(|(_, verdict)| verdict.err()).collect();
            Err(explain(pod, &refusals))
        }
    }
}

/// Runs every filter on one node.
fn check(pod: &Pod, incoming: &Placed, claims: &Wanted, node: &NodeInfo, cluster: &Cluster) -> Result<(), Refusal> {
    let spec = pod.spec.clone().unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Default::default()
    };
    if node.unschedulable && !tolerated(&cordon, tolerations) {
        return Err(Refusal::fixed("node(s) were unschedulable"));
    }
    if spec
        .node_name
        .as_deref()
        .is_some_and(|wanted| !wanted.is_empty() && wanted != node.name)
    {
        return Err(Refusal::fixed("node(s) didn't match the requested node name"));
    }
    let keeps_away = |taint: &&Taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute";
    if node
        .taints
        .iter()
        .filter(keeps_away)
        .any(|taint| !tolerated(taint, tolerations))
    {
        return Err(Refusal::fixed("node(s) had untolerated taint(s)"));
    }
    if !wants_node(pod, node) {
        return Err(Refusal::fixed("node(s) didn't match Pod's node affinity/selector"));
    }
    let taken = |port| {
        cluster
            .on(&node.name)
            .flat_map(|other| &other.host_ports)
            .any(|other| other.conflicts(port))
    };
    if incoming.host_ports.iter().any(taken) {
        return Err(Refusal::resolvable(
            "node(s) didn't have free ports for the requested pod ports",
        ));
    }
    fits(incoming, node, cluster)?;
    claims.check(node)?;
    affinity::spread(pod, node, cluster)?;
    affinity::between_pods(pod, incoming, node, cluster)
}

/// NodeResourcesFit.
fn fits(incoming: &Placed, node: &NodeInfo, cluster: &Cluster) -> Result<(), Refusal> {
    let (mut reasons, mut resolvable) = (Vec::new(), true);
    if cluster.on(&node.name).count() as i64 + 1 > node.allocatable.get("pods") {
        reasons.push("Too many pods".to_owned());
    }
    for (resource, wanted) in incoming.requests.iter().filter(|(_, wanted)| *wanted > 0) {
        let allocatable = node.allocatable.get(resource);
        let used: i64 = cluster.on(&node.name).map(|placed| placed.requests.get(resource)).sum();
        if wanted > allocatable - used {
            reasons.push(format!("Insufficient {resource}"));
            resolvable &= wanted <= allocatable;
        }
    }
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(Refusal { reasons, resolvable })
    }
}

/// Whether one of `tolerations` lets the pod live with `taint`.
pub(super) fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let effect = toleration.effect.as_deref().unwrap_or("");
        let key = toleration.key.as_deref().unwrap_or("");
        if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
            return false;
        }
        match toleration.operator.as_deref().unwrap_or("Equal") {
            "Exists" => true,
            "" | "Equal" => {
                !key.is_empty() && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
            }
            _ => false,
        }
    })
}

/// Whether `spec.nodeSelector` and the required node affinity accept a node.
pub(super) fn wants_node(pod: &Pod, node: &NodeInfo) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let selector = spec.node_selector.iter().flatten();
    if selector
        .into_iter()
        .any(|(key, value)| node.labels.get(key) != Some(value))
    {
        return false;
    }
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    match affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref()) {
        Some(NodeSelector { node_selector_terms }) => node_selector_terms.iter().any(|term| term_matches(term, node)),
        None => true,
    }
}

/// One term: all its requirements hold. A term without any matches nothing.
pub(super) fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = BTreeMap::from([("metadata.name".to_owned(), node.name.clone())]);
    !(expressions.is_empty() && fields.is_empty())
        && expressions
            .iter()
            .all(|requirement| requirement_holds(requirement, &node.labels))
        && fields.iter().all(|requirement| requirement_holds(requirement, &name))
}

fn requirement_holds(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let compare = |order: std::cmp::Ordering| {
        let wanted = values.first().and_then(|value| value.parse::<i64>().ok());
        let got = value.and_then(|value| value.parse::<i64>().ok());
        matches!((got, wanted), (Some(got), Some(wanted)) if got.cmp(&wanted) == order)
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

/// The message of event and condition: how many nodes refused for which reason, and why preemption does not help.
fn explain(pod: &Pod, refusals: &[Refusal]) -> String {
    let nodes = refusals.len();
    let reasons = histogram(
        refusals
            .iter()
            .flat_map(|refusal| refusal.reasons.iter().map(String::as_str)),
    );
    let preemption = preemption(pod, refusals);
    format!("0/{nodes} nodes are available: {reasons}. no new claims to deallocate, preemption: {preemption}")
}

/// The message where a plugin refused the pod before any node was looked at.
fn refuse_all(pod: &Pod, reason: &str, nodes: usize) -> String {
    let refusals = vec![Refusal::fixed(reason); nodes];
    let preemption = preemption(pod, &refusals);
    format!("0/{nodes} nodes are available: {reason}. no new claims to deallocate, preemption: {preemption}")
}

fn preemption(pod: &Pod, refusals: &[Refusal]) -> String {
    let nodes = refusals.len();
    let spec = pod.spec.as_ref();
    if spec.and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
        "not eligible due to preemptionPolicy=Never.".to_owned()
    } else {
        let helpful = |refusal: &Refusal| match refusal.resolvable {
            true => "No preemption victims found for incoming pod",
            false => "Preemption is not helpful for scheduling",
        };
        format!(
            "0/{nodes} nodes are available: {}.",
            histogram(refusals.iter().map(helpful))
        )
    }
}

/// `<count> <reason>` sorted as text, which is how upstream sorts it: `10 x` comes before `2 y`.
fn histogram<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut lines: Vec<_> = counts
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    lines.sort();
    lines.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, cpu: &str, extra: Value) -> NodeInfo {
        let mut node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "disk": "ssd", "cores": "8"}},
            "spec": extra,
            "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "3"}},
        });
        node["metadata"]["labels"]["zone"] = json!("z1");
        NodeInfo::read(&serde_json::from_value(node).unwrap())
    }

    fn cluster(nodes: Vec<NodeInfo>) -> Cluster {
        Cluster {
            nodes: nodes.into_iter().map(|node| (node.name.clone(), node)).collect(),
            ..Default::default()
        }
    }

    fn pod(spec: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "d", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
        });
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        serde_json::from_value(pod).unwrap()
    }

    fn refusal(spec: Value, cluster: &Cluster) -> String {
        place(&pod(spec), cluster).unwrap_err()
    }

    #[test]
    fn a_pod_that_asks_for_more_than_the_node_has_is_refused_in_the_words_of_1_36() {
        let cluster = cluster(vec![node("n", "500m", json!({}))]);
        assert_eq!(
            refusal(json!({}), &cluster),
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: \
             0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        );
    }

    #[test]
    fn a_full_node_might_be_helped_by_preemption_but_has_no_victims() {
        let mut cluster = cluster(vec![node("n", "2", json!({}))]);
        for uid in ["a", "b"] {
            cluster.placed.insert(uid.into(), Placed::read(&pod(json!({})), "n"));
        }
        assert_eq!(
            refusal(json!({}), &cluster),
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: \
             0/1 nodes are available: 1 No preemption victims found for incoming pod."
        );
    }

    #[test]
    fn each_reason_of_a_node_counts_once_and_reasons_sort_as_text() {
        let tainted = json!({"taints": [{"key": "gpu", "effect": "NoSchedule"}]});
        let cluster = cluster(vec![
            node("a", "500m", json!({})),
            node("b", "4", tainted),
            node("c", "4", json!({"unschedulable": true})),
        ]);
        let many = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "2Gi"}}}]});
        assert_eq!(
            refusal(many, &cluster),
            "0/3 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 node(s) had untolerated taint(s), \
             1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/3 nodes are available: \
             3 Preemption is not helpful for scheduling."
        );
    }

    #[test]
    fn the_fourth_pod_on_a_node_for_three_is_one_too_many() {
        let mut cluster = cluster(vec![node("n", "64", json!({}))]);
        for uid in ["a", "b", "c"] {
            cluster.placed.insert(uid.into(), Placed::read(&pod(json!({})), "n"));
        }
        assert!(refusal(json!({}), &cluster).starts_with("0/1 nodes are available: 1 Too many pods."));
    }

    #[test]
    fn no_node_at_all_is_said_plainly() {
        assert_eq!(
            refusal(json!({}), &Cluster::default()),
            "no nodes available to schedule pods"
        );
    }

    #[test]
    fn a_toleration_opens_a_tainted_node() {
        let tainted = json!({"taints": [{"key": "gpu", "value": "a100", "effect": "NoSchedule"}]});
        let cluster = cluster(vec![node("n", "4", tainted)]);
        for toleration in [
            json!({"operator": "Exists"}),
            json!({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}),
            json!({"key": "gpu", "value": "a100"}),
        ] {
            assert_eq!(
                place(&pod(json!({"tolerations": [toleration]})), &cluster).as_deref(),
                Ok("n")
            );
        }
        for toleration in [
            json!({"key": "gpu", "value": "h100"}),
            json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}),
        ] {
            assert!(place(&pod(json!({"tolerations": [toleration]})), &cluster).is_err());
        }
    }

    #[test]
    fn node_selector_and_affinity_must_both_agree() {
        let cluster = cluster(vec![node("n", "4", json!({}))]);
        let affinity = |operator: &str, key: &str, values: Value| {
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]}}})
        };
        let fits = |spec: Value| place(&pod(spec), &cluster).is_ok();
        assert!(fits(json!({"nodeSelector": {"disk": "ssd"}})));
        assert!(!fits(json!({"nodeSelector": {"disk": "hdd"}})));
        assert!(fits(json!({"affinity": affinity("Gt", "cores", json!(["4"]))})));
        assert!(!fits(json!({"affinity": affinity("Lt", "cores", json!(["4"]))})));
        assert!(!fits(json!({"affinity": affinity("NotIn", "disk", json!(["ssd"]))})));
        assert!(fits(json!({"affinity": affinity("DoesNotExist", "nvme", json!([]))})));
        assert_eq!(
            refusal(json!({"nodeSelector": {"disk": "hdd"}}), &cluster)
                .split(". ")
                .next()
                .unwrap(),
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector"
        );
    }

    #[test]
    fn a_taken_host_port_is_named() {
        let mut cluster = cluster(vec![node("n", "64", json!({}))]);
        let with_port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
        cluster
            .placed
            .insert("a".into(), Placed::read(&pod(with_port.clone()), "n"));
        assert!(
            refusal(with_port, &cluster)
                .starts_with("0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.")
        );
    }
}
