//! The RBAC objects that every cluster starts with.
//!
//! Owns the reading of `bootstrap_policy.txt`, which says them in a line a rule and explains its form. The aggregated
//! roles come with the rules they collect, as the aggregation controller would have left them.

use serde_json::{Map, Value, json};

use super::rbac::Rule;

const POLICY: &str = include_str!("bootstrap_policy.txt");
const GROUP: &str = "rbac.authorization.k8s.io";
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";

/// ClusterRoles, ClusterRoleBindings, Roles and RoleBindings of Kubernetes 1.36, labelled
/// `kubernetes.io/bootstrapping: rbac-defaults`, each as it is to be created.
pub fn bootstrap_policy() -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in POLICY.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(rule) => {
                // A rule belongs to the role above it; a controller's binding comes before its role.
                if let Some(role) = objects.last_mut() {
                    add_rule(role, rule);
                }
            }
            None => objects.extend(parse_object(line)),
        }
    }
    collect_aggregated(&mut objects);
    objects
}

fn parse_object(line: &str) -> Vec<Value> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match &*words {
        ["role", name] => vec![role("ClusterRole", None, name, None)],
        ["role", name, "aggregates", "to", target] => vec![role("ClusterRole", None, name, Some(target))],
        ["namespaced", namespace, name] => vec![role("Role", Some(namespace), name, None)],
        ["controller", name] => {
            let subject = format!("ServiceAccount kube-system/{name}");
            let name = format!("system:controller:{name}");
            vec![
                binding(None, &name, &name, &subject),
                role("ClusterRole", None, &name, None),
            ]
        }
        ["bind", name, "to", ..] => vec![binding(None, name, name, subjects_of(line))],
        ["bind", namespace, role, "as", name, "to", ..] => {
            vec![binding(Some(namespace), role, name, subjects_of(line))]
        }
        _ => Vec::new(),
    }
}

fn subjects_of(line: &str) -> &str {
    line.split_once(" to ").map_or("", |(_, subjects)| subjects)
}

fn metadata(namespace: Option<&str>, name: &str) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

fn role(kind: &str, namespace: Option<&str>, name: &str, aggregates_to: Option<&str>) -> Value {
    let mut metadata = metadata(namespace, name);
    if let Some(target) = aggregates_to {
        metadata["labels"][aggregation_label(target)] = json!("true");
    }
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "rules": []})
}

fn binding(namespace: Option<&str>, role: &str, name: &str, subjects: &str) -> Value {
    let (kind, role_kind) = match namespace {
        Some(_) => ("RoleBinding", "Role"),
        None => ("ClusterRoleBinding", "ClusterRole"),
    };
    let subjects: Vec<Value> = subjects.split(", ").map(subject).collect();
    json!({
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": metadata(namespace, name),
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
        "subjects": subjects,
    })
}

fn subject(text: &str) -> Value {
    let (kind, name) = text.split_once(' ').unwrap_or((text, ""));
    match name.split_once('/') {
        Some((namespace, name)) => json!({"kind": kind, "name": name, "namespace": namespace}),
        None => json!({"apiGroup": GROUP, "kind": kind, "name": name}),
    }
}

fn add_rule(role: &mut Value, text: &str) {
    if let Some(target) = text.strip_prefix("collect ") {
        role["aggregationRule"] =
            json!({"clusterRoleSelectors": [{"matchLabels": {aggregation_label(target): "true"}}]});
        return;
    }
    let text = if text == "events" {
        "create patch update : core events.k8s.io : events"
    } else {
        text
    };
    let parts: Vec<&str> = text.split(" : ").collect();
    let rule = match &*parts {
        [verbs, urls] => Rule {
            verbs: words(verbs),
            non_resource_urls: words(urls),
            ..Rule::default()
        },
        [verbs, groups, resources, names @ ..] => Rule {
            verbs: words(verbs),
            api_groups: words(groups),
            resources: words(resources),
            resource_names: names.iter().flat_map(|names| words(names)).collect(),
            non_resource_urls: Vec::new(),
        },
        _ => return,
    };
    if let Some(rules) = role["rules"].as_array_mut() {
        rules.push(rule.to_value());
    }
}

/// The words of a field, abbreviations written out, sorted as upstream's rules are.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = text
        .split_whitespace()
        .flat_map(|word| match word {
            "read" => vec!["get", "list", "watch"],
            "write" => vec!["create", "delete", "deletecollection", "patch", "update"],
            "core" => vec![""],
            word => vec![word],
        })
        .map(str::to_owned)
        .collect();
    words.sort();
    words
}

fn aggregation_label(target: &str) -> String {
    format!("{GROUP}/aggregate-to-{target}")
}

/// Fills `rules` of the aggregated roles, by role name, each rule once; `view` before `edit` before `admin`, as each
/// collects the one before.
fn collect_aggregated(objects: &mut [Value]) {
    for target in ["view", "edit", "admin"] {
        let label = aggregation_label(target);
        let labelled = |labels: &Map<String, Value>| labels.get(&label).is_some_and(|value| value == "true");
        let mut parts: Vec<&Value> = objects
            .iter()
            .filter(|object| object["metadata"]["labels"].as_object().is_some_and(labelled))
            .collect();
        parts.sort_by_key(|part| part["metadata"]["name"].as_str());
        let mut rules: Vec<Value> = Vec::new();
        for rule in parts
            .into_iter()
            .flat_map(|part| part["rules"].as_array().into_iter().flatten())
        {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        if let Some(role) = objects.iter_mut().find(|object| object["metadata"]["name"] == target) {
            role["rules"] = Value::Array(rules);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn rules_of(name: &str) -> Vec<Rule> {
        let objects = bootstrap_policy();
        let role = objects
            .iter()
            .find(|object| object["metadata"]["name"] == name && object["rules"].is_array());
        Rule::list(role.unwrap())
    }

    #[test]
    fn every_line_says_something() {
        let objects = POLICY
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with([' ', '#']));
        for line in objects {
            assert!(!parse_object(line).is_empty(), "{line}");
        }
        for rule in POLICY.lines().filter_map(|line| line.strip_prefix("  ")) {
            let parts = rule.split(" : ").count();
            assert!(
                rule == "events" || rule.starts_with("collect ") || (2..=4).contains(&parts),
                "{rule}"
            );
        }
    }

    #[test]
    fn every_binding_names_a_role_that_is_there() {
        let objects = bootstrap_policy();
        let roles: BTreeSet<(&str, Option<&str>, &str)> = objects
            .iter()
            .filter(|object| object["rules"].is_array())
            .map(|role| {
                let metadata = &role["metadata"];
                (
                    role["kind"].as_str().unwrap(),
                    metadata["namespace"].as_str(),
                    metadata["name"].as_str().unwrap(),
                )
            })
            .collect();
        for binding in objects.iter().filter(|object| object["roleRef"].is_object()) {
            let reference = &binding["roleRef"];
            let namespace = binding["metadata"]["namespace"].as_str();
            let role = (
                reference["kind"].as_str().unwrap(),
                namespace,
                reference["name"].as_str().unwrap(),
            );
            assert!(roles.contains(&role), "{role:?}");
        }
    }

    #[test]
    fn no_object_is_there_twice_and_all_roles_have_rules() {
        let mut seen = BTreeMap::new();
        for object in bootstrap_policy() {
            let key = (object["kind"].to_string(), object["metadata"].to_string());
            assert!(seen.insert(key.clone(), ()).is_none(), "{key:?}");
            if object["roleRef"].is_null() {
                assert!(!Rule::list(&object).is_empty(), "{key:?}");
            }
        }
    }

    #[test]
    fn admin_has_what_edit_has_and_edit_what_view_has() {
        let (view, edit, admin) = (rules_of("view"), rules_of("edit"), rules_of("admin"));
        assert!(view.iter().all(|rule| edit.contains(rule)));
        assert!(edit.iter().all(|rule| admin.contains(rule)));
        assert!(edit.len() > view.len() && admin.len() > edit.len());
    }
}
