//! networking.k8s.io: Ingress, IngressClass, NetworkPolicy, ServiceCIDR. After k/k `pkg/apis/networking` at 1.36.

use serde_json::{Value, json};

use super::walk::{each, ensure_at, fill, fill_zero, inner, object_mut};
use super::{Generation, Status, Strategy, empty_status};

/// Rules of Ingresses.
pub(super) static INGRESS: Strategy = Strategy {
    status: Status::Fresh(|| json!({"loadBalancer": {}})),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// Rules of IngressClasses.
pub(super) static INGRESS_CLASS: Strategy = Strategy {
    default: |class| {
        if let Some(parameters) = object_mut(class, &["spec"]).and_then(|spec| inner(spec, "parameters")) {
            fill(parameters, "scope", "Cluster");
        }
    },
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// Rules of NetworkPolicies.
pub(super) static NETWORK_POLICY: Strategy = Strategy {
    default: default_network_policy,
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// Rules of ServiceCIDRs.
pub(super) static SERVICE_CIDR: Strategy = Strategy {
    status: Status::Fresh(empty_status),
    ..Strategy::PLAIN
};

fn default_network_policy(policy: &mut Value) {
    let Some(spec) = ensure_at(policy, &["spec"]) else {
        return;
    };
    for direction in ["ingress", "egress"] {
        for rule in each(spec, direction) {
            for port in each(rule, "ports") {
                fill(port, "protocol", "TCP");
            }
        }
    }
    // A policy without types is about what comes in; about what goes out only if it says so.
    let has_egress = spec
        .get("egress")
        .and_then(Value::as_array)
        .is_some_and(|rules| !rules.is_empty());
    let types = if has_egress {
        json!(["Ingress", "Egress"])
    } else {
        json!(["Ingress"])
    };
    fill_zero(spec, "policyTypes", types);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_with_egress_rules_is_about_both() {
        let mut policy = json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}});
        default_network_policy(&mut policy);
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    }
}
