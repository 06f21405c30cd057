//! Which nodes a DaemonSet wants a pod on, and which pod stands for which node.
//!
//! Pure. (k/k `pkg/controller/daemon/{daemon_controller.go,util/daemonset_util.go}`, `component-helpers/scheduling`,
//! v1.36.)

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint,
    Toleration,
};
use kube::ResourceExt;

use crate::taint_eviction::tolerates;

const NAME_FIELD: &str = "metadata.name";

/// What a node means to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// It is to have a pod.
    pub(super) should_run: bool,
    /// A pod that is there may stay.
    pub(super) may_stay: bool,
}

/// Judges a node by the template's name, selector, affinity and tolerations.
pub(super) fn judge(template: &PodSpec, node: &Node) -> Verdict {
    let named = template.node_name.as_deref().filter(|name| !name.is_empty());
    if named.is_some_and(|name| name != node.name_any()) || !wants(template, node) {
        return Verdict {
            should_run: false,
            may_stay: false,
        };
    }
    let mut tolerations = template.tolerations.clone().unwrap_or_default();
    tolerations.extend(own_tolerations(template));
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let untolerated: Vec<&Taint> = taints
        .filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
        .collect();
    let has = |effect: &str| untolerated.iter().any(|taint| taint.effect == effect);
    Verdict {
        should_run: !has("NoSchedule") && !has("NoExecute"),
        may_stay: !has("NoExecute"),
    }
}

fn wants(template: &PodSpec, node: &Node) -> bool {
    let labels = node.labels();
    let selected = template
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let affinity = template
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| holds(term, node)))
}

/// One term: all its requirements hold. A term without any matches nothing.
fn holds(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = BTreeMap::from([(NAME_FIELD.to_owned(), node.name_any())]);
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|wanted| requirement(wanted, node.labels()))
        && fields.iter().all(|wanted| requirement(wanted, &name))
}

fn requirement(wanted: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&wanted.key);
    let values = wanted.values.as_deref().unwrap_or_default();
    let compare = |order: std::cmp::Ordering| {
        let limit = values.first().and_then(|value| value.parse::<i64>().ok());
        let got = value.and_then(|value| value.parse::<i64>().ok());
        matches!((got, limit), (Some(got), Some(limit)) if got.cmp(&limit) == order)
    };
    match wanted.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

/// What every pod of a DaemonSet tolerates.
fn own_tolerations(template: &PodSpec) -> Vec<Toleration> {
    let toleration = |name: &str, effect: &str| Toleration {
        key: Some(format!("node.kubernetes.io/{name}")),
        operator: Some("Exists".into()),
        effect: Some(effect.to_owned()),
        ..Default::default()
    };
    let mut all = vec![
        toleration("not-ready", "NoExecute"),
        toleration("unreachable", "NoExecute"),
        toleration("disk-pressure", "NoSchedule"),
        toleration("memory-pressure", "NoSchedule"),
        toleration("pid-pressure", "NoSchedule"),
        toleration("unschedulable", "NoSchedule"),
    ];
    if template.host_network == Some(true) {
        all.push(toleration("network-unavailable", "NoSchedule"));
    }
    all
}

/// Ties a pod to a node, and lets it stay there in bad times. The template's own affinity was judged already.
pub(super) fn tie(spec: &mut PodSpec, node: &str) {
    let own = own_tolerations(spec);
    let tolerations = spec.tolerations.get_or_insert_default();
    for toleration in own {
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    let name = NodeSelectorRequirement {
        key: NAME_FIELD.into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let affinity = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    let terms = &mut affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(NodeSelector::default)
        .node_selector_terms;
    *terms = vec![NodeSelectorTerm {
        match_expressions: None,
        match_fields: Some(vec![name]),
    }];
}

/// The node a pod runs on, or is tied to.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_fields.iter().flatten());
    let name = fields.into_iter().find(|field| field.key == NAME_FIELD)?;
    name.values.as_ref()?.first().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn verdict(template: Value, taints: Value) -> (bool, bool) {
        let mut spec = json!({"containers": []});
        spec.as_object_mut()
            .unwrap()
            .extend(template.as_object().unwrap().clone());
        let node = json!({"metadata": {"name": "n", "labels": {"disk": "ssd"}}, "spec": {"taints": taints}});
        let verdict = judge(
            &serde_json::from_value(spec).unwrap(),
            &serde_json::from_value(node).unwrap(),
        );
        (verdict.should_run, verdict.may_stay)
    }

    #[test]
    fn nodes_are_chosen_by_selector_affinity_and_taints() {
        let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
        assert_eq!(verdict(json!({}), json!([])), (true, true));
        assert_eq!(
            verdict(json!({"nodeSelector": {"disk": "hdd"}}), json!([])),
            (false, false)
        );
        assert_eq!(verdict(json!({"nodeName": "other"}), json!([])), (false, false));
        assert_eq!(verdict(json!({}), taint("x", "NoSchedule")), (false, true));
        assert_eq!(verdict(json!({}), taint("x", "NoExecute")), (false, false));
        assert_eq!(
            verdict(json!({}), taint("node.kubernetes.io/unschedulable", "NoSchedule")),
            (true, true)
        );
        assert_eq!(
            verdict(
                json!({"tolerations": [{"operator": "Exists"}]}),
                taint("x", "NoExecute")
            ),
            (true, true)
        );
    }

    #[test]
    fn a_pod_is_known_by_the_node_it_is_tied_to() {
        let mut spec = PodSpec::default();
        tie(&mut spec, "n");
        let mut pod = Pod {
            spec: Some(spec),
            ..Default::default()
        };
        assert_eq!(node_of(&pod), Some("n"));
        pod.spec.as_mut().unwrap().node_name = Some("m".into());
        assert_eq!(node_of(&pod), Some("m"));
    }
}
