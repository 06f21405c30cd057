//! The figures the README promises, measured on the built binary: `cargo bench --bench figures` (as root).
//!
//! Prints medians; asserts nothing, for machines differ. Each figure says how it was taken.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "it prints what it measures with the host's clock"
)]

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

fn main() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("figures are taken as root: limits and cgroups are part of them");
        return;
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let slab = |args: &[&str]| k8slab(home.path(), args);

    let mut cold = Vec::new();
    for _ in 0..5 {
        cold.push(timed(|| slab(&["up", "cpu-hpa"])));
        slab(&["down", "cpu-hpa"]);
        slab(&["cluster", "delete", "--purge"]);
    }
    show(
        "`up cpu-hpa` from nothing (no home, no image), command to exit",
        &mut cold,
    );

    slab(&["up", "cpu-hpa"]);
    let mut again: Vec<_> = (0..10).map(|_| timed(|| slab(&["up", "cpu-hpa"]))).collect();
    show("`up cpu-hpa` when it is up, command to exit", &mut again);

    memory(home.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(pods(home.path())).expect("pod starts");
    slab(&["down", "cpu-hpa"]);

    let mut ready = Vec::new();
    slab(&["cluster", "start"]);
    for _ in 0..5 {
        slab(&["cluster", "stop"]);
        ready.push(timed(|| slab(&["cluster", "start"])));
    }
    show(
        "`cluster start` (objects kept), command to API, controllers and node ready",
        &mut ready,
    );
    slab(&["cluster", "delete", "--purge"]);

    let size = std::fs::metadata(env!("CARGO_BIN_EXE_k8slab")).map_or(0, |m| m.len());
    println!("{:>9.1} MB  the binary", size as f64 / 1e6);
}

fn k8slab(home: &Path, args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_k8slab"))
        .env("K8SLAB_HOME", home)
        .env("HOME", home)
        .env("KUBECONFIG", home.join("user.kubeconfig"))
        .args(args)
        .output()
        .expect("the binary runs");
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn timed<T>(act: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

fn show(what: &str, samples: &mut [Duration]) {
    samples.sort();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let (p50, p95) = (samples[samples.len() / 2], samples[samples.len() * 95 / 100]);
    println!(
        "{:>9.1} ms  {what} (p50; p95 {:.1}, n {})",
        ms(p50),
        ms(p95),
        samples.len()
    );
}

/// Pss of every process that runs our binary with this home: what the kernel charges to them, shared pages divided.
fn memory(home: &Path) {
    let mut parts = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if !command.contains(&*home.to_string_lossy()) {
            continue;
        }
        let rollup = std::fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib: f64 = line
            .and_then(|l| l.split_whitespace().next()?.parse().ok())
            .unwrap_or(0.0);
        parts.push((kib / 1024.0, if command.contains("shim") { "shim" } else { "daemon" }));
    }
    let total: f64 = parts.iter().map(|(mib, _)| mib).sum();
    println!("{total:>9.1} MiB Pss of daemon and shims with cpu-hpa up: {parts:.1?}");
}

async fn pods(home: &Path) -> anyhow::Result<()> {
    let kubeconfig = Kubeconfig::read_from(home.join("user.kubeconfig"))?;
    let options = KubeConfigOptions {
        context: Some("k8slab-cpu-hpa".into()),
        ..Default::default()
    };
    let client = kube::Client::try_from(kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?)?;
    let api: Api<Pod> = Api::default_namespaced(client);

    let mut starts = Vec::new();
    for n in 0..20 {
        starts.push(run(&api, &[format!("one-{n}")]).await?);
    }
    show("pod create → Running seen by a watch, 20 in a row", &mut starts);
    let names: Vec<String> = (0..50).map(|n| format!("many-{n}")).collect();
    let all = run(&api, &names).await?;
    println!(
        "{:>9.1} ms  50 pods created at once → all Running",
        all.as_secs_f64() * 1e3
    );
    let gone = Instant::now();
    let fast = DeleteParams {
        grace_period_seconds: Some(0),
        ..Default::default()
    };
    api.delete_collection(&fast, &ListParams::default().labels("bench=yes"))
        .await?;
    println!("{:>9.1} ms  those 70 deleted (API)", gone.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

async fn run(api: &Api<Pod>, names: &[String]) -> anyhow::Result<Duration> {
    let version = api
        .list(&ListParams::default().limit(1))
        .await?
        .metadata
        .resource_version
        .unwrap_or_default();
    let mut events = api
        .watch(&WatchParams::default().labels("bench=yes"), &version)
        .await?
        .boxed();
    let start = Instant::now();
    futures::future::try_join_all(names.iter().map(|name| async move {
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "bench": "yes" } },
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{ "name": "main", "image": "cpu-burner:lab", "imagePullPolicy": "Never" }],
            },
        }))?;
        anyhow::Ok(api.create(&PostParams::default(), &pod).await?)
    }))
    .await?;
    let mut waiting: std::collections::BTreeSet<String> = names.iter().cloned().collect();
    while let (false, Some(event)) = (waiting.is_empty(), events.try_next().await?) {
        if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event
            && pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
        {
            waiting.remove(pod.metadata.name.as_deref().unwrap_or_default());
        }
    }
    Ok(start.elapsed())
}
