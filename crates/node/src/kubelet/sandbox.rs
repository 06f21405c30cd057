//! What a pod's sandbox looks like: host name, `/etc/hosts`, `/etc/resolv.conf`.
//!
//! Pure. Source of the rules: `pkg/kubelet/network/dns`, `kubelet_pods.go` of kubernetes 1.36.

use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::runtime::{DnsConfig, HostAlias, MemoryVolume, Resources, SandboxConfig};
use crate::scheduler::requests::pod_requests;

/// Names and addresses of the cluster's DNS.
#[derive(Clone, Debug)]
pub(crate) struct ClusterDns {
    pub(crate) ip: Ipv4Addr,
    /// `cluster.local`.
    pub(crate) domain: String,
    /// What the host's own `/etc/resolv.conf` says.
    pub(crate) host: DnsConfig,
}

const HOSTNAME_LIMIT: usize = 63;
const SEARCH_LIMIT: usize = 32;

/// The sandbox of a pod, or why this node does not give it one.
pub(crate) fn sandbox_config(
    pod: &Pod,
    dns: &ClusterDns,
    memory_volumes: Vec<MemoryVolume>,
) -> Result<SandboxConfig, String> {
    let spec = pod.spec.clone().unwrap_or_default();
    for (wanted, what) in [
        (spec.host_network, "hostNetwork"),
        (spec.host_pid, "hostPID"),
        (spec.host_ipc, "hostIPC"),
    ] {
        if wanted == Some(true) {
            return Err(format!(
                "{what}: true is not supported by this node: pods live in namespaces of their own"
            ));
        }
    }
    if spec.share_process_namespace == Some(true) {
        return Err("shareProcessNamespace: true is not supported by this node".into());
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let (hostname, fqdn) = names(pod, &spec, &namespace, &dns.domain);
    let aliases = spec.host_aliases.iter().flatten().filter_map(|alias| {
        Some(HostAlias {
            ip: alias.ip.parse().ok()?,
            hostnames: alias.hostnames.clone().unwrap_or_default(),
        })
    });
    Ok(SandboxConfig {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        hostname,
        fqdn,
        host_aliases: aliases.collect(),
        dns: resolv_conf(&spec, &namespace, dns),
        namespace,
        memory_volumes,
        // The pod's share of the CPU against other pods; what its containers may use is theirs.
        resources: Resources {
            cpu_request_milli: Some(pod_requests(&spec).get("cpu").cast_unsigned()),
            ..Default::default()
        },
        ..Default::default()
    })
}

/// The host name and, for a pod with a subdomain, its full name in the cluster.
fn names(pod: &Pod, spec: &PodSpec, namespace: &str, domain: &str) -> (String, Option<String>) {
    let own = spec.hostname.as_deref().filter(|name| !name.is_empty());
    let mut hostname = own.or(pod.metadata.name.as_deref()).unwrap_or_default().to_owned();
    hostname.truncate(HOSTNAME_LIMIT);
    let hostname = hostname.trim_end_matches(['-', '.']).to_owned();
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty());
    let fqdn = subdomain.map(|subdomain| format!("{hostname}.{subdomain}.{namespace}.svc.{domain}"));
    match fqdn {
        Some(fqdn) if spec.set_hostname_as_fqdn == Some(true) => (fqdn.clone(), Some(fqdn)),
        fqdn => (hostname, fqdn),
    }
}

fn resolv_conf(spec: &PodSpec, namespace: &str, dns: &ClusterDns) -> DnsConfig {
    let mut config = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => DnsConfig::default(),
        "Default" => dns.host.clone(),
        _ => {
            let domain = &dns.domain;
            let mut searches = vec![
                format!("{namespace}.svc.{domain}"),
                format!("svc.{domain}"),
                domain.clone(),
            ];
            searches.extend(dns.host.searches.iter().cloned());
            DnsConfig {
                nameservers: vec![IpAddr::V4(dns.ip)],
                searches,
                options: vec!["ndots:5".into()],
            }
        }
    };
    if let Some(own) = &spec.dns_config {
        config.nameservers.extend(
            own.nameservers
                .iter()
                .flatten()
                .filter_map(|ip| ip.parse::<IpAddr>().ok()),
        );
        config.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            // The pod's own word replaces one of the same name.
            config.options.retain(|known| known.split(':').next() != Some(name));
            config.options.push(
                option
                    .value
                    .as_ref()
                    .map_or_else(|| name.clone(), |value| format!("{name}:{value}")),
            );
        }
    }
    let mut seen = Vec::new();
    config.searches.retain(|search| {
        let fresh = !seen.contains(search);
        seen.push(search.clone());
        fresh
    });
    config.searches.truncate(SEARCH_LIMIT);
    config
}

/// Reads a `resolv.conf`.
pub(crate) fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
        match words.next() {
            Some("nameserver") => config
                .nameservers
                .extend(words.next().and_then(|ip| ip.parse::<IpAddr>().ok())),
            Some("search" | "domain") => {
                config.searches = words
                    .map(|name| name.trim_end_matches('.').to_owned())
                    .filter(|n| !n.is_empty())
                    .collect();
            }
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(spec: Value) -> Result<SandboxConfig, String> {
        let pod = json!({"metadata": {"name": "web-0", "namespace": "d", "uid": "u"}, "spec": spec});
        let dns = ClusterDns {
            ip: [10, 96, 0, 10].into(),
            domain: "cluster.local".into(),
            host: parse_resolv_conf("# made\nnameserver 192.0.2.1\nsearch lan cluster.local\noptions edns0 ndots:1\n"),
        };
        sandbox_config(&serde_json::from_value(pod).unwrap(), &dns, vec![])
    }

    #[test]
    fn cluster_first_searches_the_namespace_and_then_the_hosts_domains() {
        let dns = config(json!({"containers": []})).unwrap().dns;
        assert_eq!(dns.nameservers, [IpAddr::from([10, 96, 0, 10])]);
        assert_eq!(
            dns.searches,
            ["d.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"]
        );
        assert_eq!(dns.options, ["ndots:5"]);
    }

    #[test]
    fn a_pods_own_dns_settings_are_added_or_stand_alone() {
        let own = json!({"nameservers": ["192.0.2.9"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        let merged = config(json!({"containers": [], "dnsConfig": own})).unwrap().dns;
        assert_eq!(merged.options, ["ndots:2", "edns0"]);
        assert_eq!(merged.nameservers.len(), 2);
        let alone = config(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": own}))
            .unwrap()
            .dns;
        assert_eq!((alone.nameservers.len(), alone.searches), (1, vec!["x".to_owned()]));
        let host = config(json!({"containers": [], "dnsPolicy": "Default"})).unwrap().dns;
        assert_eq!(host.nameservers, [IpAddr::from([192, 0, 2, 1])]);
    }

    #[test]
    fn a_subdomain_gives_a_full_name() {
        let plain = config(json!({"containers": []})).unwrap();
        assert_eq!((plain.hostname.as_str(), plain.fqdn), ("web-0", None));
        let named = config(json!({"containers": [], "hostname": "db", "subdomain": "peers"})).unwrap();
        assert_eq!(
            (named.hostname.as_str(), named.fqdn.as_deref()),
            ("db", Some("db.peers.d.svc.cluster.local"))
        );
    }

    #[test]
    fn the_hosts_namespaces_are_refused() {
        let error = config(json!({"containers": [], "hostNetwork": true})).unwrap_err();
        assert!(error.starts_with("hostNetwork: true is not supported"), "{error}");
    }
}
