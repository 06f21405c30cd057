//! What is special about a kind: defaults, what a write resets, what makes an object valid.
//!
//! The verbs are written once for all kinds; whatever differs is one [`Strategy`] value in the table of [`strategy`].
//! Rules are k/k 1.36's (`pkg/apis/*/{v1,validation}`, `pkg/registry/*/*/strategy.go`), as pure functions over JSON: an
//! object is never decoded into a type, so nothing a client wrote is lost. Knows nothing of HTTP, the store or other
//! objects; what needs those is `admission` and `allocation`.

mod admissionregistration;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
pub(crate) mod check;
mod config;
mod coordination;
mod cron;
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
mod scheduling;
pub(crate) mod service;
mod storage;
pub(crate) mod walk;

use apimachinery::field;
use apimachinery::gvk::GroupVersionKind;
use serde_json::Value;

pub use self::fields::{UnknownField, fields};
use self::walk::{keep_old, same};

/// The rules of one kind.
#[derive(Clone, Copy)]
pub struct Strategy {
    /// Fills what a client may leave out. Runs on every decoded object, before admission.
    pub default: fn(&mut Value),
    /// Sets what a client must not choose on a new object (beyond status and generation).
    pub prepare_create: fn(&mut Value),
    /// Restores from the stored object what an update must not touch (beyond status and generation).
    pub prepare_update: fn(&mut Value, &Value),
    /// Restores from the stored object what an update of `/status` must not touch (beyond everything but status).
    pub prepare_status: fn(&mut Value, &Value),
    /// What is wrong with the object by itself (beyond `metadata`).
    pub validate: fn(&Value, &mut Vec<field::Error>),
    /// What is wrong with a new object only.
    pub validate_new: fn(&Value, &mut Vec<field::Error>),
    /// What is wrong with the step from the stored object (second) to the new one (first).
    pub validate_update: fn(&Value, &Value, &mut Vec<field::Error>),
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
        prepare_status: nothing_kept,
        validate: nothing_wrong,
        validate_new: nothing_wrong,
        validate_update: no_step_wrong,
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
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy") => {
            &admissionregistration::ADMISSION_POLICY
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding") => {
            &admissionregistration::ADMISSION_POLICY_BINDING
        }
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => &flowcontrol::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => &flowcontrol::PRIORITY_LEVEL,
        _ => &PLAIN,
    }
}

impl Strategy {
    /// Readies a new object: the client's status goes, generation starts at 1, then what the kind wants.
    ///
    /// `metadata` (uid, name, timestamps) is the caller's and must be complete: a Job's selector is its uid.
    pub fn ready_create(&self, object: &mut Value) {
        if let Status::Fresh(fresh) = self.status
            && let Some(map) = object.as_object_mut()
        {
            match fresh() {
                Value::Null => walk::drop_key(map, "status"),
                status => {
                    map.insert("status".to_owned(), status);
                }
            }
        }
        if let Some(metadata) = walk::ensure_at(object, &["metadata"]) {
            if self.has_generation() {
                metadata.insert("generation".to_owned(), 1.into());
            } else {
                walk::drop_key(metadata, "generation");
            }
        }
        (self.prepare_create)(object);
    }

    /// Readies an update: status stays as stored, what the kind protects too, and generation moves if it has to.
    pub fn ready_update(&self, new: &mut Value, old: &Value) {
        if self.has_status() {
            keep_old(new, old, "status");
        }
        (self.prepare_update)(new, old);
        self.move_generation(new, old);
    }

    /// Readies an update of `/status`: everything else stays as stored (of metadata: labels, annotations and finalizers
    /// may change, as upstream has it for most kinds).
    pub fn ready_status_update(&self, new: &mut Value, old: &Value) {
        let keys: Vec<String> = [new, old]
            .iter()
            .filter_map(|value| value.as_object())
            .flat_map(|map| map.keys().cloned())
            .filter(|key| !matches!(key.as_str(), "status" | "metadata" | "kind" | "apiVersion"))
            .collect();
        for key in keys {
            keep_old(new, old, &key);
        }
        if let (Some(metadata), Some(stored)) = (new.get_mut("metadata"), old.get("metadata")) {
            for key in [
                "generation",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "ownerReferences",
            ] {
                keep_old(metadata, stored, key);
            }
        }
        (self.prepare_status)(new, old);
    }

    /// Sets `metadata.generation` of an update from the stored object's: one more if the change counts.
    pub fn move_generation(&self, new: &mut Value, old: &Value) {
        let counts = match self.generation {
            Generation::Untracked => false,
            Generation::Spec => body_changed(new, old, self.has_status()),
            Generation::SpecAndAnnotations => {
                body_changed(new, old, self.has_status()) || metadata_changed(new, old, "annotations")
            }
            Generation::SpecAndLabels => {
                body_changed(new, old, self.has_status()) || metadata_changed(new, old, "labels")
            }
        };
        let stored = walk::int(old, &["metadata", "generation"]);
        let Some(metadata) = walk::ensure_at(new, &["metadata"]) else {
            return;
        };
        match (self.has_generation(), stored) {
            (true, stored) => {
                let generation = stored.unwrap_or(0) + i64::from(counts);
                metadata.insert("generation".to_owned(), generation.max(1).into());
            }
            // E.g. deletion has bumped it; nobody else may.
            (false, Some(stored)) => {
                metadata.insert("generation".to_owned(), stored.into());
            }
            (false, None) => walk::drop_key(metadata, "generation"),
        }
    }

    /// Everything that is wrong with a new object, metadata included.
    pub fn validate_create(&self, namespaced: bool, object: &Value) -> Vec<field::Error> {
        let mut errors = Vec::new();
        meta::validate_create(object, namespaced, self.name, &mut errors);
        (self.validate)(object, &mut errors);
        (self.validate_new)(object, &mut errors);
        errors
    }

    /// Everything that is wrong with replacing `old` by `new`, metadata included.
    pub fn validate_replace(&self, namespaced: bool, new: &Value, old: &Value) -> Vec<field::Error> {
        let mut errors = Vec::new();
        meta::validate_update(new, old, namespaced, &mut errors);
        (self.validate)(new, &mut errors);
        (self.validate_update)(new, old, &mut errors);
        errors
    }

    /// What is wrong with a write to `/status`: metadata only, controllers are trusted with the rest.
    pub fn validate_status_update(&self, namespaced: bool, new: &Value, old: &Value) -> Vec<field::Error> {
        let mut errors = Vec::new();
        meta::validate_update(new, old, namespaced, &mut errors);
        errors
    }
}

/// Whether anything but metadata, status and type changed. Without a status subresource status counts.
fn body_changed(new: &Value, old: &Value, has_status: bool) -> bool {
    let left_out = |key: &str| matches!(key, "metadata" | "kind" | "apiVersion") || has_status && key == "status";
    new.as_object()
        .into_iter()
        .chain(old.as_object())
        .flat_map(|map| map.keys())
        .any(|key| !left_out(key) && !same(new.get(key), old.get(key)))
}

fn metadata_changed(new: &Value, old: &Value, key: &str) -> bool {
    !same(walk::at(new, &["metadata", key]), walk::at(old, &["metadata", key]))
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
