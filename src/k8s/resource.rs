//! Which resource serves a kind, asked of the cluster once a group and version.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersion;
use kube::{Client, ResourceExt as _};
use serde_json::Value;

use super::Error;
use crate::scenario::manifest;

/// The identity of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// Its namespace, unless it is cluster-scoped.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjectName {
    /// How the journal writes it: `apps/v1 Deployment shop/cart`.
    pub fn key(&self) -> String {
        let namespace = self
            .namespace
            .as_deref()
            .map(|namespace| format!("{namespace}/"))
            .unwrap_or_default();
        format!("{} {} {namespace}{}", self.api_version, self.kind, self.name)
    }

    /// Reads what `key` wrote.
    pub fn parse(key: &str) -> Option<Self> {
        let mut parts = key.split(' ');
        let (api_version, kind, place) = (parts.next()?, parts.next()?, parts.next()?);
        let (namespace, name) = match place.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, place),
        };
        Some(Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} `{namespace}/{}`", self.kind, self.name),
            None => write!(f, "{} `{}`", self.kind, self.name),
        }
    }
}

/// A kind and how it is served.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Group, version, kind and plural.
    pub resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// The verbs that are served.
    pub verbs: Vec<String>,
}

/// The kinds of a cluster, remembered.
#[derive(Clone)]
pub struct Resources {
    client: Client,
    known: Arc<Mutex<HashMap<String, Arc<Vec<Kind>>>>>,
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resources")
    }
}

impl Resources {
    /// Asks this client.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            known: Arc::default(),
        }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Every kind of a group and version; empty where the cluster has no such group.
    pub async fn of_version(&self, api_version: &str) -> Result<Arc<Vec<Kind>>, Error> {
        let known = |this: &Self| {
            this.known
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(api_version)
                .cloned()
        };
        if let Some(kinds) = known(self) {
            return Ok(kinds);
        }
        let asked = match api_version.contains('/') {
            true => self.client.list_api_group_resources(api_version).await,
            false => self.client.list_core_api_resources(api_version).await,
        };
        let list = match asked {
            Ok(list) => list,
            // Not remembered: a CRD may bring the group later, an aggregated API may become available.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 503) => return Ok(Arc::default()),
            Err(error) => return Err(Error::of(format!("asking which kinds `{api_version}` has"), error)),
        };
        let version: GroupVersion = api_version
            .parse()
            .unwrap_or_else(|_| GroupVersion::gv("", api_version));
        let kinds = list
            .resources
            .into_iter()
            .filter(|resource| !resource.name.contains('/'))
            .map(|resource| Kind {
                resource: ApiResource {
                    group: version.group.clone(),
                    version: version.version.clone(),
                    api_version: api_version.to_owned(),
                    kind: resource.kind,
                    plural: resource.name,
                },
                namespaced: resource.namespaced,
                verbs: resource.verbs,
            });
        let kinds: Arc<Vec<Kind>> = Arc::new(kinds.collect());
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(api_version.to_owned(), kinds.clone());
        Ok(kinds)
    }

    /// The kind of that name. A kind that is not known yet is asked for again: its CRD may just have been applied.
    pub async fn find(&self, api_version: &str, kind: &str) -> Result<Kind, Error> {
        let named = |kinds: &[Kind]| kinds.iter().find(|known| known.resource.kind == kind).cloned();
        if let Some(found) = named(&self.of_version(api_version).await?) {
            return Ok(found);
        }
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(api_version);
        let found = named(&self.of_version(api_version).await?);
        found.ok_or_else(|| Error::UnknownKind {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        })
    }

    /// Where objects of a kind are, in this namespace if they live in namespaces.
    pub fn api(&self, kind: &Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace.filter(|_| kind.namespaced) {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind.resource),
            None => Api::all_with(self.client.clone(), &kind.resource),
        }
    }

    /// The identity of a manifest's document in a lab's namespace, and its kind. Refuses another namespace.
    pub async fn locate(&self, document: &Value, namespace: &str) -> Result<(ObjectName, Kind), Error> {
        let kind = self
            .find(
                manifest::text(document, "/apiVersion"),
                manifest::text(document, "/kind"),
            )
            .await?;
        let name = ObjectName {
            api_version: kind.resource.api_version.clone(),
            kind: kind.resource.kind.clone(),
            namespace: kind.namespaced.then(|| namespace.to_owned()),
            name: manifest::text(document, "/metadata/name").to_owned(),
        };
        let own = manifest::text(document, "/metadata/namespace");
        if kind.namespaced && !own.is_empty() && own != namespace {
            return Err(Error::Elsewhere {
                object: name,
                namespace: namespace.to_owned(),
            });
        }
        Ok((name, kind))
    }

    /// An object, if it is there.
    pub async fn get(&self, name: &ObjectName) -> Result<Option<Value>, Error> {
        let kind = match self.find(&name.api_version, &name.kind).await {
            Err(Error::UnknownKind { .. }) => return Ok(None),
            kind => kind?,
        };
        let found = self.api(&kind, name.namespace.as_deref()).get_opt(&name.name).await;
        let found = found.map_err(|error| Error::of(format!("reading {name}"), error))?;
        Ok(found.map(|object| to_value(&object)))
    }
}

/// An object as JSON.
pub fn to_value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// The identity of an object that was read as `kind`.
pub fn name_of(object: &DynamicObject, kind: &Kind) -> ObjectName {
    ObjectName {
        api_version: kind.resource.api_version.clone(),
        kind: kind.resource.kind.clone(),
        namespace: object.namespace(),
        name: object.name_any(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_the_journal() {
        for key in ["apps/v1 Deployment shop/cart", "v1 Namespace shop"] {
            assert_eq!(ObjectName::parse(key).unwrap().key(), key);
        }
        assert_eq!(ObjectName::parse("v1"), None);
    }
}
