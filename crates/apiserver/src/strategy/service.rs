//! Service: defaults and what an update of its type clears. Addresses and node ports are given out in
//! [`crate::allocation`]. After k/k `pkg/apis/core/v1/defaults.go`, `pkg/registry/core/service/strategy.go` at 1.36.

use std::collections::BTreeSet;

use apimachinery::field::{Error, Path};
use apimachinery::names::{dns1123_label, dns1123_subdomain, qualified_name};
use serde_json::{Value, json};

use super::check::{self, is_set, text_messages};

use super::names::{Rule, port_number};
use super::walk::{
    at, drop_key, each, ensure_at, field, fill, fill_zero, has, inner, int, keep_old, list, object_mut, same, text,
};
use super::{Status, Strategy};

/// Rules of Services.
pub(super) static SERVICE: Strategy = Strategy {
    default,
    prepare_update,
    validate,
    validate_update,
    name: Rule::Label,
    status: Status::Fresh(|| json!({"loadBalancer": {}})),
    create_on_update: true,
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// How long a client keeps its backend by default, and at most, in seconds.
const CLIENT_IP_TIMEOUT: i64 = 10800;
const CLIENT_IP_MAX: i64 = 86400;

fn default(service: &mut Value) {
    let Some(spec) = ensure_at(service, &["spec"]) else {
        return;
    };
    fill_zero(spec, "sessionAffinity", "None");
    match field(spec, "sessionAffinity") {
        "None" => drop_key(spec, "sessionAffinityConfig"),
        "ClientIP" => {
            let said = inner(spec, "sessionAffinityConfig")
                .and_then(|config| inner(config, "clientIP"))
                .is_some_and(|config| config.get("timeoutSeconds").is_some_and(|timeout| !timeout.is_null()));
            if !said {
                let config = json!({"clientIP": {"timeoutSeconds": CLIENT_IP_TIMEOUT}});
                spec.insert("sessionAffinityConfig".to_owned(), config);
            }
        }
        _ => {}
    }
    fill_zero(spec, "type", "ClusterIP");
    for port in each(spec, "ports") {
        fill_zero(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            fill_zero(port, "targetPort", number);
        }
    }
    let kind = field(spec, "type").to_owned();
    let external_ips = spec
        .get("externalIPs")
        .and_then(Value::as_array)
        .is_some_and(|ips| !ips.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && external_ips) {
        fill_zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Whether a Service of this type has an address at all.
pub(crate) fn needs_cluster_ip(service: &Value) -> bool {
    text(service, &["spec", "type"]) != "ExternalName"
}

/// Whether a Service of this type has node ports.
pub(crate) fn needs_node_ports(service: &Value) -> bool {
    match text(service, &["spec", "type"]) {
        "NodePort" => true,
        "LoadBalancer" => {
            at(service, &["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool) != Some(false)
        }
        _ => false,
    }
}

/// Whether the Service is reached by its Pods' addresses only.
pub(crate) fn is_headless(service: &Value) -> bool {
    text(service, &["spec", "clusterIP"]) == "None"
        || list(service, &["spec", "clusterIPs"])
            .first()
            .is_some_and(|address| address == "None")
}

/// What was given out stays given out, and what a new type has no use for goes, if the client did not touch it.
fn prepare_update(new: &mut Value, old: &Value) {
    patch_allocated(new, old);
    drop_type_dependent(new, old);
    if text(new, &["spec", "type"]) != "LoadBalancer"
        && let Some(map) = object_mut(new, &[])
    {
        map.insert("status".to_owned(), json!({"loadBalancer": {}}));
    }
}

/// An update that leaves out what the server filled in means to keep it (`patchAllocatedValues`).
fn patch_allocated(new: &mut Value, old: &Value) {
    if needs_cluster_ip(new) && needs_cluster_ip(old) {
        for key in ["clusterIP", "clusterIPs"] {
            if !has(new, &["spec", key])
                && let Some(spec) = new.get_mut("spec")
            {
                keep_old(spec, old.get("spec").unwrap_or(&Value::Null), key);
            }
        }
    }
    if has_node_ports(old) && has_node_ports(new) {
        keep_node_ports(new, old);
    }
    if is_checked(old)
        && is_checked(new)
        && let (Some(port), Some(spec)) = (int(old, &["spec", "healthCheckNodePort"]), object_mut(new, &["spec"]))
    {
        fill_zero(spec, "healthCheckNodePort", port);
    }
}

/// A port that is still there, by name, keeps its node port unless another one has taken it.
fn keep_node_ports(new: &mut Value, old: &Value) {
    let numbers = |service: &Value| -> Vec<i64> {
        list(service, &["spec", "ports"])
            .iter()
            .filter_map(|port| int(port, &["nodePort"]))
            .collect()
    };
    let (mine, stored) = (numbers(new), numbers(old));
    let Some(spec) = object_mut(new, &["spec"]) else { return };
    for port in each(spec, "ports") {
        if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0 {
            continue;
        }
        let name = field(port, "name");
        let known = list(old, &["spec", "ports"])
            .iter()
            .rfind(|known| text(known, &["name"]) == name);
        let number = known.and_then(|known| int(known, &["nodePort"])).unwrap_or(0);
        if number != 0 && !(mine.contains(&number) && stored.contains(&number)) {
            port.insert("nodePort".to_owned(), number.into());
        }
    }
}

/// Whether the type of the Service is one with node ports, whether it wants them or not.
pub(crate) fn has_node_ports(service: &Value) -> bool {
    matches!(text(service, &["spec", "type"]), "NodePort" | "LoadBalancer")
}

/// Whether a load balancer asks each node for the Service's health.
pub(crate) fn is_checked(service: &Value) -> bool {
    text(service, &["spec", "type"]) == "LoadBalancer" && text(service, &["spec", "externalTrafficPolicy"]) == "Local"
}

fn drop_type_dependent(new: &mut Value, old: &Value) {
    let untouched = |new: &Value, key: &str| same(at(new, &["spec", key]), at(old, &["spec", key]));
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if untouched(new, "clusterIP") && untouched(new, "clusterIPs") {
            drop_fields(new, &["clusterIP", "clusterIPs"]);
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if untouched(new, key) {
                drop_fields(new, &[key]);
            }
        }
    }
    if has_node_ports(old) && !has_node_ports(new) {
        let known: Vec<i64> = list(old, &["spec", "ports"])
            .iter()
            .filter_map(|port| int(port, &["nodePort"]))
            .collect();
        let foreign = list(new, &["spec", "ports"])
            .iter()
            .filter_map(|port| int(port, &["nodePort"]))
            .any(|number| number != 0 && !known.contains(&number));
        if !foreign && let Some(spec) = object_mut(new, &["spec"]) {
            each(spec, "ports").for_each(|port| drop_key(port, "nodePort"));
        }
    }
    let is_balanced = |service: &Value| text(service, &["spec", "type"]) == "LoadBalancer";
    let is_external = |service: &Value| has_node_ports(service) || has(service, &["spec", "externalIPs"]);
    if is_checked(old) && !is_checked(new) && untouched(new, "healthCheckNodePort") {
        drop_fields(new, &["healthCheckNodePort"]);
    }
    if is_balanced(old) && !is_balanced(new) {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if untouched(new, key) {
                drop_fields(new, &[key]);
            }
        }
    }
    if is_external(old) && !is_external(new) && untouched(new, "externalTrafficPolicy") {
        drop_fields(new, &["externalTrafficPolicy"]);
    }
}

fn drop_fields(service: &mut Value, keys: &[&str]) {
    if let Some(spec) = object_mut(service, &["spec"]) {
        keys.iter().for_each(|key| drop_key(spec, key));
    }
}

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";

fn validate(service: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = service.get("spec").unwrap_or(&Value::Null);
    let kind = text(spec, &["type"]);
    if !has(spec, &["ports"]) && !is_headless(service) && kind != "ExternalName" {
        errors.push(Error::required(&path.child("ports"), ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(service) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(Error::invalid(&path.child("clusterIPs").index(0), "None", detail));
        }
        "ExternalName" => external_name(spec, &path, errors),
        _ => {}
    }
    ports(spec, &path.child("ports"), errors);
    check::labels(spec, &["selector"], &path.child("selector"), errors);
    affinity(spec, &path, errors);
    for (index, address) in list(spec, &["externalIPs"]).iter().enumerate() {
        let path = path.child("externalIPs").index(index);
        check::endpoint_ip(address.as_str().unwrap_or_default(), &path, errors);
    }
    check::required_one_of(spec, &path, "type", &TYPES, errors);
    node_ports(spec, kind, &path.child("ports"), errors);
    balancer(spec, kind, &path, errors);
    traffic(service, spec, &path, errors);
}

fn external_name(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"]
        .into_iter()
        .filter(|key| has(spec, &[key]))
    {
        errors.push(Error::forbidden(
            &path.child(key),
            "may not be set for ExternalName services",
        ));
    }
    let name = text(spec, &["externalName"]);
    match name.strip_suffix('.').unwrap_or(name) {
        "" => errors.push(Error::required(&path.child("externalName"), "")),
        name => text_messages(dns1123_subdomain(name), &path.child("externalName"), name, errors),
    }
}

fn ports(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let ports = list(spec, &["ports"]);
    let mut names = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        match text(port, &["name"]) {
            "" if ports.len() > 1 => errors.push(Error::required(&path.child("name"), "")),
            "" => {}
            name => {
                text_messages(dns1123_label(name), &path.child("name"), name, errors);
                if !names.insert(name) {
                    errors.push(Error::duplicate(&path.child("name"), name));
                }
            }
        }
        let number = int(port, &["port"]).unwrap_or(0);
        check::messages(port_number(number), &path.child("port"), &number.into(), errors);
        check::required_one_of(port, &path, "protocol", &PROTOCOLS, errors);
        check::port_number_or_name(port.get("targetPort"), &path.child("targetPort"), errors);
        if is_set(port, "appProtocol") {
            let protocol = text(port, &["appProtocol"]);
            text_messages(qualified_name(protocol), &path.child("appProtocol"), protocol, errors);
        }
        let protocol = text(port, &["protocol"]);
        if !taken.insert((protocol, number)) {
            errors.push(Error::duplicate(&path, json!({"protocol": protocol, "port": number})));
        }
    }
}

fn affinity(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    check::required_one_of(spec, path, "sessionAffinity", &["ClientIP", "None"], errors);
    let place = path.child("sessionAffinityConfig");
    match text(spec, &["sessionAffinity"]) {
        "ClientIP" => {
            let seconds = int(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).unwrap_or(0);
            if !(1..=CLIENT_IP_MAX).contains(&seconds) {
                let detail = format!("must be greater than 0 and less than {CLIENT_IP_MAX}");
                errors.push(Error::invalid(&place.child("clientIP.timeoutSeconds"), seconds, detail));
            }
        }
        "None" if is_set(spec, "sessionAffinityConfig") => {
            errors.push(Error::forbidden(
                &place,
                "must not be set when session affinity is None",
            ));
        }
        _ => {}
    }
}

fn node_ports(spec: &Value, kind: &str, path: &Path, errors: &mut Vec<Error>) {
    let mut taken = BTreeSet::new();
    for (index, port) in list(spec, &["ports"]).iter().enumerate() {
        let number = int(port, &["nodePort"]).unwrap_or(0);
        if number == 0 {
            continue;
        }
        let path = path.index(index).child("nodePort");
        if kind == "ClusterIP" {
            errors.push(Error::forbidden(&path, "may not be used when `type` is 'ClusterIP'"));
        }
        if !taken.insert((text(port, &["protocol"]), number)) {
            errors.push(Error::duplicate(&path, number));
        }
    }
}

fn balancer(spec: &Value, kind: &str, path: &Path, errors: &mut Vec<Error>) {
    let balanced = kind == "LoadBalancer";
    let ranges = list(spec, &["loadBalancerSourceRanges"]);
    // Upstream writes this path with a capital.
    let place = path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !balanced {
        errors.push(Error::forbidden(&place, ONLY_BALANCED));
    }
    for (index, range) in ranges.iter().enumerate() {
        check::cidr(range.as_str().unwrap_or_default().trim(), &place.index(index), errors);
    }
    if is_set(spec, "allocateLoadBalancerNodePorts") && !balanced {
        errors.push(Error::forbidden(
            &path.child("allocateLoadBalancerNodePorts"),
            ONLY_BALANCED,
        ));
    }
    if is_set(spec, "loadBalancerClass") {
        let (class, path) = (text(spec, &["loadBalancerClass"]), path.child("loadBalancerClass"));
        if balanced {
            text_messages(qualified_name(class), &path, class, errors);
        } else {
            errors.push(Error::forbidden(&path, ONLY_BALANCED));
        }
    }
}

fn traffic(service: &Value, spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let kind = text(spec, &["type"]);
    let external = has_node_ports(service) || (kind == "ClusterIP" && has(spec, &["externalIPs"]));
    let policies = ["Cluster", "Local"];
    if external {
        check::required_one_of(spec, path, "externalTrafficPolicy", &policies, errors);
    } else if has(spec, &["externalTrafficPolicy"]) {
        let policy = text(spec, &["externalTrafficPolicy"]);
        let detail = "may only be set for externally-accessible services";
        errors.push(Error::invalid(&path.child("externalTrafficPolicy"), policy, detail));
    }
    let health = int(spec, &["healthCheckNodePort"]).unwrap_or(0);
    if health != 0 && !is_checked(service) {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(Error::invalid(&path.child("healthCheckNodePort"), health, detail));
    }
    if kind != "ExternalName" {
        check::required_one_of(spec, path, "internalTrafficPolicy", &policies, errors);
    }
    let distributions = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    check::one_of(spec, path, "trafficDistribution", &distributions, errors);
}

fn validate_update(new: &Value, old: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let addresses = |service: &'_ Value| list(service, &["spec", "clusterIPs"]).to_vec();
    let settled = needs_cluster_ip(new) && needs_cluster_ip(old) && !(is_headless(new) && is_headless(old));
    if settled {
        let (given, stored) = (addresses(new), addresses(old));
        match (given.first(), stored.first()) {
            (None, Some(_)) => {
                let detail = "primary clusterIP can not be unset";
                errors.push(Error::invalid(&path.child("clusterIPs").index(0), given, detail));
            }
            (Some(mine), Some(known)) if mine != known => {
                errors.push(Error::invalid(
                    &path.child("clusterIPs").index(0),
                    given,
                    "may not change once set",
                ));
            }
            _ => {}
        }
    }
    let balanced = |service: &Value| text(service, &["spec", "type"]) == "LoadBalancer";
    let class = |service: &Value| {
        at(service, &["spec", "loadBalancerClass"])
            .cloned()
            .unwrap_or(Value::Null)
    };
    if balanced(new) && balanced(old) && class(new) != class(old) {
        errors.push(Error::invalid(
            &path.child("loadBalancerClass"),
            class(new),
            "may not change once set",
        ));
    }
    if is_checked(new) && is_checked(old) {
        let port = |service: &Value| int(service, &["spec", "healthCheckNodePort"]).unwrap_or(0);
        if port(new) != port(old) {
            errors.push(Error::forbidden(&path.child("healthCheckNodePort"), check::IMMUTABLE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(spec: Value) -> Vec<String> {
        let mut service = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        default(&mut service);
        SERVICE
            .validate_create(true, &service)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_service_has_ports_with_names() {
        assert_eq!(problems(json!({"ports": [{"port": 80}]})), Vec::<String>::new());
        assert_eq!(problems(json!({})), ["spec.ports: Required value"]);
        assert_eq!(
            problems(json!({"ports": [{"port": 80}, {"port": 0, "name": "a", "nodePort": 30000}]})),
            [
                "spec.ports[0].name: Required value",
                "spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[1].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ]
        );
    }

    #[test]
    fn a_type_is_one_of_four() {
        assert_eq!(
            problems(json!({"type": "Nodeport", "ports": [{"port": 80}]}))[0],
            "spec.type: Unsupported value: \"Nodeport\": supported values: \"ClusterIP\", \"ExternalName\", \
             \"LoadBalancer\", \"NodePort\""
        );
        assert_eq!(
            problems(json!({"type": "ExternalName"})),
            ["spec.externalName: Required value"]
        );
    }

    #[test]
    fn an_address_does_not_change() {
        let old = json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.96.0.9"]}});
        let new = json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.96.0.10"]}});
        let mut errors = Vec::new();
        validate_update(&new, &old, &mut errors);
        assert_eq!(
            errors[0].to_string(),
            "spec.clusterIPs[0]: Invalid value: [\"10.96.0.10\"]: may not change once set"
        );
    }

    #[test]
    fn the_smallest_service_gets_every_default() {
        let mut value = json!({"spec": {"ports": [{"port": 80}]}});
        default(&mut value);
        assert_eq!(
            value["spec"],
            json!({"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "sessionAffinity": "None",
                "type": "ClusterIP", "internalTrafficPolicy": "Cluster"})
        );
    }

    #[test]
    fn an_update_keeps_what_was_given_out() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}, "status": {"loadBalancer": {}}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        SERVICE.ready_change("", &mut new, &old);
        assert_eq!(new["spec"]["clusterIP"], "10.96.0.9");
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
    }

    #[test]
    fn a_service_that_becomes_internal_gives_its_node_ports_back() {
        let old = json!({"spec": {"type": "NodePort", "externalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
        let mut new = old.clone();
        new["spec"]["type"] = json!("ClusterIP");
        SERVICE.ready_change("", &mut new, &old);
        assert_eq!(new["spec"]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
        assert_eq!(new["spec"].get("externalTrafficPolicy"), None);
    }
}
