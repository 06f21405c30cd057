//! Gives Services their addresses and node ports.
//!
//! There is no allocator to keep in step with the store: what is taken is read from the Services themselves, so nothing
//! can leak. The caller holds a lock from here to the write. One address family (IPv4). Bands, order of checks and texts
//! are those of k/k 1.36 `pkg/registry/core/service/{storage/alloc.go,ipallocator,portallocator}`; where upstream draws
//! at random the search starts at a place that follows from the Service's name, so that a Service that is made again gets
//! what it had.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use apimachinery::field::{Error, Path};
use apimachinery::gvk::{GroupKind, GroupResource};
use apimachinery::status::Status;
use serde_json::{Value, json};

use crate::config::Cidr;
use crate::store::View;
use crate::strategy::service::{has_node_ports, is_checked, is_headless, needs_cluster_ip, needs_node_ports};
use crate::strategy::walk::{has, int, list, object_mut, text};

/// Fills in address, families and node ports of a Service that is about to be written over `old`.
pub fn allocate(
    service: &mut Value,
    old: Option<&Value>,
    view: &dyn View,
    cidr: Cidr,
    node_ports: &RangeInclusive<u16>,
) -> Result<(), Status> {
    normalize(service);
    let name = text(service, &["metadata", "name"]).to_owned();
    let refuse = |errors: Vec<Error>| Status::invalid(&GroupKind::new("", "Service"), &name, &errors);
    set_families(service, old).map_err(refuse)?;
    let taken = Taken::read(view, service);
    if needs_cluster_ip(service) && !is_headless(service) {
        allocate_address(service, old, &taken, cidr)?;
    }
    allocate_node_ports(service, &taken, node_ports)
}

/// An old client says `clusterIP`, a new one both.
fn normalize(service: &mut Value) {
    let address = text(service, &["spec", "clusterIP"]).to_owned();
    let unsaid = list(service, &["spec", "clusterIPs"]).is_empty();
    if !address.is_empty()
        && unsaid
        && let Some(spec) = object_mut(service, &["spec"])
    {
        spec.insert("clusterIPs".to_owned(), json!([address]));
    }
}

fn set_families(service: &mut Value, old: Option<&Value>) -> Result<(), Vec<Error>> {
    if !needs_cluster_ip(service) {
        return Ok(());
    }
    let bare = is_headless(service) && !has(service, &["spec", "selector"]);
    let stored = old
        .map(|old| text(old, &["spec", "ipFamilyPolicy"]).to_owned())
        .unwrap_or_default();
    let Some(spec) = object_mut(service, &["spec"]) else {
        return Ok(());
    };
    if spec.get("ipFamilyPolicy").is_none_or(Value::is_null) {
        // Nobody knows of which family the endpoints will be that somebody writes by hand.
        let default = if bare { "RequireDualStack" } else { "SingleStack" };
        let policy = if stored.is_empty() { default } else { stored.as_str() };
        spec.insert("ipFamilyPolicy".to_owned(), policy.into());
    }
    let mut errors = Vec::new();
    check_families(service, bare, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let single = text(service, &["spec", "ipFamilyPolicy"]) == "SingleStack";
    let families = list(service, &["spec", "ipFamilies"]);
    let families = match (families, bare && !single) {
        ([], false) => json!(["IPv4"]),
        ([], true) => json!(["IPv4", "IPv6"]),
        ([one], true) if one == "IPv4" => json!(["IPv4", "IPv6"]),
        ([one], true) => json!([one, "IPv4"]),
        (said, _) => json!(said),
    };
    if let Some(spec) = object_mut(service, &["spec"]) {
        spec.insert("ipFamilies".to_owned(), families);
    }
    Ok(())
}

fn check_families(service: &Value, bare: bool, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let policy = text(service, &["spec", "ipFamilyPolicy"]);
    let addresses = list(service, &["spec", "clusterIPs"]);
    let families = list(service, &["spec", "ipFamilies"]);
    match addresses.first().and_then(Value::as_str) {
        Some(_) if text(service, &["spec", "clusterIP"]).is_empty() => {
            let detail = "must be empty when `clusterIP` is not specified";
            errors.push(Error::invalid(&path.child("clusterIPs"), addresses.to_vec(), detail));
        }
        Some(first) if first != text(service, &["spec", "clusterIP"]) => {
            let detail = "first value must match `clusterIP`";
            errors.push(Error::invalid(&path.child("clusterIPs"), addresses.to_vec(), detail));
        }
        _ => {}
    }
    for (index, address) in addresses.iter().enumerate() {
        let address = address.as_str().unwrap_or_default();
        let place = path.child("clusterIPs").index(index);
        match address.parse::<std::net::IpAddr>() {
            _ if address == "None" && index == 0 => {
                if addresses.len() > 1 {
                    let detail = "'None' must be the first and only value";
                    errors.push(Error::invalid(&place, address, detail));
                }
            }
            Ok(std::net::IpAddr::V4(_)) => {}
            Ok(std::net::IpAddr::V6(_)) if families.len() <= index => {
                let detail = "IPv6 is not configured on this cluster";
                errors.push(Error::invalid(&place, addresses.to_vec(), detail));
            }
            Ok(std::net::IpAddr::V6(_)) => {}
            Err(_) => {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                errors.push(Error::invalid(&place, address, detail));
            }
        }
    }
    if policy == "SingleStack" {
        for (key, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if list(service, &["spec", key]).len() == 2 {
                let detail =
                    format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
                errors.push(Error::invalid(&path.child("ipFamilyPolicy"), policy, detail));
            }
        }
    }
    if !errors.is_empty() || bare {
        return;
    }
    if policy == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(Error::invalid(&path.child("ipFamilyPolicy"), policy, detail));
    }
    for (index, family) in families.iter().enumerate().filter(|(_, family)| *family != "IPv4") {
        let place = path.child("ipFamilies").index(index);
        errors.push(Error::invalid(&place, family.clone(), "not configured on this cluster"));
    }
}

/// What the other Services have.
struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeSet<i64>,
}

impl Taken {
    fn read(view: &dyn View, service: &Value) -> Self {
        let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
        let key = |service: &Value| {
            (
                text(service, &["metadata", "namespace"]).to_owned(),
                text(service, &["metadata", "name"]).to_owned(),
            )
        };
        let mine = key(service);
        for other in view.list(&GroupResource::new("", "services"), None) {
            if key(&other) == mine {
                continue;
            }
            let known = list(&other, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
            addresses.extend(known.filter_map(|address| address.parse::<Ipv4Addr>().ok()));
            ports.extend(
                list(&other, &["spec", "ports"])
                    .iter()
                    .filter_map(|port| int(port, &["nodePort"])),
            );
            ports.extend(int(&other, &["spec", "healthCheckNodePort"]));
        }
        ports.remove(&0);
        Self { addresses, ports }
    }
}

/// First and last address that a Service may have.
fn usable(cidr: Cidr) -> (u32, u32) {
    let prefix = u32::from(cidr.prefix.min(30));
    let size = 1_u64 << (32 - prefix);
    let base = u32::from(cidr.address) & (u32::MAX << (32 - prefix));
    // Neither the network nor its broadcast address.
    (base + 1, base + u32::try_from(size - 2).unwrap_or(u32::MAX - base))
}

/// How many of `size` are kept for those who ask for one by number (KEP-3070, KEP-3668).
fn static_band(size: u64, step: u64, most: u64) -> u64 {
    const LEAST: u64 = 16;
    if size <= LEAST {
        0
    } else {
        (size / step).clamp(LEAST, most)
    }
}

fn allocate_address(service: &mut Value, old: Option<&Value>, taken: &Taken, cidr: Cidr) -> Result<(), Status> {
    let name = text(service, &["metadata", "name"]).to_owned();
    let wanted = list(service, &["spec", "clusterIPs"]).to_vec();
    if let Some(wanted_address) = wanted.first().and_then(Value::as_str) {
        // What it has it may keep, also when the range of the cluster has changed since.
        let stored = old.map(|old| list(old, &["spec", "clusterIPs"])).unwrap_or_default();
        if stored.first().and_then(Value::as_str) == Some(wanted_address) {
            return Ok(());
        }
        let Ok(address) = wanted_address.parse::<Ipv4Addr>() else {
            return Ok(());
        };
        let (first, last) = usable(cidr);
        let problem = if !(first..=last).contains(&u32::from(address)) {
            format!("the provided IP ({address}) is not in the valid range. The range of valid IPs is {cidr}")
        } else if taken.addresses.contains(&address) {
            "provided IP is already allocated".to_owned()
        } else {
            return Ok(());
        };
        let detail = format!("failed to allocate IP {address}: {problem}");
        let error = Error::invalid(&Path::new("spec.clusterIPs"), wanted, detail);
        return Err(Status::invalid(&GroupKind::new("", "Service"), &name, &[error]));
    }
    let (first, last) = usable(cidr);
    let size = u64::from(last - first) + 1;
    let band = static_band(size, 16, 256);
    let place = place(service);
    let free = |offset: u64| {
        let address = Ipv4Addr::from(first + u32::try_from(offset).unwrap_or(0));
        (!taken.addresses.contains(&address)).then_some(address)
    };
    let found = search(band..size, place)
        .find_map(free)
        .or_else(|| (0..band).find_map(free));
    let Some(address) = found else {
        let reason = format!("failed to allocate a serviceIP for Service {name:?}: range is full");
        return Err(Status::internal(reason));
    };
    if let Some(spec) = object_mut(service, &["spec"]) {
        spec.insert("clusterIP".to_owned(), address.to_string().into());
        spec.insert("clusterIPs".to_owned(), json!([address.to_string()]));
    }
    Ok(())
}

fn allocate_node_ports(service: &mut Value, taken: &Taken, range: &RangeInclusive<u16>) -> Result<(), Status> {
    if !has_node_ports(service) {
        return Ok(());
    }
    let mut ports = Ports {
        range,
        taken: taken.ports.clone(),
        place: place(service),
    };
    let name = text(service, &["metadata", "name"]).to_owned();
    let refuse = |index: usize, number: i64, problem: String| {
        let path = Path::new("spec.ports").index(index).child("nodePort");
        Status::invalid(
            &GroupKind::new("", "Service"),
            &name,
            &[Error::invalid(&path, number, problem)],
        )
    };
    let wants = needs_node_ports(service);
    let said = list(service, &["spec", "ports"]).to_vec();
    let number_of = |port: &Value| int(port, &["nodePort"]).filter(|number| *number != 0);
    // Two protocols on one port number share their node port (DNS on TCP and UDP).
    let mut shared: Vec<(i64, i64)> = Vec::new();
    let mut given = Vec::with_capacity(said.len());
    for (index, port) in said.iter().enumerate() {
        let own = number_of(port);
        if own.is_none() && !wants {
            given.push(None);
            continue;
        }
        let number = int(port, &["port"]).unwrap_or_default();
        let of_same = shared
            .iter()
            .find(|(other, _)| *other == number)
            .map(|(_, node_port)| *node_port);
        let result = match (of_same, own) {
            (Some(same), None) => same,
            (Some(same), Some(own)) if same == own => own,
            (Some(_), Some(own)) => {
                ports.take(own).map_err(|problem| refuse(index, own, problem))?;
                own
            }
            (None, _) => {
                let requested = said[index..]
                    .iter()
                    .filter(|later| int(later, &["port"]) == Some(number))
                    .find_map(number_of);
                let result = match requested {
                    Some(requested) => {
                        ports
                            .take(requested)
                            .map_err(|problem| refuse(index, requested, problem))?;
                        requested
                    }
                    None => ports.next()?,
                };
                shared.push((number, result));
                result
            }
        };
        given.push(Some(result));
    }
    if let Some(spec) = object_mut(service, &["spec"]) {
        for (port, number) in crate::strategy::walk::each(spec, "ports").zip(given) {
            if let Some(number) = number {
                port.insert("nodePort".to_owned(), number.into());
            }
        }
    }
    if is_checked(service) {
        let number = match int(service, &["spec", "healthCheckNodePort"]).filter(|number| *number != 0) {
            Some(number) => {
                ports.take(number).map_err(|problem| {
                    Status::internal(format!(
                        "failed to allocate requested HealthCheck NodePort {number}: {problem}"
                    ))
                })?;
                number
            }
            None => ports.next()?,
        };
        if let Some(spec) = object_mut(service, &["spec"]) {
            spec.insert("healthCheckNodePort".to_owned(), number.into());
        }
    }
    Ok(())
}

/// The node ports while one Service gets its own.
struct Ports<'a> {
    range: &'a RangeInclusive<u16>,
    taken: BTreeSet<i64>,
    place: u64,
}

impl Ports<'_> {
    fn take(&mut self, number: i64) -> Result<(), String> {
        if !u16::try_from(number).is_ok_and(|number| self.range.contains(&number)) {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.range.start(),
                self.range.end()
            ));
        }
        if self.taken.insert(number) {
            Ok(())
        } else {
            Err("provided port is already allocated".to_owned())
        }
    }

    fn next(&mut self) -> Result<i64, Status> {
        let first = i64::from(*self.range.start());
        let size = u64::from(self.range.end().saturating_sub(*self.range.start())) + 1;
        let band = static_band(size, 32, 128);
        let number = |offset: u64| first + i64::try_from(offset).unwrap_or(0);
        let free = |number: &i64| !self.taken.contains(number);
        let found = search(band..size, self.place)
            .map(number)
            .find(free)
            .or_else(|| (0..band).map(number).find(free));
        let Some(found) = found else {
            return Err(Status::internal("failed to allocate a nodePort: range is full"));
        };
        self.taken.insert(found);
        Ok(found)
    }
}

/// Every number of the range once, from `place` on.
fn search(range: std::ops::Range<u64>, place: u64) -> impl Iterator<Item = u64> {
    let size = range.end - range.start;
    (0..size).map(move |step| range.start + (place + step) % size.max(1))
}

/// Where the search for this Service starts: FNV-1a of namespace and name.
fn place(service: &Value) -> u64 {
    let name = [
        text(service, &["metadata", "namespace"]),
        "/",
        text(service, &["metadata", "name"]),
    ];
    let hash = name
        .iter()
        .flat_map(|part| part.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    hash >> 16
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Services(Vec<Arc<Value>>);

    impl View for Services {
        fn get(&self, _: &GroupResource, _: Option<&str>, _: &str) -> Option<Arc<Value>> {
            None
        }

        fn list(&self, _: &GroupResource, _: Option<&str>) -> Vec<Arc<Value>> {
            self.0.clone()
        }
    }

    const CIDR: Cidr = Cidr {
        address: Ipv4Addr::new(10, 96, 0, 0),
        prefix: 12,
    };

    fn service(name: &str, spec: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec})
    }

    fn allocated(others: &[Value], mut service: Value) -> Result<Value, String> {
        let view = Services(others.iter().cloned().map(Arc::new).collect());
        match allocate(&mut service, None, &view, CIDR, &(30000..=32767)) {
            Ok(()) => Ok(service["spec"].clone()),
            Err(status) => Err(status.message),
        }
    }

    #[test]
    fn a_service_gets_an_address_above_the_static_band() {
        let spec = allocated(&[], service("a", json!({"type": "ClusterIP", "selector": {"a": "b"}}))).unwrap();
        let address: Ipv4Addr = spec["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(
            address > Ipv4Addr::new(10, 96, 1, 0) && address < Ipv4Addr::new(10, 112, 0, 0),
            "{address}"
        );
        assert_eq!(spec["clusterIPs"], json!([address.to_string()]));
        assert_eq!(
            (&spec["ipFamilies"], &spec["ipFamilyPolicy"]),
            (&json!(["IPv4"]), &json!("SingleStack"))
        );
    }

    #[test]
    fn an_address_is_given_once() {
        let first = service(
            "a",
            json!({"type": "ClusterIP", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"]}),
        );
        let again = service("b", json!({"type": "ClusterIP", "clusterIP": "10.96.0.10"}));
        assert_eq!(
            allocated(&[first], again).unwrap_err(),
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: \
             provided IP is already allocated"
        );
        let outside = service("b", json!({"type": "ClusterIP", "clusterIP": "10.0.0.1"}));
        assert_eq!(
            allocated(&[], outside).unwrap_err(),
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: failed to allocate IP 10.0.0.1: the \
             provided IP (10.0.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12"
        );
    }

    #[test]
    fn headless_and_external_services_get_none() {
        let spec = allocated(
            &[],
            service(
                "a",
                json!({"type": "ClusterIP", "clusterIP": "None", "selector": {"a": "b"}}),
            ),
        );
        assert_eq!(spec.unwrap()["clusterIPs"], json!(["None"]));
        let spec = allocated(&[], service("a", json!({"type": "ExternalName", "externalName": "x"}))).unwrap();
        assert_eq!(spec.get("clusterIP"), None);
    }

    #[test]
    fn node_ports_are_given_once_and_shared_between_protocols() {
        let ports = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}, {"port": 80}]);
        let spec = allocated(&[], service("a", json!({"type": "NodePort", "ports": ports}))).unwrap();
        let number = |index: usize| spec["ports"][index]["nodePort"].as_i64().unwrap();
        assert_eq!(number(0), number(1));
        assert_ne!(number(0), number(2));
        assert!((30086..=32767).contains(&number(0)));
        let other = service(
            "b",
            json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30080}]}),
        );
        let again = service(
            "c",
            json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30080}]}),
        );
        assert_eq!(
            allocated(&[other], again).unwrap_err(),
            "Service \"c\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
        );
        let outside = service("c", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]}));
        assert!(allocated(&[], outside).unwrap_err().ends_with(
            "Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
        ));
    }

    #[test]
    fn a_full_range_falls_back_to_the_static_band_and_then_says_so() {
        let small = Cidr {
            address: Ipv4Addr::new(10, 0, 0, 0),
            prefix: 27,
        };
        let mut others = Vec::new();
        for number in 0..30 {
            let mut next = service(&format!("s{number}"), json!({"type": "ClusterIP"}));
            let view = Services(others.clone());
            allocate(&mut next, None, &view, small, &(30000..=32767)).unwrap();
            others.push(Arc::new(next));
        }
        let mut last = service("last", json!({"type": "ClusterIP"}));
        let status = allocate(&mut last, None, &Services(others), small, &(30000..=32767)).unwrap_err();
        assert_eq!(status.code, 500);
    }
}
