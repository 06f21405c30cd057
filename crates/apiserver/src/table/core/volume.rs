//! PersistentVolume and PersistentVolumeClaim.

use jiff::Timestamp;
use serde_json::Value;

use crate::strategy::walk::{self, at};
use crate::table::column::{AGE, Column, NAME, shown, text};
use crate::table::show;

/// Older than the field, and still before it.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// In the order in which they are shown.
const ACCESS_MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];

const STORAGE_CLASS: Column = shown("StorageClass", "Its StorageClass", storage_class);

const ATTRIBUTES_CLASS: Column = shown("VolumeAttributesClass", "Its VolumeAttributesClass", |object, _| {
    // A pointer upstream: present and empty is shown as it is.
    at(object, &["spec", "volumeAttributesClassName"])
        .map_or_else(|| "<unset>".into(), show::plain)
        .into()
});

const VOLUME_MODE: Column = text("VolumeMode", "File system or block device", &["spec", "volumeMode"])
    .or("<unset>")
    .wide();

const STATUS: Column = shown(
    "Status",
    "Its phase, or that it is being deleted",
    |object, _| match show::is_deleting(object) {
        true => "Terminating".into(),
        false => walk::text(object, &["status", "phase"]).into(),
    },
);

pub(super) static PERSISTENT_VOLUME: &[Column] = &[
    NAME,
    shown("Capacity", "Size of the volume", |volume, _| {
        show::quantity(at(volume, &["spec", "capacity", "storage"])).into()
    }),
    shown("Access Modes", "Ways the volume can be mounted", |volume, _| {
        access_modes(volume, &["spec", "accessModes"]).into()
    }),
    text(
        "Reclaim Policy",
        "What becomes of the volume after its claim",
        &["spec", "persistentVolumeReclaimPolicy"],
    ),
    STATUS,
    shown("Claim", "The claim it is bound to", claim),
    STORAGE_CLASS,
    ATTRIBUTES_CLASS,
    text("Reason", "Why it is in its state", &["status", "reason"]),
    AGE,
    VOLUME_MODE,
];

pub(super) static PERSISTENT_VOLUME_CLAIM: &[Column] = &[
    NAME,
    STATUS,
    text("Volume", "The volume it is bound to", &["spec", "volumeName"]),
    shown("Capacity", "Size of the volume", |claim, _| match is_bound(claim) {
        true => show::quantity(at(claim, &["status", "capacity", "storage"])).into(),
        false => "".into(),
    }),
    shown(
        "Access Modes",
        "Ways the volume can be mounted",
        |claim, _| match is_bound(claim) {
            true => access_modes(claim, &["status", "accessModes"]).into(),
            false => "".into(),
        },
    ),
    STORAGE_CLASS,
    ATTRIBUTES_CLASS,
    AGE,
    VOLUME_MODE,
];

fn is_bound(claim: &Value) -> bool {
    walk::has(claim, &["spec", "volumeName"])
}

fn access_modes(object: &Value, path: &[&str]) -> String {
    let modes = walk::list(object, path);
    let shown = ACCESS_MODES
        .iter()
        .filter(|(mode, _)| modes.iter().any(|given| given == mode))
        .map(|(_, short)| *short);
    shown.collect::<Vec<_>>().join(",")
}

fn storage_class(object: &Value, _: Timestamp) -> Value {
    let annotation = at(object, &["metadata", "annotations", CLASS_ANNOTATION]).and_then(Value::as_str);
    annotation
        .unwrap_or_else(|| walk::text(object, &["spec", "storageClassName"]))
        .into()
}

fn claim(volume: &Value, _: Timestamp) -> Value {
    match at(volume, &["spec", "claimRef"]) {
        None => "".into(),
        Some(claim) => format!("{}/{}", walk::text(claim, &["namespace"]), walk::text(claim, &["name"])).into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::testing::{headings, row};

    #[test]
    fn a_claim_shows_its_volume_once_it_is_bound() {
        let mut claim = json!({
            "metadata": {"name": "data", "creationTimestamp": "2026-01-02T11:59:30Z"},
            "spec": {"storageClassName": "standard", "volumeMode": "Filesystem", "accessModes": ["ReadWriteOnce"]},
            "status": {"phase": "Pending"},
        });
        assert_eq!(
            headings("v1", "PersistentVolumeClaim"),
            "Name  Status  Volume  Capacity  Access Modes  StorageClass  VolumeAttributesClass  Age | VolumeMode"
        );
        assert_eq!(
            row("v1", "PersistentVolumeClaim", &claim),
            "data  Pending        standard  <unset>  30s | Filesystem"
        );
        claim["spec"]["volumeName"] = json!("pv-1");
        claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "1024Mi"},
            "accessModes": ["ReadWriteMany", "ReadWriteOnce", "ReadWriteOnce"]});
        assert_eq!(
            row("v1", "PersistentVolumeClaim", &claim),
            "data  Bound  pv-1  1Gi  RWO,RWX  standard  <unset>  30s | Filesystem"
        );
        claim["metadata"]["deletionTimestamp"] = json!("2026-01-02T12:00:00Z");
        assert!(row("v1", "PersistentVolumeClaim", &claim).starts_with("data  Terminating  pv-1"));
    }

    #[test]
    fn a_volume_names_its_claim() {
        let volume = json!({
            "metadata": {"name": "pv-1", "creationTimestamp": "2026-01-02T11:59:30Z",
                "annotations": {"volume.beta.kubernetes.io/storage-class": "old"}},
            "spec": {"capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOncePod"], "storageClassName": "new",
                "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "shop", "name": "data"}},
            "status": {"phase": "Bound"},
        });
        assert_eq!(
            row("v1", "PersistentVolume", &volume),
            "pv-1  5Gi  RWOP  Retain  Bound  shop/data  old  <unset>    30s | <unset>"
        );
    }
}
