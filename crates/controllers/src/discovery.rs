//! Which kinds the API server serves, asked afresh each time.
//!
//! Owns reading discovery and finding a kind by name. A group that does not answer (an aggregated API whose server is
//! gone) does not hide the others: it is listed among the failures.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use kube::api::DynamicObject;
use kube::core::ApiResource;
use kube::{Api, Client};

use crate::error::{self, Doing, Result};

/// One kind of objects that can be stored.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) resource: Arc<ApiResource>,
    pub(crate) namespaced: bool,
    verbs: Vec<String>,
}

impl Kind {
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// Objects of this kind, in `namespace` if it has namespaces.
    pub(crate) fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced {
            Api::namespaced_with(client.clone(), namespace, &*self.resource)
        } else {
            Api::all_with(client.clone(), &*self.resource)
        }
    }

    /// `/apis/GROUP/VERSION/namespaces/NS/PLURAL`
    pub(crate) fn path(&self, namespace: &str) -> String {
        let ApiResource {
            api_version, plural, ..
        } = &*self.resource;
        let root = root(api_version);
        if self.namespaced {
            format!("{root}/namespaces/{namespace}/{plural}")
        } else {
            format!("{root}/{plural}")
        }
    }
}

/// What discovery said.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// Every kind once, in its group's preferred version.
    pub(crate) kinds: Vec<Kind>,
    /// `apiVersion` and error of what did not answer.
    pub(crate) failures: Vec<(String, String)>,
}

/// Asks for every group's preferred version.
pub(crate) async fn discover(client: &Client) -> Result<Discovered> {
    let mut versions = client
        .list_core_api_versions()
        .await
        .doing(|| "asking for API versions".to_owned())?
        .versions;
    let groups = client
        .list_api_groups()
        .await
        .doing(|| "asking for API groups".to_owned())?;
    versions.extend(groups.groups.into_iter().filter_map(|group| {
        let preferred = group.preferred_version.map(|version| version.group_version);
        preferred.or_else(|| group.versions.first().map(|version| version.group_version.clone()))
    }));
    let mut discovered = Discovered::default();
    for api_version in versions {
        match kinds_of(client, &api_version).await {
            Ok(kinds) => discovered.kinds.extend(kinds),
            Err(error) => discovered.failures.push((api_version, error::message(&error))),
        }
    }
    Ok(discovered)
}

/// The kinds of one `apiVersion`.
pub(crate) async fn kinds_of(client: &Client, api_version: &str) -> kube::Result<Vec<Kind>> {
    let list: APIResourceList = if api_version.contains('/') {
        client.list_api_group_resources(api_version).await?
    } else {
        client.list_core_api_resources(api_version).await?
    };
    let is_stored = |resource: &APIResource| !resource.name.contains('/');
    Ok(list
        .resources
        .into_iter()
        .filter(is_stored)
        .map(|resource| kind(api_version, resource))
        .collect())
}

fn kind(api_version: &str, resource: APIResource) -> Kind {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Kind {
        resource: Arc::new(ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version.to_owned(),
            kind: resource.kind,
            plural: resource.name,
        }),
        namespaced: resource.namespaced,
        verbs: resource.verbs,
    }
}

/// `/api/v1` or `/apis/GROUP/VERSION`.
pub(crate) fn root(api_version: &str) -> String {
    if api_version.contains('/') {
        format!("/apis/{api_version}")
    } else {
        format!("/api/{api_version}")
    }
}
