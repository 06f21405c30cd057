//! Field selectors: which fields of a kind can be selected by, and what an object has there.
//!
//! After k/k 1.36: the kinds' `ToSelectableFields` and the `AddFieldLabelConversionFunc` of each version.

use apimachinery::gvk::GroupVersionKind;
use serde_json::Value;

use super::walk::{flag, int, list, text};

/// A field that the kind cannot be selected by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownField {
    /// The kind has selectable fields of its own, this is none of them.
    #[error("field label not supported: {0}")]
    NotSupported(String),
    /// The kind can be selected by name and namespace only.
    #[error("\"{0}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")]
    NotKnown(String),
}

/// What an object has in a selectable field; `None` where the field belongs to the kind but not to this object.
///
/// With `object` null this answers whether the kind knows the field at all.
pub fn fields(kind: &GroupVersionKind, object: &Value, field: &str) -> Result<Option<String>, UnknownField> {
    match field {
        "metadata.name" => return Ok(Some(text(object, &["metadata", "name"]).to_owned())),
        "metadata.namespace" => return Ok(Some(text(object, &["metadata", "namespace"]).to_owned())),
        _ => {}
    }
    let at = |path: &[&str]| Ok(Some(text(object, path).to_owned()));
    let number = |path: &[&str]| Ok(Some(int(object, path).unwrap_or_default().to_string()));
    match (kind.group.as_str(), kind.kind.as_str(), field) {
        ("", "Pod", "spec.nodeName" | "spec.host") => at(&["spec", "nodeName"]),
        ("", "Pod", "spec.restartPolicy") => at(&["spec", "restartPolicy"]),
        ("", "Pod", "spec.schedulerName") => at(&["spec", "schedulerName"]),
        ("", "Pod", "spec.serviceAccountName") => at(&["spec", "serviceAccountName"]),
        ("", "Pod", "spec.hostNetwork") => Ok(Some(flag(object, &["spec", "hostNetwork"]).to_string())),
        ("", "Pod", "status.phase") => at(&["status", "phase"]),
        ("", "Pod", "status.podIP" | "status.podIPs") => Ok(Some(first_pod_ip(object).to_owned())),
        ("", "Pod", "status.nominatedNodeName") => at(&["status", "nominatedNodeName"]),
        ("", "Node", "spec.unschedulable") => Ok(Some(flag(object, &["spec", "unschedulable"]).to_string())),
        ("", "Namespace", "status.phase") => at(&["status", "phase"]),
        ("", "Namespace", "name") => at(&["metadata", "name"]),
        ("", "Secret", "type") => at(&["type"]),
        ("", "Service", "spec.clusterIP") => at(&["spec", "clusterIP"]),
        ("", "Service", "spec.type") => at(&["spec", "type"]),
        ("", "ReplicationController", "status.replicas") => number(&["status", "replicas"]),
        ("batch", "Job", "status.successful") => number(&["status", "succeeded"]),
        ("certificates.k8s.io", "CertificateSigningRequest", "spec.signerName") => at(&["spec", "signerName"]),
        ("", "Event", field) => core_event(object, field)
            .ok_or_else(|| UnknownField::NotSupported(field.to_owned()))
            .map(Some),
        ("events.k8s.io", "Event", field) => new_event(object, field)
            .ok_or_else(|| UnknownField::NotSupported(field.to_owned()))
            .map(Some),
        ("", "Pod" | "Node" | "Namespace" | "Secret" | "Service" | "ReplicationController", field)
        | ("batch", "Job", field)
        | ("certificates.k8s.io", "CertificateSigningRequest", field) => {
            Err(UnknownField::NotSupported(field.to_owned()))
        }
        (_, _, field) => Err(UnknownField::NotKnown(field.to_owned())),
    }
}

fn first_pod_ip(pod: &Value) -> &str {
    match list(pod, &["status", "podIPs"]) {
        [first, ..] => text(first, &["ip"]),
        [] => text(pod, &["status", "podIP"]),
    }
}

/// Parts of an object reference that events can be selected by.
const REFERENCE: [&str; 7] = [
    "kind",
    "namespace",
    "name",
    "uid",
    "apiVersion",
    "resourceVersion",
    "fieldPath",
];

/// A field of an Event in its stored form, core/v1.
fn core_event(event: &Value, field: &str) -> Option<String> {
    let value = match field {
        "reason" => text(event, &["reason"]),
        "type" => text(event, &["type"]),
        "reportingComponent" => text(event, &["reportingComponent"]),
        "source" => match text(event, &["source", "component"]) {
            "" => text(event, &["reportingComponent"]),
            component => component,
        },
        _ => {
            let part = field.strip_prefix("involvedObject.")?;
            text(
                event,
                &["involvedObject", REFERENCE.iter().find(|name| **name == part)?],
            )
        }
    };
    Some(value.to_owned())
}

/// A field of an Event under its events.k8s.io name. The object may be in either form.
fn new_event(event: &Value, field: &str) -> Option<String> {
    let either = |new: &[&str], core: &[&str]| match text(event, new) {
        "" => text(event, core).to_owned(),
        value => value.to_owned(),
    };
    Some(match field {
        "reason" => text(event, &["reason"]).to_owned(),
        "type" => text(event, &["type"]).to_owned(),
        "reportingController" => either(&["reportingController"], &["reportingComponent"]),
        _ => {
            let part = field.strip_prefix("regarding.")?;
            let part = REFERENCE.iter().find(|name| **name == part)?;
            either(&["regarding", part], &["involvedObject", part])
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind(group: &str, kind: &str) -> GroupVersionKind {
        GroupVersionKind {
            group: group.to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
        }
    }

    #[test]
    fn a_node_without_the_field_is_schedulable() {
        let value = fields(&kind("", "Node"), &json!({"spec": {}}), "spec.unschedulable");
        assert_eq!(value.unwrap().unwrap(), "false");
    }

    #[test]
    fn an_unknown_field_says_what_is_known() {
        let error = fields(&kind("", "ConfigMap"), &json!({}), "data.x").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#""data.x" is not a known field selector: only "metadata.name", "metadata.namespace""#
        );
        let error = fields(&kind("", "Pod"), &json!({}), "spec.x").unwrap_err();
        assert_eq!(error.to_string(), "field label not supported: spec.x");
    }

    #[test]
    fn an_event_is_selected_by_either_name_of_its_object() {
        let event = json!({"involvedObject": {"name": "a"}, "source": {"component": "kubelet"}});
        let core = fields(&kind("", "Event"), &event, "involvedObject.name").unwrap();
        let new = fields(&kind("events.k8s.io", "Event"), &event, "regarding.name").unwrap();
        assert_eq!((core.as_deref(), new.as_deref()), (Some("a"), Some("a")));
        assert_eq!(
            fields(&kind("", "Event"), &event, "source").unwrap().unwrap(),
            "kubelet"
        );
    }
}
