//! rbac.authorization.k8s.io. After k/k `pkg/apis/rbac` at 1.36. What a client may grant is `auth`'s business.

use serde_json::Value;

use super::Strategy;
use super::names::Rule;
use super::walk::{each, ensure_at, field, fill_zero};

const GROUP: &str = "rbac.authorization.k8s.io";

const RULES: Strategy = Strategy {
    name: Rule::PathSegment,
    create_on_update: true,
    ..Strategy::PLAIN
};

/// Rules of Roles.
pub(super) static ROLE: Strategy = RULES;

/// Rules of ClusterRoles.
pub(super) static CLUSTER_ROLE: Strategy = RULES;

/// Rules of RoleBindings.
pub(super) static ROLE_BINDING: Strategy = Strategy {
    default: default_binding,
    ..RULES
};

/// Rules of ClusterRoleBindings.
pub(super) static CLUSTER_ROLE_BINDING: Strategy = Strategy {
    default: default_binding,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn users_and_groups_belong_to_rbac_service_accounts_to_nobody() {
        let mut binding = json!({"roleRef": {"kind": "Role", "name": "a"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]});
        default_binding(&mut binding);
        assert_eq!(binding["roleRef"]["apiGroup"], GROUP);
        assert_eq!(binding["subjects"][0]["apiGroup"], GROUP);
        assert_eq!(binding["subjects"][1].get("apiGroup"), None);
    }
}
