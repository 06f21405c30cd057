//! Nobody gives away what they do not hold: the check on writes of Roles and bindings.
//!
//! Algorithm and words: kubernetes/kubernetes `pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/
//! policybased/storage.go` and `pkg/registry/rbac/validation/rule.go` (v1.36).

use std::collections::BTreeSet;

use apimachinery::gvk::GroupResource;
use apimachinery::quote::quote;
use apimachinery::status::Status;
use serde_json::Value;

use super::policy::RoleRef;
use super::rule::{Quoted, Rule, compact, uncovered};
use super::{Attributes, Authorizer};
use crate::auth::identity::{Identity, MASTERS};
use crate::store::View;

/// May `identity` write this Role or ClusterRole (`resource` says which), which was `old`? Yes if its rules do not
/// change, if `identity` may `escalate` it, or if it holds every rule itself; else a 403 that names what it does not
/// hold.
pub fn check_role(
    authorizer: &Authorizer,
    view: &dyn View,
    identity: &Identity,
    resource: &GroupResource,
    role: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let (name, namespace) = (text(role, "name"), role["metadata"]["namespace"].as_str());
    let same = |old: &Value| {
        ["rules", "aggregationRule"]
            .iter()
            .all(|field| old[*field] == role[*field])
    };
    if identity.is_in(MASTERS) || old.is_some_and(same) {
        return Ok(());
    }
    let escalate = Attributes::on("escalate", resource)
        .in_namespace(namespace)
        .named(Some(name));
    if authorizer.authorize(view, identity, &escalate).is_allowed() {
        return Ok(());
    }
    let refuse = |detail: &str| Err(Status::forbidden(resource, name, detail));
    // Whatever roles come later, an aggregated one takes them all in: only who holds everything may make it.
    if role["aggregationRule"].is_object() {
        let (held, _) = authorizer.rules_of(view, identity, None);
        if !uncovered(&held, &Rule::everything()).is_empty() {
            return refuse("must have cluster-admin privileges to use the aggregationRule");
        }
    }
    match missing(authorizer, view, identity, namespace, &Rule::list(role)) {
        Some(detail) => refuse(&detail),
        None => Ok(()),
    }
}

/// May `identity` write this RoleBinding or ClusterRoleBinding (`resource` says which), which was `old`? Yes if subjects
/// and role do not change, if `identity` may `bind` the role, or if it holds every rule of the role itself.
pub fn check_binding(
    authorizer: &Authorizer,
    view: &dyn View,
    identity: &Identity,
    resource: &GroupResource,
    binding: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let (name, namespace) = (text(binding, "name"), binding["metadata"]["namespace"].as_str());
    let same = |old: &Value| {
        ["roleRef", "subjects"]
            .iter()
            .all(|field| old[*field] == binding[*field])
    };
    if identity.is_in(MASTERS) || old.is_some_and(same) {
        return Ok(());
    }
    let role = RoleRef::of(binding);
    // `bind` is asked in the binding's namespace even for a ClusterRole: it is granted there and nowhere else.
    let bind = Attributes::on("bind", role.resource())
        .in_namespace(namespace)
        .named(Some(&role.name));
    if authorizer.authorize(view, identity, &bind).is_allowed() {
        return Ok(());
    }
    let rules = match role.rules(view, namespace) {
        Ok(rules) => rules,
        Err(_) => return Err(Status::not_found(role.resource(), &role.name)),
    };
    match missing(authorizer, view, identity, namespace, &rules) {
        Some(detail) => Err(Status::forbidden(resource, name, &detail)),
        None => Ok(()),
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// What is said about the rules of `wanted` that `identity` does not hold; `None` if it holds them all.
fn missing(
    authorizer: &Authorizer,
    view: &dyn View,
    identity: &Identity,
    namespace: Option<&str>,
    wanted: &[Rule],
) -> Option<String> {
    let (held, errors) = authorizer.rules_of(view, identity, namespace);
    let missing = uncovered(&held, wanted);
    if missing.is_empty() {
        return None;
    }
    let lines: BTreeSet<String> = compact(missing).iter().map(Rule::to_string).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    let mut detail = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        quote(&identity.user),
        Quoted(&identity.groups),
        lines.join("\n")
    );
    if !errors.is_empty() {
        detail.push_str(&format!("; resolution errors: [{}]", errors.join(", ")));
    }
    Some(detail)
}
