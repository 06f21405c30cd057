//! Where a Pod may run: tolerations, affinities, spreading, gates.

use std::collections::BTreeSet;

use apimachinery::field::{Error, Path};
use apimachinery::names::{dns1123_label, label_value, qualified_name};
use serde_json::Value;

use crate::strategy::check::{self, label_selector, positive, text_messages};
use crate::strategy::walk::{at, int, list, text};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn tolerations(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    for (index, toleration) in list(spec, &["tolerations"]).iter().enumerate() {
        let path = path.index(index);
        let field = |key: &'static str| text(toleration, &[key]);
        let (key, operator, value) = (field("key"), field("operator"), field("value"));
        if !key.is_empty() {
            text_messages(qualified_name(key), &path.child("key"), key, errors);
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(Error::invalid(&path.child("operator"), operator, detail));
        }
        if int(toleration, &["tolerationSeconds"]).is_some() && field("effect") != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(Error::invalid(&path.child("effect"), field("effect"), detail));
        }
        match operator {
            "" | "Equal" => {
                let found = label_value(value);
                if !found.is_empty() {
                    errors.push(Error::invalid(&path.child("operator"), value, found.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(Error::invalid(&path.child("operator"), value, detail));
            }
            "Exists" => {}
            other => errors.push(Error::not_supported(
                &path.child("operator"),
                other,
                &["Equal", "Exists"],
            )),
        }
        check::one_of(toleration, &path, "effect", &EFFECTS, errors);
    }
}

pub(super) fn gates(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let mut seen = BTreeSet::new();
    for (index, gate) in list(spec, &["schedulingGates"]).iter().enumerate() {
        let name = text(gate, &["name"]);
        text_messages(qualified_name(name), &path.index(index), name, errors);
        if !seen.insert(name) {
            errors.push(Error::duplicate(&path.index(index), name));
        }
    }
}

pub(super) fn spread_constraints(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let constraints = list(spec, &["topologySpreadConstraints"]);
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        if int(constraint, &["maxSkew"]).unwrap_or(0) <= 0 {
            let skew = int(constraint, &["maxSkew"]).unwrap_or(0);
            errors.push(Error::invalid(
                &path.child("maxSkew"),
                skew,
                "must be greater than zero",
            ));
        }
        let (key, action) = (
            text(constraint, &["topologyKey"]),
            text(constraint, &["whenUnsatisfiable"]),
        );
        if key.is_empty() {
            errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
        }
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&action) {
            errors.push(Error::not_supported(&path.child("whenUnsatisfiable"), action, &actions));
        }
        let again = constraints[index + 1..]
            .iter()
            .any(|later| text(later, &["topologyKey"]) == key && text(later, &["whenUnsatisfiable"]) == action);
        if again {
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(Error::duplicate(&path, format!("{{{key}, {action}}}")));
        }
        if let Some(domains) = int(constraint, &["minDomains"]) {
            positive(constraint, &path, "minDomains", errors);
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(Error::invalid(&path.child("minDomains"), domains, detail));
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            check::one_of(constraint, &path, key, &["Honor", "Ignore"], errors);
        }
        if let Some(selector) = at(constraint, &["labelSelector"]) {
            label_selector(selector, &path.child("labelSelector"), errors);
        }
    }
}

pub(super) fn affinity(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let Some(affinity) = at(spec, &["affinity"]) else {
        return;
    };
    if let Some(nodes) = at(affinity, &["nodeAffinity"]) {
        node_affinity(nodes, &path.child("nodeAffinity"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = at(affinity, &[kind]) else { continue };
        let path = path.child(kind);
        for (index, term) in list(pods, &[REQUIRED]).iter().enumerate() {
            pod_term(term, &path.child(REQUIRED).index(index), errors);
        }
        for (index, weighted) in list(pods, &[PREFERRED]).iter().enumerate() {
            let path = path.child(PREFERRED).index(index);
            weight(weighted, &path, errors);
            pod_term(&weighted["podAffinityTerm"], &path.child("podAffinityTerm"), errors);
        }
    }
}

fn weight(weighted: &Value, path: &Path, errors: &mut Vec<Error>) {
    let weight = int(weighted, &["weight"]).unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.push(Error::invalid(
            &path.child("weight"),
            weight,
            "must be in the range 1-100",
        ));
    }
}

fn node_affinity(nodes: &Value, path: &Path, errors: &mut Vec<Error>) {
    if let Some(selector) = at(nodes, &[REQUIRED]) {
        node_selector(selector, &path.child(REQUIRED), errors);
    }
    for (index, preferred) in list(nodes, &[PREFERRED]).iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        weight(preferred, &path, errors);
        node_term(&preferred["preference"], &path.child("preference"), errors);
    }
}

/// A NodeSelector, of a Pod or of a volume.
pub(in crate::strategy) fn node_selector(selector: &Value, path: &Path, errors: &mut Vec<Error>) {
    let terms = list(selector, &["nodeSelectorTerms"]);
    let path = path.child("nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(Error::required(&path, "must have at least one node selector term"));
    }
    for (index, term) in terms.iter().enumerate() {
        node_term(term, &path.index(index), errors);
    }
}

fn node_term(term: &Value, path: &Path, errors: &mut Vec<Error>) {
    for (index, requirement) in list(term, &["matchExpressions"]).iter().enumerate() {
        node_requirement(requirement, &path.child("matchExpressions").index(index), errors);
    }
    for (index, requirement) in list(term, &["matchFields"]).iter().enumerate() {
        let path = path.child("matchFields").index(index);
        let operator = text(requirement, &["operator"]);
        if !matches!(operator, "In" | "NotIn") {
            errors.push(Error::invalid(
                &path.child("operator"),
                operator,
                "not a valid selector operator",
            ));
        } else if list(requirement, &["values"]).len() != 1 {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(Error::required(&path.child("values"), detail));
        }
        let key = text(requirement, &["key"]);
        if key != "metadata.name" {
            errors.push(Error::invalid(
                &path.child("key"),
                key,
                "not a valid field selector key",
            ));
        }
    }
}

fn node_requirement(requirement: &Value, path: &Path, errors: &mut Vec<Error>) {
    let values = list(requirement, &["values"]);
    let operator = text(requirement, &["operator"]);
    let place = || path.child("values");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(Error::required(
                &place(),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(&place(), detail));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(Error::required(&place(), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => errors.push(Error::invalid(
            &path.child("operator"),
            operator,
            "not a valid selector operator",
        )),
    }
    let key = text(requirement, &["key"]);
    text_messages(qualified_name(key), &path.child("key"), key, errors);
    for (index, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        text_messages(label_value(value), &place().index(index), value, errors);
    }
}

fn pod_term(term: &Value, path: &Path, errors: &mut Vec<Error>) {
    for key in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = at(term, &[key]) {
            label_selector(selector, &path.child(key), errors);
        }
    }
    for name in list(term, &["namespaces"]).iter().filter_map(Value::as_str) {
        text_messages(dns1123_label(name), &path.child("namespace"), name, errors);
    }
    let key = text(term, &["topologyKey"]);
    if key.is_empty() {
        errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
    }
    text_messages(qualified_name(key), &path.child("topologyKey"), key, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::validation::tests::{problems, with};
    use super::*;

    fn spec(key: &str, value: Value) -> Vec<String> {
        let mut spec = with(json!({}));
        spec[key] = value;
        problems(spec)
    }

    #[test]
    fn a_toleration_says_what_it_tolerates() {
        assert!(spec("tolerations", json!([{"operator": "Exists"}])).is_empty());
        assert_eq!(
            spec(
                "tolerations",
                json!([{"key": "a", "tolerationSeconds": 3}, {"key": "a", "effect": "x"}])
            ),
            [
                "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                "spec.tolerations[1].effect: Unsupported value: \"x\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \
             \"NoExecute\"",
            ]
        );
    }

    #[test]
    fn affinities_have_terms_and_weights() {
        let nodes = json!({"nodeAffinity": {REQUIRED: {}, PREFERRED: [{"weight": 101, "preference": {}}]}});
        assert_eq!(
            spec("affinity", nodes),
            [
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must \
             have at least one node selector term",
                "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be \
             in the range 1-100",
            ]
        );
        let pods = json!({"podAntiAffinity": {REQUIRED: [{"topologyKey": "kubernetes.io/hostname"}]}});
        assert!(spec("affinity", pods).is_empty());
    }

    #[test]
    fn spreading_needs_a_key_and_an_action() {
        assert_eq!(
            spec("topologySpreadConstraints", json!([{"maxSkew": 0}])),
            [
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
                "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"\": supported values: \
             \"DoNotSchedule\", \"ScheduleAnyway\"",
            ]
        );
    }
}
