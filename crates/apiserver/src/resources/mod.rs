//! The resource table: which groups, versions and resources there are, and what each may do.
//!
//! Made at start from a real server's discovery answers; only GA versions are served. A table is a value: whoever adds
//! a resource (a custom one, an aggregated one) swaps in a new table. Owns no object and no schema.

pub(crate) mod archive;
pub(crate) mod conversion;
mod resource;
mod schemas;
mod table;

pub(crate) use resource::api_version;
pub use resource::{Resource, Subresource, Verb, Verbs};
pub(crate) use schemas::{SchemaCache, document};
pub(crate) use table::stored_head;
pub use table::{Group, Table};
