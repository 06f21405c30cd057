//! StorageClass, VolumeAttachment, VolumeAttributesClass and the CSI kinds.

use jiff::Timestamp;
use serde_json::Value;

use super::column::{AGE, Column, NAME, bool, count, shown, text};
use super::show::{self, or};
use crate::strategy::walk::{self, at};

const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    Some(match kind {
        "CSIDriver" => CSI_DRIVER,
        "CSINode" => CSI_NODE,
        "CSIStorageCapacity" => CSI_STORAGE_CAPACITY,
        "StorageClass" => STORAGE_CLASS,
        "VolumeAttachment" => VOLUME_ATTACHMENT,
        "VolumeAttributesClass" => VOLUME_ATTRIBUTES_CLASS,
        _ => return None,
    })
}

static STORAGE_CLASS: &[Column] = &[
    shown(
        "Name",
        "Name of the class, and whether claims get it by default",
        class_name,
    )
    .of_format("name"),
    text("Provisioner", "Who makes volumes of this class", &["provisioner"]),
    text(
        "ReclaimPolicy",
        "What becomes of a volume after its claim",
        &["reclaimPolicy"],
    )
    .or("Delete"),
    text(
        "VolumeBindingMode",
        "When a volume is made and bound",
        &["volumeBindingMode"],
    )
    .or("Immediate"),
    bool(
        "AllowVolumeExpansion",
        "Whether volumes may grow",
        &["allowVolumeExpansion"],
        false,
    )
    .of_type("string"),
    AGE,
];

static VOLUME_ATTACHMENT: &[Column] = &[
    NAME,
    text("Attacher", "Who attaches the volume", &["spec", "attacher"]).of_format("name"),
    text("PV", "The volume", &["spec", "source", "persistentVolumeName"]),
    text("Node", "The node", &["spec", "nodeName"]),
    bool(
        "Attached",
        "Whether the volume is attached",
        &["status", "attached"],
        false,
    ),
    AGE,
];

static VOLUME_ATTRIBUTES_CLASS: &[Column] = &[
    NAME,
    text("DriverName", "The CSI driver it is for", &["driverName"]),
    AGE,
];

static CSI_NODE: &[Column] = &[
    NAME,
    count("Drivers", "Number of CSI drivers on the node", &["spec", "drivers"]),
    AGE,
];

static CSI_DRIVER: &[Column] = &[
    NAME,
    bool(
        "AttachRequired",
        "Whether volumes are attached before they are mounted",
        &["spec", "attachRequired"],
        true,
    ),
    bool(
        "PodInfoOnMount",
        "Whether the driver is told of the pod",
        &["spec", "podInfoOnMount"],
        false,
    ),
    bool(
        "StorageCapacity",
        "Whether the driver says how much room there is",
        &["spec", "storageCapacity"],
        false,
    ),
    shown(
        "TokenRequests",
        "Audiences of the tokens the driver gets",
        token_requests,
    ),
    bool(
        "RequiresRepublish",
        "Whether the driver wants to mount again and again",
        &["spec", "requiresRepublish"],
        false,
    ),
    shown("Modes", "Kinds of volumes the driver has", |driver, _| {
        let modes = walk::list(driver, &["spec", "volumeLifecycleModes"])
            .iter()
            .filter_map(Value::as_str);
        or(&modes.collect::<Vec<_>>().join(","), "<none>").into()
    }),
    AGE,
];

static CSI_STORAGE_CAPACITY: &[Column] = &[
    NAME,
    text("StorageClassName", "The class there is room for", &["storageClassName"]),
    shown("Capacity", "How much room there is", |object, _| {
        match at(object, &["capacity"]) {
            None => "<unset>".into(),
            capacity => show::quantity(capacity).into(),
        }
    }),
];

fn class_name(class: &Value, _: Timestamp) -> Value {
    let name = walk::text(class, &["metadata", "name"]);
    let default = |annotation| walk::text(class, &["metadata", "annotations", annotation]) == "true";
    match DEFAULT_CLASS.into_iter().any(default) {
        true => format!("{name} (default)").into(),
        false => name.into(),
    }
}

fn token_requests(driver: &Value, _: Timestamp) -> Value {
    match at(driver, &["spec", "tokenRequests"]) {
        None => "<unset>".into(),
        Some(requests) => walk::list(requests, &[])
            .iter()
            .map(|request| walk::text(request, &["audience"]))
            .collect::<Vec<_>>()
            .join(",")
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::testing::row;

    const V1: &str = "storage.k8s.io/v1";

    #[test]
    fn the_default_class_says_so() {
        let class = json!({
            "metadata": {"name": "standard", "creationTimestamp": "2026-01-02T11:59:00Z",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "k8slab.dev/local", "volumeBindingMode": "WaitForFirstConsumer",
        });
        assert_eq!(
            row(V1, "StorageClass", &class),
            "standard (default)  k8slab.dev/local  Delete  WaitForFirstConsumer  false  60s"
        );
    }

    #[test]
    fn the_kinds_of_csi() {
        let driver = json!({"metadata": {"name": "d"}, "spec": {"podInfoOnMount": true,
            "tokenRequests": [{"audience": "a"}, {"audience": "b"}], "volumeLifecycleModes": ["Persistent", "Ephemeral"]}});
        assert_eq!(
            row(V1, "CSIDriver", &driver),
            "d  true  true  false  a,b  false  Persistent,Ephemeral  <unknown>"
        );
        let node = json!({"metadata": {"name": "n"}, "spec": {"drivers": [{}]}});
        assert_eq!(row(V1, "CSINode", &node), "n  1  <unknown>");
        let room = json!({"metadata": {"name": "r"}, "storageClassName": "fast", "capacity": "1024Mi"});
        assert_eq!(row(V1, "CSIStorageCapacity", &room), "r  fast  1Gi");
        let attachment = json!({"metadata": {"name": "x"}, "spec": {"attacher": "d", "nodeName": "n",
            "source": {"persistentVolumeName": "pv"}}, "status": {"attached": true}});
        assert_eq!(row(V1, "VolumeAttachment", &attachment), "x  d  pv  n  true  <unknown>");
    }
}
