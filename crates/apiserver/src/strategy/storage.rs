//! PersistentVolume, PersistentVolumeClaim and storage.k8s.io. After k/k `pkg/apis/{core,storage}/v1/defaults.go` at 1.36.

use apimachinery::field::{Error, Path};
use apimachinery::names::{dns1123_subdomain, qualified_name};
use apimachinery::quantity::Quantity;
use serde_json::{Value, json};

use super::check::{self, immutable, required, text_messages};
use super::pod::{scheduling, volumes};
use super::quantities::{amount, round_list};
use super::walk::{
    Object, at, drop_key, ensure, ensure_at, fill, fill_zero, inner, keep_old, list, object, object_mut, same, text,
};
use super::{Status, Strategy};

/// Rules of PersistentVolumes.
pub(super) static PERSISTENT_VOLUME: Strategy = Strategy {
    default: default_volume,
    validate: validate_volume,
    validate_update: validate_volume_update,
    stamp: stamp_phase,
    status: Status::Fresh(|| json!({"phase": "Pending"})),
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// Rules of PersistentVolumeClaims.
pub(super) static PERSISTENT_VOLUME_CLAIM: Strategy = Strategy {
    default: default_claim_object,
    prepare_create: copy_data_source,
    prepare_update: |new, _| copy_data_source(new),
    validate: |claim, errors| {
        validate_claim_spec(claim.get("spec").unwrap_or(&Value::Null), &Path::new("spec"), errors);
    },
    validate_update: validate_claim_update,
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
    validate: validate_class,
    validate_update: |new, old, errors| {
        for key in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            immutable(new, old, &[key], errors);
        }
    },
    delete_returns_object: true,
    ..Strategy::PLAIN
};

/// Rules of VolumeAttributesClasses.
pub(super) static VOLUME_ATTRIBUTES_CLASS: Strategy = Strategy {
    validate: |class, errors| {
        required(class, &Path::root(), "driverName", "", errors);
        if object(class, &["parameters"]).is_none_or(|parameters| parameters.is_empty()) {
            errors.push(Error::required(
                &Path::new("parameters"),
                "must contain at least one key/value pair",
            ));
        }
    },
    validate_update: |new, old, errors| {
        immutable(new, old, &["driverName"], errors);
        immutable(new, old, &["parameters"], errors);
    },
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
/// When the phase changed last: now if it did, unless the client says when.
fn stamp_phase(volume: &mut Value, old: Option<&Value>, now: &str) {
    const TIME: &str = "lastPhaseTransitionTime";
    let stored = old.and_then(|old| at(old, &["status", TIME]));
    let stays = old.is_some_and(|old| text(old, &["status", "phase"]) == text(volume, &["status", "phase"]));
    let said = at(volume, &["status", TIME]);
    let time = match (said, stays) {
        (Some(said), _) if stays || stored != Some(said) => return,
        (None, true) => stored.cloned(),
        _ => Some(now.into()),
    };
    if let (Some(status), Some(time)) = (ensure_at(volume, &["status"]), time) {
        status.insert(TIME.to_owned(), time);
    }
}

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
    if let Some(spec) = claim.get_mut("spec") {
        copy_data_source_of(spec);
    }
}

fn copy_data_source_of(spec: &mut Value) {
    let source = object(spec, &["dataSource"]).cloned();
    let reference = object(spec, &["dataSourceRef"]).cloned();
    let Some(spec) = spec.as_object_mut() else { return };
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

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];

/// Fields of a PersistentVolume's spec that are no volume source.
const VOLUME_FIELDS: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn access_modes(spec: &Value, detail: &str, path: &Path, errors: &mut Vec<Error>) {
    let path = path.child("accessModes");
    let modes = list(spec, &["accessModes"]);
    if modes.is_empty() {
        errors.push(Error::required(&path, detail));
    }
    let known = |mode: &&Value| mode.as_str().is_some_and(|mode| ACCESS_MODES.contains(&mode));
    for mode in modes.iter().filter(|mode| !known(mode)) {
        errors.push(Error::not_supported(&path, mode.clone(), &ACCESS_MODES));
    }
    let single = |mode: &&Value| **mode == "ReadWriteOncePod";
    if modes.iter().any(|mode| single(&mode)) && modes.iter().filter(known).any(|mode| !single(&mode)) {
        errors.push(Error::forbidden(
            &path,
            "may not use ReadWriteOncePod with other access modes",
        ));
    }
}

/// An amount of storage: more than nothing.
fn storage_amount(value: &Value, path: &Path, errors: &mut Vec<Error>) {
    if amount(value).is_some_and(|quantity| quantity <= Quantity::ZERO) {
        errors.push(Error::invalid(path, value.clone(), "must be greater than zero"));
    }
}

/// What is wrong with the spec of a claim, by itself or as a template.
pub(super) fn validate_claim_spec(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    access_modes(spec, "at least 1 access mode is required", path, errors);
    if let Some(selector) = at(spec, &["selector"]) {
        check::label_selector(selector, &path.child("selector"), errors);
    }
    let place = path.child("resources").key("storage");
    match at(spec, &["resources", "requests", "storage"]) {
        Some(value) => storage_amount(value, &place, errors),
        None => errors.push(Error::required(&place, "")),
    }
    for key in ["storageClassName", "volumeAttributesClassName"] {
        let class = text(spec, &[key]);
        if !class.is_empty() {
            text_messages(dns1123_subdomain(class), &path.child(key), class, errors);
        }
    }
    check::one_of(spec, path, "volumeMode", &VOLUME_MODES, errors);
    for key in ["dataSource", "dataSourceRef"] {
        let Some(source) = at(spec, &[key]) else { continue };
        let path = path.child(key);
        required(source, &path, "name", "", errors);
        required(source, &path, "kind", "", errors);
        let group = text(source, &["apiGroup"]);
        if group.is_empty() && text(source, &["kind"]) != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(Error::invalid(&path, text(source, &["kind"]), detail));
        }
        if !group.is_empty() {
            text_messages(dns1123_subdomain(group), &path.child("apiGroup"), group, errors);
        }
    }
}

/// A claim stays what it is; a bound one may grow.
fn validate_claim_update(new: &Value, old: &Value, errors: &mut Vec<Error>) {
    let mut rest = new.get("spec").cloned().unwrap_or(Value::Null);
    let mut stored = old.get("spec").cloned().unwrap_or(Value::Null);
    copy_data_source_of(&mut stored);
    if text(&stored, &["volumeName"]).is_empty() {
        keep_old(&mut rest, &stored, "volumeName");
    }
    // A class may be given to a claim that names none.
    if at(&stored, &["storageClassName"]).is_none() {
        keep_old(&mut rest, &stored, "storageClassName");
    }
    if text(new, &["status", "phase"]) == "Bound" {
        let size = at(&stored, &["resources", "requests", "storage"]).cloned();
        if let (Some(size), Some(requests)) = (size, object_mut(&mut rest, &["resources", "requests"])) {
            requests.insert("storage".to_owned(), size);
        }
        keep_old(&mut rest, &stored, "volumeAttributesClassName");
    }
    if !same(Some(&rest), Some(&stored)) {
        errors.push(Error::forbidden(
            &Path::new("spec"),
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    }
    let size = |claim: &Value, path: &[&str]| at(claim, path).and_then(amount).unwrap_or(Quantity::ZERO);
    let (mine, known) = (
        size(new, &["spec", "resources", "requests", "storage"]),
        size(old, &["spec", "resources", "requests", "storage"]),
    );
    if mine < known && mine <= size(old, &["status", "capacity", "storage"]) {
        let path = Path::new("spec.resources.requests.storage");
        errors.push(Error::forbidden(&path, "field can not be less than status.capacity"));
    }
}

fn validate_volume(volume: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = volume.get("spec").unwrap_or(&Value::Null);
    access_modes(spec, "", &path, errors);
    let capacity = object(spec, &["capacity"]);
    let place = path.child("capacity");
    if capacity.is_none_or(|capacity| capacity.is_empty()) {
        errors.push(Error::required(&place, ""));
    }
    if capacity.is_none_or(|capacity| capacity.len() != 1 || !capacity.contains_key("storage")) {
        let value = capacity.cloned().map_or(Value::Null, Value::Object);
        errors.push(Error::not_supported(&place, value, &["storage"]));
    }
    for (name, value) in capacity.into_iter().flatten() {
        storage_amount(value, &place.key(name), errors);
    }
    check::one_of(spec, &path, "persistentVolumeReclaimPolicy", &RECLAIM_POLICIES, errors);
    let affinity = at(spec, &["nodeAffinity"]);
    if let Some(affinity) = affinity {
        let place = path.child("nodeAffinity.required");
        match at(affinity, &["required"]) {
            Some(selector) => scheduling::node_selector(selector, &place, errors),
            None => errors.push(Error::required(&place, "must specify required node constraints")),
        }
    }
    volume_source(spec, affinity.is_some(), &path, errors);
    let class = text(spec, &["storageClassName"]);
    if !class.is_empty() {
        text_messages(dns1123_subdomain(class), &path.child("storageClassName"), class, errors);
    }
    check::one_of(spec, &path, "volumeMode", &VOLUME_MODES, errors);
}

fn volume_source(spec: &Value, has_affinity: bool, path: &Path, errors: &mut Vec<Error>) {
    let fields = spec.as_object().into_iter().flatten();
    let mut sources = fields.filter(|(key, value)| !VOLUME_FIELDS.contains(&key.as_str()) && !value.is_null());
    let Some((kind, source)) = sources.next() else {
        errors.push(Error::required(path, "must specify a volume type"));
        return;
    };
    let place = path.child(kind);
    match kind.as_str() {
        "hostPath" => {
            volumes::host_path(source, &place, errors);
            let recycled = text(spec, &["persistentVolumeReclaimPolicy"]) == "Recycle";
            if recycled && text(source, &["path"]).trim_end_matches('/').is_empty() {
                let detail = "may not be 'recycle' for a hostPath mount of '/'";
                errors.push(Error::forbidden(&path.child("persistentVolumeReclaimPolicy"), detail));
            }
        }
        "nfs" => volumes::nfs(source, &place, errors),
        "local" => {
            required(source, &place, "path", "", errors);
            if !has_affinity {
                let detail = "Local volume requires node affinity";
                errors.push(Error::required(&path.child("nodeAffinity"), detail));
            }
        }
        "csi" => {
            required(source, &place, "driver", "", errors);
            required(source, &place, "volumeHandle", "", errors);
        }
        _ => {}
    }
    for (further, _) in sources {
        errors.push(Error::forbidden(
            &path.child(further),
            "may not specify more than 1 volume type",
        ));
    }
}

/// Where the data is does not change.
fn validate_volume_update(new: &Value, old: &Value, errors: &mut Vec<Error>) {
    let source = |volume: &Value| {
        let mut spec = volume.get("spec").cloned().unwrap_or(Value::Null);
        if let Some(map) = spec.as_object_mut() {
            VOLUME_FIELDS.iter().for_each(|key| drop_key(map, key));
        }
        spec
    };
    if !same(Some(&source(new)), Some(&source(old))) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.push(Error::forbidden(&Path::new("spec.persistentvolumesource"), detail));
    }
    if !same(at(new, &["spec", "volumeMode"]), at(old, &["spec", "volumeMode"])) {
        let value = at(new, &["spec", "volumeMode"]).cloned().unwrap_or(Value::Null);
        errors.push(Error::invalid(&Path::new("volumeMode"), value, check::IMMUTABLE));
    }
    let stored = at(old, &["spec", "nodeAffinity"]);
    if stored.is_some() && !same(at(new, &["spec", "nodeAffinity"]), stored) {
        let value = at(new, &["spec", "nodeAffinity"]).cloned().unwrap_or(Value::Null);
        errors.push(Error::invalid(&Path::new("nodeAffinity"), value, check::IMMUTABLE));
    }
}

fn validate_class(class: &Value, errors: &mut Vec<Error>) {
    match text(class, &["provisioner"]) {
        "" => errors.push(Error::required(&Path::new("provisioner"), "")),
        name => text_messages(
            qualified_name(&name.to_lowercase()),
            &Path::new("provisioner"),
            name,
            errors,
        ),
    }
    check::one_of(class, &Path::root(), "reclaimPolicy", &["Delete", "Retain"], errors);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    check::one_of(class, &Path::root(), "volumeBindingMode", &modes, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Value {
        json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Bound"}})
    }

    fn texts(errors: &[Error]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_claim_says_how_much_and_how() {
        let mut errors = Vec::new();
        validate_claim_spec(&json!({"accessModes": ["rw"]}), &Path::new("spec"), &mut errors);
        assert_eq!(
            texts(&errors),
            [
                "spec.accessModes: Unsupported value: \"rw\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \
             \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.resources[storage]: Required value",
            ]
        );
    }

    #[test]
    fn a_bound_claim_may_grow_and_nothing_else() {
        let mut new = claim();
        new["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
        let mut errors = Vec::new();
        validate_claim_update(&new, &claim(), &mut errors);
        assert_eq!(errors, []);
        new["spec"]["accessModes"] = json!(["ReadOnlyMany"]);
        validate_claim_update(&new, &claim(), &mut errors);
        assert!(texts(&errors)[0].starts_with("spec: Forbidden: spec is immutable after creation except"));
    }

    #[test]
    fn a_volume_has_a_source() {
        let mut errors = Vec::new();
        let spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "0"}});
        validate_volume(&json!({"spec": spec}), &mut errors);
        assert_eq!(
            texts(&errors),
            [
                "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
                "spec: Required value: must specify a volume type",
            ]
        );
    }
}
