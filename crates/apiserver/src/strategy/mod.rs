//! What is special about a kind: defaults, what a write resets, what makes an object valid.
//!
//! The verbs are written once for all kinds; whatever differs is one [`Strategy`] value in the table of [`strategy`].
//! Rules are k/k 1.36's (`pkg/apis/*/{v1,validation}`, `pkg/registry/*/*/strategy.go`), as pure functions over JSON: an
//! object is never decoded into a type, so nothing a client wrote is lost. Knows nothing of HTTP, the store or other
//! objects; what needs those is `admission` and `allocation`.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
pub(crate) mod check;
mod config;
mod coordination;
mod discovery;
mod event;
mod fields;
mod flowcontrol;
pub(crate) mod meta;
pub(crate) mod names;
mod namespace;
mod networking;
mod node;
pub(crate) mod pod;
mod policy;
pub(crate) mod quantities;
mod rbac;
mod resource;
mod scheduling;
pub(crate) mod service;
mod storage;
pub(crate) mod walk;
mod writes;

use apimachinery::field;
use apimachinery::gvk::GroupVersionKind;
use serde_json::Value;

pub use self::fields::{UnknownField, fields};

/// The rules of one kind.
#[derive(Clone, Copy)]
pub struct Strategy {
    /// Fills what a client may leave out. Runs on every decoded object, before admission.
    pub default: fn(&mut Value),
    /// Sets what a client must not choose on a new object (beyond status and generation).
    pub prepare_create: fn(&mut Value),
    /// Restores from the stored object what an update must not touch (beyond status and generation).
    pub prepare_update: fn(&mut Value, &Value),
    /// What is wrong with the object by itself (beyond `metadata`).
    pub validate: fn(&Value, &mut Vec<field::Error>),
    /// What is wrong with a new object only.
    pub validate_new: fn(&Value, &mut Vec<field::Error>),
    /// What is wrong with the step from the stored object (second) to the new one (first).
    pub validate_update: fn(&Value, &Value, &mut Vec<field::Error>),
    /// Places below the object at which a part of it is written, `status` only where it has rules of its own.
    pub subresources: &'static [Subresource],
    /// Writes the times that the server itself keeps: the new object, the stored one if there is one, and now.
    pub stamp: fn(&mut Value, Option<&Value>, &str),
    /// What a name must look like.
    pub name: names::Rule,
    /// What becomes of `status` when the object is created.
    pub status: Status,
    /// When `metadata.generation` moves.
    pub generation: Generation,
    /// An update without `metadata.resourceVersion` is taken.
    pub unconditional_update: bool,
    /// An update of an object that does not exist makes it.
    pub create_on_update: bool,
    /// Deleting answers with the object instead of a `Status`.
    pub delete_returns_object: bool,
    /// Deletion waits for a grace period ([`grace_period`]).
    pub graceful_delete: bool,
    /// Deleting without a propagation policy leaves the dependents (old kinds; others delete them).
    pub orphans_dependents: bool,
}

/// The rules of a place below an object at which a part of it is written.
#[derive(Clone, Copy)]
pub struct Subresource {
    /// As in the path.
    pub name: &'static str,
    /// Restores from the stored object all but that part. Of `/status` that is done already.
    pub ready: fn(&mut Value, &Value),
    /// What is wrong with the step (beyond `metadata`).
    pub validate: fn(&Value, &Value, &mut Vec<field::Error>),
}

/// What becomes of a client's `status` when an object is created.
#[derive(Clone, Copy)]
pub enum Status {
    /// The kind has none.
    Absent,
    /// It is kept as sent (Node).
    Kept,
    /// It is replaced by this.
    Fresh(fn() -> Value),
}

/// When `metadata.generation` moves; it starts at 1 wherever it moves at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The kind has none.
    Untracked,
    /// With anything but metadata and status.
    Spec,
    /// Also with annotations: a Deployment's are copied to its ReplicaSets.
    SpecAndAnnotations,
    /// Also with labels (EndpointSlice).
    SpecAndLabels,
}

impl Strategy {
    /// A kind without rules of its own: no status, no generation, conditional and unconditional updates.
    pub const PLAIN: Self = Self {
        default: nothing,
        prepare_create: nothing,
        prepare_update: nothing_kept,
        validate: nothing_wrong,
        validate_new: nothing_wrong,
        validate_update: no_step_wrong,
        subresources: &[],
        stamp: no_time,
        name: names::Rule::Subdomain,
        status: Status::Absent,
        generation: Generation::Untracked,
        unconditional_update: true,
        create_on_update: false,
        delete_returns_object: false,
        graceful_delete: false,
        orphans_dependents: false,
    };

    /// Whether `metadata.generation` is kept for the kind.
    pub fn has_generation(&self) -> bool {
        self.generation != Generation::Untracked
    }

    /// Whether the kind has a `status` that only its subresource writes.
    pub fn has_status(&self) -> bool {
        !matches!(self.status, Status::Absent)
    }
}

fn nothing(_: &mut Value) {}
fn nothing_kept(_: &mut Value, _: &Value) {}
fn nothing_wrong(_: &Value, _: &mut Vec<field::Error>) {}
fn no_step_wrong(_: &Value, _: &Value, _: &mut Vec<field::Error>) {}
fn no_time(_: &mut Value, _: Option<&Value>, _: &str) {}

/// A status that says nothing yet.
fn empty_status() -> Value {
    Value::Object(walk::Object::new())
}

static PLAIN: Strategy = Strategy::PLAIN;

/// The rules of custom resources with the `status` subresource.
static CUSTOM_WITH_STATUS: Strategy = Strategy {
    status: Status::Fresh(|| Value::Null),
    generation: Generation::Spec,
    unconditional_update: false,
    ..Strategy::PLAIN
};

/// The rules of custom resources without it: `status` is a field like any other.
static CUSTOM: Strategy = Strategy {
    generation: Generation::Spec,
    unconditional_update: false,
    ..Strategy::PLAIN
};

/// The rules of a custom resource.
pub fn custom(status_subresource: bool) -> &'static Strategy {
    if status_subresource {
        &CUSTOM_WITH_STATUS
    } else {
        &CUSTOM
    }
}

/// The rules of a built-in kind, the same in all its versions; [`Strategy::PLAIN`] for kinds without rules.
pub fn strategy(kind: &GroupVersionKind) -> &'static Strategy {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => &pod::POD,
        ("", "PodTemplate") => &pod::POD_TEMPLATE,
        ("", "Service") => &service::SERVICE,
        ("", "ConfigMap") => &config::CONFIG_MAP,
        ("", "Secret") => &config::SECRET,
        ("", "Namespace") => &namespace::NAMESPACE,
        ("", "Node") => &node::NODE,
        ("", "ServiceAccount") => &config::SERVICE_ACCOUNT,
        ("", "Endpoints") => &discovery::ENDPOINTS,
        ("", "LimitRange") => &namespace::LIMIT_RANGE,
        ("", "ResourceQuota") => &namespace::RESOURCE_QUOTA,
        ("", "Event") | ("events.k8s.io", "Event") => &event::EVENT,
        ("", "ReplicationController") => &apps::REPLICATION_CONTROLLER,
        ("", "PersistentVolume") => &storage::PERSISTENT_VOLUME,
        ("", "PersistentVolumeClaim") => &storage::PERSISTENT_VOLUME_CLAIM,
        ("apps", "Deployment") => &apps::DEPLOYMENT,
        ("apps", "ReplicaSet") => &apps::REPLICA_SET,
        ("apps", "StatefulSet") => &apps::STATEFUL_SET,
        ("apps", "DaemonSet") => &apps::DAEMON_SET,
        ("apps", "ControllerRevision") => &apps::CONTROLLER_REVISION,
        ("batch", "Job") => &batch::JOB,
        ("batch", "CronJob") => &batch::CRON_JOB,
        ("autoscaling", "HorizontalPodAutoscaler") => &autoscaling::HORIZONTAL_POD_AUTOSCALER,
        ("networking.k8s.io", "Ingress") => &networking::INGRESS,
        ("networking.k8s.io", "IngressClass") => &networking::INGRESS_CLASS,
        ("networking.k8s.io", "NetworkPolicy") => &networking::NETWORK_POLICY,
        ("networking.k8s.io", "ServiceCIDR") => &networking::SERVICE_CIDR,
        ("policy", "PodDisruptionBudget") => &policy::POD_DISRUPTION_BUDGET,
        ("rbac.authorization.k8s.io", "Role") => &rbac::ROLE,
        ("rbac.authorization.k8s.io", "ClusterRole") => &rbac::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io", "RoleBinding") => &rbac::ROLE_BINDING,
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => &rbac::CLUSTER_ROLE_BINDING,
        ("storage.k8s.io", "StorageClass") => &storage::STORAGE_CLASS,
        ("storage.k8s.io", "VolumeAttachment") => &storage::VOLUME_ATTACHMENT,
        ("storage.k8s.io", "CSIDriver") => &storage::CSI_DRIVER,
        ("storage.k8s.io", "CSINode") => &storage::CSI_NODE,
        ("storage.k8s.io", "CSIStorageCapacity") => &storage::CSI_STORAGE_CAPACITY,
        ("storage.k8s.io", "VolumeAttributesClass") => &storage::VOLUME_ATTRIBUTES_CLASS,
        ("certificates.k8s.io", "CertificateSigningRequest") => &certificates::CERTIFICATE_SIGNING_REQUEST,
        ("coordination.k8s.io", "Lease") => &coordination::LEASE,
        ("discovery.k8s.io", "EndpointSlice") => &discovery::ENDPOINT_SLICE,
        ("node.k8s.io", "RuntimeClass") => &node::RUNTIME_CLASS,
        ("scheduling.k8s.io", "PriorityClass") => &scheduling::PRIORITY_CLASS,
        ("apiregistration.k8s.io", "APIService") => &apiregistration::API_SERVICE,
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => &admissionregistration::MUTATING_WEBHOOKS,
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
            &admissionregistration::VALIDATING_WEBHOOKS
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            &admissionregistration::VALIDATING_ADMISSION_POLICY
        }
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => {
            &admissionregistration::MUTATING_ADMISSION_POLICY
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding") => {
            &admissionregistration::ADMISSION_POLICY_BINDING
        }
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => &flowcontrol::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => &flowcontrol::PRIORITY_LEVEL,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => &apiextensions::CUSTOM_RESOURCE_DEFINITION,
        ("resource.k8s.io", "ResourceClaim") => &resource::RESOURCE_CLAIM,
        ("resource.k8s.io", "ResourceClaimTemplate") => &resource::RESOURCE_CLAIM_TEMPLATE,
        ("resource.k8s.io", "DeviceClass" | "ResourceSlice") => &resource::DESCRIPTION,
        _ => &PLAIN,
    }
}

/// The grace period a deletion of this Pod gets, from what the client asked for (`None`: nothing).
///
/// Unscheduled and finished Pods go at once; a negative period means the shortest one.
pub fn grace_period(pod: &Value, requested: Option<i64>) -> i64 {
    let period = requested
        .or(walk::int(pod, &["spec", "terminationGracePeriodSeconds"]))
        .unwrap_or(0);
    let unscheduled = walk::text(pod, &["spec", "nodeName"]).is_empty();
    let finished = matches!(walk::text(pod, &["status", "phase"]), "Failed" | "Succeeded");
    match period {
        _ if unscheduled || finished => 0,
        period if period < 0 => 1,
        period => period,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Table;

    #[test]
    fn every_kind_with_a_status_subresource_has_a_status() {
        let table = Table::built_in().expect("the embedded table can be read");
        let stored = table.resources().filter(|resource| resource.is_stored());
        let wrong: Vec<String> = stored
            .filter(|resource| resource.has_status() != strategy(&resource.gvk()).has_status())
            .map(|resource| format!("{}/{}", resource.api_version(), resource.plural))
            .collect();
        assert_eq!(wrong, [""; 0]);
    }
}
