//! APIService.

use jiff::Timestamp;
use serde_json::Value;

use super::column::{AGE, Column, NAME, shown};
use super::show;
use crate::strategy::walk::{self, at};

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    (kind == "APIService").then_some(API_SERVICE)
}

static API_SERVICE: &[Column] = &[
    NAME,
    shown("Service", "The service that serves this API, or Local", service),
    shown("Available", "Whether this API answers, and why not", available),
    AGE,
];

fn service(object: &Value, _: Timestamp) -> Value {
    match at(object, &["spec", "service"]) {
        None => "Local".into(),
        Some(service) => format!(
            "{}/{}",
            walk::text(service, &["namespace"]),
            walk::text(service, &["name"])
        )
        .into(),
    }
}

fn available(object: &Value, _: Timestamp) -> Value {
    let Some(condition) = show::condition(object, "Available") else {
        return "Unknown".into();
    };
    match (walk::text(condition, &["status"]), walk::text(condition, &["reason"])) {
        (status @ "True", _) | (status, "") => status.into(),
        (status, reason) => format!("{status} ({reason})").into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::testing::row;

    #[test]
    fn an_api_service_says_who_serves_it_and_whether() {
        let of = |object| row("apiregistration.k8s.io/v1", "APIService", &object);
        let local = json!({"metadata": {"name": "v1."}, "spec": {"service": null},
            "status": {"conditions": [{"type": "Available", "status": "True", "reason": "Local"}]}});
        assert_eq!(of(local), "v1.  Local  True  <unknown>");
        let missing = json!({"metadata": {"name": "v1beta1.custom.metrics.k8s.io"},
            "spec": {"service": {"namespace": "monitoring", "name": "adapter"}},
            "status": {"conditions": [{"type": "Available", "status": "False", "reason": "ServiceNotFound"}]}});
        assert_eq!(
            of(missing),
            "v1beta1.custom.metrics.k8s.io  monitoring/adapter  False (ServiceNotFound)  <unknown>"
        );
        assert_eq!(
            of(json!({"metadata": {"name": "v2.x"}})),
            "v2.x  Local  Unknown  <unknown>"
        );
    }
}
