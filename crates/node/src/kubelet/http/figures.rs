//! `/metrics/resource` and `/stats/summary`: counters as they are right now.

use std::fmt::Write as _;

use ::http::Response;
use apimachinery::time;
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Body, Kubelet, of_type};
use crate::host;
use crate::runtime::{ContainerId, Usage};

/// A running container and what it uses.
struct Running {
    namespace: String,
    pod: String,
    container: String,
    since: Timestamp,
    usage: Usage,
}

fn running(kubelet: &Kubelet) -> Vec<Running> {
    let mut all = Vec::new();
    for view in kubelet.views() {
        let uid = view.pod.uid().unwrap_or_default();
        for (name, container) in &view.state.containers {
            let (Some(running), Some(attempt)) = (container.running(), container.attempt) else {
                continue;
            };
            let Ok(usage) = kubelet.context.runtime.usage(&ContainerId::new(&uid, name, attempt)) else {
                continue;
            };
            all.push(Running {
                namespace: view.pod.namespace().unwrap_or_default(),
                pod: view.pod.name_any(),
                container: name.clone(),
                since: running.since,
                usage,
            });
        }
    }
    all.sort_by(|a, b| (&a.namespace, &a.pod, &a.container).cmp(&(&b.namespace, &b.pod, &b.container)));
    all
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Prometheus text.
pub(super) fn metrics(kubelet: &Kubelet) -> Response<Body> {
    let all = running(kubelet);
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, lines: &mut dyn Iterator<Item = (String, f64)>| {
        let _ = writeln!(text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let labels = |running: &Running| {
        format!(
            "{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}",
            running.container, running.namespace, running.pod
        )
    };
    family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
        &mut all
            .iter()
            .map(|running| (labels(running), seconds(running.usage.cpu_nanoseconds))),
    );
    family(
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
        &mut all
            .iter()
            .map(|running| (labels(running), running.usage.working_set_bytes as f64)),
    );
    family(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
        &mut all
            .iter()
            .map(|running| (labels(running), running.since.as_millisecond() as f64 / 1e3)),
    );
    let node = host::usage();
    family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
        &mut node.iter().map(|node| (String::new(), seconds(node.cpu_nanoseconds))),
    );
    family(
        "node_memory_working_set_bytes",
        "gauge",
        "Current working set of the node in bytes",
        &mut node.iter().map(|node| (String::new(), node.memory_bytes as f64)),
    );
    family(
        "scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
        &mut std::iter::once((String::new(), f64::from(u8::from(node.is_none())))),
    );
    of_type(text, "text/plain; version=0.0.4; charset=utf-8")
}

/// Upstream's Summary, the parts that there are figures for.
pub(super) fn summary(kubelet: &Kubelet) -> Response<Body> {
    let now = time::format(kubelet.context.clock.now());
    let mut pods: Vec<Value> = Vec::new();
    for view in kubelet.views() {
        let uid = view.pod.uid().unwrap_or_default();
        let mut containers = Vec::new();
        for (name, container) in &view.state.containers {
            let (Some(running), Some(attempt)) = (container.running(), container.attempt) else {
                continue;
            };
            let Ok(usage) = kubelet.context.runtime.usage(&ContainerId::new(&uid, name, attempt)) else {
                continue;
            };
            containers.push(json!({
                "name": name,
                "startTime": time::format(running.since),
                "cpu": {"time": now, "usageCoreNanoSeconds": usage.cpu_nanoseconds},
                "memory": {"time": now, "workingSetBytes": usage.working_set_bytes, "rssBytes": usage.rss_bytes},
            }));
        }
        pods.push(json!({
            "podRef": {"name": view.pod.name_any(), "namespace": view.pod.namespace(), "uid": uid},
            "startTime": time::format(view.state.started_at),
            "containers": containers,
        }));
    }
    let mut node = json!({"nodeName": kubelet.context.node});
    if let Some(usage) = host::usage() {
        node["cpu"] = json!({"time": now, "usageCoreNanoSeconds": usage.cpu_nanoseconds});
        node["memory"] =
            json!({"time": now, "workingSetBytes": usage.memory_bytes, "availableBytes": usage.available_bytes});
    }
    of_type(json!({"node": node, "pods": pods}).to_string(), "application/json")
}
