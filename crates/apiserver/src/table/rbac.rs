//! RoleBinding and ClusterRoleBinding. Roles have no columns of their own.

use serde_json::Value;

use super::column::{AGE, Column, NAME, shown};
use crate::strategy::walk;

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    matches!(kind, "RoleBinding" | "ClusterRoleBinding").then_some(BINDING)
}

static BINDING: &[Column] = &[
    NAME,
    shown("Role", "The role that is granted", |binding, _| {
        let role = |field| walk::text(binding, &["roleRef", field]);
        format!("{}/{}", role("kind"), role("name")).into()
    }),
    AGE,
    shown("Users", "Users it is granted to", |binding, _| {
        subjects(binding, "User")
    })
    .wide(),
    shown("Groups", "Groups it is granted to", |binding, _| {
        subjects(binding, "Group")
    })
    .wide(),
    shown("ServiceAccounts", "Service accounts it is granted to", |binding, _| {
        subjects(binding, "ServiceAccount")
    })
    .wide(),
];

fn subjects(binding: &Value, kind: &str) -> Value {
    let subjects = walk::list(binding, &["subjects"]).iter();
    let of_kind = subjects.filter(|subject| walk::text(subject, &["kind"]) == kind);
    let names = of_kind.map(|subject| {
        let name = walk::text(subject, &["name"]);
        match walk::text(subject, &["namespace"]) {
            namespace if kind == "ServiceAccount" && !namespace.is_empty() => format!("{namespace}/{name}"),
            _ => name.to_owned(),
        }
    });
    names.collect::<Vec<_>>().join(", ").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::testing::{headings, row};

    #[test]
    fn a_binding_shows_the_role_and_on_demand_who_has_it() {
        let binding = json!({
            "metadata": {"name": "b", "creationTimestamp": "2026-01-02T11:59:00Z"},
            "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "ada"}, {"kind": "User", "name": "bob"}, {"kind": "Group", "name": "dev"},
                {"kind": "ServiceAccount", "namespace": "shop", "name": "cart"}],
        });
        let v1 = "rbac.authorization.k8s.io/v1";
        assert_eq!(
            headings(v1, "RoleBinding"),
            "Name  Role  Age | Users  Groups  ServiceAccounts"
        );
        let expected = "b  ClusterRole/view  60s | ada, bob  dev  shop/cart";
        assert_eq!(row(v1, "RoleBinding", &binding), expected);
        assert_eq!(row(v1, "ClusterRoleBinding", &binding), expected);
    }
}
