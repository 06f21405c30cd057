//! How much a pod asks for, and how much a node has.
//!
//! Pure. The effective request follows `component-helpers/resource` (kubernetes 1.36, `PodRequests`).

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

/// Amounts by resource name: cpu in millicores, everything else in its own unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, i64>);

impl Amounts {
    /// Reads a resource list. What cannot be parsed was refused by the API server and counts nothing here.
    pub fn read(list: Option<&BTreeMap<String, WireQuantity>>) -> Self {
        let amount = |(name, quantity): (&String, &WireQuantity)| Some((name.clone(), amount(name, quantity)?));
        Self(list.into_iter().flatten().filter_map(amount).collect())
    }

    /// The amount of one resource; 0 if it is not named.
    pub fn get(&self, resource: &str) -> i64 {
        self.0.get(resource).copied().unwrap_or(0)
    }

    /// All that is named.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let most = self.0.entry(name.clone()).or_default();
            *most = (*most).max(*amount);
        }
    }
}

impl std::iter::Sum<Amounts> for Amounts {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), |mut sum, next| {
            sum.add(&next);
            sum
        })
    }
}

impl<'a> std::iter::Sum<&'a Amounts> for Amounts {
    fn sum<I: Iterator<Item = &'a Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), |mut sum, next| {
            sum.add(next);
            sum
        })
    }
}

/// One quantity in the unit of its resource: millicores for cpu, whole units otherwise, both rounded up.
pub fn amount(resource: &str, quantity: &WireQuantity) -> Option<i64> {
    let quantity: Quantity = quantity.0.parse().ok()?;
    Some(if resource == "cpu" {
        quantity.milli()
    } else {
        quantity.value()
    })
}

/// Init containers that run beside the others (sidecars).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What the pod needs at its peak: containers and sidecars together, or an init container with the sidecars that were
/// started before it, whichever is more; then the overhead. Requests at pod level replace the sum.
pub fn pod_requests(spec: &PodSpec) -> Amounts {
    let of = |container: &Container| {
        Amounts::read(
            container
                .resources
                .as_ref()
                .and_then(|resources| resources.requests.as_ref()),
        )
    };
    let mut total: Amounts = spec.containers.iter().map(of).sum();
    let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container);
        if is_sidecar(container) {
            sidecars.add(&needed);
            total.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        peak.raise_to(&needed);
    }
    total.raise_to(&peak);
    if let Some(pod_level) = &spec.resources {
        total.0.extend(Amounts::read(pod_level.requests.as_ref()).0);
    }
    total.add(&Amounts::read(spec.overhead.as_ref()));
    total
}

/// Host ports a pod takes on its node, as (address, protocol, port).
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return vec![] };
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| is_sidecar(container));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            Some(HostPort {
                address: port
                    .host_ip
                    .clone()
                    .filter(|ip| !ip.is_empty())
                    .unwrap_or_else(|| "0.0.0.0".into()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: number,
            })
        })
        .collect()
}

/// A port on the node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `0.0.0.0` stands for every address.
    pub address: String,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// The number.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be taken at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        let same_address = self.address == other.address || self.address == "0.0.0.0" || other.address == "0.0.0.0";
        same_address && self.protocol == other.protocol && self.port == other.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    fn container(name: &str, cpu: &str, restart: Option<&str>) -> serde_json::Value {
        serde_json::json!({"name": name, "restartPolicy": restart, "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn an_init_container_counts_only_when_it_needs_more_than_the_rest() {
        let small = spec(serde_json::json!({
            "containers": [container("a", "200m", None), container("b", "1", None)],
            "initContainers": [container("i", "500m", None)],
        }));
        assert_eq!(pod_requests(&small).get("cpu"), 1200);
        let large = spec(serde_json::json!({
            "containers": [container("a", "200m", None)],
            "initContainers": [container("s", "100m", Some("Always")), container("i", "500m", None)],
            "overhead": {"cpu": "10m", "memory": "1Mi"},
        }));
        assert_eq!(pod_requests(&large).get("cpu"), 610);
        assert_eq!(pod_requests(&large).get("memory"), 1 << 20);
    }

    #[test]
    fn a_host_port_on_all_addresses_conflicts_with_one_on_any() {
        let port = |address: &str, protocol: &str| HostPort {
            address: address.into(),
            protocol: protocol.into(),
            port: 80,
        };
        assert!(port("0.0.0.0", "TCP").conflicts(&port("10.0.0.1", "TCP")));
        assert!(!port("10.0.0.2", "TCP").conflicts(&port("10.0.0.1", "TCP")));
        assert!(!port("0.0.0.0", "UDP").conflicts(&port("0.0.0.0", "TCP")));
    }
}
