//! Services and their EndpointSlices → which doors are open and where each leads. Pure.
//!
//! Source of the rules: kubernetes `pkg/proxy/topology.go`, 1.36 (ready endpoints; where there is none, those that
//! still serve while they terminate).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// What the proxy cannot learn from the API.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where node ports listen.
    pub(crate) node_ip: IpAddr,
    /// The API server's listener in the host's network: where Service `default/kubernetes` leads.
    pub(crate) api_server: SocketAddr,
}

/// An address that takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Door {
    /// A ClusterIP and port, in the node's network namespace.
    Cluster(SocketAddr),
    /// A node port, in the host's network.
    Node(SocketAddr),
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(address) => write!(f, "cluster address {address}"),
            Self::Node(address) => write!(f, "node port {address}"),
        }
    }
}

/// Which network a backend is dialled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Node,
    Host,
}

/// Where a door leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// `NAMESPACE/NAME`, for messages.
    pub(crate) service: String,
    pub(crate) side: Side,
    /// Not empty, sorted.
    pub(crate) backends: Vec<SocketAddr>,
    /// A client's address always gets the same backend while it is there.
    pub(crate) sticky: bool,
}

/// Every door that has to be open. UDP and SCTP ports have none.
pub(crate) fn plan(
    settings: &Settings,
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
) -> BTreeMap<Door, Rule> {
    let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let labels = slice.metadata.labels.as_ref();
        if let Some(service) = labels.and_then(|l| l.get("kubernetes.io/service-name")) {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            by_service.entry((namespace, service)).or_default().push(slice);
        }
    }
    let mut doors = BTreeMap::new();
    for service in services {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let Some(spec) = &service.spec else { continue };
        let Some(cluster_ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()) else {
            continue;
        };
        let slices = by_service.get(&(namespace, name)).map_or(&[][..], Vec::as_slice);
        let is_api_server = (namespace, name) == ("default", "kubernetes");
        for port in spec
            .ports
            .iter()
            .flatten()
            .filter(|port| is_tcp(port.protocol.as_deref()))
        {
            let (side, backends) = if is_api_server {
                (Side::Host, vec![settings.api_server])
            } else {
                (Side::Node, backends(port, slices))
            };
            if backends.is_empty() {
                continue;
            }
            let rule = Rule {
                service: format!("{namespace}/{name}"),
                side,
                backends,
                sticky: is_sticky(spec),
            };
            if let Some(node_port) = port
                .node_port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port > 0)
            {
                doors.insert(Door::Node(SocketAddr::new(settings.node_ip, node_port)), rule.clone());
            }
            if let Ok(number) = u16::try_from(port.port) {
                doors.insert(Door::Cluster(SocketAddr::new(cluster_ip, number)), rule);
            }
        }
    }
    doors
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

fn is_sticky(spec: &ServiceSpec) -> bool {
    spec.session_affinity.as_deref() == Some("ClientIP")
}

fn backends(port: &ServicePort, slices: &[&EndpointSlice]) -> Vec<SocketAddr> {
    let ready = addresses(port, slices, |endpoint| conditions(endpoint).0);
    if !ready.is_empty() {
        return ready;
    }
    addresses(port, slices, |endpoint| {
        let (_, serving, terminating) = conditions(endpoint);
        serving && terminating
    })
}

/// Ready, serving, terminating; what is not said counts as the API says: ready, serving, not terminating.
fn conditions(endpoint: &Endpoint) -> (bool, bool, bool) {
    let Some(conditions) = &endpoint.conditions else {
        return (true, true, false);
    };
    let ready = conditions.ready.unwrap_or(true);
    (
        ready,
        conditions.serving.unwrap_or(ready),
        conditions.terminating.unwrap_or(false),
    )
}

fn addresses(port: &ServicePort, slices: &[&EndpointSlice], keep: impl Fn(&Endpoint) -> bool) -> Vec<SocketAddr> {
    let wanted = port.name.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    for slice in slices {
        let slice_port = slice.ports.iter().flatten().find(|candidate| {
            candidate.name.as_deref().unwrap_or_default() == wanted && is_tcp(candidate.protocol.as_deref())
        });
        let Some(number) = slice_port
            .and_then(|port| port.port)
            .and_then(|port| u16::try_from(port).ok())
        else {
            continue;
        };
        for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| keep(endpoint)) {
            found.extend(
                endpoint
                    .addresses
                    .iter()
                    .filter_map(|a| a.parse().ok())
                    .map(|ip| SocketAddr::new(ip, number)),
            );
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn settings() -> Settings {
        Settings {
            node_ip: "127.0.0.1".parse().unwrap(),
            api_server: "127.0.0.1:6443".parse().unwrap(),
        }
    }

    fn service(value: Value) -> Arc<Service> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn web(ports: Value) -> Arc<Service> {
        service(json!({
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "clusterIP": "10.96.0.20", "type": "NodePort", "ports": ports },
        }))
    }

    fn slice(endpoints: Value) -> Arc<EndpointSlice> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": "web-x", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
                "addressType": "IPv4",
                "ports": [{ "name": "http", "port": 8000, "protocol": "TCP" }],
                "endpoints": endpoints,
            }))
            .unwrap(),
        )
    }

    fn endpoint(ip: &str, ready: bool, serving: bool, terminating: bool) -> Value {
        json!({ "addresses": [ip], "conditions": { "ready": ready, "serving": serving, "terminating": terminating } })
    }

    fn leads(doors: &BTreeMap<Door, Rule>, door: Door) -> Vec<String> {
        doors
            .get(&door)
            .map(|rule| rule.backends.iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    }

    const CLUSTER: &str = "10.96.0.20:80";

    #[test]
    fn a_cluster_ip_and_a_node_port_lead_to_the_ready_endpoints_of_the_named_port() {
        let services = [web(
            json!([{ "name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP" }]),
        )];
        let slices = [slice(json!([
            endpoint("10.244.0.9", true, true, false),
            endpoint("10.244.0.8", true, true, false),
            endpoint("10.244.0.7", false, false, false),
        ]))];
        let doors = plan(&settings(), &services, &slices);
        let expected = ["10.244.0.8:8000", "10.244.0.9:8000"];
        assert_eq!(leads(&doors, Door::Cluster(CLUSTER.parse().unwrap())), expected);
        assert_eq!(leads(&doors, Door::Node("127.0.0.1:30080".parse().unwrap())), expected);
    }

    #[test]
    fn without_a_ready_endpoint_those_that_still_serve_while_terminating_are_used() {
        let services = [web(json!([{ "name": "http", "port": 80 }]))];
        let slices = [slice(json!([
            endpoint("10.244.0.8", false, true, true),
            endpoint("10.244.0.9", false, false, true),
        ]))];
        let doors = plan(&settings(), &services, &slices);
        assert_eq!(
            leads(&doors, Door::Cluster(CLUSTER.parse().unwrap())),
            ["10.244.0.8:8000"]
        );
    }

    #[test]
    fn a_service_without_endpoints_has_no_door() {
        let services = [web(json!([{ "name": "http", "port": 80, "nodePort": 30080 }]))];
        assert!(plan(&settings(), &services, &[]).is_empty());
        let other_port = [web(json!([{ "name": "admin", "port": 81 }]))];
        assert!(
            plan(
                &settings(),
                &other_port,
                &[slice(json!([endpoint("10.244.0.8", true, true, false)]))]
            )
            .is_empty()
        );
    }

    #[test]
    fn headless_services_and_udp_ports_have_no_door() {
        let headless = service(json!({
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "clusterIP": "None", "ports": [{ "name": "http", "port": 80 }] },
        }));
        let udp = web(json!([{ "name": "http", "port": 80, "protocol": "UDP" }]));
        let slices = [slice(json!([endpoint("10.244.0.8", true, true, false)]))];
        assert!(plan(&settings(), &[headless, udp], &slices).is_empty());
    }

    #[test]
    fn the_api_servers_service_leads_to_its_listener_on_the_host() {
        let kubernetes = service(json!({
            "metadata": { "name": "kubernetes", "namespace": "default" },
            "spec": { "clusterIP": "10.96.0.1", "ports": [{ "name": "https", "port": 443 }] },
        }));
        let doors = plan(&settings(), &[kubernetes], &[]);
        let rule = &doors[&Door::Cluster("10.96.0.1:443".parse().unwrap())];
        assert_eq!(
            (rule.side, rule.backends.as_slice()),
            (Side::Host, &[settings().api_server][..])
        );
    }
}
