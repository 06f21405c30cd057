//! Endpoints and EndpointSlice. After k/k `pkg/apis/{core,discovery}` at 1.36.

use std::collections::BTreeSet;
use std::net::IpAddr;

use apimachinery::field::{Error, Path};
use apimachinery::names::{dns1123_label, dns1123_subdomain, qualified_name};
use serde_json::Value;

use super::check::{self, immutable, is_set, text_messages};
use super::names::port_number;
use super::walk::{each, fill, fill_zero, int, list, text};
use super::{Generation, Strategy};

/// Rules of Endpoints.
pub(super) static ENDPOINTS: Strategy = Strategy {
    default: default_endpoints,
    validate: validate_endpoints,
    create_on_update: true,
    ..Strategy::PLAIN
};

/// Rules of EndpointSlices.
pub(super) static ENDPOINT_SLICE: Strategy = Strategy {
    default: default_slice,
    validate: validate_slice,
    validate_update: |new, old, errors| immutable(new, old, &["addressType"], errors),
    generation: Generation::SpecAndLabels,
    ..Strategy::PLAIN
};

fn default_endpoints(endpoints: &mut Value) {
    let Some(endpoints) = endpoints.as_object_mut() else {
        return;
    };
    for subset in each(endpoints, "subsets") {
        for port in each(subset, "ports") {
            fill_zero(port, "protocol", "TCP");
        }
    }
}

fn default_slice(slice: &mut Value) {
    let Some(slice) = slice.as_object_mut() else { return };
    for port in each(slice, "ports") {
        fill(port, "name", "");
        fill(port, "protocol", "TCP");
    }
}

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

fn validate_endpoints(endpoints: &Value, errors: &mut Vec<Error>) {
    for (index, subset) in list(endpoints, &["subsets"]).iter().enumerate() {
        let path = Path::new("subsets").index(index);
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|key| list(subset, &[key]).is_empty()) {
            errors.push(Error::required(
                &path,
                "must specify `addresses` or `notReadyAddresses`",
            ));
        }
        for key in lists {
            for (index, address) in list(subset, &[key]).iter().enumerate() {
                let path = path.child(key).index(index);
                check::endpoint_ip(text(address, &["ip"]), &path.child("ip"), errors);
                check::dns_label(address, &path, "hostname", errors);
                let node = text(address, &["nodeName"]);
                if !node.is_empty() {
                    text_messages(dns1123_subdomain(node), &path.child("nodeName"), node, errors);
                }
            }
        }
        let ports = list(subset, &["ports"]);
        for (index, port) in ports.iter().enumerate() {
            let path = path.child("ports").index(index);
            match text(port, &["name"]) {
                "" if ports.len() > 1 => errors.push(Error::required(&path.child("name"), "")),
                "" => {}
                name => text_messages(dns1123_label(name), &path.child("name"), name, errors),
            }
            let number = int(port, &["port"]).unwrap_or(0);
            check::messages(port_number(number), &path.child("port"), &number.into(), errors);
            check::required_one_of(port, &path, "protocol", &PROTOCOLS, errors);
        }
    }
}

/// Most endpoints and ports of a slice, and addresses of an endpoint.
const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;

fn validate_slice(slice: &Value, errors: &mut Vec<Error>) {
    check::required_one_of(slice, &Path::root(), "addressType", &["FQDN", "IPv4", "IPv6"], errors);
    let ports = list(slice, &["ports"]);
    if ports.len() > PORTS_MAX {
        errors.push(Error::too_many(&Path::new("ports"), ports.len(), PORTS_MAX));
        return;
    }
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = Path::new("ports").index(index);
        check::dns_label(port, &path, "name", errors);
        let name = text(port, &["name"]);
        if !names.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        check::required_one_of(port, &path, "protocol", &PROTOCOLS, errors);
        if is_set(port, "appProtocol") {
            let protocol = text(port, &["appProtocol"]);
            text_messages(qualified_name(protocol), &path.child("appProtocol"), protocol, errors);
        }
    }
    let endpoints = list(slice, &["endpoints"]);
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(Error::too_many(&Path::new("endpoints"), endpoints.len(), ENDPOINTS_MAX));
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        validate_endpoint(
            endpoint,
            text(slice, &["addressType"]),
            &Path::new("endpoints").index(index),
            errors,
        );
    }
}

fn validate_endpoint(endpoint: &Value, kind: &str, path: &Path, errors: &mut Vec<Error>) {
    let addresses = list(endpoint, &["addresses"]);
    let place = path.child("addresses");
    if addresses.is_empty() {
        errors.push(Error::required(&place, "must contain at least 1 address"));
    } else if addresses.len() > ADDRESSES_MAX {
        errors.push(Error::too_many(&place, addresses.len(), ADDRESSES_MAX));
    }
    for (index, address) in addresses.iter().enumerate() {
        let address = address.as_str().unwrap_or_default();
        if kind == "FQDN" {
            text_messages(dns1123_subdomain(address), &place.index(index), address, errors);
            continue;
        }
        check::endpoint_ip(address, &place.index(index), errors);
        let fits = match address.parse() {
            Ok(IpAddr::V4(_)) => kind != "IPv6",
            Ok(IpAddr::V6(_)) => kind != "IPv4",
            Err(_) => true,
        };
        if !fits {
            errors.push(Error::invalid(&place, address, format!("must be an {kind} address")));
        }
    }
    let node = text(endpoint, &["nodeName"]);
    if !node.is_empty() {
        text_messages(dns1123_subdomain(node), &path.child("nodeName"), node, errors);
    }
    check::dns_label(endpoint, path, "hostname", errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_slice_has_addresses_of_its_type() {
        let mut errors = Vec::new();
        validate_slice(
            &json!({"addressType": "IPv4", "endpoints": [{"addresses": ["::1:2"]}, {}]}),
            &mut errors,
        );
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "endpoints[0].addresses: Invalid value: \"::1:2\": must be an IPv4 address",
                "endpoints[1].addresses: Required value: must contain at least 1 address",
            ]
        );
    }

    #[test]
    fn an_endpoint_is_not_the_machine_itself() {
        let mut errors = Vec::new();
        let subset = json!({"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 80, "protocol": "TCP"}]});
        validate_endpoints(&json!({"subsets": [subset]}), &mut errors);
        assert_eq!(
            errors[0].to_string(),
            "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"
        );
    }
}
