//! Node and RuntimeClass.

use jiff::Timestamp;
use serde_json::Value;

use super::cell::{NONE, UNKNOWN, age, condition, name, text_or};
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::{flag, list, strings, text};

pub(super) static NODE: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "Whether the node takes Pods."),
        Column::text("Roles", "What the node is for."),
        AGE,
        Column::text("Version", "Version of its kubelet."),
        Column::text("Internal-IP", "Its address inside the cluster.").wide(),
        Column::text("External-IP", "Its address outside.").wide(),
        Column::text("OS-Image", "Its operating system.").wide(),
        Column::text("Kernel-Version", "Its kernel.").wide(),
        Column::text("Container-Runtime", "What runs its containers.").wide(),
    ],
    cells: node,
};

pub(super) static RUNTIME_CLASS: Printer = Printer {
    columns: &[NAME, Column::text("Handler", "Which runtime is meant."), AGE],
    cells: |class, now| vec![name(class), text(class, &["handler"]).into(), age(class, now)],
};

fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let mut status = match condition(node, "Ready").map(|ready| text(ready, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(node, &["spec", "unschedulable"]) {
        status.push_str(",SchedulingDisabled");
    }
    let info = |key: &str| text_or(node, &["status", "nodeInfo", key], UNKNOWN);
    let kernel = match (
        info("kernelVersion"),
        text(node, &["status", "nodeInfo", "architecture"]),
    ) {
        (Value::String(kernel), architecture) if !architecture.is_empty() => {
            format!("{kernel} ({architecture})").into()
        }
        (kernel, _) => kernel,
    };
    vec![
        name(node),
        status.into(),
        roles(node).into(),
        age(node, now),
        text(node, &["status", "nodeInfo", "kubeletVersion"]).into(),
        address(node, "InternalIP").into(),
        address(node, "ExternalIP").into(),
        info("osImage"),
        kernel,
        info("containerRuntimeVersion"),
    ]
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = strings(node, &["metadata", "labels"])
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => (key == "kubernetes.io/role").then_some(value),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        NONE.to_owned()
    } else {
        roles.join(",")
    }
}

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    let found = list(node, &["status", "addresses"])
        .iter()
        .find(|address| text(address, &["type"]) == kind);
    found.map_or(NONE, |address| text(address, &["address"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    #[test]
    fn a_node_shows_its_state_and_roles() {
        let mut value = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "",
                "node-role.kubernetes.io/control-plane": ""}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.2", "kernelVersion": "6.1", "architecture": "amd64"}}});
        assert_eq!(
            row(&NODE, &value),
            [
                "n",
                "Ready",
                "control-plane,worker",
                "<unknown>",
                "v1.36.2",
                "10.0.0.1",
                "<none>",
                "<unknown>",
                "6.1 (amd64)",
                "<unknown>"
            ]
        );
        value["spec"] = json!({"unschedulable": true});
        value["status"]["conditions"][0]["status"] = json!("Unknown");
        assert_eq!(row(&NODE, &value)[1], "NotReady,SchedulingDisabled");
        assert_eq!(row(&NODE, &json!({}))[1..3], ["Unknown", "<none>"]);
    }
}
