//! PersistentVolume, PersistentVolumeClaim and storage.k8s.io.

use serde_json::Value;

use super::cell::{NONE, UNSET, age, name, quantity, size, text_or};
use super::networking::with_default;
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::{at, flag, list, text};

const CAPACITY: Column = Column::text("Capacity", "How much fits in.");
const ACCESS_MODES: Column = Column::text("Access Modes", "By how many it may be mounted.");
const STORAGE_CLASS_COLUMN: Column = Column::text("StorageClass", "Class of the storage.");
const ATTRIBUTES_CLASS_COLUMN: Column = Column::text("VolumeAttributesClass", "Class of its attributes.");
const VOLUME_MODE: Column = Column::text("VolumeMode", "Whether it holds files or is a device.").wide();

pub(super) static PERSISTENT_VOLUME: Printer = Printer {
    columns: &[
        NAME,
        CAPACITY,
        ACCESS_MODES,
        Column::text("Reclaim Policy", "What becomes of it when its claim goes."),
        Column::text("Status", "Whether it is bound."),
        Column::text("Claim", "To which claim."),
        STORAGE_CLASS_COLUMN,
        ATTRIBUTES_CLASS_COLUMN,
        Column::text("Reason", "Why it is in this state."),
        AGE,
        VOLUME_MODE,
    ],
    cells: |volume, now| {
        let claim = at(volume, &["spec", "claimRef"])
            .map(|claim| format!("{}/{}", text(claim, &["namespace"]), text(claim, &["name"])));
        vec![
            name(volume),
            quantity(volume, &["spec", "capacity", "storage"]).into(),
            access_modes(volume, &["spec", "accessModes"]).into(),
            text(volume, &["spec", "persistentVolumeReclaimPolicy"]).into(),
            phase(volume).into(),
            claim.unwrap_or_default().into(),
            class(volume).into(),
            text_or(volume, &["spec", "volumeAttributesClassName"], UNSET),
            text(volume, &["status", "reason"]).into(),
            age(volume, now),
            text_or(volume, &["spec", "volumeMode"], UNSET),
        ]
    },
};

pub(super) static PERSISTENT_VOLUME_CLAIM: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "Whether it is bound."),
        Column::text("Volume", "To which volume."),
        CAPACITY,
        ACCESS_MODES,
        STORAGE_CLASS_COLUMN,
        ATTRIBUTES_CLASS_COLUMN,
        AGE,
        VOLUME_MODE,
    ],
    cells: |claim, now| {
        let volume = text(claim, &["spec", "volumeName"]);
        let bound = !volume.is_empty();
        let capacity = if bound {
            quantity(claim, &["status", "capacity", "storage"])
        } else {
            String::new()
        };
        let modes = if bound {
            access_modes(claim, &["status", "accessModes"])
        } else {
            String::new()
        };
        vec![
            name(claim),
            phase(claim).into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            class(claim).into(),
            text_or(claim, &["spec", "volumeAttributesClassName"], UNSET),
            age(claim, now),
            text_or(claim, &["spec", "volumeMode"], UNSET),
        ]
    },
};

pub(super) static STORAGE_CLASS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Provisioner", "Who makes the volumes."),
        Column::text("ReclaimPolicy", "What becomes of a volume when its claim goes."),
        Column::text("VolumeBindingMode", "When a volume is made."),
        Column::text("AllowVolumeExpansion", "Whether a volume may grow."),
        AGE,
    ],
    cells: |class, now| {
        vec![
            with_default(class, "storageclass.kubernetes.io/is-default-class"),
            text(class, &["provisioner"]).into(),
            text_or(class, &["reclaimPolicy"], "Delete"),
            text_or(class, &["volumeBindingMode"], "Immediate"),
            flag(class, &["allowVolumeExpansion"]).into(),
            age(class, now),
        ]
    },
};

pub(super) static VOLUME_ATTRIBUTES_CLASS: Printer = Printer {
    columns: &[NAME, Column::text("DriverName", "Whose attributes they are."), AGE],
    cells: |class, now| vec![name(class), text(class, &["driverName"]).into(), age(class, now)],
};

pub(super) static VOLUME_ATTACHMENT: Printer = Printer {
    columns: &[
        NAME,
        Column {
            format: "name",
            ..Column::text("Attacher", "Who attaches it.")
        },
        Column::text("PV", "Which volume."),
        Column::text("Node", "To which node."),
        Column::boolean("Attached", "Whether it is done."),
        AGE,
    ],
    cells: |attachment, now| {
        vec![
            name(attachment),
            text(attachment, &["spec", "attacher"]).into(),
            text(attachment, &["spec", "source", "persistentVolumeName"]).into(),
            text(attachment, &["spec", "nodeName"]).into(),
            flag(attachment, &["status", "attached"]).into(),
            age(attachment, now),
        ]
    },
};

pub(super) static CSI_NODE: Printer = Printer {
    columns: &[NAME, Column::integer("Drivers", "How many drivers the node has."), AGE],
    cells: |node, now| vec![name(node), size(node, &["spec", "drivers"]).into(), age(node, now)],
};

pub(super) static CSI_DRIVER: Printer = Printer {
    columns: &[
        NAME,
        Column::boolean(
            "AttachRequired",
            "Whether volumes are attached before they are mounted.",
        ),
        Column::boolean("PodInfoOnMount", "Whether the driver is told about the Pod."),
        Column::boolean("StorageCapacity", "Whether it says how much room there is."),
        Column::text("TokenRequests", "Audiences of the tokens it gets."),
        Column::boolean("RequiresRepublish", "Whether it wants to be called again and again."),
        Column::text("Modes", "Kinds of volumes it has."),
        AGE,
    ],
    cells: |driver, now| {
        let said = |key: &str| flag(driver, &["spec", key]).into();
        let tokens = at(driver, &["spec", "tokenRequests"]).map(|_| {
            let requests = list(driver, &["spec", "tokenRequests"]).iter();
            requests
                .map(|request| text(request, &["audience"]))
                .collect::<Vec<_>>()
                .join(",")
        });
        let modes: Vec<&str> = list(driver, &["spec", "volumeLifecycleModes"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let attach = at(driver, &["spec", "attachRequired"])
            .and_then(Value::as_bool)
            .unwrap_or(true);
        vec![
            name(driver),
            attach.into(),
            said("podInfoOnMount"),
            said("storageCapacity"),
            tokens.unwrap_or_else(|| UNSET.to_owned()).into(),
            said("requiresRepublish"),
            if modes.is_empty() {
                NONE.into()
            } else {
                modes.join(",").into()
            },
            age(driver, now),
        ]
    },
};

pub(super) static CSI_STORAGE_CAPACITY: Printer = Printer {
    columns: &[
        NAME,
        Column::text("StorageClassName", "For volumes of which class."),
        CAPACITY,
    ],
    cells: |capacity, _| {
        let amount = at(capacity, &["capacity"]).map_or_else(|| UNSET.to_owned(), super::cell::plain);
        vec![
            name(capacity),
            text(capacity, &["storageClassName"]).into(),
            amount.into(),
        ]
    },
};

fn phase(object: &Value) -> &str {
    if at(object, &["metadata", "deletionTimestamp"]).is_some() {
        "Terminating"
    } else {
        text(object, &["status", "phase"])
    }
}

fn class(object: &Value) -> &str {
    match text(
        object,
        &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"],
    ) {
        "" => text(object, &["spec", "storageClassName"]),
        class => class,
    }
}

fn access_modes(object: &Value, path: &[&str]) -> String {
    let modes = list(object, path);
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let named = short
        .iter()
        .filter(|(long, _)| modes.iter().any(|mode| mode == long))
        .map(|(_, short)| *short);
    named.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    #[test]
    fn a_claim_shows_its_volume_once_it_has_one() {
        let mut claim = json!({"metadata": {"name": "c"}, "spec": {"storageClassName": "local-path", "volumeMode": "Filesystem",
            "accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Pending"}});
        let wait = [
            "c",
            "Pending",
            "",
            "",
            "",
            "local-path",
            "<unset>",
            "<unknown>",
            "Filesystem",
        ];
        assert_eq!(row(&PERSISTENT_VOLUME_CLAIM, &claim), wait);
        claim["spec"]["volumeName"] = json!("pv");
        claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]});
        assert_eq!(
            row(&PERSISTENT_VOLUME_CLAIM, &claim)[1..5],
            ["Bound", "pv", "1Gi", "RWO"]
        );
    }

    #[test]
    fn the_default_class_is_marked() {
        let class = json!({"metadata": {"name": "local-path", "annotations": {
            "storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "rancher.io/local-path"});
        assert_eq!(
            row(&STORAGE_CLASS, &class)[..5],
            [
                "local-path (default)",
                "rancher.io/local-path",
                "Delete",
                "Immediate",
                "false"
            ]
        );
    }
}
