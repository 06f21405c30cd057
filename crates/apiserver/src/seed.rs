//! The objects that a cluster has from its first moment, written at every start: those that are there stay as they are,
//! but for those that say where and who the server is now.
//!
//! Owns only the writing. What they are is `bootstrap`'s and `auth`'s.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use apimachinery::gvk::GroupVersion;
use apimachinery::status::Status;
use apimachinery::time;
use serde_json::Value;

use crate::api::Api;
use crate::auth;
use crate::bootstrap::{BootstrapConfig, Seed, objects};
use crate::local;
use crate::resources::{Resource, Table};
use crate::store::{Action, Expect, Key, Write, WriteError};
use crate::verbs::{metadata, to_stored};

/// Writes what is missing. A second server on the same store finds nothing to do.
pub(crate) async fn plant(api: &Api) -> Result<(), Status> {
    let policy = auth::bootstrap_policy()
        .into_iter()
        .map(|object| Seed { object, renewed: false });
    // All at once: the store commits them together, with one fsync.
    let writes = objects(&config(api))
        .into_iter()
        .chain(policy)
        .map(|seed| write(api, seed));
    futures::future::try_join_all(writes).await?;
    Ok(())
}

fn config(api: &Api) -> BootstrapConfig {
    let table = api.table();
    let versions = table.groups().iter().flat_map(|group| {
        group.versions.iter().map(|version| GroupVersion {
            group: group.name.clone(),
            version: version.clone(),
        })
    });
    let local_versions = local::GROUPS.iter().map(|group| GroupVersion {
        group: group.name.to_owned(),
        version: group.version.to_owned(),
    });
    BootstrapConfig {
        api_server: api
            .config
            .api_server
            .unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 6443))),
        service_cidr: api.config.service_cidr,
        client_ca: api.pki.ca_pem().to_owned(),
        front_proxy_ca: api.pki.front_proxy_ca_pem().to_owned(),
        versions: versions.collect(),
        local_versions: local_versions.collect(),
    }
}

async fn write(api: &Api, Seed { mut object, renewed }: Seed) -> Result<(), Status> {
    let table = api.table();
    let Some(resource) = find(&table, &object) else {
        let kind = &object["kind"];
        return Err(Status::internal(format!("no resource has kind {kind}")));
    };
    let namespace = metadata::text(&object, "namespace");
    let key = Key::new(
        (!namespace.is_empty()).then_some(namespace),
        metadata::text(&object, "name"),
    );
    let current = api.store.object(&resource.stored_as, &key);
    let expect = match &current {
        Some(_) if !renewed => return Ok(()),
        Some(current) => {
            let old = current.value();
            for field in ["uid", "creationTimestamp", "resourceVersion", "generation"] {
                metadata::set(&mut object, field, metadata::field(&old, field).cloned());
            }
            if object == old {
                return Ok(());
            }
            Expect::Revision(current.revision)
        }
        None => {
            metadata::set(&mut object, "uid", Some(metadata::new_uid()));
            metadata::set(&mut object, "creationTimestamp", Some(time::format(api.now()).into()));
            Expect::Absent
        }
    };
    to_stored(&resource, &mut object);
    let write = Write {
        resource: resource.stored_as.clone(),
        key,
        expect,
        action: Action::Put(object),
    };
    match api.store.write(write).await {
        Ok(_) | Err(WriteError::Exists) => Ok(()),
        Err(error) => Err(Status::internal(format!("{error:?}"))),
    }
}

fn find(table: &Table, object: &Value) -> Option<Arc<Resource>> {
    let kind = object["kind"].as_str()?;
    let api_version = object["apiVersion"].as_str()?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    table
        .version(group, version)
        .find(|resource| resource.kind == kind)
        .cloned()
}
