//! APIs and windows that the cluster serves beside the API server (`metrics.k8s.io`, `/debug/…`): requests are handed on
//! through the [`Connector`](crate::Connector), answers come back as they are.
//!
//! Owns which groups those are. Authentication and authorisation happened before; who asked is told in the front
//! proxy's headers. Knows nothing of what is served there.

use apimachinery::status::Status;
use http::{Method, Request, Uri};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::api::Api;
use crate::call::{Answer, Call};
use crate::connector::Target;
use crate::forward;
use crate::request::ResourcePath;

/// A group with one version that is served locally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

/// What a cluster may serve itself. Whether it does, the connector says.
pub(crate) const GROUPS: [Group; 1] = [Group {
    name: "metrics.k8s.io",
    version: "v1beta1",
}];

impl Group {
    fn target(self) -> Target {
        Target::Local {
            group: self.name.to_owned(),
            version: self.version.to_owned(),
        }
    }
}

/// The local API a request is for, if it is for one.
pub(crate) fn target(path: &ResourcePath) -> Option<Target> {
    GROUPS
        .iter()
        .find(|group| group.name == path.group && group.version == path.version)
        .map(|group| group.target())
}

/// Hands the request on as it is.
pub(crate) async fn forward(call: &Call, target: Target) -> Answer {
    let query = if call.raw_query.is_empty() {
        String::new()
    } else {
        format!("?{}", call.raw_query)
    };
    forward::request(call, target, &format!("{}{query}", call.path)).await
}

/// `/debug/…`: a window into what runs beside the API server.
pub(crate) async fn debug(call: &Call) -> Answer {
    let target = Target::Local {
        group: "debug".to_owned(),
        version: String::new(),
    };
    forward(call, target).await
}

/// The groups that answer now, each with its old-style list of resources.
pub(crate) async fn groups(api: &Api) -> Vec<(Group, Value)> {
    let mut found = Vec::new();
    for group in GROUPS {
        if let Some(resources) = resources(api, group).await {
            found.push((group, resources));
        }
    }
    found
}

/// The list of resources of one local version, as it is.
pub(crate) async fn discovery(call: &Call, group: &str, version: &str) -> Answer {
    match GROUPS
        .iter()
        .find(|known| known.name == group && known.version == version)
    {
        Some(group) => forward(call, group.target()).await,
        None => Err(Status::path_not_found()),
    }
}

async fn resources(api: &Api, group: Group) -> Option<Value> {
    let path = format!("/apis/{}/{}", group.name, group.version);
    let mut request = Request::new(
        http_body_util::Empty::<bytes::Bytes>::new()
            .map_err(|never| match never {})
            .boxed_unsync(),
    );
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::try_from(path).ok()?;
    let response = forward::send(api, group.target(), request).await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let bytes = response.into_body().collect().await.ok()?.to_bytes();
    serde_json::from_slice(&bytes).ok()
}

/// A group of an old-style list in the aggregated form.
pub(crate) fn aggregated(group: Group, resources: &Value) -> Value {
    let list = resources.get("resources").and_then(Value::as_array);
    let entries: Vec<Value> = list
        .into_iter()
        .flatten()
        .map(|resource| {
            let namespaced = resource.get("namespaced").and_then(Value::as_bool).unwrap_or(false);
            json!({
                "resource": resource["name"],
                "responseKind": { "group": "", "version": "", "kind": resource["kind"] },
                "scope": if namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": resource["singularName"],
                "verbs": resource["verbs"],
            })
        })
        .collect();
    let version = json!({ "version": group.version, "resources": entries, "freshness": "Current" });
    json!({ "metadata": { "name": group.name }, "versions": [version] })
}
