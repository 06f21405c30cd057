//! The same lab as an ordinary user, in a user namespace: everything but limits, and that is said.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{RootlessLab, eventually};

#[test]
fn an_ordinary_user_gets_a_scaling_lab_and_is_told_that_limits_are_not_enforced() {
    let Some(lab) = RootlessLab::new() else { return };
    lab.ok(&["up", "cpu-hpa", "--speed", "10"]);
    let status = lab.ok(&["status", "cpu-hpa"]);
    assert!(status.contains("limits are not enforced"), "{status}");
    let node: Value = serde_json::from_str(&lab.kubectl(&["get", "node", "-o", "json"])).unwrap();
    let conditions = node["items"][0]["status"]["conditions"].to_string();
    assert!(conditions.contains("limits are not enforced"), "{conditions}");

    lab.ok(&["load", "cpu-hpa", "burn", "--once"]);
    let replicas = || lab.kubectl(&["get", "hpa", "cpu-burner", "-o", "jsonpath={.status.currentReplicas}"]);
    eventually("five replicas", Duration::from_secs(120), || {
        lab.ok(&["load", "cpu-hpa", "burn", "--once"]);
        let seen = replicas();
        if seen == "5" { Ok(()) } else { Err(seen) }
    });
    lab.ok(&["load", "cpu-hpa", "rest", "--once"]);
    eventually("one replica", Duration::from_secs(120), || {
        let seen = replicas();
        if seen == "1" { Ok(()) } else { Err(seen) }
    });
    lab.ok(&["down", "cpu-hpa"]);
}
