//! The files in `/etc` that a pod's containers share, as upstream's kubelet writes them. Pure.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::config::{DnsConfig, SandboxConfig};

/// `/etc/hosts` (k/k v1.36 `pkg/kubelet/kubelet_pods.go` `managedHostsFileContent`).
pub(super) fn hosts(sandbox: &SandboxConfig, ip: Ipv4Addr) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let names: Vec<&str> = sandbox
        .fqdn
        .iter()
        .chain([&sandbox.hostname])
        .map(String::as_str)
        .collect();
    let _ = writeln!(text, "{ip}\t{}", names.join("\t"));
    if !sandbox.host_aliases.is_empty() {
        text += "\n# Entries added by HostAliases.\n";
        for alias in &sandbox.host_aliases {
            let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.join("\t"));
        }
    }
    text
}

/// `/etc/resolv.conf`.
pub(super) fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        let _ = writeln!(text, "search {}", dns.searches.join(" "));
    }
    for server in &dns.nameservers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !dns.options.is_empty() {
        let _ = writeln!(text, "options {}", dns.options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::HostAlias;

    #[test]
    fn the_qualified_name_comes_first_and_aliases_last() {
        let sandbox = SandboxConfig {
            hostname: "web-0".into(),
            fqdn: Some("web-0.web.default.svc.cluster.local".into()),
            host_aliases: vec![HostAlias {
                ip: [1, 2, 3, 4].into(),
                hostnames: vec!["a".into(), "b".into()],
            }],
            ..Default::default()
        };
        let text = hosts(&sandbox, Ipv4Addr::new(10, 244, 0, 5));
        assert!(
            text.contains("10.244.0.5\tweb-0.web.default.svc.cluster.local\tweb-0\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"),
            "{text}"
        );
    }

    #[test]
    fn resolv_conf_has_search_server_options() {
        let dns = DnsConfig {
            nameservers: vec![[10, 96, 0, 10].into()],
            searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        let wanted = "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(resolv_conf(&dns), wanted);
    }
}
