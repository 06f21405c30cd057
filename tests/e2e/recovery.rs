//! A daemon that dies, a cluster that is stopped, a machine that restarts: what was acknowledged is there again.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Lab, eventually};

/// Container ids and start times of the running pods: equal before and after means the same containers.
fn containers(lab: &Lab) -> Vec<(String, String, i64)> {
    let pods = lab.get(&["pods", "-l", "app=cpu-burner"]);
    let mut found: Vec<_> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|pod| {
            pod["status"]["containerStatuses"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        })
        .map(|c| {
            let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
            (
                text(&c["containerID"]),
                text(&c["state"]["running"]["startedAt"]),
                c["restartCount"].as_i64().unwrap_or(-1),
            )
        })
        .collect();
    found.sort();
    found
}

#[test]
fn a_killed_daemon_ends_no_container_and_the_next_up_goes_on_with_them() {
    let Some(lab) = Lab::new() else { return };
    lab.ok(&["up", "cpu-hpa", "--speed", "10"]);
    lab.ok(&["load", "cpu-hpa", "burn", "--once"]);
    // In the middle of scaling.
    eventually("more than one replica asked for", Duration::from_secs(60), || {
        let replicas = lab.get(&["deployment", "cpu-burner"])["spec"]["replicas"].as_i64();
        if replicas > Some(1) {
            Ok(())
        } else {
            Err(format!("{replicas:?}"))
        }
    });
    lab.kubectl(&["create", "configmap", "acknowledged", "--from-literal=key=value"]);
    let before = containers(&lab);
    kill(Pid::from_raw(lab.daemon()), Signal::SIGKILL).unwrap();
    let status = lab.run(&["cluster", "status"]);
    assert!(
        status.stdout.contains("crashed") || status.stdout.contains("gone"),
        "{}{}",
        status.stdout,
        status.stderr
    );

    lab.ok(&["up", "cpu-hpa"]);
    assert_eq!(lab.get(&["configmap", "acknowledged"])["data"]["key"], "value");
    let running: Vec<_> = before
        .into_iter()
        .filter(|(id, started, _)| !id.is_empty() && !started.is_empty())
        .collect();
    let after = containers(&lab);
    for container in &running {
        assert!(after.contains(container), "{container:?} is not in {after:#?}");
    }
    // The pods that were made meanwhile are idle.
    eventually("five replicas", Duration::from_secs(120), || {
        lab.ok(&["load", "cpu-hpa", "burn", "--once"]);
        let seen = lab.get(&["hpa", "cpu-burner"])["status"].clone();
        if seen["currentReplicas"] == 5 {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
    lab.ok(&["down", "cpu-hpa"]);
}

#[test]
fn stop_ends_containers_and_keeps_objects() {
    let Some(lab) = Lab::new() else { return };
    lab.ok(&["up", "cpu-hpa"]);
    lab.kubectl(&["create", "configmap", "kept", "--from-literal=key=value"]);
    lab.ok(&["cluster", "stop"]);
    assert!(lab.ok(&["cluster", "status"]).contains("stopped"));
    lab.ok(&["up", "cpu-hpa"]);
    assert_eq!(lab.get(&["configmap", "kept"])["data"]["key"], "value");
    assert!(lab.kubectl(&["get", "pods"]).contains("1/1"));
    lab.ok(&["down", "cpu-hpa"]);
}

#[test]
fn a_machine_that_restarted_gets_its_pods_back() {
    let Some(lab) = Lab::new() else { return };
    lab.ok(&["up", "cpu-hpa"]);
    let before = containers(&lab);
    // What a restart does: every process of ours is gone at once.
    let pods = lab.home().join("clusters/default/node/pods");
    let mut shims = vec![lab.daemon()];
    for pod in std::fs::read_dir(&pods).unwrap().flatten() {
        let record = std::fs::read(pod.path().join("shim.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        shims.push(i32::try_from(record["pid"].as_i64().unwrap()).unwrap());
    }
    for pid in shims {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    lab.ok(&["up", "cpu-hpa"]);
    eventually("a ready pod with another container", Duration::from_secs(60), || {
        let after = containers(&lab);
        let ready = lab.kubectl(&["get", "pods", "--no-headers"]).contains("1/1");
        if ready && after != before {
            Ok(())
        } else {
            Err(format!("{after:?}"))
        }
    });
    lab.ok(&["down", "cpu-hpa"]);
}
