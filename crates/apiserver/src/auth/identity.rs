//! Who makes a request.
//!
//! Owns the shape of an identity and Kubernetes' well-known names for users and groups. Must not know how it was
//! proved (`authenticate`) or what it may do (`rbac`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The user of a request that brought no credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of everybody who proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything, whatever RBAC says.
pub const MASTERS: &str = "system:masters";
/// The group of every ServiceAccount.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// The group of kubelets.
pub const NODES: &str = "system:nodes";

const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// A user as the API server sees it (`user.Info` of k8s.io/apiserver).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// User name, unique among active users.
    pub user: String,
    /// Tells apart two users that had the same name at different times; known for ServiceAccounts only.
    pub uid: Option<String>,
    /// Groups, in the order they were proved.
    pub groups: Vec<String>,
    /// What the authenticator wants to pass on, e.g. the Pod that a token is bound to. Keys are lower case.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// An authenticated user; `system:authenticated` is added to `groups`.
    pub fn new<S: AsRef<str>>(user: &str, groups: impl IntoIterator<Item = S>) -> Self {
        let mut identity = Self {
            user: user.to_owned(),
            groups: groups.into_iter().map(|group| group.as_ref().to_owned()).collect(),
            ..Self::default()
        };
        identity.add_group(AUTHENTICATED);
        identity
    }

    /// Somebody who showed no credentials.
    pub fn anonymous() -> Self {
        Self {
            user: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// A ServiceAccount, with the groups that each of them is in.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self::new(
            &service_account_user(namespace, name),
            [SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")],
        )
    }

    /// Whether it is in `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// Puts it into `group`, once.
    pub fn add_group(&mut self, group: &str) {
        if !self.is_in(group) {
            self.groups.push(group.to_owned());
        }
    }

    /// `UserInfo` of authentication.k8s.io/v1; empty fields are left out.
    pub fn to_user_info(&self) -> Value {
        let mut info = Map::new();
        info.insert("username".into(), json!(self.user));
        if let Some(uid) = &self.uid {
            info.insert("uid".into(), json!(uid));
        }
        if !self.groups.is_empty() {
            info.insert("groups".into(), json!(self.groups));
        }
        if !self.extra.is_empty() {
            info.insert("extra".into(), json!(self.extra));
        }
        Value::Object(info)
    }
}

/// The user name of a ServiceAccount.
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

/// Namespace and name of the ServiceAccount that has this user name.
pub fn split_service_account_user(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_is_in_the_three_groups_that_every_one_is_in() {
        let identity = Identity::service_account("kube-system", "deployment-controller");
        assert_eq!(identity.user, "system:serviceaccount:kube-system:deployment-controller");
        assert_eq!(
            identity.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:kube-system",
                "system:authenticated"
            ]
        );
        assert_eq!(
            split_service_account_user(&identity.user),
            Some(("kube-system", "deployment-controller"))
        );
    }

    #[test]
    fn a_user_name_with_a_part_missing_or_too_many_is_no_service_account() {
        for user in [
            "admin",
            "system:serviceaccount:a",
            "system:serviceaccount::b",
            "system:serviceaccount:a:b:c",
        ] {
            assert_eq!(split_service_account_user(user), None, "{user}");
        }
    }
}
