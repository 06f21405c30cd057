//! Endpoints v1: one object a Service, for those who do not read EndpointSlices.
//!
//! [`subsets`] decides, pure. (k/k `pkg/controller/endpoint/endpoints_controller.go`, `pkg/api/v1/endpoints/util.go`,
//! v1.36.)

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::time;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};

use super::{HEADLESS, LAST_CHANGE};
use crate::Context;
use crate::error::{self, Doing, Result};
use crate::events::Recorder;
use crate::key::Key;
use crate::pods;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses that one object holds at most.
const CAPACITY: usize = 1000;

pub(crate) struct LegacyEndpoints {
    context: Context,
    client: Client,
    recorder: Recorder,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> LegacyEndpoints {
    let queue = WorkQueue::new();
    super::watch(context, &queue);
    let wake = queue.clone();
    context
        .informers
        .endpoints
        .on_change(move |change| wake.add(Key::of(&**change.object())));
    LegacyEndpoints {
        context: context.clone(),
        client: context.client(LegacyEndpoints::NAME),
        recorder: context.recorder(LegacyEndpoints::NAME),
        queue,
    }
}

impl Reconcile for LegacyEndpoints {
    const NAME: &'static str = "endpoint-controller";
    const WORKERS: usize = 5;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let informers = &self.context.informers;
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let existing = informers.endpoints.get(key);
        let Some(service) = informers.services.get(key) else {
            // Ours only: Endpoints without a Service may be somebody's own (leader election once used them).
            if existing.is_some_and(|existing| existing.labels().get(MANAGED_BY).is_some_and(|by| by == MANAGER)) {
                match api.delete(&key.name, &DeleteParams::default()).await {
                    Err(error) if !error::is_not_found(&error) => {
                        return Err(error).doing(|| format!("deleting Endpoints `{key}`"));
                    }
                    _ => {}
                }
            }
            return Ok(());
        };
        if super::wanted(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let members = super::members(informers, &service);
        let (subsets, truncated) = truncate(subsets(&service, &members));
        let labels = labels(&service);
        let mut endpoints = match &existing {
            Some(existing) => (**existing).clone(),
            None => Endpoints {
                metadata: ObjectMeta {
                    name: service.metadata.name.clone(),
                    ..Default::default()
                },
                subsets: None,
            },
        };
        let is_over = endpoints.annotations().contains_key(OVER_CAPACITY);
        let none = |subsets: &Option<Vec<EndpointSubset>>| subsets.clone().unwrap_or_default();
        if existing.is_some()
            && none(&endpoints.subsets) == subsets
            && *endpoints.labels() == labels
            && is_over == truncated
        {
            return Ok(());
        }
        endpoints.subsets = (!subsets.is_empty()).then_some(subsets);
        endpoints.metadata.labels = Some(labels);
        let annotations = endpoints.metadata.annotations.get_or_insert_default();
        if let Some(changed) = super::last_change(&service, &members) {
            annotations.insert(LAST_CHANGE.to_owned(), time::format_nano(changed));
        }
        if truncated {
            annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
        } else {
            annotations.remove(OVER_CAPACITY);
        }
        let (verb, written) = if existing.is_some() {
            (
                "update",
                api.replace(&key.name, &PostParams::default(), &endpoints).await,
            )
        } else {
            ("create", api.create(&PostParams::default(), &endpoints).await)
        };
        match written {
            Ok(_) => Ok(()),
            Err(error) if error::is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                if !error::is_conflict(&error) {
                    let reason = if verb == "create" {
                        "FailedToCreateEndpoint"
                    } else {
                        "FailedToUpdateEndpoint"
                    };
                    let message = format!(
                        "Failed to {verb} endpoint for service {key}: {}",
                        error::message(&error)
                    );
                    self.recorder.warning(&*service, reason, message);
                }
                Err(error).doing(|| format!("writing Endpoints `{key}`"))
            }
        }
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if super::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// A port as a key: name, number, protocol, application protocol.
type Port = (String, i32, String, Option<String>);

/// Pure: addresses by port, and ports with the same addresses together.
fn subsets(service: &Service, members: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let declared = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    let careless = super::publishes_not_ready(service);
    // A pod on its way out is not an endpoint here, unless nobody cares.
    let present: Vec<&Arc<Pod>> = members
        .iter()
        .filter(|pod| careless || !pods::is_terminating(pod))
        .collect();
    let mut by_port: BTreeMap<Option<Port>, Vec<usize>> = BTreeMap::new();
    for (index, pod) in present.iter().enumerate() {
        if declared.is_empty() && super::is_headless(service) {
            by_port.entry(None).or_default().push(index);
        }
        for port in declared {
            let Some(number) = super::port_on(pod, port) else {
                continue;
            };
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let key = (
                port.name.clone().unwrap_or_default(),
                number,
                protocol,
                port.app_protocol.clone(),
            );
            by_port.entry(Some(key)).or_default().push(index);
        }
    }
    let mut by_pods: BTreeMap<Vec<usize>, Vec<Port>> = BTreeMap::new();
    for (port, pods) in by_port {
        by_pods.entry(pods).or_default().extend(port);
    }
    let subset = |(pods, ports): (Vec<usize>, Vec<Port>)| {
        let pods = pods.into_iter().map(|index| present[index]);
        let (ready, not_ready): (Vec<_>, Vec<_>) = pods.partition(|pod| careless || pods::is_ready(pod));
        let addresses = |pods: Vec<&Arc<Pod>>| {
            let mut addresses: Vec<_> = pods.into_iter().map(|pod| address(service, pod)).collect();
            addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
            (!addresses.is_empty()).then_some(addresses)
        };
        EndpointSubset {
            addresses: addresses(ready),
            not_ready_addresses: addresses(not_ready),
            ports: (!ports.is_empty()).then(|| ports.into_iter().map(wire).collect()),
        }
    };
    by_pods.into_iter().map(subset).collect()
}

fn wire((name, port, protocol, app_protocol): Port) -> EndpointPort {
    EndpointPort {
        name: (!name.is_empty()).then_some(name),
        port,
        protocol: Some(protocol),
        app_protocol,
    }
}

fn address(service: &Service, pod: &Pod) -> EndpointAddress {
    EndpointAddress {
        ip: super::address(pod).unwrap_or_default().to_owned(),
        node_name: super::node_name(pod),
        hostname: super::hostname(pod, service),
        target_ref: Some(super::target_ref(pod)),
    }
}

/// Keeps a thousand addresses, ready ones first; true if there were more.
fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let mut room = CAPACITY;
    let mut truncated = false;
    let mut keep = |addresses: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = addresses {
            truncated |= addresses.len() > room;
            addresses.truncate(room);
            room -= addresses.len();
        }
        if addresses.as_ref().is_some_and(Vec::is_empty) {
            *addresses = None;
        }
    };
    subsets.iter_mut().for_each(|subset| keep(&mut subset.addresses));
    subsets
        .iter_mut()
        .for_each(|subset| keep(&mut subset.not_ready_addresses));
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    (subsets, truncated)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(ports: Value) -> Service {
        let spec = json!({"selector": {"app": "web"}, "ports": ports, "clusterIP": "10.96.0.7"});
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})).unwrap()
    }

    fn pod(octet: u32, ready: bool, ports: Value) -> Arc<Pod> {
        let ip = format!("10.0.{}.{}", octet / 250, octet % 250);
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": format!("p{octet}"), "namespace": "default"},
                "spec": {"containers": [{"name": "c", "ports": ports}]},
                "status": {"podIP": ip, "conditions": [
                    {"type": "Ready", "status": if ready { "True" } else { "False" }}]},
            }))
            .unwrap(),
        )
    }

    fn printed(subsets: &[EndpointSubset]) -> Vec<String> {
        let ips = |addresses: &Option<Vec<EndpointAddress>>| {
            addresses
                .iter()
                .flatten()
                .map(|address| address.ip.clone())
                .collect::<Vec<_>>()
                .join(",")
        };
        let line = |subset: &EndpointSubset| {
            let ports: Vec<_> = subset
                .ports
                .iter()
                .flatten()
                .map(|port| port.port.to_string())
                .collect();
            format!(
                "{}|{}:{}",
                ips(&subset.addresses),
                ips(&subset.not_ready_addresses),
                ports.join(",")
            )
        };
        subsets.iter().map(line).collect()
    }

    #[test]
    fn ports_with_the_same_addresses_share_a_subset() {
        let service = service(json!([{"name": "a", "port": 80, "targetPort": 8080},
            {"name": "b", "port": 81, "targetPort": 8081}, {"name": "m", "port": 9, "targetPort": "metrics"}]));
        let metrics = json!([{"name": "metrics", "containerPort": 9090}]);
        let pods = [pod(1, true, metrics), pod(2, false, json!([])), pod(3, true, json!([]))];
        assert_eq!(
            printed(&subsets(&service, &pods)),
            ["10.0.0.1|:9090", "10.0.0.1,10.0.0.3|10.0.0.2:8080,8081"]
        );
    }

    #[test]
    fn no_more_than_a_thousand_addresses_are_kept() {
        let service = service(json!([{"port": 80}]));
        let pods: Vec<_> = (0..1200).map(|n| pod(n, n >= 300, json!([]))).collect();
        let (kept, truncated) = truncate(subsets(&service, &pods));
        assert!(truncated);
        let count = |addresses: &Option<Vec<EndpointAddress>>| addresses.as_ref().map_or(0, Vec::len);
        assert_eq!(
            (count(&kept[0].addresses), count(&kept[0].not_ready_addresses)),
            (900, 100)
        );
    }
}
