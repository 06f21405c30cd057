//! The OpenAPI v3 document of a version of a group of custom resources.
//!
//! Paths and operations are those of a built-in resource (PodDisruptionBudget: namespaced, with a status) under other
//! names, since they are the same for every resource; the kinds' schemas are the definitions' own. Made when somebody
//! reads it.

use std::io;

use apimachinery::gvk::GroupVersionKind;
use serde_json::{Map, Value, json};

use crate::resources::{Resource, archive, document as member_name};
use crate::strategy::walk::{list, text};

const MODEL: (&str, &str, &str, &str) = ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget");
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// The document of `GROUP/VERSION` with these resources, each with its definition.
pub(crate) fn document(group: &str, version: &str, resources: &[(&Resource, &Value)]) -> io::Result<Value> {
    let (model_group, model_version, ..) = MODEL;
    let model = archive::member(&member_name(model_group, model_version))?.unwrap_or_default();
    let model: Value = serde_json::from_slice(&model)?;
    let mut schemas = Map::new();
    if let Some(known) = model["components"]["schemas"].as_object() {
        let meta = known
            .iter()
            .filter(|(name, _)| name.starts_with("io.k8s.apimachinery."));
        schemas.extend(meta.map(|(name, schema)| (name.clone(), schema.clone())));
    }
    let mut paths = Map::new();
    for (resource, definition) in resources {
        add_schemas(&mut schemas, resource, definition);
        add_paths(&mut paths, &model["paths"], resource);
    }
    let root = format!("/apis/{group}/{version}/");
    if let Some(discovery) = model["paths"].get(format!("/apis/{model_group}/{model_version}/")) {
        paths.insert(root, discovery.clone());
    }
    Ok(json!({
        "openapi": "3.0.0",
        "info": model["info"],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": model["components"]["securitySchemes"]},
    }))
}

/// `com.example.v1.Kind`, as upstream builds it: the group's parts the other way round.
fn component(kind: &GroupVersionKind, suffix: &str) -> String {
    let mut parts: Vec<&str> = kind.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}{suffix}", parts.join("."), kind.version, kind.kind)
}

fn add_schemas(schemas: &mut Map<String, Value>, resource: &Resource, definition: &Value) {
    let kind = resource.gvk();
    let version = list(definition, &["spec", "versions"])
        .iter()
        .find(|version| text(version, &["name"]) == resource.version);
    let mut schema = version
        .and_then(|version| version.pointer("/schema/openAPIV3Schema"))
        .cloned()
        .unwrap_or_else(|| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{META}{name}")});
    let type_field = |what: &str| json!({"description": what, "type": "string"});
    let version_words = "APIVersion defines the versioned schema of this representation of an object. Servers should \
                         convert recognized schemas to the latest internal value, and may reject unrecognized values. \
                         More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
    let kind_words = "Kind is a string value representing the REST resource this object represents. Servers may infer \
                      this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. \
                      More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
    if let Some(schema) = schema.as_object_mut() {
        let keeps_unknown = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&true.into());
        let properties = schema.entry("properties").or_insert_with(|| json!({}));
        if !keeps_unknown || properties.as_object().is_some_and(|properties| !properties.is_empty()) {
            properties["apiVersion"] = type_field(version_words);
            properties["kind"] = type_field(kind_words);
            properties["metadata"] = json!({
                "description": "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
                "allOf": [reference("ObjectMeta")],
            });
        }
    }
    let gvk = |kind: &str| json!([{"group": resource.group, "version": resource.version, "kind": kind}]);
    schema["x-kubernetes-group-version-kind"] = gvk(&resource.kind);
    schemas.insert(component(&kind, ""), schema);
    let list_kind = resource.list_kind();
    let items = json!({"$ref": format!("#/components/schemas/{}", component(&kind, ""))});
    let list = json!({
        "description": format!("{list_kind} is a list of {}", resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": type_field(version_words),
            "items": {
                "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", resource.plural),
                "type": "array",
                "items": items,
            },
            "kind": type_field(kind_words),
            "metadata": {
                "description": "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
                "allOf": [reference("ListMeta")],
            },
        },
        "x-kubernetes-group-version-kind": gvk(&list_kind),
    });
    schemas.insert(component(&kind, "List"), list);
}

/// The model's paths, renamed. Deprecated `watch/` paths are not there for custom resources.
fn add_paths(paths: &mut Map<String, Value>, model: &Value, resource: &Resource) {
    let (group, version, plural, kind) = MODEL;
    let root = format!("/apis/{group}/{version}/");
    let own_root = format!("/apis/{}/{}/", resource.group, resource.version);
    for (path, operations) in model.as_object().into_iter().flatten() {
        let Some(rest) = path.strip_prefix(&root).filter(|rest| !rest.is_empty()) else {
            continue;
        };
        let namespaced = rest.starts_with("namespaces/{namespace}/");
        let wanted = if resource.namespaced { true } else { namespaced };
        if rest.starts_with("watch/") || !wanted {
            continue;
        }
        if rest.ends_with("/status") && !resource.has_status() {
            continue;
        }
        let rest = rest.replace(plural, &resource.plural);
        let rest = if resource.namespaced {
            rest
        } else {
            rest.replacen("namespaces/{namespace}/", "", 1)
        };
        let mut operations = operations.clone();
        rename(&mut operations, resource, kind);
        if !resource.namespaced
            && let Some(parameters) = operations.get_mut("parameters").and_then(Value::as_array_mut)
        {
            parameters.retain(|parameter| parameter["name"] != "namespace");
        }
        if rest.ends_with("/status") && resource.subresource("scale").is_some() {
            let mut scale = operations.clone();
            refer_to_scale(&mut scale);
            paths.insert(format!("{own_root}{}", rest.replace("/status", "/scale")), scale);
        }
        paths.insert(format!("{own_root}{rest}"), operations);
    }
}

fn rename(value: &mut Value, resource: &Resource, model: &str) {
    match value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix("#/components/schemas/io.k8s.api.policy.v1.") {
                let suffix = name.strip_prefix(model).unwrap_or_default();
                *text = format!("#/components/schemas/{}", component(&resource.gvk(), suffix));
            } else if text.contains(model) {
                let mut camel: String = resource.group.split(['.', '-']).map(capital).collect();
                camel.push_str(&capital(&resource.version));
                *text = text.replace("PolicyV1", &camel).replace(model, &resource.kind);
            } else if text.starts_with("policy_v1") {
                *text = format!("{}_{}", resource.group.replace('.', "_"), resource.version);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, resource, model)),
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                if name == "x-kubernetes-group-version-kind" && value["kind"] == model {
                    *value = json!({
                        "group": resource.group, "version": resource.version, "kind": resource.kind,
                    });
                } else {
                    rename(value, resource, model);
                }
            }
        }
        _ => {}
    }
}

/// What is read and written at `/scale`.
fn refer_to_scale(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(refer_to_scale),
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                match name.as_str() {
                    "$ref" if value.as_str().is_some_and(|text| !text.contains(META)) => {
                        *value = format!("#/components/schemas/{META}Scale").into();
                    }
                    "x-kubernetes-group-version-kind" => {
                        *value = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
                    }
                    "operationId" => *value = value.as_str().unwrap_or_default().replace("Status", "Scale").into(),
                    "description" => {
                        *value = value
                            .as_str()
                            .unwrap_or_default()
                            .replace("status of", "scale of")
                            .into();
                    }
                    _ => refer_to_scale(value),
                }
            }
        }
        _ => {}
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
