//! Ingress, IngressClass, NetworkPolicy, IPAddress, ServiceCIDR.

use apimachinery::gvk::{GroupKind, GroupResource};
use jiff::Timestamp;
use serde_json::Value;

use super::column::{AGE, Column, NAME, selector, shown, text};
use super::show;
use crate::strategy::walk::{self, at};

/// So many hosts are listed.
const LISTED: usize = 3;

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    Some(match kind {
        "IPAddress" => IP_ADDRESS,
        "Ingress" => INGRESS,
        "IngressClass" => INGRESS_CLASS,
        "NetworkPolicy" => NETWORK_POLICY,
        "ServiceCIDR" => SERVICE_CIDR,
        _ => return None,
    })
}

static INGRESS: &[Column] = &[
    NAME,
    shown("Class", "The IngressClass that serves it", |ingress, _| {
        at(ingress, &["spec", "ingressClassName"])
            .map_or_else(|| "<none>".to_owned(), show::plain)
            .into()
    }),
    shown("Hosts", "Hosts whose requests it takes", hosts),
    shown("Address", "Where it is reached", |ingress, _| {
        show::load_balancer(ingress).join(",").into()
    }),
    shown("Ports", "Ports that are open", |ingress, _| {
        match walk::list(ingress, &["spec", "tls"]).is_empty() {
            true => "80",
            false => "80, 443",
        }
        .into()
    }),
    AGE,
];

static INGRESS_CLASS: &[Column] = &[
    NAME,
    text(
        "Controller",
        "Who serves ingresses of this class",
        &["spec", "controller"],
    ),
    shown("Parameters", "Object with more parameters", parameters),
    AGE,
];

static NETWORK_POLICY: &[Column] = &[
    NAME,
    selector(
        "Pod-Selector",
        "Labels of the pods it holds for",
        &["spec", "podSelector"],
    ),
    AGE,
];

static IP_ADDRESS: &[Column] = &[NAME, shown("ParentRef", "What the address belongs to", parent), AGE];

static SERVICE_CIDR: &[Column] = &[
    NAME,
    shown("CIDRs", "Ranges of service addresses", |object, _| {
        let ranges = walk::list(object, &["spec", "cidrs"]).iter().filter_map(Value::as_str);
        ranges.collect::<Vec<_>>().join(",").into()
    }),
    AGE,
];

fn hosts(ingress: &Value, _: Timestamp) -> Value {
    let rules = walk::list(ingress, &["spec", "rules"]);
    let mut hosts = Vec::new();
    let mut more = false;
    for rule in rules {
        more = more || hosts.len() == LISTED;
        let host = walk::text(rule, &["host"]);
        if !more && !host.is_empty() {
            hosts.push(host);
        }
    }
    match (hosts.is_empty(), more) {
        (true, _) => "*".into(),
        (false, false) => hosts.join(",").into(),
        // Rules are counted, with or without a host.
        (false, true) => format!("{} + {} more...", hosts.join(","), rules.len() - LISTED).into(),
    }
}

fn parameters(class: &Value, _: Timestamp) -> Value {
    let Some(parameters) = at(class, &["spec", "parameters"]) else {
        return "<none>".into();
    };
    let field = |name| walk::text(parameters, &[name]);
    let kind = GroupKind::new(field("apiGroup"), field("kind"));
    format!("{kind}/{}", field("name")).into()
}

fn parent(address: &Value, _: Timestamp) -> Value {
    let Some(parent) = at(address, &["spec", "parentRef"]) else {
        return "<none>".into();
    };
    let field = |name| walk::text(parent, &[name]);
    let resource = GroupResource::new(field("group"), field("resource"))
        .to_string()
        .to_lowercase();
    match field("namespace") {
        "" => format!("{resource}/{}", field("name")).into(),
        namespace => format!("{resource}/{namespace}/{}", field("name")).into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    const V1: &str = "networking.k8s.io/v1";

    #[test]
    fn an_ingress_shows_hosts_address_and_ports() {
        let ingress = json!({
            "metadata": {"name": "web", "creationTimestamp": "2026-01-02T11:59:00Z"},
            "spec": {"ingressClassName": "nginx", "rules": [{"host": "a.example"}, {"host": "b.example"}], "tls": [{}]},
            "status": {"loadBalancer": {"ingress": [{"hostname": "lb.example"}, {"ip": "192.0.2.1"}]}},
        });
        assert_eq!(
            row(V1, "Ingress", &ingress),
            "web  nginx  a.example,b.example  192.0.2.1,lb.example  80, 443  60s"
        );
        let plain = json!({"metadata": {"name": "web"}, "spec": {"rules": [{}]}});
        assert_eq!(row(V1, "Ingress", &plain), "web  <none>  *    80  <unknown>");
    }

    #[test]
    fn three_hosts_are_listed_and_the_other_rules_counted() {
        let of = |names: &[&str]| {
            let rules: Vec<_> = names.iter().map(|host| json!({"host": host})).collect();
            hosts(&json!({"spec": {"rules": rules}}), Timestamp::UNIX_EPOCH)
        };
        assert_eq!(of(&["a", "b", "c"]), "a,b,c");
        assert_eq!(of(&["a", "b", "c", "d", "e"]), "a,b,c + 2 more...");
    }

    #[test]
    fn the_other_kinds() {
        let class = json!({"metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx",
            "parameters": {"apiGroup": "x.example", "kind": "P", "name": "p"}}});
        assert_eq!(
            row(V1, "IngressClass", &class),
            "nginx  k8s.io/ingress-nginx  P.x.example/p  <unknown>"
        );
        let policy = json!({"metadata": {"name": "deny"}, "spec": {"podSelector": {}}});
        assert_eq!(row(V1, "NetworkPolicy", &policy), "deny  <none>  <unknown>");
        let address = json!({"metadata": {"name": "10.96.0.1"}, "spec": {"parentRef":
            {"group": "", "resource": "services", "namespace": "default", "name": "kubernetes"}}});
        assert_eq!(
            row(V1, "IPAddress", &address),
            "10.96.0.1  services/default/kubernetes  <unknown>"
        );
        let range = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16", "fd00::/112"]}});
        assert_eq!(
            row(V1, "ServiceCIDR", &range),
            "kubernetes  10.96.0.0/16,fd00::/112  <unknown>"
        );
    }
}
