//! NodeTaint: a node that is not ready when it comes takes no Pods until it is. After k/k 1.36
//! `plugin/pkg/admission/nodetaint`.
//!
//! Upstream taints every new node, for a node controller to clear it. Here a kubelet may register a node that is ready,
//! and clears the taint itself otherwise; a Node that somebody makes by hand keeps it.

use serde_json::{Value, json};

use super::{Operation, Request};
use crate::strategy::walk::{ensure_at, list, text};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) fn admit(request: &Request<'_>, node: &mut Value) {
    if !request.is_for("", "nodes") || request.operation != Operation::Create {
        return;
    }
    let ready = list(node, &["status", "conditions"])
        .iter()
        .any(|condition| text(condition, &["type"]) == "Ready" && text(condition, &["status"]) == "True");
    let mut taints = list(node, &["spec", "taints"]).to_vec();
    let tainted = taints
        .iter()
        .any(|taint| text(taint, &["key"]) == NOT_READY && text(taint, &["effect"]) == "NoSchedule");
    if ready || tainted {
        return;
    }
    taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    if let Some(spec) = ensure_at(node, &["spec"]) {
        spec.insert("taints".to_owned(), taints.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::creating;

    #[test]
    fn a_node_without_a_kubelet_takes_no_pods() {
        let mut node = json!({"metadata": {"name": "fakenode"}});
        creating("", "nodes", "fakenode", |request| admit(request, &mut node));
        assert_eq!(
            node["spec"]["taints"],
            json!([{"key": NOT_READY, "effect": "NoSchedule"}])
        );
        let mut node = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        creating("", "nodes", "a", |request| admit(request, &mut node));
        assert_eq!(node.get("spec"), None);
    }
}
