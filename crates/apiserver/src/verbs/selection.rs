//! `Selection`: which objects of a resource a list or a watch is about.

use std::collections::HashMap;

use apimachinery::status::Status;
use apimachinery::{fields, labels};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Target;
use crate::request::ListOptions;
use crate::resources::Resource;
use crate::respond;
use crate::store::{Key, Object};
use crate::strategy;

/// Label and field selector of a request, checked.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    labels: labels::Selector,
    fields: fields::Selector,
    /// Whether a field other than name and namespace is asked for.
    reads_fields: bool,
}

impl Selection {
    pub(super) fn read(target: &Target, label_selector: &str, field_selector: &str) -> Result<Self, Status> {
        let labels = labels::Selector::parse(label_selector)
            .map_err(|error| Status::bad_request(format!("unable to parse requirement: {error}")))?;
        let mut fields =
            fields::Selector::parse(field_selector).map_err(|error| Status::bad_request(error.to_string()))?;
        if !target.name.is_empty() {
            // A watch of one name is one of all with a selector.
            if fields
                .required_value("metadata.name")
                .is_some_and(|other| other != target.name)
            {
                return Err(Status::bad_request(
                    "fieldSelector metadata.name doesn't match requested name",
                ));
            }
            let name = fields::Selector::equals("metadata.name", &target.name);
            let both = if fields.is_everything() {
                name.to_string()
            } else {
                format!("{fields},{name}")
            };
            fields = fields::Selector::parse(&both).map_err(|error| Status::bad_request(error.to_string()))?;
        }
        let mut reads_fields = false;
        for requirement in fields.requirements() {
            if !matches!(requirement.field.as_str(), "metadata.name" | "metadata.namespace") {
                check_field(&target.resource, &requirement.field)?;
                reads_fields = true;
            }
        }
        Ok(Self {
            labels,
            fields,
            reads_fields,
        })
    }

    pub(super) fn of(target: &Target, options: &ListOptions) -> Result<Self, Status> {
        Self::read(target, &options.label_selector, &options.field_selector)
    }

    /// Whether every object is selected.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub(super) fn matches(&self, resource: &Resource, key: &Key, object: &Object) -> bool {
        if self.is_everything() {
            return true;
        }
        // Cheap first: most watches with a field selector are about one name.
        let by_key = |field: &str| match field {
            "metadata.name" => Some(key.name().to_owned()),
            "metadata.namespace" => Some(key.namespace().unwrap_or_default().to_owned()),
            _ => None,
        };
        for requirement in self.fields.requirements() {
            if by_key(&requirement.field).is_some_and(|value| (value == requirement.value) == requirement.negated) {
                return false;
            }
        }
        if !self.matches_labels(object) {
            return false;
        }
        if !self.reads_fields {
            return true;
        }
        let value = respond::served_value(resource, object);
        self.fields
            .matches(|field| by_key(field).or_else(|| field_value(resource, &value, field)))
    }

    fn matches_labels(&self, object: &Object) -> bool {
        if self.labels.is_everything() {
            return true;
        }
        // Reads past everything but the labels: lists by label are the most frequent requests of controllers.
        let labels = serde_json::from_slice::<Labelled>(&object.bytes).map(|object| object.metadata.labels);
        let labels = labels.unwrap_or_default();
        self.labels.matches_with(|name| labels.get(name).map(String::as_str))
    }
}

#[derive(Deserialize)]
struct Labelled {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default, deserialize_with = "or_default")]
    labels: HashMap<String, String>,
}

fn or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HashMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn check_field(resource: &Resource, field: &str) -> Result<(), Status> {
    if let Some(custom) = &resource.custom {
        return match custom.selectable(&Value::Null, field) {
            Some(_) => Ok(()),
            None => Err(Status::bad_request(format!("field label not supported: {field}"))),
        };
    }
    match strategy::fields(&resource.gvk(), &Value::Null, field) {
        Ok(_) => Ok(()),
        Err(unknown) => Err(Status::bad_request(unknown.to_string())),
    }
}

fn field_value(resource: &Resource, value: &Value, field: &str) -> Option<String> {
    if let Some(custom) = &resource.custom {
        return custom.selectable(value, field);
    }
    strategy::fields(&resource.gvk(), value, field)
        .ok()
        .map(Option::unwrap_or_default)
}
