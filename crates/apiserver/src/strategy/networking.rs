//! networking.k8s.io: Ingress, IngressClass, NetworkPolicy, ServiceCIDR. After k/k `pkg/apis/networking` at 1.36.

use std::net::IpAddr;

use apimachinery::field::{Error, Path};
use apimachinery::names::{dns1123_label, dns1123_subdomain, port_name};
use serde_json::{Value, json};

use super::check::{self, immutable, is_set, required, text_messages};
use super::names::{path_segment, port_number, wildcard_subdomain};
use super::walk::{at, each, ensure_at, fill, fill_zero, inner, int, list, object_mut, text};
use super::{Generation, Status, Strategy, empty_status};

/// Rules of Ingresses.
pub(super) static INGRESS: Strategy = Strategy {
    validate: validate_ingress,
    status: Status::Fresh(|| json!({"loadBalancer": {}})),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// Rules of IngressClasses.
pub(super) static INGRESS_CLASS: Strategy = Strategy {
    default: |class| {
        if let Some(parameters) = object_mut(class, &["spec"]).and_then(|spec| inner(spec, "parameters")) {
            fill(parameters, "scope", "Cluster");
        }
    },
    validate: validate_class,
    validate_update: |new, old, errors| immutable(new, old, &["spec", "controller"], errors),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// Rules of NetworkPolicies.
pub(super) static NETWORK_POLICY: Strategy = Strategy {
    default: default_network_policy,
    validate: validate_network_policy,
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// Rules of ServiceCIDRs.
pub(super) static SERVICE_CIDR: Strategy = Strategy {
    validate: |range, errors| {
        let path = Path::new("spec.cidrs");
        let ranges = list(range, &["spec", "cidrs"]);
        if ranges.is_empty() {
            errors.push(Error::required(&path, "at least one CIDR required"));
        }
        for (index, range) in ranges.iter().enumerate() {
            check::cidr(range.as_str().unwrap_or_default(), &path.index(index), errors);
        }
    },
    validate_update: |new, old, errors| immutable(new, old, &["spec", "cidrs"], errors),
    status: Status::Fresh(empty_status),
    ..Strategy::PLAIN
};

fn default_network_policy(policy: &mut Value) {
    let Some(spec) = ensure_at(policy, &["spec"]) else {
        return;
    };
    for direction in ["ingress", "egress"] {
        for rule in each(spec, direction) {
            for port in each(rule, "ports") {
                fill(port, "protocol", "TCP");
            }
        }
    }
    // A policy without types is about what comes in; about what goes out only if it says so.
    let has_egress = spec
        .get("egress")
        .and_then(Value::as_array)
        .is_some_and(|rules| !rules.is_empty());
    let types = if has_egress {
        json!(["Ingress", "Egress"])
    } else {
        json!(["Ingress"])
    };
    fill_zero(spec, "policyTypes", types);
}

fn validate_class(class: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec.controller");
    let controller = text(class, &["spec", "controller"]);
    if controller.len() > 250 {
        errors.push(Error::too_long(&path, 250));
    }
    // A name with a domain before it.
    let fine = controller.split_once('/').is_some_and(|(domain, name)| {
        dns1123_subdomain(domain).is_empty() && !name.is_empty() && !name.contains(char::is_whitespace)
    });
    if controller.is_empty() {
        errors.push(Error::required(&path, ""));
    } else if !fine {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(Error::invalid(&path, controller, detail));
    }
}

fn validate_ingress(ingress: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = ingress.get("spec").unwrap_or(&Value::Null);
    let rules = list(spec, &["rules"]);
    if rules.is_empty() && !is_set(spec, "defaultBackend") {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(Error::invalid(&path, Value::Null, detail));
    }
    if is_set(spec, "defaultBackend") {
        backend(&spec["defaultBackend"], &path.child("defaultBackend"), errors);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(index);
        let host = text(rule, &["host"]);
        if !host.is_empty() {
            if host.parse::<IpAddr>().is_ok() {
                let detail = "must be a DNS name, not an IP address";
                errors.push(Error::invalid(&path.child("host"), host, detail));
            }
            host_name(host, &path.child("host"), errors);
        }
        if is_set(rule, "http") {
            let place = path.child("http.paths");
            let paths = list(rule, &["http", "paths"]);
            if paths.is_empty() {
                errors.push(Error::required(&place, ""));
            }
            for (index, path) in paths.iter().enumerate() {
                http_path(path, &place.index(index), errors);
            }
        }
    }
    for (index, tls) in list(spec, &["tls"]).iter().enumerate() {
        let path = path.child("tls").index(index);
        for (index, host) in list(tls, &["hosts"]).iter().enumerate() {
            host_name(
                host.as_str().unwrap_or_default(),
                &path.child("hosts").index(index),
                errors,
            );
        }
        let secret = text(tls, &["secretName"]);
        if !secret.is_empty() {
            text_messages(dns1123_subdomain(secret), &path.child("secretName"), secret, errors);
        }
    }
    if is_set(spec, "ingressClassName") {
        let class = text(spec, &["ingressClassName"]);
        text_messages(dns1123_subdomain(class), &path.child("ingressClassName"), class, errors);
    }
}

fn host_name(host: &str, path: &Path, errors: &mut Vec<Error>) {
    let found = if host.contains('*') {
        wildcard_subdomain(host)
    } else {
        dns1123_subdomain(host)
    };
    text_messages(found, path, host, errors);
}

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];

fn http_path(rule: &Value, place: &Path, errors: &mut Vec<Error>) {
    let (path, kind) = (text(rule, &["path"]), text(rule, &["pathType"]));
    let at_path = place.child("path");
    match kind {
        "" => {
            errors.push(Error::required(&place.child("pathType"), "pathType must be specified"));
            return;
        }
        "Exact" | "Prefix" => {
            if !path.starts_with('/') {
                errors.push(Error::invalid(&at_path, path, "must be an absolute path"));
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"]
                .into_iter()
                .filter(|part| path.contains(part))
            {
                errors.push(Error::invalid(&at_path, path, format!("must not contain '{part}'")));
            }
            for part in ["/..", "/."].into_iter().filter(|part| path.ends_with(part)) {
                errors.push(Error::invalid(&at_path, path, format!("cannot end with '{part}'")));
            }
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && !path.starts_with('/') {
                errors.push(Error::invalid(&at_path, path, "must be an absolute path"));
            }
        }
        _ => errors.push(Error::not_supported(&place.child("pathType"), kind, &PATH_TYPES)),
    }
    backend(
        rule.get("backend").unwrap_or(&Value::Null),
        &place.child("backend"),
        errors,
    );
}

fn backend(backend: &Value, path: &Path, errors: &mut Vec<Error>) {
    match (is_set(backend, "resource"), is_set(backend, "service")) {
        (true, true) => {
            errors.push(Error::invalid(
                path,
                "",
                "cannot set both resource and service backends",
            ));
        }
        (false, false) => errors.push(Error::invalid(path, "", "resource or service backend is required")),
        (true, false) => {
            let (resource, path) = (&backend["resource"], path.child("resource"));
            let group = text(resource, &["apiGroup"]);
            if !group.is_empty() {
                text_messages(dns1123_subdomain(group), &path.child("apiGroup"), group, errors);
            }
            for key in ["kind", "name"] {
                if let Some(value) = required(resource, &path, key, "", errors).and_then(Value::as_str) {
                    text_messages(path_segment(value), &path.child(key), value, errors);
                }
            }
        }
        (false, true) => {
            let (service, place) = (&backend["service"], path.child("service"));
            if let Some(name) = required(service, &place, "name", "", errors).and_then(Value::as_str) {
                text_messages(dns1123_label(name), &place.child("name"), name, errors);
            }
            let (name, number) = (
                text(service, &["port", "name"]),
                int(service, &["port", "number"]).unwrap_or(0),
            );
            match (name, number) {
                ("", 0) => errors.push(Error::required(path, "port name or number is required")),
                ("", number) => {
                    check::messages(port_number(number), &place.child("port.number"), &number.into(), errors);
                }
                (name, 0) => text_messages(port_name(name), &place.child("port.name"), name, errors),
                _ => errors.push(Error::invalid(path, "", "cannot set both port name & port number")),
            }
        }
    }
}

fn validate_network_policy(policy: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = policy.get("spec").unwrap_or(&Value::Null);
    if let Some(selector) = at(spec, &["podSelector"]) {
        check::label_selector(selector, &path.child("podSelector"), errors);
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in list(spec, &[direction]).iter().enumerate() {
            let path = path.child(direction).index(index);
            for (index, port) in list(rule, &["ports"]).iter().enumerate() {
                policy_port(port, &path.child("ports").index(index), errors);
            }
            for (index, peer) in list(rule, &[peers]).iter().enumerate() {
                policy_peer(peer, &path.child(peers).index(index), errors);
            }
        }
    }
    let types = list(spec, &["policyTypes"]);
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        errors.push(Error::invalid(&path.child("policyTypes"), types.to_vec(), detail));
        return;
    }
    for (index, kind) in types
        .iter()
        .enumerate()
        .filter(|(_, kind)| **kind != "Ingress" && **kind != "Egress")
    {
        let path = path.child("policyTypes").index(index);
        errors.push(Error::not_supported(&path, kind.clone(), &["Ingress", "Egress"]));
    }
}

fn policy_port(port: &Value, path: &Path, errors: &mut Vec<Error>) {
    check::one_of(port, path, "protocol", &["TCP", "UDP", "SCTP"], errors);
    let end = int(port, &["endPort"]);
    let place = path.child("endPort");
    match (port.get("port").filter(|port| !port.is_null()), end) {
        (None, Some(end)) => {
            errors.push(Error::invalid(
                &place,
                end,
                "may not be specified when `port` is not specified",
            ));
        }
        (Some(Value::String(name)), end) => {
            if let Some(end) = end {
                errors.push(Error::invalid(
                    &place,
                    end,
                    "may not be specified when `port` is non-numeric",
                ));
            }
            text_messages(port_name(name), &path.child("port"), name, errors);
        }
        (Some(number), end) => {
            let start = number.as_i64().unwrap_or(0);
            check::messages(port_number(start), &path.child("port"), number, errors);
            if let Some(end) = end {
                if end < start {
                    errors.push(Error::invalid(&place, start, "must be greater than or equal to `port`"));
                }
                check::messages(port_number(end), &place, &end.into(), errors);
            }
        }
        (None, None) => {}
    }
}

fn policy_peer(peer: &Value, path: &Path, errors: &mut Vec<Error>) {
    let selectors = ["podSelector", "namespaceSelector"].map(|key| at(peer, &[key]).map(|selector| (key, selector)));
    for (key, selector) in selectors.iter().flatten() {
        check::label_selector(selector, &path.child(key), errors);
    }
    let selects = selectors.iter().any(Option::is_some);
    match (selects, at(peer, &["ipBlock"])) {
        (false, None) => errors.push(Error::required(path, "must specify a peer")),
        (true, Some(_)) => errors.push(Error::forbidden(path, "may not specify both ipBlock and another peer")),
        (false, Some(block)) => {
            let path = path.child("ipBlock");
            if let Some(range) = required(block, &path, "cidr", "", errors).and_then(Value::as_str) {
                check::cidr(range, &path.child("cidr"), errors);
            }
            for (index, range) in list(block, &["except"]).iter().enumerate() {
                let range = range.as_str().unwrap_or_default();
                let place = path.child("except").index(index);
                check::cidr(range, &place, errors);
                if !is_inside(range, text(block, &["cidr"])) {
                    errors.push(Error::invalid(&place, range, "must be a strict subset of `cidr`"));
                }
            }
        }
        (true, None) => {}
    }
}

/// Whether the first range lies in the second and is smaller; also when one of them cannot be read.
fn is_inside(inner: &str, outer: &str) -> bool {
    let bits = |range: &str| -> Option<(u128, u32, u32)> {
        let (address, prefix) = range.split_once('/')?;
        let prefix = prefix.parse().ok()?;
        match address.parse().ok()? {
            IpAddr::V4(address) => Some((u128::from(u32::from(address)), prefix, 32)),
            IpAddr::V6(address) => Some((u128::from(address), prefix, 128)),
        }
    };
    let (Some((address, prefix, width)), Some((base, outer_prefix, outer_width))) = (bits(inner), bits(outer)) else {
        return true;
    };
    if width != outer_width || prefix <= outer_prefix || prefix > width {
        return false;
    }
    let shift = width - outer_prefix;
    shift >= 128 || address >> shift == base >> shift
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(check: fn(&Value, &mut Vec<Error>), spec: Value) -> Vec<String> {
        let mut errors = Vec::new();
        check(&json!({"spec": spec}), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_ingress_leads_somewhere() {
        assert_eq!(
            texts(validate_ingress, json!({})),
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",]
        );
        let path = json!({"path": "x", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {}}}});
        assert_eq!(
            texts(
                validate_ingress,
                json!({"rules": [{"host": "10.0.0.1", "http": {"paths": [path]}}]})
            ),
            [
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
                "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
            ]
        );
    }

    #[test]
    fn a_policy_names_peers_and_ports() {
        let rule = json!({"from": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}}],
            "ports": [{"port": 80, "endPort": 79, "protocol": "ICMP"}]});
        assert_eq!(
            texts(validate_network_policy, json!({"ingress": [rule]})),
            [
                "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                "spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
                "spec.ingress[0].from[0]: Required value: must specify a peer",
                "spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: \"11.0.0.0/9\": must be a strict subset of `cidr`",
            ]
        );
    }

    #[test]
    fn a_policy_with_egress_rules_is_about_both() {
        let mut policy = json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}});
        default_network_policy(&mut policy);
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    }
}
