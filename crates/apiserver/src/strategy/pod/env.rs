//! Environment variables of a container, and fields of the Pod that they and files may show.

use apimachinery::field::{Error, Path};
use apimachinery::names::{dns1123_label, dns1123_subdomain, qualified_name};
use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::containers::key_reference;
use crate::strategy::check::{is_set, required, text_messages};
use crate::strategy::names::env_name;
use crate::strategy::quantities::amount;
use crate::strategy::walk::{has, list, text};

/// Fields of the Pod that a variable may show, as upstream lists them.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of the Pod that a file may show.
pub(super) const FILE_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const SOURCES: [&str; 5] = [
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "fileKeyRef",
];

/// `env` of a container.
pub(super) fn variables(container: &Value, path: &Path, errors: &mut Vec<Error>) {
    for (index, variable) in list(container, &["env"]).iter().enumerate() {
        let path = path.index(index);
        match text(variable, &["name"]) {
            "" => errors.push(Error::required(&path.child("name"), "")),
            name => text_messages(env_name(name), &path.child("name"), name, errors),
        }
        let Some(source) = variable.get("valueFrom").filter(|source| !source.is_null()) else {
            continue;
        };
        let path = path.child("valueFrom");
        value_source(source, &path, errors);
        let given = SOURCES.iter().filter(|key| is_set(source, key)).count();
        let detail = match given {
            0 => {
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
            }
            _ if has(variable, &["value"]) => "may not be specified when `value` is not empty",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(Error::invalid(&path, "", detail));
    }
}

fn value_source(source: &Value, path: &Path, errors: &mut Vec<Error>) {
    if is_set(source, "fieldRef") {
        field_reference(&source["fieldRef"], &ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if is_set(source, "resourceFieldRef") {
        resource_reference(
            &source["resourceFieldRef"],
            false,
            &path.child("resourceFieldRef"),
            errors,
        );
    }
    for key in ["configMapKeyRef", "secretKeyRef"]
        .into_iter()
        .filter(|key| is_set(source, key))
    {
        key_reference(&source[key], &path.child(key), errors);
    }
    if is_set(source, "fileKeyRef") {
        let (reference, path) = (&source["fileKeyRef"], path.child("fileKeyRef"));
        if let Some(key) = required(reference, &path, "key", "", errors).and_then(Value::as_str) {
            text_messages(env_name(key), &path.child("key"), key, errors);
        }
        if let Some(name) = required(reference, &path, "volumeName", "", errors).and_then(Value::as_str) {
            text_messages(dns1123_label(name), &path.child("volumeName"), name, errors);
        }
        if let Some(file) = required(reference, &path, "path", "", errors).and_then(Value::as_str) {
            super::volumes::no_backsteps(file, &path.child("path"), errors);
        }
    }
}

/// A field of the Pod, in a variable or in a file.
pub(super) fn field_reference(reference: &Value, known: &[&str], path: &Path, errors: &mut Vec<Error>) {
    if required(reference, path, "apiVersion", "", errors).is_none() {
        return;
    }
    let Some(field) = required(reference, path, "fieldPath", "", errors).and_then(Value::as_str) else {
        return;
    };
    let place = path.child("fieldPath");
    if let Some((map, key)) = field.strip_suffix("']").and_then(|field| field.split_once("['")) {
        match map {
            "metadata.annotations" => text_messages(qualified_name(&key.to_lowercase()), path, key, errors),
            "metadata.labels" => text_messages(qualified_name(key), path, key, errors),
            map => errors.push(Error::invalid(path, map, "does not support subscript")),
        }
        return;
    }
    let exists = ENV_FIELDS.contains(&field)
        || FILE_FIELDS.contains(&field)
        || matches!(
            field,
            "spec.host" | "spec.restartPolicy" | "spec.schedulerName" | "status.phase"
        );
    if !exists {
        let detail = format!("error converting fieldPath: field label not supported: {field}");
        errors.push(Error::invalid(&place, field, detail));
    } else if !known.contains(&field) {
        errors.push(Error::not_supported(&place, field, known));
    }
}

/// A container's limit or request, in a variable or in a file.
pub(super) fn resource_reference(reference: &Value, in_file: bool, path: &Path, errors: &mut Vec<Error>) {
    let resource = text(reference, &["resource"]);
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if in_file && text(reference, &["containerName"]).is_empty() {
        errors.push(Error::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(Error::required(&path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.push(Error::not_supported(&path.child("resource"), resource, &RESOURCES));
    }
    divisor(reference, resource, path, errors);
}

const BYTE_DIVISORS: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

fn divisor(reference: &Value, resource: &str, path: &Path, errors: &mut Vec<Error>) {
    let Some(divisor) = reference
        .get("divisor")
        .and_then(amount)
        .filter(|divisor| *divisor != Quantity::ZERO)
    else {
        return;
    };
    let divisor = divisor.to_string();
    let is_cpu = resource.ends_with(".cpu");
    let fine = if is_cpu {
        matches!(divisor.as_str(), "1m" | "1")
    } else {
        BYTE_DIVISORS.contains(&divisor.as_str())
    };
    let what = match resource.split_once('.').map(|(_, name)| name) {
        Some("cpu") => "cpu",
        Some("memory") => "memory",
        Some("ephemeral-storage") => "local ephemeral storage",
        Some(name) if name.starts_with("hugepages-") => "hugepages",
        _ => return,
    };
    if !fine {
        let values = if is_cpu {
            "1m and 1".to_owned()
        } else {
            BYTE_DIVISORS.join(", ")
        };
        let detail = format!("only divisor's values {values} are supported with the {what} resource");
        errors.push(Error::invalid(&path.child("divisor"), resource, detail));
    }
}

/// `envFrom` of a container.
pub(super) fn sources(container: &Value, path: &Path, errors: &mut Vec<Error>) {
    for (index, source) in list(container, &["envFrom"]).iter().enumerate() {
        let place = path.index(index);
        let prefix = text(source, &["prefix"]);
        if !prefix.is_empty() {
            text_messages(env_name(prefix), &place.child("prefix"), prefix, errors);
        }
        let given: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|key| is_set(source, key))
            .collect();
        for key in &given {
            let place = place.child(key);
            if let Some(name) = required(&source[*key], &place, "name", "", errors).and_then(Value::as_str) {
                text_messages(dns1123_subdomain(name), &place.child("name"), name, errors);
            }
        }
        let detail = match given.len() {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(Error::invalid(path, "", detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::validation::tests::{problems, with};

    #[test]
    fn a_variable_has_a_name_and_one_source() {
        assert_eq!(
            problems(with(
                json!({"env": [{"name": ""}, {"name": "A=B"}, {"name": "A", "valueFrom": {}}]})
            )),
            [
                "spec.containers[0].env[0].name: Required value",
                "spec.containers[0].env[1].name: Invalid value: \"A=B\": a valid environment variable name must consist only of \
             printable ASCII characters other than '='",
                "spec.containers[0].env[2].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, \
             `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            ]
        );
    }

    #[test]
    fn a_variable_shows_known_fields_only() {
        let shown = |field: &str| {
            problems(with(
                json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": field}}}]}),
            ))
        };
        assert!(shown("status.podIP").is_empty());
        assert!(shown("metadata.labels['a']").is_empty());
        assert_eq!(
            shown("spec.x"),
            [
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: \
             field label not supported: spec.x",
            ]
        );
        assert!(shown("metadata.labels")[0].contains("Unsupported value: \"metadata.labels\": supported values:"));
    }

    #[test]
    fn a_limit_is_shown_in_sensible_units() {
        let shown = |resource: &str, divisor: &str| {
            let reference = json!({"resource": resource, "divisor": divisor});
            problems(with(
                json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": reference}}]}),
            ))
        };
        assert!(shown("limits.cpu", "1m").is_empty());
        assert!(shown("limits.memory", "1Mi").is_empty());
        assert_eq!(
            shown("limits.cpu", "1k"),
            [
                "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's \
             values 1m and 1 are supported with the cpu resource",
            ]
        );
        assert!(shown("cpu", "1")[0].contains("Unsupported value: \"cpu\""));
    }
}
