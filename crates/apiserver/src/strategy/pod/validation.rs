//! What is wrong with a PodSpec, in a Pod and in a template. After k/k 1.36 `pkg/apis/core/validation/validation.go`.
//!
//! Order and words are upstream's. Left out: Windows, dynamic resource allocation, and the in-tree network volumes'
//! own fields; nothing here could run them.

use std::collections::BTreeSet;

use apimachinery::field::{Error, Path};
use apimachinery::names::{dns1123_label, dns1123_subdomain, qualified_name};
use serde_json::Value;

use super::{containers, resources, scheduling, security, volumes};
use crate::strategy::check::{self, dns_label, text_messages};
use crate::strategy::meta;
use crate::strategy::names::range;
use crate::strategy::walk::{at, flag, int, list, strings, text};

/// Whether a PodSpec stands in a Pod, or in a template from which one will be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a Pod.
    Pod,
    /// In a PodTemplateSpec.
    Template,
}

/// What is wrong with a Pod, on create and on update.
pub(crate) fn validate_pod(pod: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    validate_spec(spec, Place::Pod, &path, errors);
    if text(spec, &["serviceAccountName"]).is_empty() {
        volumes::no_tokens(spec, &path, errors);
    }
    for containers in ["containers", "initContainers"] {
        for (index, container) in list(spec, &[containers]).iter().enumerate() {
            let image = text(container, &["image"]);
            if image.trim() != image {
                let path = path.child(containers).index(index).child("image");
                errors.push(Error::invalid(
                    &path,
                    image,
                    "must not have leading or trailing whitespace",
                ));
            }
        }
    }
}

/// What else is wrong with a new Pod.
pub(crate) fn validate_new_pod(pod: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    if !list(spec, &["ephemeralContainers"]).is_empty() {
        errors.push(Error::forbidden(
            &path.child("ephemeralContainers"),
            "cannot be set on create",
        ));
    }
    if !text(spec, &["nodeName"]).is_empty() && !list(spec, &["schedulingGates"]).is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(Error::forbidden(&path.child("nodeName"), detail));
    }
}

/// What is wrong with a PodTemplateSpec.
pub(crate) fn validate_template(template: &Value, path: &Path, errors: &mut Vec<Error>) {
    meta::validate_template(template, path, errors);
    let spec = template.get("spec").unwrap_or(&Value::Null);
    validate_spec(spec, Place::Template, &path.child("spec"), errors);
    if !list(spec, &["ephemeralContainers"]).is_empty() {
        let path = path.child("spec.ephemeralContainers");
        errors.push(Error::forbidden(
            &path,
            "ephemeral containers not allowed in pod template",
        ));
    }
}

/// What is wrong with a PodSpec.
pub(crate) fn validate_spec(spec: &Value, place: Place, path: &Path, errors: &mut Vec<Error>) {
    let volumes = volumes::validate(spec, path, errors);
    containers::validate(spec, &volumes, path, errors);
    if let Some(resources) = at(spec, &["resources"]) {
        resources::validate(resources, &path.child("resources"), errors);
    }
    host_network(spec, place, path, errors);
    check::required_one_of(spec, path, "restartPolicy", &["Always", "OnFailure", "Never"], errors);
    check::required_one_of(
        spec,
        path,
        "dnsPolicy",
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        errors,
    );
    for (key, value) in strings(spec, &["nodeSelector"]) {
        let path = path.child("nodeSelector");
        text_messages(qualified_name(key), &path, key, errors);
        text_messages(apimachinery::names::label_value(value), &path, value, errors);
    }
    security::pod(spec, path, errors);
    scheduling::affinity(spec, &path.child("affinity"), errors);
    dns_config(spec, &path.child("dnsConfig"), errors);
    for (index, gate) in list(spec, &["readinessGates"]).iter().enumerate() {
        let condition = text(gate, &["conditionType"]);
        let path = path.child("readinessGates").index(index).child("conditionType");
        text_messages(qualified_name(condition), &path, condition, errors);
    }
    scheduling::gates(spec, &path.child("schedulingGates"), errors);
    scheduling::spread_constraints(spec, &path.child("topologySpreadConstraints"), errors);
    for key in [
        "serviceAccountName",
        "nodeName",
        "priorityClassName",
        "runtimeClassName",
    ] {
        let value = text(spec, &[key]);
        if !value.is_empty() {
            text_messages(dns1123_subdomain(value), &path.child(key), value, errors);
        }
    }
    if let Some(seconds) = int(spec, &["activeDeadlineSeconds"]) {
        let found = range(seconds, 1, i64::from(i32::MAX));
        check::messages(found, &path.child("activeDeadlineSeconds"), &seconds.into(), errors);
    }
    dns_label(spec, path, "hostname", errors);
    dns_label(spec, path, "subdomain", errors);
    hostname_override(spec, path, errors);
    scheduling::tolerations(spec, &path.child("tolerations"), errors);
    host_aliases(spec, &path.child("hostAliases"), errors);
    check::one_of(
        spec,
        path,
        "preemptionPolicy",
        &["PreemptLowerPriority", "Never"],
        errors,
    );
    if at(spec, &["os"]).is_some() {
        let path = path.child("os");
        let os = spec.get("os").unwrap_or(&Value::Null);
        match text(os, &["name"]) {
            "" => errors.push(Error::required(&path.child("name"), "")),
            "linux" | "windows" => {}
            other => errors.push(Error::not_supported(&path, other, &["linux", "windows"])),
        }
    }
}

/// With the host's network a container's port is the host's.
fn host_network(spec: &Value, place: Place, path: &Path, errors: &mut Vec<Error>) {
    if !flag(spec, &["hostNetwork"]) {
        return;
    }
    for (index, container) in list(spec, &["containers"]).iter().enumerate() {
        for (port_index, port) in list(container, &["ports"]).iter().enumerate() {
            let host_port = int(port, &["hostPort"]).unwrap_or(0);
            // A template's ports are filled in when the Pod is made.
            let counts = place == Place::Pod || host_port != 0;
            if counts && host_port != int(port, &["containerPort"]).unwrap_or(0) {
                let path = path
                    .child("containers")
                    .index(index)
                    .child("ports")
                    .index(port_index)
                    .child("hostPort");
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(Error::invalid(&path, host_port, detail));
            }
        }
    }
}

/// Limits of the C library's resolver.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LIST_MAX: usize = 2048;

fn dns_config(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let config = at(spec, &["dnsConfig"]);
    let servers = config.map(|config| list(config, &["nameservers"])).unwrap_or_default();
    if text(spec, &["dnsPolicy"]) == "None" {
        if config.is_none() {
            errors.push(Error::required(
                path,
                "must provide `dnsConfig` when `dnsPolicy` is None",
            ));
            return;
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(Error::required(&path.child("nameservers"), detail));
            return;
        }
    }
    let Some(config) = config else { return };
    if servers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.push(Error::invalid(&path.child("nameservers"), servers.to_vec(), detail));
    }
    for (index, server) in servers.iter().enumerate() {
        let path = path.child("nameservers").index(index);
        check::ip(server.as_str().unwrap_or_default(), &path, errors);
    }
    let searches = list(config, &["searches"]);
    if searches.len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        errors.push(Error::invalid(&path.child("searches"), searches.to_vec(), detail));
    }
    let length: usize = searches
        .iter()
        .filter_map(Value::as_str)
        .map(|search| search.len() + 1)
        .sum();
    if length.saturating_sub(1) > SEARCH_LIST_MAX {
        let detail =
            format!("must not have more than {SEARCH_LIST_MAX} characters (including spaces) in the search list");
        errors.push(Error::invalid(&path.child("searches"), searches.to_vec(), detail));
    }
    for (index, search) in searches.iter().enumerate() {
        let search = search.as_str().unwrap_or_default();
        if search != "." {
            let search = search.strip_suffix('.').unwrap_or(search);
            // Underscores are fine in a search path, so the rest of the rule is asked.
            let found = dns1123_subdomain(&search.replace('_', "a"));
            text_messages(found, &path.child("searches").index(index), search, errors);
        }
    }
    for (index, option) in list(config, &["options"]).iter().enumerate() {
        if text(option, &["name"]).is_empty() {
            errors.push(Error::required(
                &path.child("options").index(index),
                "must not be empty",
            ));
        }
    }
}

fn hostname_override(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let Some(name) = at(spec, &["hostnameOverride"]).and_then(Value::as_str) else {
        return;
    };
    let path = path.child("hostnameOverride");
    for (key, words) in [
        ("setHostnameAsFQDN", "setHostnameAsFQDN"),
        ("hostNetwork", "hostNetwork"),
    ] {
        if flag(spec, &[key]) {
            errors.push(Error::forbidden(
                &path,
                format!("may not be specified when {words} is true"),
            ));
        }
    }
    if name.len() > 64 {
        errors.push(Error::too_long(&path, 64));
    }
    text_messages(dns1123_subdomain(name), &path, name, errors);
}

fn host_aliases(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    for (index, alias) in list(spec, &["hostAliases"]).iter().enumerate() {
        let path = path.index(index);
        check::ip(text(alias, &["ip"]), &path.child("ip"), errors);
        for (index, name) in list(alias, &["hostnames"]).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            text_messages(
                dns1123_subdomain(name),
                &path.child("hostnames").index(index),
                name,
                errors,
            );
        }
    }
}

/// Names that must be DNS labels and differ: of volumes, of containers.
pub(super) fn unique_name<'a>(
    item: &'a Value,
    path: &Path,
    seen: &mut BTreeSet<&'a str>,
    errors: &mut Vec<Error>,
) -> &'a str {
    let name = text(item, &["name"]);
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    } else {
        text_messages(dns1123_label(name), &path.child("name"), name, errors);
        if !seen.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
    }
    name
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::pod::defaults;

    /// What is wrong with a Pod of this spec, its defaults filled in.
    pub(in crate::strategy::pod) fn problems(spec: Value) -> Vec<String> {
        let mut pod = json!({"metadata": {"name": "a", "namespace": "b"}, "spec": spec});
        defaults::pod(&mut pod);
        let mut errors = Vec::new();
        validate_pod(&pod, &mut errors);
        validate_new_pod(&pod, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    /// A spec of one container with these further fields.
    pub(in crate::strategy::pod) fn with(container: Value) -> Value {
        let mut spec = json!({"containers": [{"name": "c", "image": "x"}]});
        if let (Some(target), Value::Object(more)) = (spec["containers"][0].as_object_mut(), container) {
            target.extend(more);
        }
        spec
    }

    #[test]
    fn the_smallest_pod_is_fine() {
        assert_eq!(problems(with(json!({}))), Vec::<String>::new());
    }

    #[test]
    fn a_pod_has_containers() {
        assert_eq!(problems(json!({})), ["spec.containers: Required value"]);
        assert_eq!(
            problems(json!({"containers": [{}]}))[..2],
            [
                "spec.containers[0].name: Required value",
                "spec.containers[0].image: Required value",
            ]
        );
    }

    #[test]
    fn policies_are_what_they_may_be() {
        let mut spec = with(json!({}));
        spec["restartPolicy"] = json!("Sometimes");
        spec["dnsPolicy"] = json!("None");
        assert_eq!(
            problems(spec),
            [
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            ]
        );
    }

    #[test]
    fn a_deadline_and_a_host_name_have_their_bounds() {
        let mut spec = with(json!({}));
        spec["activeDeadlineSeconds"] = json!(0);
        spec["hostname"] = json!("a.b");
        assert_eq!(
            problems(spec),
            [
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
                "spec.hostname: Invalid value: \"a.b\": must not contain dots",
            ]
        );
    }

    #[test]
    fn a_container_on_the_host_network_uses_its_own_port() {
        let mut spec = with(json!({"ports": [{"containerPort": 80, "hostPort": 81}]}));
        spec["hostNetwork"] = json!(true);
        assert_eq!(
            problems(spec),
            [
                "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true",
            ]
        );
    }
}
