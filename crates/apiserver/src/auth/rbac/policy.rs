//! What the cluster's bindings grant, indexed by subject.
//!
//! Owns the index and when it is out of date. Rules of a role are read when a decision first needs them: most of the
//! bootstrap policy never is.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};

use apimachinery::gvk::GroupResource;
use apimachinery::labels::Selector;
use apimachinery::quote::quote;
use serde_json::Value;

use super::rule::Rule;
use super::{Attributes, Decision};
use crate::auth::identity::{Identity, service_account_user, split_service_account_user};
use crate::store::View;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles and bindings of both scopes: when one changes, the index is out of date.
static SOURCES: LazyLock<[GroupResource; 4]> = LazyLock::new(|| {
    ["clusterrolebindings", "rolebindings", "clusterroles", "roles"].map(|resource| GroupResource::new(GROUP, resource))
});

fn cluster_role_bindings() -> &'static GroupResource {
    &SOURCES[0]
}

fn role_bindings() -> &'static GroupResource {
    &SOURCES[1]
}

fn cluster_roles() -> &'static GroupResource {
    &SOURCES[2]
}

fn roles() -> &'static GroupResource {
    &SOURCES[3]
}

/// What the view held when the policy was read.
#[derive(Debug)]
enum Stamp {
    /// The view counts changes.
    Generations([u64; 4]),
    /// It does not: the objects themselves, which no write changes in place.
    Objects([Vec<Arc<Value>>; 4]),
}

impl Stamp {
    fn generations(view: &dyn View) -> Option<[u64; 4]> {
        let mut generations = [0; 4];
        for (generation, source) in generations.iter_mut().zip(&*SOURCES) {
            *generation = view.generation(source)?;
        }
        Some(generations)
    }

    fn of(view: &dyn View) -> Self {
        match Self::generations(view) {
            Some(generations) => Self::Generations(generations),
            None => Self::Objects(SOURCES.each_ref().map(|source| view.list(source, None))),
        }
    }

    fn is_current(&self, view: &dyn View) -> bool {
        match self {
            Self::Generations(known) => Self::generations(view).as_ref() == Some(known),
            Self::Objects(known) => known.iter().zip(&*SOURCES).all(|(known, source)| {
                let now = view.list(source, None);
                now.len() == known.len() && now.iter().zip(known).all(|(now, known)| Arc::ptr_eq(now, known))
            }),
        }
    }
}

/// One binding.
#[derive(Debug)]
struct Grant {
    /// The RoleBinding's namespace; a ClusterRoleBinding has none.
    namespace: Option<Box<str>>,
    binding: Box<str>,
    role: RoleRef,
    /// Read on first use.
    rules: OnceLock<Result<Arc<[Rule]>, String>>,
}

/// Which role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RoleRef {
    pub(super) cluster: bool,
    pub(super) name: Box<str>,
}

impl RoleRef {
    /// The `roleRef` of a binding.
    pub(super) fn of(binding: &Value) -> Self {
        let reference = &binding["roleRef"];
        Self {
            cluster: reference["kind"] == "ClusterRole",
            name: reference["name"].as_str().unwrap_or_default().into(),
        }
    }

    /// Its resource.
    pub(super) fn resource(&self) -> &'static GroupResource {
        if self.cluster { cluster_roles() } else { roles() }
    }

    /// Its rules, an aggregated role's collected; `namespace` is the binding's.
    pub(super) fn rules(&self, view: &dyn View, namespace: Option<&str>) -> Result<Vec<Rule>, String> {
        let namespace = namespace.filter(|_| !self.cluster);
        match view.get(self.resource(), namespace, &self.name) {
            Some(role) => Ok(aggregated_rules(view, &role).unwrap_or_else(|| Rule::list(&role))),
            None => {
                let kind = if self.cluster { "clusterrole" } else { "role" };
                Err(format!("{kind}.{GROUP} {} not found", quote(&self.name)))
            }
        }
    }
}

/// The rules of an aggregated ClusterRole: those of all ClusterRoles that its selectors match, aggregated ones
/// included, each rule once, by role name. `None` if `role` is not aggregated.
pub fn aggregated_rules(view: &dyn View, role: &Value) -> Option<Vec<Rule>> {
    role["aggregationRule"].as_object()?;
    let all = view.list(cluster_roles(), None);
    let mut rules = Vec::new();
    collect(role, &all, &mut vec![name_of(role)], &mut rules);
    Some(rules)
}

fn collect<'a>(role: &'a Value, all: &'a [Arc<Value>], seen: &mut Vec<&'a str>, rules: &mut Vec<Rule>) {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"]
        .as_array()
        .into_iter()
        .flatten();
    for selector in selectors.filter_map(|selector| Selector::from_label_selector(selector).ok()) {
        for part in all {
            if seen.contains(&name_of(part)) || !selector.matches_object(part) {
                continue;
            }
            seen.push(name_of(part));
            if part["aggregationRule"].is_object() {
                collect(part, all, seen, rules);
            } else {
                for rule in Rule::list(part) {
                    if !rules.contains(&rule) {
                        rules.push(rule);
                    }
                }
            }
        }
    }
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The index.
#[derive(Debug)]
pub(super) struct Policy {
    stamp: Stamp,
    grants: Vec<Grant>,
    users: HashMap<Box<str>, Vec<u32>>,
    groups: HashMap<Box<str>, Vec<u32>>,
}

impl Policy {
    /// Reads all bindings.
    pub(super) fn read(view: &dyn View) -> Self {
        // The stamp first: a change while reading makes the policy out of date, never wrong for ever.
        let mut policy = Self {
            stamp: Stamp::of(view),
            grants: Vec::new(),
            users: HashMap::new(),
            groups: HashMap::new(),
        };
        for source in [cluster_role_bindings(), role_bindings()] {
            for binding in view.list(source, None) {
                policy.add(&binding);
            }
        }
        policy
    }

    fn add(&mut self, binding: &Value) {
        let namespace = binding["metadata"]["namespace"].as_str();
        let index = u32::try_from(self.grants.len()).unwrap_or(u32::MAX);
        for subject in binding["subjects"].as_array().into_iter().flatten() {
            let name = subject["name"].as_str().unwrap_or_default();
            let of_subject = match subject["kind"].as_str() {
                Some("User") => self.users.entry(name.into()),
                Some("Group") => self.groups.entry(name.into()),
                Some("ServiceAccount") => {
                    let namespace = subject["namespace"]
                        .as_str()
                        .filter(|own| !own.is_empty())
                        .or(namespace);
                    self.users
                        .entry(service_account_user(namespace.unwrap_or_default(), name).into())
                }
                _ => continue,
            };
            of_subject.or_default().push(index);
        }
        self.grants.push(Grant {
            namespace: namespace.map(Into::into),
            binding: name_of(binding).into(),
            role: RoleRef::of(binding),
            rules: OnceLock::new(),
        });
    }

    /// Whether nothing changed since it was read.
    pub(super) fn is_current(&self, view: &dyn View) -> bool {
        self.stamp.is_current(view)
    }

    /// The bindings for `identity` that count in `namespace`, each with the group through which it counts, if it is
    /// one.
    fn grants_of<'a>(
        &'a self,
        identity: &'a Identity,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (Option<&'a str>, &'a Grant)> {
        let by_user = self.users.get(identity.user.as_str()).map(|indices| (None, indices));
        let by_group = identity
            .groups
            .iter()
            .filter_map(|group| Some((Some(group.as_str()), self.groups.get(group.as_str())?)));
        by_user
            .into_iter()
            .chain(by_group)
            .flat_map(|(group, indices)| indices.iter().map(move |&index| (group, index)))
            .filter_map(|(group, index)| Some((group, self.grants.get(index as usize)?)))
            .filter(move |(_, grant)| grant.namespace.is_none() || grant.namespace.as_deref() == namespace)
    }

    pub(super) fn decide(&self, view: &dyn View, identity: &Identity, request: &Attributes<'_>) -> Decision {
        let namespace = request.namespace.filter(|_| request.path.is_none());
        let mut errors: Vec<&str> = Vec::new();
        for (group, grant) in self.grants_of(identity, namespace) {
            match grant.rules(view) {
                Ok(rules) if rules.iter().any(|rule| rule.allows(request)) => {
                    return Decision::Allow {
                        reason: grant.describe(identity, group),
                    };
                }
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        let reason = match &*errors {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        };
        Decision::Deny { reason }
    }

    pub(super) fn rules_of(
        &self,
        view: &dyn View,
        identity: &Identity,
        namespace: Option<&str>,
    ) -> (Vec<Rule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for (_, grant) in self.grants_of(identity, namespace) {
            match grant.rules(view) {
                Ok(own) => rules.extend_from_slice(own),
                Err(error) => errors.push(error.to_owned()),
            }
        }
        (rules, errors)
    }
}

impl Grant {
    fn rules(&self, view: &dyn View) -> Result<&[Rule], &str> {
        let rules = self
            .rules
            .get_or_init(|| self.role.rules(view, self.namespace.as_deref()).map(Into::into));
        rules.as_ref().map(|rules| &**rules).map_err(String::as_str)
    }

    /// `RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "r" to User "u"`, as upstream words it.
    fn describe(&self, identity: &Identity, group: Option<&str>) -> String {
        let role = if self.role.cluster { "ClusterRole" } else { "Role" };
        let (binding, place) = match &self.namespace {
            Some(namespace) => ("RoleBinding", format!("{}/{namespace}", self.binding)),
            None => ("ClusterRoleBinding", self.binding.to_string()),
        };
        let subject = match (group, split_service_account_user(&identity.user)) {
            (Some(group), _) => format!("Group {}", quote(group)),
            (None, Some((namespace, name))) => format!("ServiceAccount {}", quote(&format!("{name}/{namespace}"))),
            (None, None) => format!("User {}", quote(&identity.user)),
        };
        let (place, name) = (quote(&place), quote(&self.role.name));
        format!("RBAC: allowed by {binding} {place} of {role} {name} to {subject}")
    }
}
