//! Role-based access control: may this identity do this?
//!
//! Owns the decision and its words. Reads Roles and bindings through a [`View`] and keeps what it read, indexed by
//! subject, until one of them changes: a decision then costs about a microsecond. An aggregated ClusterRole (`admin`,
//! `edit`, `view`) has the rules of the ClusterRoles that its selectors match, looked up here, so that a role a chart
//! brings counts at once. Must not know HTTP. Algorithm: kubernetes/kubernetes `plugin/pkg/auth/authorizer/rbac`
//! and `pkg/registry/rbac/validation` (v1.36).

mod escalation;
mod policy;
mod rule;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};

use apimachinery::gvk::GroupResource;
use apimachinery::quote::quote;
use apimachinery::status::Status;

use super::identity::{Identity, MASTERS};
use crate::store::View;
use policy::Policy;

pub use escalation::{check_binding, check_role};
pub use policy::aggregated_rules;
pub use rule::Rule;

/// What is asked: a verb on a resource, or on a path that is no resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or a special verb; for a
    /// path the HTTP method in lower case.
    pub verb: &'a str,
    /// API group, empty for core.
    pub group: &'a str,
    /// Plural name of the resource.
    pub resource: &'a str,
    /// `log`, `scale`, `status`, …
    pub subresource: Option<&'a str>,
    /// Namespace, if the request is in one.
    pub namespace: Option<&'a str>,
    /// Name, if the request has one. A list or watch with the field selector `metadata.name=x` has the name `x`.
    pub name: Option<&'a str>,
    /// Set for a path that is no resource, e.g. `/version`; group, resource and the rest are then meaningless.
    pub path: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    /// A verb on a resource, cluster-wide until a namespace is set.
    pub fn on(verb: &'a str, resource: &'a GroupResource) -> Self {
        Self {
            verb,
            group: &resource.group,
            resource: &resource.resource,
            ..Self::default()
        }
    }

    /// A verb on a path.
    pub fn on_path(verb: &'a str, path: &'a str) -> Self {
        Self {
            verb,
            path: Some(path),
            ..Self::default()
        }
    }

    /// The same in `namespace`.
    #[must_use]
    pub fn in_namespace(self, namespace: Option<&'a str>) -> Self {
        Self { namespace, ..self }
    }

    /// The same on the object `name`.
    #[must_use]
    pub fn named(self, name: Option<&'a str>) -> Self {
        Self { name, ..self }
    }

    /// What a refused `identity` is told, e.g. `User "u" cannot get resource "pods" in API group "" in the namespace
    /// "ns"`, with `reason` appended if there is one.
    pub fn refusal(&self, identity: &Identity, reason: &str) -> String {
        let (user, verb) = (quote(&identity.user), self.verb);
        let mut text = match self.path {
            Some(path) => format!("User {user} cannot {verb} path {}", quote(path)),
            None => {
                let slash = if self.subresource.is_some() { "/" } else { "" };
                let resource = quote(&format!(
                    "{}{slash}{}",
                    self.resource,
                    self.subresource.unwrap_or_default()
                ));
                let place = match self.namespace {
                    Some(namespace) => format!("in the namespace {}", quote(namespace)),
                    None => "at the cluster scope".to_owned(),
                };
                let group = quote(self.group);
                format!("User {user} cannot {verb} resource {resource} in API group {group} {place}")
            }
        };
        text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        if !reason.is_empty() {
            text = format!("{text}: {reason}");
        }
        text
    }

    /// The 403 for a refused `identity`.
    pub fn forbidden(&self, identity: &Identity, reason: &str) -> Status {
        let resource = GroupResource::new(self.group, self.resource);
        Status::forbidden(&resource, self.name.unwrap_or_default(), self.refusal(identity, reason))
    }
}

/// The answer to an [`Attributes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow {
        /// Which binding allows it, for access reviews and audit.
        reason: String,
    },
    /// No rule allows it. The text says what went wrong while looking (a binding to a role that is not there), mostly
    /// nothing.
    Deny {
        /// May be empty.
        reason: String,
    },
}

impl Decision {
    /// Whether it is [`Self::Allow`].
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

/// Decides, and remembers the policy it read.
#[derive(Debug, Default)]
pub struct Authorizer {
    policy: RwLock<Option<Arc<Policy>>>,
}

impl Authorizer {
    /// May `identity` do this? `system:masters` may do everything.
    pub fn authorize(&self, view: &dyn View, identity: &Identity, request: &Attributes<'_>) -> Decision {
        if identity.is_in(MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        self.policy(view).decide(view, identity, request)
    }

    /// As [`Self::authorize`], with the 403 as error.
    pub fn require(&self, view: &dyn View, identity: &Identity, request: &Attributes<'_>) -> Result<(), Status> {
        match self.authorize(view, identity, request) {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } => Err(request.forbidden(identity, &reason)),
        }
    }

    /// The rules that `identity` holds in `namespace` (cluster-wide ones included), and what went wrong while looking.
    pub fn rules_of(&self, view: &dyn View, identity: &Identity, namespace: Option<&str>) -> (Vec<Rule>, Vec<String>) {
        let (mut rules, errors) = self.policy(view).rules_of(view, identity, namespace);
        if identity.is_in(MASTERS) {
            rules.extend(Rule::everything());
        }
        (rules, errors)
    }

    fn policy(&self, view: &dyn View) -> Arc<Policy> {
        let known = self.policy.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(policy) = known.filter(|policy| policy.is_current(view)) {
            return policy;
        }
        let policy = Arc::new(Policy::read(view));
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Some(policy.clone());
        policy
    }
}

/// One decision without a memory; a server keeps an [`Authorizer`].
pub fn authorize(view: &dyn View, identity: &Identity, request: &Attributes<'_>) -> Decision {
    Authorizer::default().authorize(view, identity, request)
}
