//! The scenarios about extending Kubernetes: their definitions are served, their operators work, they go again.

use std::time::Duration;

use crate::harness::{Lab, eventually};

#[test]
fn operators_follow_their_resources_and_every_lab_goes_again() {
    let Some(lab) = Lab::new() else { return };

    lab.ok(&["up", "messaggio"]);
    let messages = |lab: &Lab| lab.kubectl(&["--context", "k8slab-messaggio", "get", "mess"]);
    assert!(messages(&lab).contains("MESSAGE"), "{}", messages(&lab));
    let refused = lab.try_kubectl(&[
        "--context",
        "k8slab-messaggio",
        "patch",
        "mess",
        "messaggio",
        "--type=merge",
        "-p",
        r#"{"spec":{"message":7}}"#,
    ]);
    assert_eq!(refused.status, Some(1), "{}", refused.stdout);
    assert!(
        refused.stderr.contains("spec.message in body must be of type string"),
        "{}",
        refused.stderr
    );

    // Beside it, on the same cluster.
    lab.ok(&["up", "replicatore", "--offline"]);
    let in_replicatore = ["--context", "k8slab-replicatore"];
    lab.kubectl(&[&in_replicatore[..], &["scale", "rep/replicatore", "--replicas=4"]].concat());
    eventually("four replicas", Duration::from_secs(60), || {
        let deployments = lab.kubectl(&[&in_replicatore[..], &["get", "deployments", "--no-headers"]].concat());
        if deployments.contains("4/4") {
            Ok(())
        } else {
            Err(deployments)
        }
    });
    lab.ok(&["down", "replicatore"]);
    lab.ok(&["down", "messaggio"]);

    lab.ok(&["up", "supercrud", "--offline"]);
    lab.ok(&["down", "supercrud"]);
    assert_eq!(lab.ok(&["cluster", "status"]), "there is no cluster\n");
}
