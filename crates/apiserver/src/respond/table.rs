//! `Table`: rows and columns for people, put together from the kind's columns and cells.

use std::sync::Arc;

use apimachinery::field::{Error, Path};
use apimachinery::gvk::GroupVersionKind;
use apimachinery::status::Status;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::list::{ListMeta, fill};
use super::metadata::Partial;
use super::to_bytes;
use crate::custom::PrinterColumn;
use crate::request::{MetadataForm, Query, invalid_options};
use crate::resources::Resource;
use crate::table::{self, Column};

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

/// Whose columns a table has.
#[derive(Clone, Debug)]
pub(crate) enum Columns {
    /// A built-in kind's.
    BuiltIn(GroupVersionKind),
    /// A custom resource's.
    Custom(Arc<[PrinterColumn]>),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Definitions<'a> {
    BuiltIn(&'static [Column]),
    Custom(&'a [PrinterColumn]),
}

impl Columns {
    pub(crate) fn of(resource: &Resource) -> Self {
        match &resource.custom {
            Some(custom) => Self::Custom(custom.columns.clone()),
            None => Self::BuiltIn(resource.gvk()),
        }
    }

    fn definitions(&self) -> Definitions<'_> {
        match self {
            Self::BuiltIn(kind) => Definitions::BuiltIn(table::columns(kind)),
            Self::Custom(columns) => Definitions::Custom(columns),
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self {
            Self::BuiltIn(kind) => table::cells(kind, object, now),
            Self::Custom(columns) => columns.iter().map(|column| column.cell(object, now)).collect(),
        }
    }

    fn conditions(&self, object: &Value) -> Option<Vec<Value>> {
        match self {
            Self::BuiltIn(kind) => table::conditions(kind, object),
            Self::Custom(_) => None,
        }
    }
}

/// A `Table`, as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Value,
    column_definitions: Option<Definitions<'a>>,
    rows: &'a [Row<'a>],
}

#[derive(Serialize)]
struct Row<'a> {
    cells: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conditions: Option<Vec<Value>>,
    object: Included<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Included<'a> {
    Nothing,
    Metadata(Partial<'a>),
    Object(&'a Value),
}

/// The table of one object: its metadata is the object's.
pub(crate) fn of_object(columns: &Columns, object: &Value, options: &TableOptions, now: Timestamp) -> Bytes {
    let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
    to_bytes(&wire(columns, options, metadata, &[row(columns, object, options, now)]))
}

/// The table of a list, a row a piece: no more than one object is parsed at a time.
pub(crate) fn of_list<Objects: Iterator<Item = Value>>(
    columns: Columns,
    objects: Objects,
    options: TableOptions,
    meta: &ListMeta,
    now: Timestamp,
) -> impl Iterator<Item = Bytes> + use<Objects> {
    let empty = to_bytes(&wire(&columns, &options, meta.to_value(), &[]));
    fill(
        empty,
        objects.map(move |object| to_bytes(&row(&columns, &object, &options, now))),
    )
}

fn wire<'a>(columns: &'a Columns, options: &TableOptions, metadata: Value, rows: &'a [Row<'a>]) -> Wire<'a> {
    Wire {
        kind: "Table",
        api_version: options.form.api_version(),
        metadata,
        column_definitions: options.headers.then(|| columns.definitions()),
        rows,
    }
}

fn row<'a>(columns: &Columns, object: &'a Value, options: &TableOptions, now: Timestamp) -> Row<'a> {
    Row {
        cells: columns.cells(object, now),
        conditions: columns.conditions(object),
        object: match options.include {
            Include::Nothing => Included::Nothing,
            Include::Metadata => Included::Metadata(Partial::of(object, options.form)),
            Include::Object => Included::Object(object),
        },
    }
}
