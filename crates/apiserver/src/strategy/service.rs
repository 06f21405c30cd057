//! Service: defaults and what an update of its type clears. Addresses and node ports are given out in
//! [`crate::allocation`]. After k/k `pkg/apis/core/v1/defaults.go`, `pkg/registry/core/service/strategy.go` at 1.36.

use serde_json::{Value, json};

use super::names::Rule;
use super::walk::{
    at, drop_key, each, ensure_at, field, fill, fill_zero, has, inner, int, keep_old, list, object_mut, same, text,
};
use super::{Status, Strategy};

/// Rules of Services.
pub(super) static SERVICE: Strategy = Strategy {
    default,
    prepare_update,
    name: Rule::Label,
    status: Status::Fresh(|| json!({"loadBalancer": {}})),
    create_on_update: true,
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// Longest and default time that a client keeps its backend, in seconds.
const CLIENT_IP_TIMEOUT: i64 = 10800;

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

#[cfg(test)]
mod tests {
    use super::*;

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
        SERVICE.ready_update(&mut new, &old);
        assert_eq!(new["spec"]["clusterIP"], "10.96.0.9");
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
    }

    #[test]
    fn a_service_that_becomes_internal_gives_its_node_ports_back() {
        let old = json!({"spec": {"type": "NodePort", "externalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
        let mut new = old.clone();
        new["spec"]["type"] = json!("ClusterIP");
        SERVICE.ready_update(&mut new, &old);
        assert_eq!(new["spec"]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
        assert_eq!(new["spec"].get("externalTrafficPolicy"), None);
    }
}
