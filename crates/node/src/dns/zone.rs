//! What a name of the cluster means: Services, endpoints, pods, and addresses backwards. Pure.
//!
//! Source: the Kubernetes DNS specification 1.1.0 (kubernetes/dns, docs/specification.md).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::mirror::Mirror;

/// Answers may be kept this long; CoreDNS' default in clusters.
const TTL: u32 = 30;
/// An answer that there is nothing may be kept this long.
const NEGATIVE_TTL: u32 = 5;

/// Where Services are found.
pub(super) trait Services {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    fn by_cluster_ip(&self, ip: &str) -> Option<Arc<Service>>;
}

/// Where their endpoints are found.
pub(super) trait Slices {
    fn of_service(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    fn by_address(&self, ip: &str) -> Option<Arc<EndpointSlice>>;
}

impl Services for Mirror<Service> {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.get(namespace, name)
    }

    fn by_cluster_ip(&self, ip: &str) -> Option<Arc<Service>> {
        let has_ip = |service: &Service| service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some(ip);
        self.select(has_ip).into_iter().next()
    }
}

impl Slices for Mirror<EndpointSlice> {
    fn of_service(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.select(|slice| {
            slice.metadata.namespace.as_deref() == Some(namespace) && service_of(slice) == Some(service)
        })
    }

    fn by_address(&self, ip: &str) -> Option<Arc<EndpointSlice>> {
        let has_ip = |slice: &EndpointSlice| {
            slice
                .endpoints
                .iter()
                .flatten()
                .any(|e| e.addresses.iter().any(|a| a == ip))
        };
        self.select(has_ip).into_iter().next()
    }
}

fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice
        .metadata
        .labels
        .as_ref()?
        .get("kubernetes.io/service-name")
        .map(String::as_str)
}

/// What there is to say.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Records(Vec<Record>),
    /// The name exists, but nothing of the type that was asked for.
    NoData,
    NoSuchName,
    /// Not a name of this cluster.
    NotOurs,
}

/// The cluster's domain.
pub(super) struct Zone {
    /// Lower case, in order, e.g. `cluster`, `local`.
    domain: Vec<String>,
}

/// What a name inside the zone stands for, before anybody looks whether it is there.
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'a> {
    /// `svc`, `pod`, `NS.svc`, the zone itself: names that have nothing but names below them.
    Fork,
    /// `SERVICE.NS.svc`
    Service {
        namespace: &'a str,
        service: &'a str,
    },
    /// `HOST.SERVICE.NS.svc`
    Endpoint {
        namespace: &'a str,
        service: &'a str,
        host: &'a str,
    },
    /// `_PORT._PROTOCOL.SERVICE.NS.svc`
    Port {
        namespace: &'a str,
        service: &'a str,
        port: &'a str,
        protocol: &'a str,
    },
    /// `10-244-0-7.NS.pod`
    Pod(Ipv4Addr),
    Nothing,
}

impl Zone {
    pub(super) fn new(domain: &str) -> Self {
        Self {
            domain: domain.to_ascii_lowercase().split('.').map(String::from).collect(),
        }
    }

    /// The record that goes with an answer of nothing, and says how long nothing may be remembered.
    pub(super) fn authority(&self) -> Record {
        let (server, mail) = (self.name(&["ns", "dns"]), self.name(&["hostmaster"]));
        let data = SOA::new(server, mail, 1, 7200, 1800, 86400, NEGATIVE_TTL);
        Record::from_rdata(self.name(&[]), NEGATIVE_TTL, RData::SOA(data))
    }

    /// What `name` means for a question of this type.
    pub(super) fn resolve(
        &self,
        name: &Name,
        kind: RecordType,
        services: &impl Services,
        slices: &impl Slices,
    ) -> Answer {
        let labels: Vec<String> = name
            .iter()
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect();
        if let Some(ip) = backwards(&labels) {
            return self.reverse(name, ip, kind, services, slices);
        }
        let Some(inside) = labels.strip_suffix(self.domain.as_slice()) else {
            return Answer::NotOurs;
        };
        let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
        match meaning(&inside) {
            Meaning::Fork => Answer::NoData,
            Meaning::Nothing => Answer::NoSuchName,
            Meaning::Pod(ip) => only(kind, RecordType::A, vec![address(name, ip)]),
            Meaning::Service { namespace, service } => {
                let Some(object) = services.service(namespace, service) else {
                    return Answer::NoSuchName;
                };
                let slices = slices.of_service(namespace, service);
                self.of_service(name, kind, namespace, &object, &slices)
            }
            Meaning::Endpoint {
                namespace,
                service,
                host,
            } => {
                let endpoints = slices.of_service(namespace, service);
                let ips = ready(&endpoints).filter(|(_, e)| e.addresses.iter().any(|ip| host_name(e, ip) == host));
                let records: Vec<_> = ips.flat_map(|(_, e)| v4(e)).map(|ip| address(name, ip)).collect();
                if records.is_empty() {
                    Answer::NoSuchName
                } else {
                    only(kind, RecordType::A, records)
                }
            }
            Meaning::Port {
                namespace,
                service,
                port,
                protocol,
            } => {
                let Some(object) = services.service(namespace, service) else {
                    return Answer::NoSuchName;
                };
                let slices = slices.of_service(namespace, service);
                let records = self.of_port(name, namespace, &object, &slices, port, protocol);
                if records.is_empty() {
                    Answer::NoSuchName
                } else {
                    only(kind, RecordType::SRV, records)
                }
            }
        }
    }

    fn of_service(
        &self,
        name: &Name,
        kind: RecordType,
        namespace: &str,
        service: &Service,
        slices: &[Arc<EndpointSlice>],
    ) -> Answer {
        let Some(spec) = &service.spec else {
            return Answer::NoSuchName;
        };
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec
                .external_name
                .as_deref()
                .and_then(|target| Name::from_ascii(format!("{target}.")).ok());
            let Some(target) = target else {
                return Answer::NoSuchName;
            };
            return Answer::Records(vec![Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(target)))]);
        }
        if kind == RecordType::SRV {
            let ports = spec.ports.iter().flatten();
            let records: Vec<_> = ports
                .filter_map(|port| Some((port.name.as_deref()?, port.protocol.as_deref().unwrap_or("TCP"))))
                .flat_map(|(port, protocol)| {
                    let protocol = protocol.to_ascii_lowercase();
                    let own = self.name(&[
                        &format!("_{port}"),
                        &format!("_{protocol}"),
                        &label(service),
                        namespace,
                        "svc",
                    ]);
                    self.of_port(&own, namespace, service, slices, port, &protocol)
                })
                .collect();
            return only(kind, RecordType::SRV, records);
        }
        match spec.cluster_ip.as_deref().unwrap_or_default().parse::<Ipv4Addr>() {
            Ok(ip) => only(kind, RecordType::A, vec![address(name, ip)]),
            // Headless: every endpoint.
            Err(_) => {
                let records: Vec<_> = ready(slices)
                    .flat_map(|(_, e)| v4(e))
                    .map(|ip| address(name, ip))
                    .collect();
                if records.is_empty() {
                    Answer::NoSuchName
                } else {
                    only(kind, RecordType::A, records)
                }
            }
        }
    }

    fn of_port(
        &self,
        name: &Name,
        namespace: &str,
        service: &Service,
        slices: &[Arc<EndpointSlice>],
        port: &str,
        protocol: &str,
    ) -> Vec<Record> {
        let Some(spec) = &service.spec else { return Vec::new() };
        let matches = |name: Option<&str>, proto: Option<&str>| {
            name == Some(port) && proto.unwrap_or("TCP").eq_ignore_ascii_case(protocol)
        };
        let record = |number: i32, target: Name| {
            let number = u16::try_from(number).ok()?;
            Some(Record::from_rdata(
                name.clone(),
                TTL,
                RData::SRV(SRV::new(0, 100, number, target)),
            ))
        };
        let service_label = label(service);
        if spec.cluster_ip.as_deref() != Some("None") {
            let ports = spec
                .ports
                .iter()
                .flatten()
                .filter(|p| matches(p.name.as_deref(), p.protocol.as_deref()));
            let target = self.name(&[&service_label, namespace, "svc"]);
            return ports.filter_map(|p| record(p.port, target.clone())).collect();
        }
        ready(slices)
            .flat_map(|(slice, endpoint)| {
                let ports = slice
                    .ports
                    .iter()
                    .flatten()
                    .filter(|p| matches(p.name.as_deref(), p.protocol.as_deref()));
                let host = endpoint
                    .addresses
                    .first()
                    .map(|ip| host_name(endpoint, ip))
                    .unwrap_or_default();
                let target = self.name(&[&host, &service_label, namespace, "svc"]);
                ports
                    .filter_map(|p| record(p.port?, target.clone()))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn reverse(
        &self,
        name: &Name,
        ip: Ipv4Addr,
        kind: RecordType,
        services: &impl Services,
        slices: &impl Slices,
    ) -> Answer {
        let text = ip.to_string();
        let target = if let Some(service) = services.by_cluster_ip(&text) {
            let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
            Some(self.name(&[&label(&service), namespace, "svc"]))
        } else {
            slices.by_address(&text).and_then(|slice| {
                let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
                let endpoint = slice.endpoints.iter().flatten().find(|e| e.addresses.contains(&text))?;
                Some(self.name(&[&host_name(endpoint, &text), service_of(&slice)?, namespace, "svc"]))
            })
        };
        match target {
            Some(target) => only(
                kind,
                RecordType::PTR,
                vec![Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target)))],
            ),
            None => Answer::NotOurs,
        }
    }

    /// A name below the zone. Labels come from the API, whose names are valid labels; a wrong one gives the root.
    fn name(&self, labels: &[&str]) -> Name {
        let all = labels.iter().copied().chain(self.domain.iter().map(String::as_str));
        let mut name = Name::from_labels(all.map(str::as_bytes)).unwrap_or_default();
        name.set_fqdn(true);
        name
    }
}

fn meaning<'a>(labels: &[&'a str]) -> Meaning<'a> {
    match *labels {
        [] | ["svc" | "pod"] | [_, "svc" | "pod"] => Meaning::Fork,
        [service, namespace, "svc"] => Meaning::Service { namespace, service },
        [protocol, _, _, "svc"] if protocol.starts_with('_') => Meaning::Fork,
        [host, service, namespace, "svc"] => Meaning::Endpoint {
            namespace,
            service,
            host,
        },
        [port, protocol, service, namespace, "svc"] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
            (Some(port), Some(protocol)) => Meaning::Port {
                namespace,
                service,
                port,
                protocol,
            },
            _ => Meaning::Nothing,
        },
        [address, _, "pod"] => address.replace('-', ".").parse().map_or(Meaning::Nothing, Meaning::Pod),
        _ => Meaning::Nothing,
    }
}

/// The address in `d.c.b.a.in-addr.arpa`.
fn backwards(labels: &[String]) -> Option<Ipv4Addr> {
    let [d, c, b, a, zone @ ..] = labels else { return None };
    if zone != ["in-addr", "arpa"] {
        return None;
    }
    format!("{a}.{b}.{c}.{d}").parse().ok()
}

/// The records if they are of the type asked for.
fn only(asked: RecordType, have: RecordType, records: Vec<Record>) -> Answer {
    if (asked == have || asked == RecordType::ANY) && !records.is_empty() {
        Answer::Records(records)
    } else {
        Answer::NoData
    }
}

fn address(name: &Name, ip: Ipv4Addr) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::A(A(ip)))
}

fn label(service: &Service) -> String {
    service.metadata.name.clone().unwrap_or_default()
}

/// The endpoint's hostname, else its address with dashes.
fn host_name(endpoint: &Endpoint, ip: &str) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| ip.replace(['.', ':'], "-"))
}

fn ready(slices: &[Arc<EndpointSlice>]) -> impl Iterator<Item = (&EndpointSlice, &Endpoint)> {
    slices
        .iter()
        .flat_map(|slice| {
            slice
                .endpoints
                .iter()
                .flatten()
                .map(move |endpoint| (&**slice, endpoint))
        })
        .filter(|(_, endpoint)| {
            endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true)
        })
}

fn v4(endpoint: &Endpoint) -> impl Iterator<Item = Ipv4Addr> {
    endpoint.addresses.iter().filter_map(|address| match address.parse() {
        Ok(IpAddr::V4(ip)) => Some(ip),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    struct Objects {
        services: Vec<Arc<Service>>,
        slices: Vec<Arc<EndpointSlice>>,
    }

    impl Services for Objects {
        fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
            let found = self.services.iter().find(|s| {
                (s.metadata.namespace.as_deref(), s.metadata.name.as_deref()) == (Some(namespace), Some(name))
            });
            found.cloned()
        }

        fn by_cluster_ip(&self, ip: &str) -> Option<Arc<Service>> {
            self.services
                .iter()
                .find(|s| s.spec.as_ref().unwrap().cluster_ip.as_deref() == Some(ip))
                .cloned()
        }
    }

    impl Slices for Objects {
        fn of_service(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
            let of = |s: &&Arc<EndpointSlice>| {
                s.metadata.namespace.as_deref() == Some(namespace) && service_of(s) == Some(service)
            };
            self.slices.iter().filter(of).cloned().collect()
        }

        fn by_address(&self, ip: &str) -> Option<Arc<EndpointSlice>> {
            self.slices
                .iter()
                .find(|s| {
                    s.endpoints
                        .iter()
                        .flatten()
                        .any(|e| e.addresses.iter().any(|a| a == ip))
                })
                .cloned()
        }
    }

    fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn objects() -> Objects {
        let service = |name: &str, spec: Value| {
            object(json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": spec }))
        };
        let slice = |name: &str, endpoints: Value| {
            let labels = json!({ "kubernetes.io/service-name": name });
            object(json!({
                "metadata": { "name": format!("{name}-x"), "namespace": "shop", "labels": labels },
                "addressType": "IPv4",
                "ports": [{ "name": "http", "port": 8000, "protocol": "TCP" }],
                "endpoints": endpoints,
            }))
        };
        Objects {
            services: vec![
                service(
                    "web",
                    json!({ "clusterIP": "10.96.0.20", "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }] }),
                ),
                service(
                    "db",
                    json!({ "clusterIP": "None", "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }] }),
                ),
                service("out", json!({ "type": "ExternalName", "externalName": "example.com" })),
            ],
            slices: vec![
                slice("web", json!([{ "addresses": ["10.244.0.7"] }])),
                slice(
                    "db",
                    json!([
                        { "addresses": ["10.244.0.8"], "hostname": "db-0" },
                        { "addresses": ["10.244.0.9"], "conditions": { "ready": false } },
                    ]),
                ),
            ],
        }
    }

    fn ask(name: &str, kind: RecordType) -> Answer {
        let objects = objects();
        Zone::new("cluster.local").resolve(&Name::from_ascii(name).unwrap(), kind, &objects, &objects)
    }

    fn told(name: &str, kind: RecordType) -> Vec<String> {
        match ask(name, kind) {
            Answer::Records(records) => records.iter().map(|record| record.data.to_string()).collect(),
            other => panic!("expected records for `{name}`, got {other:?}"),
        }
    }

    #[test]
    fn a_service_answers_with_its_cluster_ip_in_any_case_of_letters() {
        assert_eq!(told("Web.SHOP.svc.cluster.local.", RecordType::A), ["10.96.0.20"]);
        assert_eq!(ask("web.shop.svc.cluster.local.", RecordType::AAAA), Answer::NoData);
    }

    #[test]
    fn a_headless_service_answers_with_its_ready_endpoints_and_their_host_names() {
        assert_eq!(told("db.shop.svc.cluster.local.", RecordType::A), ["10.244.0.8"]);
        assert_eq!(told("db-0.db.shop.svc.cluster.local.", RecordType::A), ["10.244.0.8"]);
        assert_eq!(
            ask("db-1.db.shop.svc.cluster.local.", RecordType::A),
            Answer::NoSuchName
        );
    }

    #[test]
    fn named_ports_have_srv_records() {
        assert_eq!(
            told("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV),
            ["0 100 80 web.shop.svc.cluster.local."]
        );
        assert_eq!(
            told("_http._tcp.db.shop.svc.cluster.local.", RecordType::SRV),
            ["0 100 8000 db-0.db.shop.svc.cluster.local."]
        );
        assert_eq!(
            ask("_ftp._tcp.web.shop.svc.cluster.local.", RecordType::SRV),
            Answer::NoSuchName
        );
    }

    #[test]
    fn an_external_name_is_an_alias() {
        assert_eq!(told("out.shop.svc.cluster.local.", RecordType::A), ["example.com."]);
    }

    #[test]
    fn pods_answer_by_their_address_and_addresses_backwards() {
        assert_eq!(
            told("10-244-0-7.shop.pod.cluster.local.", RecordType::A),
            ["10.244.0.7"]
        );
        assert_eq!(
            told("20.0.96.10.in-addr.arpa.", RecordType::PTR),
            ["web.shop.svc.cluster.local."]
        );
        assert_eq!(
            told("8.0.244.10.in-addr.arpa.", RecordType::PTR),
            ["db-0.db.shop.svc.cluster.local."]
        );
        assert_eq!(ask("1.1.1.1.in-addr.arpa.", RecordType::PTR), Answer::NotOurs);
    }

    #[test]
    fn unknown_names_of_the_cluster_do_not_exist_and_others_are_not_ours() {
        assert_eq!(ask("ghost.shop.svc.cluster.local.", RecordType::A), Answer::NoSuchName);
        assert_eq!(ask("shop.svc.cluster.local.", RecordType::A), Answer::NoData);
        assert_eq!(ask("example.com.", RecordType::A), Answer::NotOurs);
    }
}
