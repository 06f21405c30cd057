//! What a request asks for: path, query, media types and body, turned into values.
//!
//! Owns the reading of requests. Must not know what is stored or who asks.

mod accept;
mod decode;
mod info;
mod query;

pub(crate) use accept::{Accept, MetadataForm, Representation};
pub(crate) use decode::{MediaType, content_type, decode_json, decode_object, decode_optional, decode_yaml};
pub(crate) use info::{ResourcePath, Route, route};
pub(crate) use query::{FieldValidation, ListOptions, Query, WriteOptions, invalid_options, read_dry_run};
