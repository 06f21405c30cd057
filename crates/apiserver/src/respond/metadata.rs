//! `PartialObjectMetadata`: an object without its contents.

use serde_json::{Value, json};

use crate::request::MetadataForm;

/// The metadata of an object.
pub(crate) fn partial(object: &Value, form: MetadataForm) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": form.api_version(),
        "metadata": object.get("metadata").cloned().unwrap_or_default(),
    })
}
