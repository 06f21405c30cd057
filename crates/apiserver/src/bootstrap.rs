//! The objects that clients expect to find before their first request, RBAC's aside (those are `auth`'s).
//!
//! Pure: from what the cluster is to what is written once. Objects are complete but for what the store gives (uid,
//! creation time, resource version). After k/k 1.36 `pkg/controlplane` (system namespaces, the `kubernetes` Service,
//! client CA, APIServices), `pkg/apis/scheduling/v1/helpers.go`.

use std::net::{Ipv4Addr, SocketAddr};

use apimachinery::gvk::{GroupVersion, GroupVersionKind};
use serde_json::{Value, json};

use crate::auth::FRONT_PROXY_USER;
use crate::config::Cidr;
use crate::strategy::{Status, strategy};

/// What the cluster is.
#[derive(Clone, Debug)]
pub struct BootstrapConfig {
    /// Where Pods reach the API server, behind the `kubernetes` Service.
    pub api_server: SocketAddr,
    /// Where ClusterIPs come from; the first one is `kubernetes`, the tenth `kube-dns`.
    pub service_cidr: Cidr,
    /// The CA of client certificates, PEM.
    pub client_ca: String,
    /// The CA of the front proxy's certificate, PEM.
    pub front_proxy_ca: String,
    /// The built-in groups and versions that are served.
    pub versions: Vec<GroupVersion>,
    /// Versions that the cluster serves itself beside the API server, e.g. `metrics.k8s.io/v1beta1`.
    pub local_versions: Vec<GroupVersion>,
}

/// One object to begin with.
#[derive(Clone, Debug, PartialEq)]
pub struct Seed {
    /// The object, status included.
    pub object: Value,
    /// Brought to this state at every start, because it says where and who the server is now. Others are made when they
    /// are not there, and then left to their users.
    pub renewed: bool,
}

/// The `n`th address of a range.
pub fn nth_address(cidr: Cidr, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(cidr.address).wrapping_add(n))
}

/// Everything, in the order in which it is to be written.
pub fn objects(config: &BootstrapConfig) -> Vec<Seed> {
    let mut seeds: Vec<Seed> = Vec::new();
    seeds.extend(["default", "kube-system", "kube-public", "kube-node-lease"].map(|name| once(namespace(name))));
    seeds.extend(priority_classes().map(once));
    seeds.push(renewed(authentication(config)));
    seeds.push(once(service_cidr(config)));
    seeds.push(once(kubernetes_service(config)));
    seeds.push(renewed(kubernetes_endpoints(config)));
    seeds.push(renewed(kubernetes_slice(config)));
    seeds.push(once(dns_service(config)));
    // Registration itself is not registered.
    let served = config
        .versions
        .iter()
        .filter(|version| version.group != "apiregistration.k8s.io");
    seeds.extend(
        served
            .chain(&config.local_versions)
            .map(|version| renewed(api_service(version))),
    );
    seeds
}

fn once(object: Value) -> Seed {
    Seed {
        object: complete(object),
        renewed: false,
    }
}

fn renewed(object: Value) -> Seed {
    Seed {
        object: complete(object),
        renewed: true,
    }
}

/// With its kind's defaults, and the status it starts with where it says none.
fn complete(mut object: Value) -> Value {
    let field = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
    let Some(kind) = GroupVersionKind::parse(&field("apiVersion"), &field("kind")) else {
        return object;
    };
    let rules = strategy(&kind);
    (rules.default)(&mut object);
    (rules.prepare_create)(&mut object);
    if let (Status::Fresh(fresh), true) = (rules.status, object.get("status").is_none()) {
        object["status"] = fresh();
    }
    if rules.has_generation() {
        object["metadata"]["generation"] = 1.into();
    }
    object
}

fn namespace(name: &str) -> Value {
    json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}, "spec": {}})
}

fn priority_classes() -> [Value; 2] {
    const CRITICAL: i64 = 2_000_000_000;
    let class = |name: &str, value: i64, description: &str| {
        json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name}, "value": value,
            "description": description})
    };
    [
        class(
            "system-node-critical",
            CRITICAL + 1000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            CRITICAL,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

/// How extension API servers know whom to believe.
fn authentication(config: &BootstrapConfig) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1",
    "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
    "data": {
        "client-ca-file": config.client_ca,
        "requestheader-client-ca-file": config.front_proxy_ca,
        "requestheader-allowed-names": json!([FRONT_PROXY_USER]).to_string(),
        "requestheader-username-headers": r#"["X-Remote-User"]"#,
        "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
        "requestheader-group-headers": r#"["X-Remote-Group"]"#,
        "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
    }})
}

fn service_cidr(config: &BootstrapConfig) -> Value {
    json!({"kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [config.service_cidr.to_string()]}})
}

fn service(namespace: &str, name: &str, labels: Value, address: Ipv4Addr, spec: Value) -> Value {
    let mut object = json!({"kind": "Service", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"clusterIP": address.to_string(), "clusterIPs": [address.to_string()], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "type": "ClusterIP"}});
    if let (Some(target), Value::Object(more)) = (object["spec"].as_object_mut(), spec) {
        target.extend(more);
    }
    object
}

fn kubernetes_service(config: &BootstrapConfig) -> Value {
    service(
        "default",
        "kubernetes",
        json!({"component": "apiserver", "provider": "kubernetes"}),
        nth_address(config.service_cidr, 1),
        json!({"ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": config.api_server.port()}]}),
    )
}

fn kubernetes_endpoints(config: &BootstrapConfig) -> Value {
    json!({"kind": "Endpoints", "apiVersion": "v1",
    "metadata": {"name": "kubernetes", "namespace": "default",
        "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
    "subsets": [{
        "addresses": [{"ip": config.api_server.ip().to_string()}],
        "ports": [{"name": "https", "port": config.api_server.port(), "protocol": "TCP"}],
    }]})
}

fn kubernetes_slice(config: &BootstrapConfig) -> Value {
    json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [config.api_server.ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": config.api_server.port(), "protocol": "TCP"}]})
}

fn dns_service(config: &BootstrapConfig) -> Value {
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "protocol": protocol, "targetPort": 53});
    service(
        "kube-system",
        "kube-dns",
        json!({"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}),
        nth_address(config.service_cidr, 10),
        json!({"ports": [port("dns", "UDP"), port("dns-tcp", "TCP")]}),
    )
}

/// How high upstream ranks a group, and this version in it.
fn priorities(version: &GroupVersion) -> (i64, i64) {
    let group = match version.group.as_str() {
        "" => return (18000, 1),
        "apps" => 17800,
        "events.k8s.io" => 17750,
        "authentication.k8s.io" => 17700,
        "authorization.k8s.io" => 17600,
        "autoscaling" => 17500,
        "batch" => 17400,
        "certificates.k8s.io" => 17300,
        "networking.k8s.io" => 17200,
        "policy" => 17100,
        "rbac.authorization.k8s.io" => 17000,
        "storage.k8s.io" => 16800,
        "apiextensions.k8s.io" | "admissionregistration.k8s.io" => 16700,
        "scheduling.k8s.io" => 16600,
        "coordination.k8s.io" => 16500,
        "node.k8s.io" => 16300,
        "discovery.k8s.io" | "resource.k8s.io" => 16200,
        "flowcontrol.apiserver.k8s.io" => 16100,
        _ => return (100, 100),
    };
    let version = match (version.group.as_str(), version.version.as_str()) {
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io" | "resource.k8s.io", "v1") => 21,
        _ => 15,
    };
    (group, version)
}

fn api_service(version: &GroupVersion) -> Value {
    let (group_priority, version_priority) = priorities(version);
    json!({"kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
    "metadata": {
        "name": format!("{}.{}", version.version, version.group),
        "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
    },
    "spec": {
        "group": version.group,
        "version": version.version,
        "groupPriorityMinimum": group_priority,
        "versionPriority": version_priority,
    },
    "status": {"conditions": [{
        "type": "Available",
        "status": "True",
        "reason": "Local",
        "message": "Local APIServices are always available",
    }]}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::walk::text;

    fn seeds() -> Vec<Seed> {
        objects(&BootstrapConfig {
            api_server: SocketAddr::from(([172, 18, 0, 1], 6443)),
            service_cidr: Cidr {
                address: Ipv4Addr::new(10, 96, 0, 0),
                prefix: 12,
            },
            client_ca: "CA".to_owned(),
            front_proxy_ca: "FRONT".to_owned(),
            versions: vec![GroupVersion::new("", "v1"), GroupVersion::new("autoscaling", "v2")],
            local_versions: vec![GroupVersion::new("metrics.k8s.io", "v1beta1")],
        })
    }

    fn find(kind: &str, name: &str) -> Value {
        let is = |seed: &&Seed| seed.object["kind"] == kind && seed.object["metadata"]["name"] == name;
        seeds()
            .iter()
            .find(is)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
            .object
            .clone()
    }

    #[test]
    fn every_object_is_valid_by_its_own_rules() {
        for seed in seeds() {
            let object = &seed.object;
            let kind = GroupVersionKind::parse(text(object, &["apiVersion"]), text(object, &["kind"])).unwrap();
            let namespaced = object["metadata"].get("namespace").is_some();
            let errors = strategy(&kind).validate_create(namespaced, object);
            assert!(errors.is_empty(), "{kind:?} {}: {errors:?}", object["metadata"]["name"]);
        }
    }

    #[test]
    fn the_api_server_is_the_first_address_and_dns_the_tenth() {
        assert_eq!(find("Service", "kubernetes")["spec"]["clusterIP"], "10.96.0.1");
        assert_eq!(find("Service", "kube-dns")["spec"]["clusterIP"], "10.96.0.10");
        assert_eq!(
            find("Endpoints", "kubernetes")["subsets"][0]["addresses"][0]["ip"],
            "172.18.0.1"
        );
    }

    #[test]
    fn namespaces_and_api_services_are_ready_to_use() {
        let namespace = find("Namespace", "kube-system");
        assert_eq!(namespace["status"]["phase"], "Active");
        assert_eq!(
            namespace["metadata"]["labels"]["kubernetes.io/metadata.name"],
            "kube-system"
        );
        assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
        assert_eq!(find("APIService", "v1.")["spec"]["groupPriorityMinimum"], 18000);
        assert_eq!(
            find("APIService", "v1beta1.metrics.k8s.io")["status"]["conditions"][0]["reason"],
            "Local"
        );
    }
}
