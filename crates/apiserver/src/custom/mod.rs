//! Custom resources: what a CustomResourceDefinition adds to the resource table, and what is special about its objects.
//!
//! A definition is compiled once, when it is written ([`Definition`]); every version of it becomes a row of the table
//! that carries its schema, columns, selectable fields and paths ([`Version`]). The [`Registry`] keeps the definitions'
//! conditions, swaps the table and, when a definition is deleted, its instances: all as part of the write that asks for
//! it, so that a client which reads its answer finds the resource served. Verbs, watch and storage are everybody's.
//!
//! After k/k `apiextensions-apiserver` at 1.36.

mod columns;
mod definition;
mod json_path;
mod naming;
mod openapi;
mod registry;
mod schema;

pub(crate) use columns::PrinterColumn;
pub(crate) use definition::Version;
pub(crate) use json_path::JsonPath;
pub(crate) use openapi::document;
pub(crate) use registry::{Registry, definitions, is_definitions, mark_terminating, refresh};
pub(crate) use schema::Node;
