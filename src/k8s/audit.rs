//! Looks for everything that carries a lab's label, in every namespace and of every kind that can be listed.

use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::ListParams;
use kube::discovery::Discovery;

use super::error::Error;
use super::resource::{Kind, ObjectName, Resources, name_of};
use crate::lab::LABEL;

/// Lists asked side by side.
const PARALLEL: usize = 8;

/// Everything with the lab's label, by kind and name.
pub async fn labelled(resources: &Resources, lab: &str) -> Result<Vec<ObjectName>, Error> {
    let kinds = listable(resources).await?;
    let params = ListParams::default().labels(&format!("{LABEL}={lab}"));
    let lists = futures::stream::iter(kinds).map(|kind| {
        let (api, params) = (resources.api(&kind, None), params.clone());
        async move {
            match api.list(&params).await {
                Ok(list) => Ok(list
                    .items
                    .iter()
                    .map(|object| name_of(object, &kind))
                    .collect::<Vec<_>>()),
                // What cannot be listed by this user or by anybody was not made by this lab either.
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 405 | 503) => Ok(Vec::new()),
                Err(error) => Err(Error::of(format!("listing `{}`", kind.resource.plural), error)),
            }
        }
    });
    let mut found: Vec<ObjectName> = lists.buffer_unordered(PARALLEL).try_concat().await?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// Every kind with `list` and `delete`, each in its preferred version.
async fn listable(resources: &Resources) -> Result<Vec<Kind>, Error> {
    let doing = "asking what the cluster serves";
    let discovery = Discovery::new(resources.client().clone());
    let discovery = match discovery.run_aggregated().await {
        Ok(discovery) => discovery,
        // Before 1.27, or behind a proxy that strips the header.
        Err(_) => Discovery::new(resources.client().clone())
            .run()
            .await
            .map_err(|error| Error::of(doing, error))?,
    };
    let all = discovery.groups().flat_map(|group| group.recommended_resources());
    let listable = all.filter(|(_, can)| can.supports_operation("list") && can.supports_operation("delete"));
    Ok(listable
        .map(|(resource, can)| Kind {
            namespaced: can.scope == kube::discovery::Scope::Namespaced,
            verbs: can.operations.clone(),
            resource,
        })
        .collect())
}
