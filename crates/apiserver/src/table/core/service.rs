//! Service and Endpoints: addresses and ports.

use jiff::Timestamp;
use serde_json::Value;

use crate::strategy::walk;
use crate::table::column::{AGE, Column, NAME, labels, shown, text};
use crate::table::show::{self, or};

pub(super) static SERVICE: &[Column] = &[
    NAME,
    text("Type", "How the service is reached", &["spec", "type"]),
    shown("Cluster-IP", "Address inside the cluster", |service, _| {
        let addresses = walk::list(service, &["spec", "clusterIPs"]);
        addresses.first().and_then(Value::as_str).unwrap_or("<none>").into()
    }),
    shown("External-IP", "Addresses outside the cluster", external_ip),
    shown("Port(s)", "Ports, node ports and protocols", ports),
    AGE,
    labels(
        "Selector",
        "Labels of the pods behind the service",
        &["spec", "selector"],
    )
    .wide(),
];

pub(super) static ENDPOINTS: &[Column] = &[
    NAME,
    shown("Endpoints", "Addresses and ports behind the service", endpoints),
    AGE,
];

fn external_ip(service: &Value, _: Timestamp) -> Value {
    let own = walk::list(service, &["spec", "externalIPs"])
        .iter()
        .filter_map(Value::as_str);
    let (balancer, none) = match walk::text(service, &["spec", "type"]) {
        "ClusterIP" | "NodePort" => (Vec::new(), "<none>"),
        "LoadBalancer" => (show::load_balancer(service), "<pending>"),
        "ExternalName" => return walk::text(service, &["spec", "externalName"]).into(),
        _ => return "<unknown>".into(),
    };
    let all: Vec<&str> = balancer.into_iter().chain(own).collect();
    or(&all.join(","), none).into()
}

fn ports(service: &Value, _: Timestamp) -> Value {
    let ports = walk::list(service, &["spec", "ports"]).iter().map(|port| {
        let number = walk::int(port, &["port"]).unwrap_or_default();
        let protocol = walk::text(port, &["protocol"]);
        match walk::int(port, &["nodePort"]).unwrap_or_default() {
            0 => format!("{number}/{protocol}"),
            node_port => format!("{number}:{node_port}/{protocol}"),
        }
    });
    or(&ports.collect::<Vec<_>>().join(","), "<none>").into()
}

fn endpoints(object: &Value, _: Timestamp) -> Value {
    let subsets = walk::list(object, &["subsets"]);
    if subsets.is_empty() {
        return "<none>".into();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = || {
            let list = walk::list(subset, &["addresses"]).iter();
            list.map(|address| walk::text(address, &["ip"]))
        };
        let ports = walk::list(subset, &["ports"]);
        if ports.is_empty() {
            // A headless service may have none.
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let port = walk::int(port, &["port"]).unwrap_or_default();
            all.extend(addresses().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{port}"),
                false => format!("{ip}:{port}"),
            }));
        }
    }
    show::cut(&all, ",", 3).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    fn service(spec: &Value, status: &Value) -> String {
        let made = "2026-01-01T08:00:00Z";
        let object = json!({"metadata": {"name": "s", "creationTimestamp": made}, "spec": spec, "status": status});
        row("v1", "Service", &object)
    }

    #[test]
    fn a_service_shows_where_it_is_reached() {
        let spec = json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.10"], "selector": {"k8s-app": "kube-dns"},
            "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]});
        assert_eq!(
            service(&spec, &json!({})),
            "s  ClusterIP  10.96.0.10  <none>  53/UDP,53/TCP  28h | k8s-app=kube-dns"
        );
        let spec = json!({"type": "NodePort", "clusterIPs": ["10.96.3.4"], "externalIPs": ["192.0.2.1", "192.0.2.2"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]});
        assert_eq!(
            service(&spec, &json!({})),
            "s  NodePort  10.96.3.4  192.0.2.1,192.0.2.2  80:30080/TCP  28h | <none>"
        );
        let spec = json!({"type": "ClusterIP", "clusterIPs": ["None"]});
        assert_eq!(
            service(&spec, &json!({})),
            "s  ClusterIP  None  <none>  <none>  28h | <none>"
        );
        let spec = json!({"type": "ExternalName", "externalName": "example.com"});
        assert_eq!(
            service(&spec, &json!({})),
            "s  ExternalName  <none>  example.com  <none>  28h | <none>"
        );
    }

    #[test]
    fn a_load_balancer_is_pending_until_it_has_an_address() {
        let spec = json!({"type": "LoadBalancer", "clusterIPs": ["10.96.3.4"]});
        assert_eq!(
            service(&spec, &json!({})),
            "s  LoadBalancer  10.96.3.4  <pending>  <none>  28h | <none>"
        );
        let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}, {"hostname": "a.example"}]}});
        assert_eq!(
            service(&spec, &status),
            "s  LoadBalancer  10.96.3.4  192.0.2.9,a.example  <none>  28h | <none>"
        );
    }

    #[test]
    fn three_endpoints_are_listed_and_the_rest_counted() {
        let of = |subsets: Value| {
            row(
                "v1",
                "Endpoints",
                &json!({"metadata": {"name": "e"}, "subsets": subsets}),
            )
        };
        assert_eq!(of(json!(null)), "e  <none>  <unknown>");
        let addresses = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::2"}]);
        assert_eq!(
            of(json!([{"addresses": addresses, "ports": [{"port": 80}]}])),
            "e  10.0.0.1:80,[fd00::2]:80  <unknown>"
        );
        assert_eq!(
            of(json!([{"addresses": addresses, "ports": [{"port": 80}, {"port": 443}]}])),
            "e  10.0.0.1:80,[fd00::2]:80,10.0.0.1:443 + 1 more...  <unknown>"
        );
        assert_eq!(of(json!([{"addresses": addresses}])), "e  10.0.0.1,fd00::2  <unknown>");
    }
}
