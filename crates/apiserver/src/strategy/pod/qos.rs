//! The quality-of-service class of a Pod, after k/k `pkg/apis/core/helper/qos/qos.go` at 1.36. Pure.

use apimachinery::quantity::Quantity;
use serde_json::Value;

use crate::strategy::quantities::amount as amount_of;
use crate::strategy::walk::{at, list, object};

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn class(pod: &Value) -> &'static str {
    // Pod-level resources, where given, speak for the whole pod.
    if let Some(resources) = at(pod, &["spec", "resources"]).filter(|r| counts(r, "requests") || counts(r, "limits")) {
        return if is_guaranteed(resources) {
            "Guaranteed"
        } else {
            "Burstable"
        };
    }
    let containers = || {
        list(pod, &["spec", "initContainers"])
            .iter()
            .chain(list(pod, &["spec", "containers"]))
    };
    let none = Value::Null;
    let mut says_something = false;
    let mut guaranteed = true;
    for container in containers() {
        let resources = container.get("resources").unwrap_or(&none);
        says_something |= counts(resources, "requests") || counts(resources, "limits");
        guaranteed &= is_guaranteed(resources);
    }
    match (says_something, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Whether a positive amount of CPU or memory is asked for.
fn counts(resources: &Value, list: &str) -> bool {
    ["cpu", "memory"]
        .iter()
        .any(|name| amount(resources, list, name).is_some())
}

fn amount(resources: &Value, list: &str, name: &str) -> Option<Quantity> {
    amount_of(object(resources, &[list])?.get(name)?).filter(|quantity| *quantity > Quantity::ZERO)
}

fn is_guaranteed(resources: &Value) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        match (amount(resources, "limits", name), amount(resources, "requests", name)) {
            (Some(limit), Some(request)) => limit == request,
            // An absent request is taken from the limit.
            (Some(_), None) => true,
            (None, _) => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(resources: Value) -> Value {
        json!({"spec": {"containers": [{"name": "a", "resources": resources}]}})
    }

    #[test]
    fn the_class_follows_requests_and_limits() {
        assert_eq!(class(&pod(json!({}))), "BestEffort");
        assert_eq!(class(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        assert_eq!(
            class(&pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}}))),
            "Guaranteed"
        );
        let equal = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        assert_eq!(class(&pod(equal)), "Guaranteed");
        let less = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}});
        assert_eq!(class(&pod(less)), "Burstable");
    }
}
