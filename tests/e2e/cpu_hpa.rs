//! The page's walk and the lab's promise: real load, Kubernetes' own steps.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Lab, eventually};

fn a_burner(lab: &Lab) -> String {
    let pods = lab.get(&[
        "pods",
        "-l",
        "app=cpu-burner",
        "--field-selector",
        "status.phase=Running",
    ]);
    pods["items"][0]["metadata"]["name"]
        .as_str()
        .expect("a running cpu-burner")
        .to_owned()
}

fn metrics_of(lab: &Lab, pod: &str) -> Result<String, String> {
    let ran = lab.try_kubectl(&["top", "pod", pod, "--no-headers"]);
    if ran.status == Some(0) {
        Ok(ran.stdout)
    } else {
        Err(ran.stderr)
    }
}

#[test]
fn the_pages_walk_works_with_a_real_kubectl_and_without_a_namespace() {
    let Some(lab) = Lab::new() else { return };
    let said = lab.ok(&["up", "cpu-hpa"]);
    assert!(said.contains("cpu-hpa is up in"), "{said}");

    assert!(lab.kubectl(&["get", "nodes"]).contains(" Ready "));
    assert!(lab.kubectl(&["top", "nodes"]).contains("CPU(cores)"));
    let pods = lab.kubectl(&["get", "pods", "-A"]);
    assert!(
        pods.lines()
            .any(|line| line.starts_with("cpu-hpa ") && line.contains(" 1/1 ") && line.contains("Running")),
        "{pods}"
    );
    let hpa = lab.kubectl(&["get", "hpa"]);
    assert!(hpa.contains("Deployment/cpu-burner") && hpa.contains("%/50%"), "{hpa}");
    let described = lab.kubectl(&["describe", "hpa", "cpu-burner"]);
    for words in ["ScalingActive", "ValidMetricFound", "AbleToScale", "DesiredWithinRange"] {
        assert!(described.contains(words), "no {words} in:\n{described}");
    }

    let pod = a_burner(&lab);
    let changed = lab.kubectl(&["exec", &pod, "--", "curl", "-s", "localhost:8000/change/42/33"]);
    let changed: Value = serde_json::from_str(&changed).unwrap();
    assert_eq!(changed["cpu_tasks"], 42);
    assert_eq!(changed["mem_target_percent"].as_f64(), Some(33.0));
    let top = lab.kubectl(&["exec", &pod, "--", "curl", "-s", "localhost:8000/top"]);
    assert!(
        serde_json::from_str::<Value>(&top)
            .unwrap()
            .get("system_memory")
            .is_some(),
        "{top}"
    );
    // Half of the limit of 128 MiB is held: what the kernel charges, within what the program itself needs.
    lab.kubectl(&["exec", &pod, "--", "curl", "-s", "localhost:8000/change/1/50"]);
    eventually("64 MiB in use", Duration::from_secs(60), || {
        let seen = metrics_of(&lab, &pod)?;
        let mebibytes = seen
            .split_whitespace()
            .nth(2)
            .and_then(|m| m.trim_end_matches("Mi").parse().ok());
        if mebibytes.is_some_and(|m: u32| (58..=70).contains(&m)) {
            Ok(())
        } else {
            Err(seen)
        }
    });
    lab.kubectl(&["exec", &pod, "--", "curl", "-s", "localhost:8000/change/1/0"]);
    eventually("top pods", Duration::from_secs(30), || metrics_of(&lab, &pod));
    assert!(!lab.kubectl(&["logs", &pod]).is_empty());

    lab.kubectl(&["delete", "hpa", "cpu-burner"]);
    lab.kubectl(&[
        "autoscale",
        "deployment",
        "cpu-burner",
        "--cpu-percent=50",
        "--min=1",
        "--max=5",
    ]);
    eventually("the new hpa's metric", Duration::from_secs(60), || {
        let hpa = lab.kubectl(&["get", "hpa", "cpu-burner", "--no-headers"]);
        if hpa.contains("%/50%") && !hpa.contains("<unknown>") {
            Ok(())
        } else {
            Err(hpa)
        }
    });
    lab.kubectl(&["delete", "hpa", "cpu-burner"]);
    lab.kubectl(&["delete", "deployment", "cpu-burner"]);
    eventually("the pods to go", Duration::from_secs(60), || {
        let pods = lab.kubectl(&["get", "pods", "--no-headers"]);
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
    lab.ok(&["down", "cpu-hpa"]);
}

#[test]
fn burning_scales_one_four_five_and_rest_brings_it_back_by_kubernetes_own_steps() {
    let Some(lab) = Lab::new() else { return };
    lab.ok(&["up", "cpu-hpa", "--speed", "10"]);
    let mut burn = lab.spawn(&["load", "cpu-hpa", "burn"]);
    let replicas = || lab.get(&["hpa", "cpu-burner"])["status"].clone();
    eventually("five replicas", Duration::from_secs(120), || {
        let status = replicas();
        if status["desiredReplicas"] == 5 && status["currentReplicas"] == 5 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    let conditions = replicas()["conditions"].clone();
    let limited = conditions
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == "ScalingLimited")
        .unwrap();
    assert_eq!(
        (limited["status"].as_str(), limited["reason"].as_str()),
        (Some("True"), Some("TooManyReplicas"))
    );

    // CPU reported for a pod under full load equals its limit (200m) within 5 %.
    let pod = a_burner(&lab);
    eventually("a full window of load", Duration::from_secs(60), || {
        let seen = metrics_of(&lab, &pod)?;
        let milli: f64 = seen
            .split_whitespace()
            .nth(1)
            .and_then(|m| m.trim_end_matches('m').parse().ok())
            .unwrap_or(0.0);
        if (190.0..=210.0).contains(&milli) {
            Ok(())
        } else {
            Err(seen)
        }
    });

    // Ctrl-C ends the load; `rest` then asks every pod to be quiet.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(burn.id() as i32),
        nix::sys::signal::Signal::SIGINT,
    )
    .unwrap();
    burn.wait().unwrap();
    lab.ok(&["load", "cpu-hpa", "rest", "--once"]);
    eventually("the next move", Duration::from_secs(60), || {
        let status = lab.ok(&["status", "cpu-hpa"]);
        if status.contains("scale-down not before") {
            Ok(())
        } else {
            Err(status)
        }
    });
    eventually("one replica", Duration::from_secs(120), || {
        let status = replicas();
        if status["desiredReplicas"] == 1 && status["currentReplicas"] == 1 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });

    let events = lab.get(&[
        "events",
        "--field-selector",
        "involvedObject.kind=HorizontalPodAutoscaler,reason=SuccessfulRescale",
    ]);
    let messages: Vec<&str> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|e| e["message"].as_str())
        .collect();
    let above = "cpu resource utilization (percentage of request) above target";
    for expected in [
        format!("New size: 4; reason: {above}"),
        format!("New size: 5; reason: {above}"),
    ] {
        assert!(
            messages.contains(&expected.as_str()),
            "no `{expected}` in {messages:#?}"
        );
    }
    assert!(
        messages.contains(&"New size: 1; reason: All metrics below target"),
        "{messages:#?}"
    );
    lab.ok(&["down", "cpu-hpa"]);
}

#[test]
fn a_second_up_finds_nothing_to_do() {
    let Some(lab) = Lab::new() else { return };
    lab.ok(&["up", "cpu-hpa"]);
    let before = lab.get(&["deployment", "cpu-burner"])["metadata"]["resourceVersion"].clone();
    let said = lab.ok(&["up", "cpu-hpa"]);
    assert!(said.contains("nothing had to be done"), "{said}");
    let after = lab.get(&["deployment", "cpu-burner"])["metadata"]["resourceVersion"].clone();
    assert_eq!(before, after);
    lab.ok(&["down", "cpu-hpa"]);
}

#[test]
fn a_test_run_brings_the_lab_up_does_its_checks_takes_it_away_and_writes_a_report() {
    let Some(lab) = Lab::new() else { return };
    let junit = lab.home().join("report.xml");
    let said = lab.ok(&["test", "cpu-hpa", "--speed", "10", "--junit", junit.to_str().unwrap()]);
    assert!(said.contains("4 passed"), "{said}");
    let report = std::fs::read_to_string(&junit).unwrap();
    assert!(
        report.contains(r#"<testsuite name="cpu-hpa" tests="4" failures="0""#),
        "{report}"
    );
    for case in [
        "up",
        "burn: Deployment cpu-burner has 5 replicas",
        "rest: Deployment cpu-burner has 1 replica",
        "down",
    ] {
        assert!(
            report.contains(&format!(r#"name="{case}" time="#)),
            "no `{case}` in {report}"
        );
    }
    assert_eq!(lab.ok(&["cluster", "status"]), "there is no cluster\n");
}
