//! rbac.authorization.k8s.io. After k/k `pkg/apis/rbac` at 1.36. What a client may grant is `auth`'s business.

use apimachinery::field::{Error, Path};
use apimachinery::names::dns1123_subdomain;
use serde_json::Value;

use super::Strategy;
use super::check::{self, text_messages};
use super::names::Rule;
use super::walk::{at, each, ensure_at, field, fill_zero, has, list, same, text};

const GROUP: &str = "rbac.authorization.k8s.io";

const RULES: Strategy = Strategy {
    name: Rule::PathSegment,
    create_on_update: true,
    ..Strategy::PLAIN
};

/// Rules of Roles.
pub(super) static ROLE: Strategy = Strategy {
    validate: |role, errors| validate_rules(role, true, errors),
    ..RULES
};

/// Rules of ClusterRoles.
pub(super) static CLUSTER_ROLE: Strategy = Strategy {
    validate: validate_cluster_role,
    ..RULES
};

/// Rules of RoleBindings.
pub(super) static ROLE_BINDING: Strategy = Strategy {
    default: default_binding,
    validate: |binding, errors| validate_binding(binding, true, errors),
    validate_update: validate_binding_update,
    ..RULES
};

/// Rules of ClusterRoleBindings.
pub(super) static CLUSTER_ROLE_BINDING: Strategy = Strategy {
    default: default_binding,
    validate: |binding, errors| validate_binding(binding, false, errors),
    validate_update: validate_binding_update,
    ..RULES
};

fn default_binding(binding: &mut Value) {
    if let Some(reference) = ensure_at(binding, &["roleRef"]) {
        fill_zero(reference, "apiGroup", GROUP);
    }
    let Some(binding) = binding.as_object_mut() else { return };
    for subject in each(binding, "subjects") {
        if matches!(field(subject, "kind"), "User" | "Group") {
            fill_zero(subject, "apiGroup", GROUP);
        }
    }
}

fn validate_rules(role: &Value, namespaced: bool, errors: &mut Vec<Error>) {
    for (index, rule) in list(role, &["rules"]).iter().enumerate() {
        let path = Path::new("rules").index(index);
        if !has(rule, &["verbs"]) {
            errors.push(Error::required(
                &path.child("verbs"),
                "verbs must contain at least one value",
            ));
        }
        let urls = list(rule, &["nonResourceURLs"]);
        if urls.is_empty() {
            for (key, what) in [("apiGroups", "api group"), ("resources", "resource")] {
                if !has(rule, &[key]) {
                    let detail = format!("resource rules must supply at least one {what}");
                    errors.push(Error::required(&path.child(key), detail));
                }
            }
            continue;
        }
        let place = path.child("nonResourceURLs");
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(Error::invalid(&place, urls.to_vec(), detail));
        }
        if ["apiGroups", "resources", "resourceNames"]
            .iter()
            .any(|key| has(rule, &[key]))
        {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(Error::invalid(&place, urls.to_vec(), detail));
        }
    }
}

fn validate_cluster_role(role: &Value, errors: &mut Vec<Error>) {
    validate_rules(role, false, errors);
    if at(role, &["aggregationRule"]).is_none() {
        return;
    }
    let path = Path::new("aggregationRule.clusterRoleSelectors");
    let selectors = list(role, &["aggregationRule", "clusterRoleSelectors"]);
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(Error::required(&path, detail));
    }
    for (index, selector) in selectors.iter().enumerate() {
        check::label_selector(selector, &path.index(index), errors);
    }
}

fn validate_binding(binding: &Value, namespaced: bool, errors: &mut Vec<Error>) {
    let path = Path::new("roleRef");
    let reference = binding.get("roleRef").unwrap_or(&Value::Null);
    let group = text(reference, &["apiGroup"]);
    if group != GROUP {
        errors.push(Error::not_supported(&path.child("apiGroup"), group, &[GROUP]));
    }
    let kinds: &[&str] = if namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    let kind = text(reference, &["kind"]);
    if !kinds.contains(&kind) {
        errors.push(Error::not_supported(&path.child("kind"), kind, kinds));
    }
    match text(reference, &["name"]) {
        "" => errors.push(Error::required(&path.child("name"), "")),
        name => text_messages(Rule::PathSegment.check(name, false), &path.child("name"), name, errors),
    }
    for (index, subject) in list(binding, &["subjects"]).iter().enumerate() {
        validate_subject(subject, namespaced, &Path::new("subjects").index(index), errors);
    }
}

fn validate_subject(subject: &Value, namespaced: bool, path: &Path, errors: &mut Vec<Error>) {
    let (name, group) = (text(subject, &["name"]), text(subject, &["apiGroup"]));
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    match text(subject, &["kind"]) {
        "ServiceAccount" => {
            if !name.is_empty() {
                text_messages(dns1123_subdomain(name), &path.child("name"), name, errors);
            }
            if !group.is_empty() {
                errors.push(Error::not_supported(&path.child("apiGroup"), group, &[""]));
            }
            if !namespaced && text(subject, &["namespace"]).is_empty() {
                errors.push(Error::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(Error::not_supported(&path.child("apiGroup"), group, &[GROUP]));
            }
        }
        kind => {
            errors.push(Error::not_supported(
                &path.child("kind"),
                kind,
                &["ServiceAccount", "User", "Group"],
            ));
        }
    }
}

/// Whoever may add subjects must not thereby choose what they get.
fn validate_binding_update(new: &Value, old: &Value, errors: &mut Vec<Error>) {
    if !same(new.get("roleRef"), old.get("roleRef")) {
        let value = new.get("roleRef").cloned().unwrap_or(Value::Null);
        errors.push(Error::invalid(&Path::new("roleRef"), value, "cannot change roleRef"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(errors: &[Error]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn users_and_groups_belong_to_rbac_service_accounts_to_nobody() {
        let mut binding = json!({"roleRef": {"kind": "Role", "name": "a"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]});
        default_binding(&mut binding);
        assert_eq!(binding["roleRef"]["apiGroup"], GROUP);
        assert_eq!(binding["subjects"][0]["apiGroup"], GROUP);
        assert_eq!(binding["subjects"][1].get("apiGroup"), None);
    }

    #[test]
    fn a_rule_says_what_may_be_done_with_what() {
        let mut errors = Vec::new();
        let role = json!({"rules": [{}, {"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]});
        validate_rules(&role, true, &mut errors);
        assert_eq!(
            texts(&errors),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
                "rules[1].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules cannot apply to non-resource URLs",
            ]
        );
    }

    #[test]
    fn a_binding_keeps_its_role() {
        let old = json!({"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "a"}});
        let new = json!({"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "b"}});
        let mut errors = Vec::new();
        validate_binding(&new, false, &mut errors);
        validate_binding_update(&new, &old, &mut errors);
        assert_eq!(
            texts(&errors),
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"b\"}: cannot \
             change roleRef",
            ]
        );
    }
}
