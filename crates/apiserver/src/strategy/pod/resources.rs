//! Requests and limits.

use apimachinery::field::{Error, Path};
use apimachinery::names::qualified_name;
use apimachinery::quantity::Quantity;
use serde_json::Value;

use crate::strategy::check::{non_negative_quantity, text_messages};
use crate::strategy::quantities::amount;
use crate::strategy::walk::{at, object};

/// Names of resources that need no domain, beyond those of containers.
const STANDARD: [&str; 17] = [
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

const HUGE_PAGES: &str = "hugepages-";

fn is_container_resource(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with(HUGE_PAGES)
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether somebody else's device is meant.
fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether more may be used than was asked for.
fn may_overcommit(name: &str) -> bool {
    is_native(name) && !name.starts_with(HUGE_PAGES)
}

/// Whether the resource comes in whole numbers only.
fn is_counted(name: &str) -> bool {
    is_extended(name)
        || matches!(
            name,
            "pods"
                | "resourcequotas"
                | "services"
                | "replicationcontrollers"
                | "secrets"
                | "configmaps"
                | "persistentvolumeclaims"
                | "services.nodeports"
                | "services.loadbalancers"
        )
}

/// Checks the resources of a container, or of a whole Pod.
pub(super) fn validate(resources: &Value, path: &Path, errors: &mut Vec<Error>) {
    let mut base = false;
    let mut huge = false;
    for list in ["limits", "requests"] {
        for (name, value) in object(resources, &[list]).into_iter().flatten() {
            let place = || path.child(list).key(name);
            resource_name(name, &place, errors);
            quantity(name, value, &place, errors);
            base |= matches!(name.as_str(), "cpu" | "memory");
            huge |= name.starts_with(HUGE_PAGES);
            if list == "requests" {
                within_limit(name, value, resources, path, errors);
            }
        }
    }
    if huge && !base {
        errors.push(Error::forbidden(path, "HugePages require cpu or memory"));
    }
}

fn resource_name(name: &str, place: &impl Fn() -> Path, errors: &mut Vec<Error>) {
    let found = qualified_name(name);
    if !found.is_empty() {
        text_messages(found, &place(), name, errors);
        return;
    }
    if !name.contains('/') {
        if !is_container_resource(name) {
            if !STANDARD.contains(&name) {
                let detail = "must be a standard resource type or fully qualified";
                errors.push(Error::invalid(&place(), name, detail));
            }
            errors.push(Error::invalid(
                &place(),
                name,
                "must be a standard resource for containers",
            ));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(Error::invalid(
            &place(),
            name,
            "doesn't follow extended resource name standard",
        ));
    }
}

/// An amount of some resource: not negative, and whole where it is counted.
pub(in crate::strategy) fn quantity(name: &str, value: &Value, place: &impl Fn() -> Path, errors: &mut Vec<Error>) {
    if amount(value).is_some_and(|quantity| quantity < Quantity::ZERO) {
        non_negative_quantity(value, &place(), errors);
    }
    if is_counted(name) && amount(value).is_some_and(|quantity| quantity.milli() % 1000 != 0) {
        errors.push(Error::invalid(&place(), value.clone(), "must be an integer"));
    }
}

fn within_limit(name: &str, request: &Value, resources: &Value, path: &Path, errors: &mut Vec<Error>) {
    let Some(limit) = at(resources, &["limits", name]) else {
        if !may_overcommit(name) {
            let detail = "Limit must be set for non overcommitable resources";
            errors.push(Error::required(&path.child("limits"), detail));
        }
        return;
    };
    let (Some(asked), Some(most)) = (amount(request), amount(limit)) else {
        return;
    };
    let relation = match asked.cmp(&most) {
        std::cmp::Ordering::Equal => return,
        _ if !may_overcommit(name) => "must be equal to",
        std::cmp::Ordering::Greater => "must be less than or equal to",
        std::cmp::Ordering::Less => return,
    };
    let detail = format!("{relation} {name} limit of {most}");
    errors.push(Error::invalid(&path.child("requests"), asked.to_string(), detail));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::validation::tests::{problems, with};

    #[test]
    fn a_request_stays_within_its_limit() {
        let resources = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}});
        assert_eq!(
            problems(with(json!({"resources": resources}))),
            [
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ]
        );
    }

    #[test]
    fn resources_are_named_and_counted() {
        let resources = json!({"requests": {"cpus": "1", "memory": "-1"}, "limits": {"example.com/gpu": "500m"}});
        assert_eq!(
            problems(with(json!({"resources": resources}))),
            [
                "spec.containers[0].resources.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer",
                "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully \
             qualified",
                "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource for containers",
                "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.containers[0].resources.requests[example.com/gpu]: Invalid value: \"500m\": must be an integer",
            ]
        );
    }

    #[test]
    fn a_device_cannot_be_overcommitted() {
        let resources = json!({"requests": {"example.com/gpu": "1"}});
        assert_eq!(
            problems(with(json!({"resources": resources}))),
            ["spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",]
        );
    }
}
