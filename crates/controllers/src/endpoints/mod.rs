//! Which pods a Service stands for: EndpointSlices, and Endpoints for those who still read them.
//!
//! Owns the watching of Services and pods that both controllers share, and the facts both draw from a pod. `slices` and
//! `legacy` each decide purely and write under an identity of their own.

mod legacy;
mod slices;
mod tracker;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::Context;
use crate::informers::{Change, Informers};
use crate::key::Key;
use crate::workqueue::WorkQueue;
use crate::{pods, selector};

pub(crate) use legacy::start as start_legacy;
pub(crate) use slices::start as start_slices;

/// The label of a slice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// On what belongs to a Service without an address of its own.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// When the pods changed that a write is about.
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Wakes the queue for every Service that a change of a Service or pod may concern.
fn watch(context: &Context, queue: &Arc<WorkQueue<Key>>) {
    let wake = queue.clone();
    context
        .informers
        .services
        .on_change(move |change| wake.add(Key::of(&**change.object())));
    let (informers, wake) = (context.informers.clone(), queue.clone());
    context.informers.pods.on_change(move |change| {
        if let Change::Updated { old, new } = change
            && !concerns_endpoints(old, new)
        {
            return;
        }
        let labels = |pod: &Pod| pod.metadata.labels.clone();
        let (before, now) = match change {
            Change::Updated { old, new } => (labels(old), labels(new)),
            Change::Added(pod) | Change::Deleted(pod) => (None, labels(pod)),
        };
        for service in services(&informers, change.object()) {
            let Some(wanted) = wanted(&service) else { continue };
            if selector::matches_map(wanted, now.as_ref())
                || before
                    .as_ref()
                    .is_some_and(|before| selector::matches_map(wanted, Some(before)))
            {
                wake.add(Key::of(&*service));
            }
        }
    });
}

fn services(informers: &Informers, pod: &Pod) -> Vec<Arc<Service>> {
    informers
        .services
        .in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default())
}

/// What endpoints are made of did change.
fn concerns_endpoints(old: &Pod, new: &Pod) -> bool {
    let address = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ips.clone());
    let place = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    old.metadata.labels != new.metadata.labels
        || pods::is_terminating(old) != pods::is_terminating(new)
        || pods::is_terminal(old) != pods::is_terminal(new)
        || pods::is_ready(old) != pods::is_ready(new)
        || address(old) != address(new)
        || place(old) != place(new)
}

/// The selector of a Service whose endpoints are ours to keep: one without any is kept by somebody else.
fn wanted(service: &Service) -> Option<&std::collections::BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let wanted = spec.selector.as_ref().filter(|wanted| !wanted.is_empty())?;
    (spec.type_.as_deref() != Some("ExternalName")).then_some(wanted)
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

fn publishes_not_ready(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or_default()
}

/// The pods a Service selects that have an address and may still serve, by name.
fn members(informers: &Informers, service: &Service) -> Vec<Arc<Pod>> {
    let Some(wanted) = wanted(service) else {
        return Vec::new();
    };
    let mut pods = informers
        .pods
        .in_namespace(service.metadata.namespace.as_deref().unwrap_or_default());
    pods.retain(|pod| {
        selector::matches_map(wanted, pod.metadata.labels.as_ref()) && !pods::is_terminal(pod) && address(pod).is_some()
    });
    pods
}

/// The pod's IPv4 address.
fn address(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let all = status
        .pod_ips
        .iter()
        .flatten()
        .map(|address| address.ip.as_str())
        .chain(status.pod_ip.as_deref());
    all.into_iter().find(|ip| ip.parse::<std::net::Ipv4Addr>().is_ok())
}

fn node_name(pod: &Pod) -> Option<String> {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.clone())
        .filter(|name| !name.is_empty())
}

/// The host name under which DNS knows the pod, if it asked for one in this Service's domain.
fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let is_here = spec.subdomain == service.metadata.name && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname.clone().filter(|name| is_here && !name.is_empty())
}

fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}

/// The number of a Service's port on this pod: a name means whatever port a container calls so.
fn port_on(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let protocol = |protocol: &Option<String>| protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    ports
        .filter(|candidate| candidate.name.as_ref() == Some(name))
        .find(|candidate| protocol(&candidate.protocol) == protocol(&port.protocol))
        .map(|candidate| candidate.container_port)
}

/// When the endpoints last had a reason to change: the last pod that became ready or unready, or the Service itself.
fn last_change(service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
    let ready = |pod: &Arc<Pod>| Some(pods::condition(pod, "Ready")?.last_transition_time.as_ref()?.0);
    let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
    pods.iter().filter_map(ready).chain(created).max()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_named_port_is_what_the_pods_container_calls_so() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "a", "ports": [
                {"name": "dns", "containerPort": 5353, "protocol": "UDP"},
                {"name": "dns", "containerPort": 53},
                {"name": "web", "containerPort": 8080}]}],
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": 9090}]},
                {"name": "init", "ports": [{"name": "never", "containerPort": 1}]}]}}))
        .unwrap();
        let port = |target: serde_json::Value, protocol: &str| {
            let port = json!({"port": 80, "targetPort": target, "protocol": protocol});
            port_on(&pod, &serde_json::from_value(port).unwrap())
        };
        assert_eq!(port(json!("web"), "TCP"), Some(8080));
        assert_eq!(port(json!("dns"), "UDP"), Some(5353));
        assert_eq!(port(json!("dns"), "TCP"), Some(53));
        assert_eq!(port(json!("metrics"), "TCP"), Some(9090));
        assert_eq!(port(json!("never"), "TCP"), None);
        assert_eq!(port(json!(8000), "TCP"), Some(8000));
        assert_eq!(port(json!(null), "TCP"), Some(80));
    }
}
