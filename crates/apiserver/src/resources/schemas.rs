//! `SchemaCache`: the schemas of a group's kinds, read from the embedded OpenAPI documents when first asked for.
//!
//! A document is decompressed, turned into the compact table and dropped: its descriptions are only for those who read
//! the document itself.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use apimachinery::schema::{LoadError, Schemas};

use super::archive;
use super::resource::Resource;

/// Why the schemas of a version are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    #[error("reading the embedded OpenAPI document of `{version}`: {source}")]
    Read { version: String, source: io::Error },
    #[error("reading the embedded OpenAPI document of `{version}`: {source}")]
    Parse { version: String, source: LoadError },
}

/// See the module.
#[derive(Default)]
pub(crate) struct SchemaCache {
    versions: Mutex<HashMap<String, Arc<tokio::sync::OnceCell<Arc<Schemas>>>>>,
}

impl SchemaCache {
    /// The schemas of the resource's version, empty if there is no document of it.
    pub(crate) async fn of(&self, resource: &Resource) -> Result<Arc<Schemas>, SchemaError> {
        let version = resource.api_version();
        let cell = {
            let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
            versions.entry(version.clone()).or_default().clone()
        };
        let (group, name) = (resource.group.clone(), resource.version.clone());
        // Some milliseconds of work, and nobody but those who need these schemas should wait for it.
        let load = || async {
            let loaded = tokio::task::spawn_blocking(move || load(&group, &name, &version)).await;
            loaded.unwrap_or_else(|panic| {
                let source = io::Error::other(panic);
                Err(SchemaError::Read {
                    version: String::new(),
                    source,
                })
            })
        };
        cell.get_or_try_init(load).await.cloned()
    }
}

fn load(group: &str, version: &str, api_version: &str) -> Result<Arc<Schemas>, SchemaError> {
    let document = archive::member(&document(group, version)).map_err(|source| SchemaError::Read {
        version: api_version.to_owned(),
        source,
    })?;
    let Some(document) = document else {
        return Ok(Arc::default());
    };
    let schemas = Schemas::from_openapi([document.as_slice()]).map_err(|source| SchemaError::Parse {
        version: api_version.to_owned(),
        source,
    })?;
    Ok(Arc::new(schemas))
}

/// The archive's member that describes a version.
pub(crate) fn document(group: &str, version: &str) -> String {
    match group {
        "" => format!("openapi-v3/api__{version}_openapi.json"),
        group => format!("openapi-v3/apis__{group}__{version}_openapi.json"),
    }
}
