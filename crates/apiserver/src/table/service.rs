//! Service and Endpoints.

use jiff::Timestamp;
use serde_json::Value;

use super::cell::{NONE, UNKNOWN, age, first, labels, name};
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::{has, int, list, text};

pub(super) static SERVICE: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Type", "From where the Service can be reached."),
        Column::text("Cluster-IP", "Address inside the cluster."),
        Column::text("External-IP", "Addresses outside the cluster."),
        Column::text("Port(s)", "Ports, and the nodes' ports behind them."),
        AGE,
        Column::text("Selector", "Labels of the Pods that serve it.").wide(),
    ],
    cells: service,
};

pub(super) static ENDPOINTS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Endpoints", "Addresses and ports that are ready."),
        AGE,
    ],
    cells: |endpoints, now| vec![name(endpoints), addresses(endpoints).into(), age(endpoints, now)],
};

/// Addresses of a load balancer, sorted.
pub(super) fn load_balancer(object: &Value) -> String {
    let mut addresses: Vec<&str> = list(object, &["status", "loadBalancer", "ingress"])
        .iter()
        .map(|ingress| match text(ingress, &["ip"]) {
            "" => text(ingress, &["hostname"]),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.join(",")
}

fn service(service: &Value, now: Timestamp) -> Vec<Value> {
    let kind = text(service, &["spec", "type"]);
    let address = list(service, &["spec", "clusterIPs"])
        .first()
        .and_then(Value::as_str)
        .unwrap_or(NONE);
    vec![
        name(service),
        kind.into(),
        address.into(),
        external(service, kind).into(),
        ports(service).into(),
        age(service, now),
        labels(service, &["spec", "selector"]).into(),
    ]
}

fn external(service: &Value, kind: &str) -> String {
    let mut addresses: Vec<String> = list(service, &["spec", "externalIPs"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    match kind {
        "ClusterIP" | "NodePort" if addresses.is_empty() => NONE.to_owned(),
        "ClusterIP" | "NodePort" => addresses.join(","),
        "LoadBalancer" => {
            let balancer = load_balancer(service);
            if !balancer.is_empty() {
                addresses.insert(0, balancer);
            }
            if addresses.is_empty() {
                "<pending>".to_owned()
            } else {
                addresses.join(",")
            }
        }
        "ExternalName" => text(service, &["spec", "externalName"]).to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

fn ports(service: &Value) -> String {
    if !has(service, &["spec", "ports"]) {
        return NONE.to_owned();
    }
    let port = |port: &Value| {
        let number = int(port, &["port"]).unwrap_or(0);
        let protocol = text(port, &["protocol"]);
        match int(port, &["nodePort"]).unwrap_or(0) {
            node_port if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    };
    list(service, &["spec", "ports"])
        .iter()
        .map(port)
        .collect::<Vec<_>>()
        .join(",")
}

/// How many addresses are shown.
const SHOWN: usize = 3;

fn addresses(endpoints: &Value) -> String {
    let subsets = list(endpoints, &["subsets"]);
    if subsets.is_empty() {
        return NONE.to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let ports = list(subset, &["ports"]);
        let hosts = || {
            list(subset, &["addresses"])
                .iter()
                .map(|address| text(address, &["ip"]))
        };
        if ports.is_empty() {
            all.extend(hosts().map(str::to_owned));
        }
        for port in ports {
            let port = int(port, &["port"]).unwrap_or(0);
            all.extend(hosts().map(|host| {
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            }));
        }
    }
    first(&all, SHOWN, ",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    #[test]
    fn a_service_shows_how_to_reach_it() {
        let value = json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
            "selector": {"b": "2", "a": "1"}}});
        assert_eq!(
            row(&SERVICE, &value),
            [
                "web",
                "NodePort",
                "10.96.0.9",
                "<none>",
                "80:30080/TCP,53/UDP",
                "<unknown>",
                "a=1,b=2"
            ]
        );
        let headless = json!({"spec": {"type": "ClusterIP", "clusterIPs": ["None"]}});
        assert_eq!(row(&SERVICE, &headless)[2..5], ["None", "<none>", "<none>"]);
        let balanced = json!({"spec": {"type": "LoadBalancer"}});
        assert_eq!(row(&SERVICE, &balanced)[2..4], ["<none>", "<pending>"]);
    }

    #[test]
    fn three_endpoints_are_shown_and_the_rest_counted() {
        let addresses: Vec<Value> = (1..=5).map(|n| json!({"ip": format!("10.0.0.{n}")})).collect();
        let value =
            json!({"metadata": {"name": "web"}, "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
        assert_eq!(
            row(&ENDPOINTS, &value)[1],
            "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."
        );
        assert_eq!(row(&ENDPOINTS, &json!({}))[1], "<none>");
    }
}
