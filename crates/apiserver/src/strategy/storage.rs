//! PersistentVolume, PersistentVolumeClaim and storage.k8s.io. After k/k `pkg/apis/{core,storage}/v1/defaults.go` at 1.36.

use serde_json::{Value, json};

use super::quantities::round_list;
use super::walk::{Object, drop_key, ensure, ensure_at, fill, fill_zero, inner, keep_old, object, text};
use super::{Status, Strategy};

/// Rules of PersistentVolumes.
pub(super) static PERSISTENT_VOLUME: Strategy = Strategy {
    default: default_volume,
    prepare_status: |new, old| {
        // When the phase stays, so does the time of its last change.
        if text(new, &["status", "phase"]) == text(old, &["status", "phase"])
            && let (Some(status), Some(stored)) = (new.get_mut("status"), old.get("status"))
            && status.get("lastPhaseTransitionTime").is_none()
        {
            keep_old(status, stored, "lastPhaseTransitionTime");
        }
    },
    status: Status::Fresh(|| json!({"phase": "Pending"})),
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// Rules of PersistentVolumeClaims.
pub(super) static PERSISTENT_VOLUME_CLAIM: Strategy = Strategy {
    default: default_claim_object,
    prepare_create: copy_data_source,
    status: Status::Fresh(|| json!({"phase": "Pending"})),
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// Rules of StorageClasses.
pub(super) static STORAGE_CLASS: Strategy = Strategy {
    default: |class| {
        if let Some(map) = class.as_object_mut() {
            fill(map, "reclaimPolicy", "Delete");
            fill(map, "volumeBindingMode", "Immediate");
        }
    },
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// Rules of VolumeAttributesClasses.
pub(super) static VOLUME_ATTRIBUTES_CLASS: Strategy = Strategy {
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// Rules of VolumeAttachments.
pub(super) static VOLUME_ATTACHMENT: Strategy = Strategy {
    status: Status::Fresh(|| json!({"attached": false})),
    unconditional_update: false,
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// Rules of CSIDrivers.
pub(super) static CSI_DRIVER: Strategy = Strategy {
    default: default_csi_driver,
    unconditional_update: false,
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// Rules of CSINodes.
pub(super) static CSI_NODE: Strategy = Strategy {
    unconditional_update: false,
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// Rules of CSIStorageCapacities.
pub(super) static CSI_STORAGE_CAPACITY: Strategy = Strategy {
    unconditional_update: false,
    delete_returns_object: true,
    ..Strategy::PLAIN
};

fn default_volume(volume: &mut Value) {
    let Some(spec) = ensure_at(volume, &["spec"]) else {
        return;
    };
    fill_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
    fill(spec, "volumeMode", "Filesystem");
    round_list(spec, "capacity");
    if let Some(path) = inner(spec, "hostPath") {
        fill(path, "type", "");
    }
}

/// Defaults of a claim, by itself and as the template of a StatefulSet.
fn default_claim_object(claim: &mut Value) {
    if let Some(map) = claim.as_object_mut() {
        default_claim(map);
    }
}

/// See [`default_claim_object`].
pub(super) fn default_claim(claim: &mut Object) {
    if let Some(spec) = ensure(claim, "spec") {
        fill(spec, "volumeMode", "Filesystem");
        if let Some(resources) = ensure(spec, "resources") {
            round_list(resources, "limits");
            round_list(resources, "requests");
        }
    }
    if let Some(status) = ensure(claim, "status") {
        fill_zero(status, "phase", "Pending");
    }
}

/// `dataSource` and `dataSourceRef` are two names of one thing; either is written to the other.
fn copy_data_source(claim: &mut Value) {
    let source = object(claim, &["spec", "dataSource"]).cloned();
    let reference = object(claim, &["spec", "dataSourceRef"]).cloned();
    let Some(spec) = ensure_at(claim, &["spec"]) else {
        return;
    };
    match (source, reference) {
        (Some(source), None) => {
            spec.insert("dataSourceRef".to_owned(), Value::Object(source));
        }
        (None, Some(mut reference)) if !reference.contains_key("namespace") => {
            drop_key(&mut reference, "namespace");
            spec.insert("dataSource".to_owned(), Value::Object(reference));
        }
        _ => {}
    }
}

fn default_csi_driver(driver: &mut Value) {
    let Some(spec) = ensure_at(driver, &["spec"]) else {
        return;
    };
    fill(spec, "attachRequired", true);
    fill(spec, "podInfoOnMount", false);
    fill(spec, "storageCapacity", false);
    fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    fill_zero(spec, "volumeLifecycleModes", json!(["Persistent"]));
    fill(spec, "requiresRepublish", false);
    fill(spec, "seLinuxMount", false);
}
