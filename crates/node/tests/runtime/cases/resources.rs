//! Limits, and what is measured.

use std::fs;
use std::time::Duration;

use node::runtime::{Error, Limits, Resources, Runtime};
use tokio::time::Instant;

use crate::lab::Lab;

/// As root always; an ordinary user only where a cgroup was delegated to him.
pub(crate) fn limits_are_enforced(lab: &Lab) -> bool {
    let limits = lab.runtime.limits();
    assert!(!lab.root || limits == Limits::Enforced, "{limits:?}");
    limits == Limits::Enforced
}

pub(crate) async fn a_container_beyond_its_memory_is_oom_killed(lab: Lab) {
    if !limits_are_enforced(&lab) {
        return;
    }
    let pod = lab.pod().await;
    let mut config = lab.container("greedy", &["eat", "200"]);
    config.resources = Resources {
        memory_limit_bytes: Some(32 << 20),
        ..Default::default()
    };
    let (exit, _) = lab.run(&pod, config).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true), "{exit:?}");

    let mut config = lab.container("modest", &["eat", "40"]);
    config.resources = Resources {
        memory_limit_bytes: Some(128 << 20),
        oom_score_adj: 500,
        ..Default::default()
    };
    let (id, started) = lab.start(&pod, config).await;
    lab.until_said(&id, "ate").await;
    let usage = lab.runtime.usage(&id).unwrap();
    let mebibytes = usage.working_set_bytes >> 20;
    assert!((40..48).contains(&mebibytes), "{mebibytes} MiB of 40");
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", started.pid)).unwrap();
    assert_eq!(score.trim(), "500");
    let begin = Instant::now();
    for _ in 0..200 {
        lab.runtime.usage(&id).unwrap();
    }
    println!(
        "  reading a container's figures: {:.0} us",
        begin.elapsed().as_secs_f64() * 1e6 / 200.0
    );

    let mut config = lab.container("tiny", &["sleep"]);
    config.resources = Resources {
        memory_limit_bytes: Some(64 << 10),
        ..Default::default()
    };
    let error = lab.refused(&pod, config).await;
    assert!(matches!(error, Error::Create { .. } | Error::Start { .. }), "{error:?}");
    lab.remove(&pod).await;
}

pub(crate) async fn a_cpu_limit_holds_and_is_measured(lab: Lab) {
    if !limits_are_enforced(&lab) {
        return;
    }
    let pod = lab.pod().await;
    let mut config = lab.container("burn", &["burn", "60000"]);
    config.resources = Resources {
        cpu_request_milli: Some(100),
        cpu_limit_milli: Some(200),
        ..Default::default()
    };
    let (id, _) = lab.start(&pod, config).await;
    let (before, begin) = (lab.runtime.usage(&id).unwrap(), Instant::now());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let (after, took) = (lab.runtime.usage(&id).unwrap(), begin.elapsed());
    let used = Duration::from_nanos(after.cpu_nanoseconds - before.cpu_nanoseconds).as_secs_f64() / took.as_secs_f64();
    println!(
        "  limit 0.200 CPUs, used {used:.3}, held back in {} periods",
        after.throttled_periods
    );
    assert!(used < 0.25, "{used} CPUs");
    assert!(after.throttled_periods > 0);
    lab.remove(&pod).await;
}

pub(crate) async fn usage_is_measured_without_a_cgroup(lab: Lab) {
    let Limits::NotEnforced(text) = lab.runtime.limits() else {
        return;
    };
    assert!(text.starts_with("CPU and memory limits are not enforced ("), "{text}");
    println!("  {text}");
    let pod = lab.pod().await;
    let (burn, _) = lab.start(&pod, lab.container("burn", &["burn", "300"])).await;
    let (eat, _) = lab.start(&pod, lab.container("eat", &["eat", "40"])).await;
    lab.until_said(&burn, "burnt").await;
    lab.until_said(&eat, "ate").await;
    let cpu = lab.runtime.usage(&burn).unwrap().cpu_nanoseconds;
    assert!(cpu > 50_000_000, "{cpu} ns of a burn of 300 ms");
    let mebibytes = lab.runtime.usage(&eat).unwrap().working_set_bytes >> 20;
    // The binary counts where the image lies in memory.
    assert!((40..56).contains(&mebibytes), "{mebibytes} MiB of 40");
    lab.remove(&pod).await;
}
