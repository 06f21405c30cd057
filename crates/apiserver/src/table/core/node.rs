//! Node: is it ready, what is it for, what runs on it.

use jiff::Timestamp;
use serde_json::Value;

use crate::strategy::walk;
use crate::table::column::{AGE, Column, NAME, shown, text};
use crate::table::show::{self, or};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE: &str = "kubernetes.io/role";

pub(super) static NODE: &[Column] = &[
    NAME,
    shown("Status", "Whether the node is ready, and whether pods may come", status),
    shown("Roles", "What the node is for", roles),
    AGE,
    text(
        "Version",
        "Version of the node's kubelet",
        &["status", "nodeInfo", "kubeletVersion"],
    ),
    shown("Internal-IP", "Address inside the cluster", |node, _| {
        address(node, "InternalIP")
    })
    .wide(),
    shown("External-IP", "Address outside the cluster", |node, _| {
        address(node, "ExternalIP")
    })
    .wide(),
    text("OS-Image", "Operating system", &["status", "nodeInfo", "osImage"])
        .or("<unknown>")
        .wide(),
    shown("Kernel-Version", "Kernel and architecture", kernel).wide(),
    text(
        "Container-Runtime",
        "Container runtime",
        &["status", "nodeInfo", "containerRuntimeVersion"],
    )
    .or("<unknown>")
    .wide(),
];

fn status(node: &Value, _: Timestamp) -> Value {
    let ready = match show::condition(node, "Ready") {
        None => "Unknown",
        Some(condition) if walk::text(condition, &["status"]) == "True" => "Ready",
        Some(_) => "NotReady",
    };
    match walk::flag(node, &["spec", "unschedulable"]) {
        true => format!("{ready},SchedulingDisabled").into(),
        false => ready.into(),
    }
}

fn roles(node: &Value, _: Timestamp) -> Value {
    let mut roles: Vec<&str> = walk::strings(node, &["metadata", "labels"])
        .filter_map(|(key, value)| match key {
            ROLE => Some(value),
            _ => key.strip_prefix(ROLE_PREFIX),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    or(&roles.join(","), "<none>").into()
}

fn address(node: &Value, kind: &str) -> Value {
    let addresses = walk::list(node, &["status", "addresses"]);
    let first = addresses.iter().find(|address| walk::text(address, &["type"]) == kind);
    first
        .map_or("<none>", |address| walk::text(address, &["address"]))
        .into()
}

fn kernel(node: &Value, _: Timestamp) -> Value {
    let kernel = walk::text(node, &["status", "nodeInfo", "kernelVersion"]);
    match (kernel, walk::text(node, &["status", "nodeInfo", "architecture"])) {
        ("", _) => "<unknown>".into(),
        (kernel, "") => kernel.into(),
        (kernel, architecture) => format!("{kernel} ({architecture})").into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::{headings, row};

    #[test]
    fn a_node_shows_its_state_roles_and_software() {
        let node = json!({
            "metadata": {"name": "k8slab", "creationTimestamp": "2025-12-30T08:00:00Z", "labels": {
                "node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "lab"}},
            "status": {
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
                "addresses": [{"type": "Hostname", "address": "k8slab"}, {"type": "InternalIP", "address": "10.0.0.2"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.12.1", "architecture": "amd64",
                    "containerRuntimeVersion": "youki://0.7"},
            },
        });
        assert_eq!(
            headings("v1", "Node"),
            "Name  Status  Roles  Age  Version | Internal-IP  External-IP  OS-Image  Kernel-Version  Container-Runtime"
        );
        assert_eq!(
            row("v1", "Node", &node),
            "k8slab  Ready  control-plane,lab,worker  3d4h  v1.36.0 | \
             10.0.0.2  <none>  Debian  6.12.1 (amd64)  youki://0.7"
        );
    }

    #[test]
    fn a_cordoned_node_says_so_and_a_silent_one_is_unknown() {
        let of = |spec: Value, conditions: Value| {
            status(
                &json!({"spec": spec, "status": {"conditions": conditions}}),
                Timestamp::UNIX_EPOCH,
            )
        };
        assert_eq!(of(json!({}), json!([])), "Unknown");
        let unknown = json!([{"type": "Ready", "status": "Unknown"}]);
        assert_eq!(of(json!({}), unknown.clone()), "NotReady");
        assert_eq!(
            of(json!({"unschedulable": true}), unknown),
            "NotReady,SchedulingDisabled"
        );
        assert_eq!(
            row("v1", "Node", &json!({"metadata": {"name": "n"}})),
            "n  Unknown  <none>  <unknown>   | <none>  <none>  <unknown>  <unknown>  <unknown>"
        );
    }
}
