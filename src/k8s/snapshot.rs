//! A lab as it is at one moment: the objects that a reader wants to see together.

use std::collections::BTreeMap;

use kube::api::{DynamicObject, ListParams};
use serde_json::Value;

use super::error::Error;
use super::metrics::{self, Usage};
use super::resource::Resources;

/// Everything that `status` and `--why` look at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Deployments, StatefulSets and DaemonSets of the namespace.
    pub workloads: Vec<Value>,
    /// Pods of the namespace.
    pub pods: Vec<Value>,
    /// HorizontalPodAutoscalers of the namespace.
    pub autoscalers: Vec<Value>,
    /// Events of the namespace, oldest first.
    pub events: Vec<Value>,
    /// What pods use, or why that is not known.
    pub usage: Option<BTreeMap<String, Usage>>,
    /// Why there is no `usage`.
    pub no_usage: Option<String>,
}

impl Snapshot {
    /// Reads a namespace.
    pub async fn take(resources: &Resources, namespace: &str) -> Result<Self, Error> {
        let list = |api_version, kind| list(resources, namespace, api_version, kind);
        let usage = metrics::of_pods(resources.client(), namespace);
        let (deployments, stateful, daemon, pods, autoscalers, events, usage) = futures::join!(
            list("apps/v1", "Deployment"),
            list("apps/v1", "StatefulSet"),
            list("apps/v1", "DaemonSet"),
            list("v1", "Pod"),
            list("autoscaling/v2", "HorizontalPodAutoscaler"),
            list("v1", "Event"),
            usage,
        );
        let (usage, no_usage) = match usage {
            Ok(usage) => (Some(usage), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let mut events = events?;
        events.sort_by_key(last_time);
        Ok(Self {
            workloads: [deployments?, stateful?, daemon?].concat(),
            pods: pods?,
            autoscalers: autoscalers?,
            events,
            usage,
            no_usage,
        })
    }
}

/// When an event was last seen, as RFC 3339 text that sorts.
pub fn last_time(event: &Value) -> String {
    let at = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let time = at("/series/lastObservedTime")
        .or(at("/lastTimestamp"))
        .or(at("/eventTime"));
    time.or(at("/metadata/creationTimestamp"))
        .unwrap_or_default()
        .to_owned()
}

async fn list(resources: &Resources, namespace: &str, api_version: &str, kind: &str) -> Result<Vec<Value>, Error> {
    let found = match resources.find(api_version, kind).await {
        Err(Error::UnknownKind { .. }) => return Ok(Vec::new()),
        found => found?,
    };
    let list = resources
        .api(&found, Some(namespace))
        .list(&ListParams::default())
        .await;
    let list = list.map_err(|error| Error::of(format!("listing the {kind}s of `{namespace}`"), error))?;
    let value = |object: &DynamicObject| {
        // Items of a list come without their kind.
        let mut value = super::resource::to_value(object);
        value["apiVersion"] = api_version.into();
        value["kind"] = kind.into();
        value
    };
    Ok(list.items.iter().map(value).collect())
}
