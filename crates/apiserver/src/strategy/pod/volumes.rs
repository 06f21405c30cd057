//! Volumes of a PodSpec and where containers mount them.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::field::{Error, Path};
use apimachinery::names::dns1123_label;
use serde_json::Value;

use super::env;
use crate::strategy::check::{self, is_set, non_negative_quantity, required, text_messages};
use crate::strategy::storage;
use crate::strategy::walk::{at, flag, has, int, list, text};

/// The volumes that are fine, by name.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

const MORE_THAN_ONE: &str = "may not specify more than 1 volume type";
const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// Checks the volumes and answers with those that containers may mount.
pub(super) fn validate<'a>(spec: &'a Value, path: &Path, errors: &mut Vec<Error>) -> Volumes<'a> {
    let mut volumes = Volumes::new();
    for (index, volume) in list(spec, &["volumes"]).iter().enumerate() {
        let path = path.child("volumes").index(index);
        let before = errors.len();
        source(volume, &path, errors);
        let name = text(volume, &["name"]);
        if name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else {
            text_messages(dns1123_label(name), &path.child("name"), name, errors);
        }
        if volumes.contains_key(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        if errors.len() == before {
            volumes.insert(name, volume);
        }
    }
    volumes
}

/// A Pod without a ServiceAccount has no token to show.
pub(super) fn no_tokens(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    for (index, volume) in list(spec, &["volumes"]).iter().enumerate() {
        for (source_index, source) in list(volume, &["projected", "sources"]).iter().enumerate() {
            if is_set(source, "serviceAccountToken") {
                let path = path
                    .child("volumes")
                    .index(index)
                    .child("projected.sources")
                    .index(source_index);
                let detail = "must not be specified when serviceAccountName is not set";
                errors.push(Error::forbidden(&path.child("serviceAccountToken"), detail));
            }
        }
    }
}

fn source(volume: &Value, path: &Path, errors: &mut Vec<Error>) {
    let fields = volume.as_object().into_iter().flatten();
    let mut sources = fields.filter(|(key, value)| *key != "name" && !value.is_null());
    let Some((kind, source)) = sources.next() else {
        errors.push(Error::required(path, "must specify a volume type"));
        return;
    };
    let place = path.child(kind);
    match kind.as_str() {
        "emptyDir" => {
            if let Some(limit) = source.get("sizeLimit") {
                let mut found = Vec::new();
                non_negative_quantity(limit, &place, &mut found);
                if !found.is_empty() {
                    let detail = "SizeLimit field must be a valid resource quantity";
                    errors.push(Error::forbidden(&place.child("sizeLimit"), detail));
                }
            }
        }
        "hostPath" => host_path(source, &place, errors),
        "secret" => {
            required(source, &place, "secretName", "", errors);
            default_mode(source, &place, errors);
            items(source, &place, errors);
        }
        "configMap" => {
            required(source, &place, "name", "", errors);
            default_mode(source, &place, errors);
            items(source, &place, errors);
        }
        "downwardAPI" => {
            default_mode(source, &place, errors);
            for file in list(source, &["items"]) {
                downward_file(file, &place, errors);
            }
        }
        "projected" => {
            default_mode(source, &place, errors);
            projected(source, &place, errors);
        }
        "persistentVolumeClaim" => {
            required(source, &place, "claimName", "", errors);
        }
        "nfs" => nfs(source, &place, errors),
        "csi" => {
            required(source, &place, "driver", "", errors);
        }
        "image" => {
            check::one_of(
                source,
                &place,
                "pullPolicy",
                &["Always", "IfNotPresent", "Never"],
                errors,
            );
        }
        "ephemeral" => match at(source, &["volumeClaimTemplate"]) {
            Some(template) => {
                storage::validate_claim_spec(
                    template.get("spec").unwrap_or(&Value::Null),
                    &place.child("volumeClaimTemplate.spec"),
                    errors,
                );
            }
            None => errors.push(Error::required(&place.child("volumeClaimTemplate"), "")),
        },
        _ => {}
    }
    for (further, _) in sources {
        errors.push(Error::forbidden(&path.child(further), MORE_THAN_ONE));
    }
}

pub(in crate::strategy) fn host_path(source: &Value, path: &Path, errors: &mut Vec<Error>) {
    let Some(directory) = required(source, path, "path", "", errors).and_then(Value::as_str) else {
        return;
    };
    no_backsteps(directory, &path.child("path"), errors);
    let kind = text(source, &["type"]);
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.push(Error::not_supported(&path.child("type"), kind, &HOST_PATH_TYPES));
    }
}

pub(in crate::strategy) fn nfs(source: &Value, path: &Path, errors: &mut Vec<Error>) {
    required(source, path, "server", "", errors);
    if let Some(directory) = required(source, path, "path", "", errors).and_then(Value::as_str)
        && !directory.starts_with('/')
    {
        errors.push(Error::invalid(
            &path.child("path"),
            directory,
            "must be an absolute path",
        ));
    }
}

fn default_mode(source: &Value, path: &Path, errors: &mut Vec<Error>) {
    file_mode(source, "defaultMode", path, errors);
}

fn file_mode(owner: &Value, key: &str, path: &Path, errors: &mut Vec<Error>) {
    if let Some(mode) = int(owner, &[key]).filter(|mode| !(0..=0o777).contains(mode)) {
        errors.push(Error::invalid(&path.child(key), mode, FILE_MODE));
    }
}

/// Which keys become which files.
fn items(source: &Value, path: &Path, errors: &mut Vec<Error>) {
    for (index, item) in list(source, &["items"]).iter().enumerate() {
        let path = path.child("items").index(index);
        required(item, &path, "key", "", errors);
        required(item, &path, "path", "", errors);
        non_reserved(text(item, &["path"]), &path.child("path"), errors);
        file_mode(item, "mode", &path, errors);
    }
}

fn downward_file(file: &Value, path: &Path, errors: &mut Vec<Error>) {
    required(file, path, "path", "", errors);
    non_reserved(text(file, &["path"]), &path.child("path"), errors);
    if is_set(file, "fieldRef") {
        env::field_reference(&file["fieldRef"], &env::FILE_FIELDS, &path.child("fieldRef"), errors);
        if is_set(file, "resourceFieldRef") {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.push(Error::invalid(path, "resource", detail));
        }
    } else if is_set(file, "resourceFieldRef") {
        env::resource_reference(&file["resourceFieldRef"], true, &path.child("resourceFieldRef"), errors);
    } else {
        errors.push(Error::required(
            path,
            "one of fieldRef and resourceFieldRef is required",
        ));
    }
    file_mode(file, "mode", path, errors);
}

fn projected(source: &Value, path: &Path, errors: &mut Vec<Error>) {
    let mut files = BTreeSet::new();
    for (index, part) in list(source, &["sources"]).iter().enumerate() {
        let place = path.child("sources").index(index);
        let given: Vec<&str> = part
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, _)| key.as_str())
            .collect();
        for kind in &given {
            let part = &part[*kind];
            let place = place.child(kind);
            match *kind {
                "secret" | "configMap" => {
                    required(part, &place, "name", "", errors);
                    items(part, &place, errors);
                }
                "downwardAPI" => list(part, &["items"])
                    .iter()
                    .for_each(|file| downward_file(file, &place, errors)),
                "serviceAccountToken" => token(part, &place, path, errors),
                _ => {}
            }
            for item in list(part, &["items"]) {
                let file = text(item, &["path"]);
                if !file.is_empty() && !files.insert(file) {
                    let shown = if *kind == "downwardAPI" {
                        file
                    } else {
                        text(part, &["name"])
                    };
                    errors.push(Error::invalid(path, shown, "conflicting duplicate paths"));
                }
            }
        }
        if given.len() > 1 {
            errors.push(Error::forbidden(&place, MORE_THAN_ONE));
        }
    }
}

fn token(token: &Value, place: &Path, path: &Path, errors: &mut Vec<Error>) {
    let seconds = int(token, &["expirationSeconds"]).unwrap_or(0);
    if seconds < 600 {
        let detail = "may not specify a duration less than 10 minutes";
        errors.push(Error::invalid(&place.child("expirationSeconds"), seconds, detail));
    }
    if seconds > 1 << 32 {
        let detail = "may not specify a duration larger than 2^32 seconds";
        errors.push(Error::invalid(&place.child("expirationSeconds"), seconds, detail));
    }
    match text(token, &["path"]) {
        "" => errors.push(Error::required(&path.child("path"), "")),
        file => non_reserved(file, &path.child("path"), errors),
    }
}

/// A path that leads nowhere but down.
pub(super) fn descending(target: &str, path: &Path, errors: &mut Vec<Error>) {
    if target.starts_with('/') {
        errors.push(Error::invalid(path, target, "must be a relative path"));
    }
    no_backsteps(target, path, errors);
}

/// A path without `..` in it.
pub(super) fn no_backsteps(target: &str, path: &Path, errors: &mut Vec<Error>) {
    if target.split('/').any(|part| part == "..") {
        errors.push(Error::invalid(path, target, "must not contain '..'"));
    }
}

/// Names that start with `..` are the kubelet's.
fn non_reserved(target: &str, path: &Path, errors: &mut Vec<Error>) {
    descending(target, path, errors);
    if target.starts_with("..") && !target.split('/').any(|part| part == "..") {
        errors.push(Error::invalid(path, target, "must not start with '..'"));
    }
}

/// Mounts and devices of a container.
pub(super) fn mounts(container: &Value, volumes: &Volumes<'_>, path: &Path, errors: &mut Vec<Error>) {
    let devices = list(container, &["volumeDevices"]);
    let all_mounts = list(container, &["volumeMounts"]);
    let place = path.child("volumeMounts");
    let mut points = BTreeSet::new();
    for (index, mount) in all_mounts.iter().enumerate() {
        let path = place.index(index);
        let name = text(mount, &["name"]);
        if name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        }
        if !volumes.contains_key(name) {
            errors.push(Error::not_found(&path.child("name"), name));
        }
        required(mount, &path, "mountPath", "", errors);
        let point = text(mount, &["mountPath"]);
        if !points.insert(point) {
            errors.push(Error::invalid(&path.child("mountPath"), point, "must be unique"));
        }
        if devices.iter().any(|device| text(device, &["name"]) == name) {
            errors.push(Error::invalid(
                &path.child("name"),
                name,
                "must not already exist in volumeDevices",
            ));
        }
        if devices.iter().any(|device| text(device, &["devicePath"]) == point) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(Error::invalid(&path.child("mountPath"), point, detail));
        }
        mount_options(mount, container, &path, &place, errors);
    }
    let place = path.child("volumeDevices");
    for (index, device) in devices.iter().enumerate() {
        block_device(device, volumes, &place.index(index), errors);
    }
}

fn mount_options(mount: &Value, container: &Value, path: &Path, place: &Path, errors: &mut Vec<Error>) {
    let (below, expression) = (text(mount, &["subPath"]), text(mount, &["subPathExpr"]));
    // Upstream names the list here, not the item.
    if !below.is_empty() {
        descending(below, &place.child("subPath"), errors);
    }
    if !expression.is_empty() {
        if !below.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(Error::invalid(&path.child("subPathExpr"), expression, detail));
        }
        descending(expression, &place.child("subPathExpr"), errors);
    }
    check::one_of(
        mount,
        place,
        "mountPropagation",
        &["Bidirectional", "HostToContainer", "None"],
        errors,
    );
    if text(mount, &["mountPropagation"]) == "Bidirectional" && !flag(container, &["securityContext", "privileged"]) {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(Error::forbidden(&place.child("mountPropagation"), detail));
    }
    check::one_of(
        mount,
        place,
        "recursiveReadOnly",
        &["Disabled", "Enabled", "IfPossible"],
        errors,
    );
    if matches!(text(mount, &["recursiveReadOnly"]), "Enabled" | "IfPossible") {
        let place = place.child("recursiveReadOnly");
        if !flag(mount, &["readOnly"]) {
            errors.push(Error::forbidden(&place, "may only be specified when readOnly is true"));
        }
        if !matches!(text(mount, &["mountPropagation"]), "" | "None") {
            let detail = "may only be specified when mountPropagation is None or not specified";
            errors.push(Error::forbidden(&place, detail));
        }
    }
}

fn block_device(device: &Value, volumes: &Volumes<'_>, path: &Path, errors: &mut Vec<Error>) {
    let name = text(device, &["name"]);
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    match volumes.get(name) {
        None => errors.push(Error::not_found(&path.child("name"), name)),
        Some(volume) if !is_set(volume, "persistentVolumeClaim") && !is_set(volume, "ephemeral") => {
            let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            errors.push(Error::invalid(&path.child("name"), name, detail));
        }
        Some(_) => {}
    }
    if has(device, &["devicePath"]) {
        let target = text(device, &["devicePath"]);
        if target.split('/').any(|part| part == "..") {
            errors.push(Error::invalid(
                &path.child("devicePath"),
                target,
                "can not contain backsteps ('..')",
            ));
        }
    } else {
        errors.push(Error::required(&path.child("devicePath"), ""));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::validation::tests::{problems, with};
    use super::*;

    #[test]
    fn a_mount_names_a_volume_that_is_there() {
        assert_eq!(
            problems(with(json!({"volumeMounts": [{"name": "v", "mountPath": "/x"}]}))),
            ["spec.containers[0].volumeMounts[0].name: Not found: \"v\"",]
        );
        let mut spec =
            with(json!({"volumeMounts": [{"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "/x"}]}));
        spec["volumes"] = json!([{"name": "v"}]);
        assert_eq!(
            problems(spec),
            ["spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/x\": must be unique",]
        );
    }

    #[test]
    fn a_volume_has_one_source() {
        let volumes = |volumes: Value| {
            let mut spec = with(json!({}));
            spec["volumes"] = volumes;
            problems(spec)
        };
        assert_eq!(
            volumes(json!([{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}])),
            ["spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",]
        );
        assert_eq!(
            volumes(json!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}])),
            ["spec.volumes[1].name: Duplicate value: \"v\"",]
        );
        assert_eq!(
            volumes(json!([{"name": "v", "configMap": {}}, {"name": "w", "hostPath": {"path": "/a/../b"}}])),
            [
                "spec.volumes[0].configMap.name: Required value",
                "spec.volumes[1].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            ]
        );
    }

    #[test]
    fn files_have_modes_and_places() {
        let mut spec = with(json!({}));
        spec["volumes"] = json!([{"name": "v", "secret": {"secretName": "s", "defaultMode": 512,
            "items": [{"key": "k", "path": "../x"}]}}]);
        assert_eq!(
            problems(spec),
            [
                "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both \
             inclusive",
                "spec.volumes[0].secret.items[0].path: Invalid value: \"../x\": must not contain '..'",
            ]
        );
    }
}
