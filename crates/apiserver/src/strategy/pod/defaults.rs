//! What a Pod says when it says nothing: defaults of Pod, PodTemplateSpec, containers, probes and volumes.
//!
//! After k/k `pkg/apis/core/v1/defaults.go` and `zz_generated.defaults.go` at 1.36. Some defaults belong to a Pod only
//! and never show in a template (requests from limits, `enableServiceLinks`, host ports); they are in [`pod`].

use serde_json::{Value, json};

use crate::strategy::quantities;
use crate::strategy::walk::{Object, drop_key, each, ensure, field, fill, fill_zero, inner};

/// The three lists of containers.
pub(crate) const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a Pod.
pub(crate) fn pod(pod: &mut Value) {
    let Some(map) = pod.as_object_mut() else { return };
    let Some(spec) = ensure(map, "spec") else { return };
    default_spec(spec);
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or_default();
    for list in ["initContainers", "containers"] {
        for container in each(spec, list) {
            if let Some(resources) = inner(container, "resources") {
                requests_from_limits(resources);
            }
            if host_network {
                for port in each(container, "ports") {
                    if let Some(number) = port.get("containerPort").cloned() {
                        fill_zero(port, "hostPort", number);
                    }
                }
            }
        }
    }
    fill(spec, "enableServiceLinks", true);
}

/// Defaults of a PodTemplateSpec under `template` of `owner` (a workload's spec).
pub(crate) fn template(owner: &mut Object) {
    if let Some(template) = inner(owner, "template")
        && let Some(spec) = ensure(template, "spec")
    {
        default_spec(spec);
    }
}

/// Defaults of a PodSpec, in a Pod and in a template.
pub(crate) fn default_spec(spec: &mut Object) {
    for list in CONTAINER_LISTS {
        for container in each(spec, list) {
            default_container(container);
        }
    }
    for volume in each(spec, "volumes") {
        default_volume(volume);
    }
    fill_zero(spec, "dnsPolicy", "ClusterFirst");
    fill_zero(spec, "restartPolicy", "Always");
    fill(spec, "securityContext", json!({}));
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill_zero(spec, "schedulerName", "default-scheduler");
    quantities::round_list(spec, "overhead");
    if let Some(resources) = inner(spec, "resources") {
        default_resources(resources);
    }
    mirror_service_account(spec);
}

/// `serviceAccount` is the deprecated name of `serviceAccountName`: either is read, both are written.
pub(crate) fn mirror_service_account(spec: &mut Object) {
    let name = match (field(spec, "serviceAccountName"), field(spec, "serviceAccount")) {
        ("", "") => {
            drop_key(spec, "serviceAccountName");
            drop_key(spec, "serviceAccount");
            return;
        }
        ("", deprecated) => deprecated.to_owned(),
        (name, _) => name.to_owned(),
    };
    spec.insert("serviceAccountName".to_owned(), name.clone().into());
    spec.insert("serviceAccount".to_owned(), name.into());
}

fn default_container(container: &mut Object) {
    let policy = pull_policy(field(container, "image"));
    fill_zero(container, "imagePullPolicy", policy);
    fill_zero(container, "terminationMessagePath", "/dev/termination-log");
    fill_zero(container, "terminationMessagePolicy", "File");
    if let Some(resources) = ensure(container, "resources") {
        default_resources(resources);
    }
    for port in each(container, "ports") {
        fill_zero(port, "protocol", "TCP");
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = inner(container, probe) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = inner(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(request) = inner(lifecycle, hook).and_then(|hook| inner(hook, "httpGet")) {
                default_http_get(request);
            }
        }
    }
    for variable in each(container, "env") {
        if let Some(source) = inner(variable, "valueFrom") {
            default_value_source(source);
        }
    }
}

/// `Always` for `:latest` or no tag at all, `IfNotPresent` for any other tag and for a digest.
pub(crate) fn pull_policy(image: &str) -> &'static str {
    if image.is_empty() {
        return "IfNotPresent";
    }
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    // A colon before the last slash belongs to the registry's port.
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn default_resources(resources: &mut Object) {
    quantities::round_list(resources, "limits");
    quantities::round_list(resources, "requests");
}

fn requests_from_limits(resources: &mut Object) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    if limits.is_empty() {
        return;
    }
    let Some(requests) = ensure(resources, "requests") else {
        return;
    };
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

fn default_probe(probe: &mut Object) {
    fill_zero(probe, "timeoutSeconds", 1);
    fill_zero(probe, "periodSeconds", 10);
    fill_zero(probe, "successThreshold", 1);
    fill_zero(probe, "failureThreshold", 3);
    if let Some(request) = inner(probe, "httpGet") {
        default_http_get(request);
    }
    if let Some(grpc) = inner(probe, "grpc") {
        fill(grpc, "service", "");
    }
}

fn default_http_get(request: &mut Object) {
    fill_zero(request, "path", "/");
    fill_zero(request, "scheme", "HTTP");
}

fn default_value_source(source: &mut Object) {
    if let Some(reference) = inner(source, "fieldRef") {
        fill_zero(reference, "apiVersion", "v1");
    }
    if let Some(reference) = inner(source, "resourceFieldRef") {
        // The Go type writes its zero divisor as "0".
        fill(reference, "divisor", "0");
    }
}

/// Volume sources whose files have a mode.
const WITH_DEFAULT_MODE: [&str; 4] = ["secret", "configMap", "downwardAPI", "projected"];

fn default_volume(volume: &mut Object) {
    if volume.iter().all(|(key, value)| key == "name" || value.is_null()) {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in WITH_DEFAULT_MODE {
        if let Some(source) = inner(volume, source) {
            fill(source, "defaultMode", 0o644);
        }
    }
    if let Some(source) = inner(volume, "downwardAPI") {
        for item in each(source, "items") {
            default_value_source(item);
        }
    }
    if let Some(projected) = inner(volume, "projected") {
        for source in each(projected, "sources") {
            if let Some(token) = inner(source, "serviceAccountToken") {
                fill(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = inner(source, "downwardAPI") {
                for item in each(downward, "items") {
                    default_value_source(item);
                }
            }
        }
    }
    if let Some(path) = inner(volume, "hostPath") {
        fill(path, "type", "");
    }
    if let Some(image) = inner(volume, "image") {
        let policy = pull_policy(field(image, "reference"));
        fill_zero(image, "pullPolicy", policy);
    }
    if let Some(spec) = inner(volume, "ephemeral")
        .and_then(|source| inner(source, "volumeClaimTemplate"))
        .and_then(|t| ensure(t, "spec"))
    {
        fill(spec, "volumeMode", "Filesystem");
        if let Some(resources) = inner(spec, "resources") {
            default_resources(resources);
        }
    }
    default_network_volume(volume);
}

/// In-tree network volumes: kept for their API only, nothing here mounts them.
fn default_network_volume(volume: &mut Object) {
    if let Some(iscsi) = inner(volume, "iscsi") {
        fill_zero(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = inner(volume, "rbd") {
        fill_zero(rbd, "pool", "rbd");
        fill_zero(rbd, "user", "admin");
        fill_zero(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = inner(volume, "azureDisk") {
        fill(disk, "cachingMode", "ReadWrite");
        fill(disk, "kind", "Shared");
        fill(disk, "fsType", "ext4");
        fill(disk, "readOnly", false);
    }
    if let Some(scale_io) = inner(volume, "scaleIO") {
        fill_zero(scale_io, "storageMode", "ThinProvisioned");
        fill_zero(scale_io, "fsType", "xfs");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1", "IfNotPresent"),
            ("registry:5000/busybox", "Always"),
            ("registry:5000/busybox:stable", "IfNotPresent"),
            ("busybox@sha256:ab", "IfNotPresent"),
            ("busybox:latest@sha256:ab", "Always"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn the_smallest_pod_gets_every_default() {
        let mut value = json!({"spec": {"containers": [{"name": "a", "image": "x:1",
            "resources": {"limits": {"cpu": "500m"}}, "ports": [{"containerPort": 80}],
            "livenessProbe": {"httpGet": {"port": 80}}}], "volumes": [{"name": "v"}]}});
        pod(&mut value);
        assert_eq!(
            value,
            json!({"spec": {
                "containers": [{
                    "name": "a", "image": "x:1", "imagePullPolicy": "IfNotPresent",
                    "resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "500m"}},
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
                "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "enableServiceLinks": true,
            }})
        );
    }

    #[test]
    fn a_template_gets_no_default_of_a_running_pod() {
        let mut value = json!({"template": {"spec": {"containers": [
            {"name": "a", "image": "x", "resources": {"limits": {"cpu": "1"}}}]}}});
        template(value.as_object_mut().unwrap());
        assert_eq!(value["template"]["spec"].get("enableServiceLinks"), None);
        assert_eq!(
            value["template"]["spec"]["containers"][0]["resources"].get("requests"),
            None
        );
    }

    #[test]
    fn both_names_of_the_service_account_are_written() {
        let mut value = json!({"spec": {"serviceAccount": "robot", "containers": []}});
        pod(&mut value);
        assert_eq!(value["spec"]["serviceAccountName"], "robot");
        assert_eq!(value["spec"]["serviceAccount"], "robot");
    }
}
