//! `Table`: rows and columns for people, put together from the kind's columns and cells.

use apimachinery::field::{Error, Path};
use apimachinery::gvk::GroupVersionKind;
use apimachinery::status::Status;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::list::ListMeta;
use super::partial;
use crate::request::{MetadataForm, Query, invalid_options};
use crate::table;

/// `TableOptions`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableOptions {
    pub(crate) form: MetadataForm,
    include: Include,
    headers: bool,
}

/// What of the object a row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Include {
    Nothing,
    Metadata,
    Object,
}

impl TableOptions {
    pub(crate) fn read(query: &Query, form: MetadataForm) -> Result<Self, Status> {
        let include = match query.get("includeObject") {
            None | Some("" | "Metadata") => Include::Metadata,
            Some("None") => Include::Nothing,
            Some("Object") => Include::Object,
            Some(other) => {
                let path = Path::new("includeObject");
                let error = Error::invalid(&path, other, "must be 'Metadata', 'Object', 'None', or empty");
                let mut status = invalid_options("TableOptions", &[error]);
                status.code = 400;
                return Err(status);
            }
        };
        Ok(Self {
            form,
            include,
            headers: true,
        })
    }

    /// Of a watch, only the first table has columns.
    pub(crate) fn without_headers(self) -> Self {
        Self { headers: false, ..self }
    }
}

/// A table of objects of one kind. Without `meta` it is that of the one object.
pub(crate) fn of_objects(
    kind: &GroupVersionKind,
    objects: &[&Value],
    options: &TableOptions,
    meta: Option<&ListMeta>,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects.iter().map(|object| row(kind, object, options, now)).collect();
    let metadata = match (meta, objects) {
        (Some(meta), _) => meta.to_value(),
        (None, [object]) => json!({"resourceVersion": object["metadata"]["resourceVersion"]}),
        (None, _) => json!({}),
    };
    let columns = if options.headers { columns(kind) } else { Value::Null };
    json!({
        "kind": "Table",
        "apiVersion": options.form.api_version(),
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

fn row(kind: &GroupVersionKind, object: &Value, options: &TableOptions, now: Timestamp) -> Value {
    let included = match options.include {
        Include::Nothing => Value::Null,
        Include::Metadata => partial(object, options.form),
        Include::Object => object.clone(),
    };
    let mut row = json!({"cells": table::cells(kind, object, now), "object": included});
    if let Some(conditions) = table::conditions(kind, object) {
        row["conditions"] = conditions.into();
    }
    row
}

fn columns(kind: &GroupVersionKind) -> Value {
    let definition = |column: &table::Column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    };
    table::columns(kind).iter().map(definition).collect()
}
