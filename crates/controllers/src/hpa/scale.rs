//! The `/scale` subresource of whatever a `scaleTargetRef` names, custom resources included.
//!
//! Owns finding the resource of a kind. Must not know why something is scaled.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use kube::Client;

use crate::discovery::{self, root};
use crate::error;

/// Plural names by `apiVersion` and kind.
type Plurals = HashMap<(String, String), String>;

pub(super) struct ScaleClient {
    client: Client,
    /// A kind's plural never changes; one that is not found may appear later and is not remembered.
    plurals: Mutex<Plurals>,
}

/// The scale of one object, and where to write it back.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) scale: Scale,
    path: String,
}

impl Found {
    /// `spec.replicas`
    pub(super) fn replicas(&self) -> i32 {
        self.scale
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or_default()
    }

    /// `status.replicas`
    pub(super) fn status_replicas(&self) -> i32 {
        self.scale.status.as_ref().map_or(0, |status| status.replicas)
    }

    /// `status.selector`, empty where the target has none.
    pub(super) fn selector(&self) -> &str {
        self.scale
            .status
            .as_ref()
            .and_then(|status| status.selector.as_deref())
            .unwrap_or_default()
    }
}

impl ScaleClient {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            plurals: Mutex::default(),
        }
    }

    /// The target's scale; errors are texts for a condition.
    pub(super) async fn get(&self, namespace: &str, target: &CrossVersionObjectReference) -> Result<Found, String> {
        let api_version = target.api_version.as_deref().unwrap_or("v1");
        let plural = self.plural(api_version, &target.kind).await?;
        let path = format!(
            "{}/namespaces/{namespace}/{plural}/{}/scale",
            root(api_version),
            target.name
        );
        let scale = self
            .client
            .request(get(&path)?)
            .await
            .map_err(|error| error::message(&error))?;
        Ok(Found { scale, path })
    }

    /// Writes `replicas`; if the target changed meanwhile, into its new state.
    pub(super) async fn set(&self, mut found: Found, replicas: i32) -> Result<(), String> {
        /// More conflicts than this in a row are not an accident.
        const ATTEMPTS: u32 = 5;
        for attempt in 1.. {
            found.scale.spec.get_or_insert_default().replicas = Some(replicas);
            let body = serde_json::to_vec(&found.scale).map_err(|error| error.to_string())?;
            let request = http::Request::put(&found.path)
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(body)
                .map_err(|error| error.to_string())?;
            match self.client.request::<Scale>(request).await {
                Ok(_) => return Ok(()),
                Err(error) if error::is_conflict(&error) && attempt < ATTEMPTS => {
                    let again = self.client.request(get(&found.path)?).await;
                    found.scale = again.map_err(|error| error::message(&error))?;
                }
                Err(error) => return Err(error::message(&error)),
            }
        }
        Ok(())
    }

    /// `plural` or `plural.group` of an object that a metric describes.
    pub(super) async fn group_resource(&self, object: &CrossVersionObjectReference) -> Result<String, String> {
        let api_version = object.api_version.as_deref().unwrap_or("v1");
        let plural = self.plural(api_version, &object.kind).await?;
        Ok(match api_version.split_once('/') {
            Some((group, _)) => format!("{plural}.{group}"),
            None => plural,
        })
    }

    async fn plural(&self, api_version: &str, kind: &str) -> Result<String, String> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(known) = self.plurals.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let unknown = || {
            let group = api_version.split_once('/').map_or("", |(group, _)| group);
            let text = format!("no matches for kind \"{kind}\" in group \"{group}\"");
            format!("unable to determine resource for scale target reference: {text}")
        };
        let kinds = match discovery::kinds_of(&self.client, api_version).await {
            Ok(kinds) => kinds,
            Err(error) if error::is_not_found(&error) => return Err(unknown()),
            Err(error) => return Err(error::message(&error)),
        };
        let found = kinds
            .into_iter()
            .find(|known| known.resource.kind == kind)
            .ok_or_else(unknown)?;
        let plural = found.resource.plural.clone();
        self.plurals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, plural.clone());
        Ok(plural)
    }
}

fn get(path: &str) -> Result<http::Request<Vec<u8>>, String> {
    http::Request::get(path)
        .body(Vec::new())
        .map_err(|error| error.to_string())
}
