//! `PartialObjectMetadata`: an object without its contents.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::served_value;
use crate::request::MetadataForm;
use crate::resources::Resource;
use crate::store::Object;

/// As it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Partial<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: &'a Value,
}

impl<'a> Partial<'a> {
    /// The metadata of an object.
    pub(crate) fn of(object: &'a Value, form: MetadataForm) -> Self {
        Self {
            kind: "PartialObjectMetadata",
            api_version: form.api_version(),
            metadata: object.get("metadata").unwrap_or(&Value::Null),
        }
    }
}

/// An object of which only the metadata has been read.
#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    metadata: Value,
}

/// The object as this resource's version shows it, with nothing but its metadata.
pub(crate) fn metadata_value(resource: &Resource, object: &Object) -> Value {
    match resource.conversion {
        None => {
            let read: Metadata = serde_json::from_slice(&object.bytes).unwrap_or_default();
            serde_json::json!({"metadata": read.metadata})
        }
        // A version may keep in annotations what another has in fields.
        Some(_) => served_value(resource, object),
    }
}
