//! The downward API: what a container may learn of its own pod.
//!
//! Pure. Source of the rules: `pkg/fieldpath`, `pkg/api/v1/resource` of kubernetes 1.36.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};

use super::lifecycle::find_container;
use crate::scheduler::requests::{Amounts, amount};

/// What the pod does not say of itself.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) host_ip: IpAddr,
    /// Known once there is a sandbox.
    pub(crate) pod_ip: Option<IpAddr>,
    /// Stands in for limits that are not set.
    pub(crate) allocatable: Amounts,
}

/// The value of a `fieldRef`.
pub(crate) fn field(pod: &Pod, selector: &ObjectFieldSelector, around: &Surroundings) -> Result<String, String> {
    let meta = &pod.metadata;
    let path = selector.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => around.host_ip.to_string(),
        "status.podIP" | "status.podIPs" => around.pod_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `key="value"` a line, keys sorted.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={value:?}");
    map.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

/// The value of a `resourceFieldRef`, in units of its divisor, rounded up. `own` is the container that asks.
pub(crate) fn resource(
    pod: &Pod,
    own: Option<&str>,
    selector: &ResourceFieldSelector,
    around: &Surroundings,
) -> Result<String, String> {
    let named = selector
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty())
        .or(own);
    let name = named.ok_or("resourceFieldRef without a container name")?;
    let (_, container) = find_container(pod, name).ok_or_else(|| format!("container {name} not found"))?;
    let (list, resource) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let value = match list {
        "limits" => limit(&container, resource, around),
        "requests" => of(&container, resource, false),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let divisor = selector
        .divisor
        .as_ref()
        .and_then(|divisor| amount(resource, divisor))
        .filter(|divisor| *divisor > 0);
    // Without a divisor cpu is counted in cores, everything else in its own unit.
    let divisor = divisor.unwrap_or(if resource == "cpu" { 1000 } else { 1 });
    Ok((value.saturating_add(divisor - 1) / divisor).to_string())
}

fn of(container: &Container, resource: &str, limits: bool) -> i64 {
    let Some(resources) = &container.resources else {
        return 0;
    };
    Amounts::read(if limits {
        resources.limits.as_ref()
    } else {
        resources.requests.as_ref()
    })
    .get(resource)
}

fn limit(container: &Container, resource: &str, around: &Surroundings) -> i64 {
    match of(container, resource, true) {
        0 => around.allocatable.get(resource),
        limit => limit,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"b": "2", "a": "say \"1\""}},
            "spec": {"nodeName": "n", "serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"cpu": "200m", "memory": "1500Ki"}}}]},
        }))
        .unwrap()
    }

    fn around() -> Surroundings {
        let allocatable = BTreeMap::from([(
            "memory".to_owned(),
            k8s_openapi::apimachinery::pkg::api::resource::Quantity("1Gi".into()),
        )]);
        Surroundings {
            host_ip: [127, 0, 0, 1].into(),
            pod_ip: Some([10, 244, 0, 2].into()),
            allocatable: Amounts::read(Some(&allocatable)),
        }
    }

    #[test]
    fn fields_of_the_pod() {
        let get = |path: &str| {
            field(
                &pod(),
                &ObjectFieldSelector {
                    field_path: path.into(),
                    ..Default::default()
                },
                &around(),
            )
        };
        for (path, expected) in [
            ("metadata.name", "p"),
            ("metadata.labels['b']", "2"),
            ("metadata.annotations['none']", ""),
            ("metadata.labels", "a=\"say \\\"1\\\"\"\nb=\"2\""),
            ("spec.nodeName", "n"),
            ("spec.serviceAccountName", "sa"),
            ("status.podIP", "10.244.0.2"),
            ("status.hostIP", "127.0.0.1"),
        ] {
            assert_eq!(get(path).as_deref(), Ok(expected), "{path}");
        }
        assert!(get("spec.priority").is_err());
    }

    #[test]
    fn resources_are_rounded_up_in_units_of_the_divisor() {
        let get = |resource_name: &str, divisor: Option<&str>| {
            let divisor = divisor.map(|text| k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.into()));
            let selector = ResourceFieldSelector {
                resource: resource_name.into(),
                divisor,
                ..Default::default()
            };
            resource(&pod(), Some("c"), &selector, &around()).unwrap()
        };
        assert_eq!(get("limits.cpu", None), "2");
        assert_eq!(get("limits.cpu", Some("1m")), "1500");
        assert_eq!(get("requests.cpu", Some("0")), "1");
        assert_eq!(get("requests.memory", Some("1Mi")), "2");
        assert_eq!(get("limits.memory", Some("1Mi")), "1024");
    }
}
