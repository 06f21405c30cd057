//! The columns and cells that `kubectl get` shows of every built-in kind.
//!
//! Owns what a person sees of an object: pure functions over its JSON, one file an API group. Must not know how a
//! `Table` is put together or who asked for it (`respond`). Custom resources bring their own columns and are not here.
//!
//! Source of columns and cell rules: kubernetes, `pkg/printers/internalversion/printers.go`, 1.36; for APIService
//! kube-aggregator's `pkg/registry/apiservice/etcd`.

mod admissionregistration;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod cell;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod event;
mod flowcontrol;
mod networking;
mod node;
mod pod;
mod policy;
mod rbac;
mod scheduling;
mod service;
mod storage;

use apimachinery::gvk::GroupVersionKind;
use jiff::Timestamp;
use serde_json::Value;

/// A column's definition, as in `TableColumnDefinition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its heading, in title case; clients print it in capitals.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`, …
    pub kind: &'static str,
    /// `name` for the column that names the object, else empty.
    pub format: &'static str,
    /// What it shows, in a sentence.
    pub description: &'static str,
    /// 0: always shown; 1: with `-o wide` only.
    pub priority: u8,
}

impl Column {
    const fn new(name: &'static str, kind: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind,
            format: "",
            description,
            priority: 0,
        }
    }

    const fn text(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "string", description)
    }

    const fn integer(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "integer", description)
    }

    const fn boolean(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "boolean", description)
    }

    /// Shown with `-o wide` only.
    const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }
}

const NAME: Column = Column {
    format: "name",
    ..Column::text("Name", "Name of the object, unique in its namespace.")
};
const AGE: Column = Column::text("Age", "Time since the object was created.");
const CREATED_AT: Column = Column::new("Created At", "date", "When the object was created.");
const CONTAINERS: Column = Column::text("Containers", "Names of the template's containers.").wide();
const IMAGES: Column = Column::text("Images", "Images of the template's containers.").wide();
const SELECTOR: Column = Column::text("Selector", "Labels of the Pods that belong to the object.").wide();

/// How objects of one kind are shown: a cell for each column.
struct Printer {
    columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// Kinds without columns of their own.
static PLAIN: Printer = Printer {
    columns: &[NAME, CREATED_AT],
    cells: |object, _| {
        let created = object["metadata"]["creationTimestamp"].clone();
        vec![cell::name(object), created]
    },
};

fn printer(kind: &GroupVersionKind) -> &'static Printer {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => &pod::POD,
        ("", "PodTemplate") => &pod::POD_TEMPLATE,
        ("", "Service") => &service::SERVICE,
        ("", "Endpoints") => &service::ENDPOINTS,
        ("", "Node") => &node::NODE,
        ("", "Namespace") => &core::NAMESPACE,
        ("", "ConfigMap") => &core::CONFIG_MAP,
        ("", "Secret") => &core::SECRET,
        ("", "ServiceAccount") => &core::SERVICE_ACCOUNT,
        ("", "ResourceQuota") => &core::RESOURCE_QUOTA,
        ("", "ComponentStatus") => &core::COMPONENT_STATUS,
        ("", "ReplicationController") => &apps::REPLICATION_CONTROLLER,
        ("", "PersistentVolume") => &storage::PERSISTENT_VOLUME,
        ("", "PersistentVolumeClaim") => &storage::PERSISTENT_VOLUME_CLAIM,
        ("" | "events.k8s.io", "Event") => &event::EVENT,
        ("apps", "Deployment") => &apps::DEPLOYMENT,
        ("apps", "ReplicaSet") => &apps::REPLICA_SET,
        ("apps", "StatefulSet") => &apps::STATEFUL_SET,
        ("apps", "DaemonSet") => &apps::DAEMON_SET,
        ("apps", "ControllerRevision") => &apps::CONTROLLER_REVISION,
        ("batch", "Job") => &batch::JOB,
        ("batch", "CronJob") => &batch::CRON_JOB,
        ("autoscaling", "HorizontalPodAutoscaler") => &autoscaling::HORIZONTAL_POD_AUTOSCALER,
        ("autoscaling", "Scale") => &autoscaling::SCALE,
        ("networking.k8s.io", "Ingress") => &networking::INGRESS,
        ("networking.k8s.io", "IngressClass") => &networking::INGRESS_CLASS,
        ("networking.k8s.io", "NetworkPolicy") => &networking::NETWORK_POLICY,
        ("networking.k8s.io", "IPAddress") => &networking::IP_ADDRESS,
        ("networking.k8s.io", "ServiceCIDR") => &networking::SERVICE_CIDR,
        ("discovery.k8s.io", "EndpointSlice") => &discovery::ENDPOINT_SLICE,
        ("policy", "PodDisruptionBudget") => &policy::POD_DISRUPTION_BUDGET,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => &rbac::BINDING,
        ("storage.k8s.io", "StorageClass") => &storage::STORAGE_CLASS,
        ("storage.k8s.io", "VolumeAttributesClass") => &storage::VOLUME_ATTRIBUTES_CLASS,
        ("storage.k8s.io", "VolumeAttachment") => &storage::VOLUME_ATTACHMENT,
        ("storage.k8s.io", "CSINode") => &storage::CSI_NODE,
        ("storage.k8s.io", "CSIDriver") => &storage::CSI_DRIVER,
        ("storage.k8s.io", "CSIStorageCapacity") => &storage::CSI_STORAGE_CAPACITY,
        ("certificates.k8s.io", "CertificateSigningRequest") => &certificates::CERTIFICATE_SIGNING_REQUEST,
        ("coordination.k8s.io", "Lease") => &coordination::LEASE,
        ("node.k8s.io", "RuntimeClass") => &node::RUNTIME_CLASS,
        ("scheduling.k8s.io", "PriorityClass") => &scheduling::PRIORITY_CLASS,
        ("apiregistration.k8s.io", "APIService") => &apiregistration::API_SERVICE,
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => {
            &admissionregistration::WEBHOOKS
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => &admissionregistration::VALIDATING_POLICY,
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => &admissionregistration::MUTATING_POLICY,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding") => {
            &admissionregistration::POLICY_BINDING
        }
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => &flowcontrol::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => &flowcontrol::PRIORITY_LEVEL,
        _ => &PLAIN,
    }
}

/// The columns of a kind. A kind without columns of its own has `Name` and `Created At`.
pub fn columns(kind: &GroupVersionKind) -> &'static [Column] {
    printer(kind).columns
}

/// The cells of an object's row, one for each of [`columns`].
pub fn cells(kind: &GroupVersionKind, object: &Value, now: Timestamp) -> Vec<Value> {
    (printer(kind).cells)(object, now)
}

/// The row's `conditions`: that a pod has completed. `None` where there is nothing to say.
pub fn conditions(kind: &GroupVersionKind, object: &Value) -> Option<Vec<Value>> {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => pod::completed(object),
        _ => None,
    }
}

#[cfg(test)]
mod testing {
    use jiff::Timestamp;
    use serde_json::Value;

    use super::Printer;

    /// The cells as kubectl would print them, an hour after `2026-01-01T00:00:00Z`.
    pub(super) fn row(printer: &Printer, object: &Value) -> Vec<String> {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let cells = (printer.cells)(object, now);
        assert_eq!(cells.len(), printer.columns.len(), "a cell for each column");
        cells
            .iter()
            .map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_prints_an_empty_object() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        for (group, kinds) in [
            (
                "",
                "Pod PodTemplate Service Endpoints Node Namespace ConfigMap Secret ServiceAccount ResourceQuota Event \
                  ReplicationController PersistentVolume PersistentVolumeClaim ComponentStatus LimitRange",
            ),
            ("apps", "Deployment ReplicaSet StatefulSet DaemonSet ControllerRevision"),
            ("batch", "Job CronJob"),
            ("autoscaling", "HorizontalPodAutoscaler Scale"),
            (
                "networking.k8s.io",
                "Ingress IngressClass NetworkPolicy IPAddress ServiceCIDR",
            ),
            ("discovery.k8s.io", "EndpointSlice"),
            ("policy", "PodDisruptionBudget"),
            (
                "rbac.authorization.k8s.io",
                "Role ClusterRole RoleBinding ClusterRoleBinding",
            ),
            (
                "storage.k8s.io",
                "StorageClass VolumeAttributesClass VolumeAttachment CSINode CSIDriver CSIStorageCapacity",
            ),
            ("certificates.k8s.io", "CertificateSigningRequest"),
            ("coordination.k8s.io", "Lease"),
            ("node.k8s.io", "RuntimeClass"),
            ("scheduling.k8s.io", "PriorityClass"),
            ("apiregistration.k8s.io", "APIService"),
            (
                "admissionregistration.k8s.io",
                "MutatingWebhookConfiguration ValidatingAdmissionPolicy \
                  MutatingAdmissionPolicy ValidatingAdmissionPolicyBinding",
            ),
            ("flowcontrol.apiserver.k8s.io", "FlowSchema PriorityLevelConfiguration"),
        ] {
            for kind in kinds.split_whitespace() {
                let kind = GroupVersionKind::new(group, "v1", kind);
                for object in [json!({}), json!({"spec": null, "status": [], "metadata": "x"})] {
                    assert_eq!(cells(&kind, &object, now).len(), columns(&kind).len(), "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn a_kind_without_columns_has_a_name_and_a_date() {
        let role = GroupVersionKind::new("rbac.authorization.k8s.io", "v1", "Role");
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(columns(&role), [NAME, CREATED_AT]);
        assert_eq!(
            cells(&role, &object, Timestamp::UNIX_EPOCH),
            [json!("a"), json!("2026-01-01T00:00:00Z")]
        );
    }
}
