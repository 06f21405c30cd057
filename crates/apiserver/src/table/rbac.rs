//! RoleBinding and ClusterRoleBinding; roles have no columns of their own.

use serde_json::Value;

use super::cell::{age, name};
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::{list, text};

pub(super) static BINDING: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Role", "What is granted."),
        AGE,
        Column::text("Users", "Users it is granted to.").wide(),
        Column::text("Groups", "Groups it is granted to.").wide(),
        Column::text("ServiceAccounts", "ServiceAccounts it is granted to.").wide(),
    ],
    cells: |binding, now| {
        let role = format!(
            "{}/{}",
            text(binding, &["roleRef", "kind"]),
            text(binding, &["roleRef", "name"])
        );
        vec![
            name(binding),
            role.into(),
            age(binding, now),
            subjects(binding, "User"),
            subjects(binding, "Group"),
            subjects(binding, "ServiceAccount"),
        ]
    },
};

fn subjects(binding: &Value, kind: &str) -> Value {
    let of_kind = list(binding, &["subjects"])
        .iter()
        .filter(|subject| text(subject, &["kind"]) == kind);
    let names = of_kind.map(
        |subject| match (text(subject, &["namespace"]), text(subject, &["name"])) {
            ("", name) => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        },
    );
    names.collect::<Vec<_>>().join(", ").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    #[test]
    fn a_binding_shows_who_gets_what() {
        let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [
            {"kind": "User", "name": "u"}, {"kind": "User", "name": "v"}, {"kind": "Group", "name": "g"},
            {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]});
        assert_eq!(
            row(&BINDING, &binding),
            ["b", "Role/r", "<unknown>", "u, v", "g", "n/s"]
        );
    }
}
