//! Waiting for objects, by watching them. Every wait has a limit, hears a request to stop, and can say what it last saw.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::pods;
use super::ready::{self, Standing};
use super::resource::{Kind, ObjectName, Resources, to_value};

/// How long to wait, and whom to tell.
pub struct Patience<'a> {
    /// When to give up.
    pub until: Instant,
    /// The whole limit, for the message.
    pub limit: Duration,
    /// Ends the wait early.
    pub stop: &'a CancellationToken,
    /// Hears what is seen while waiting.
    pub seen: &'a (dyn Fn(String) + Send + Sync),
}

impl std::fmt::Debug for Patience<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Patience({:?})", self.limit)
    }
}

/// What a watched object and its pods were last seen to be.
#[derive(Debug, Default)]
struct LastSeen {
    object: Option<Standing>,
    pods: BTreeMap<String, Value>,
    trouble: Option<String>,
}

impl LastSeen {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.object {
            None => lines.push("it is not there".to_owned()),
            Some(standing) => {
                let why = standing.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                lines.push(format!("{}{why}", standing.summary));
            }
        }
        if let Some((pod, trouble)) = pods::worst(self.pods.values()) {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            lines.push(format!("pod `{name}`: {}", trouble.words));
        }
        lines.extend(self.trouble.iter().map(|trouble| format!("the watch: {trouble}")));
        lines
    }
}

/// Waits until an object is ready, or meets a condition; how it then stands. `pods` selects by label the pods whose
/// troubles explain a delay.
pub async fn ready(
    resources: &Resources,
    name: &ObjectName,
    condition: Option<&str>,
    pods: Option<&str>,
    patience: &Patience<'_>,
) -> Result<Standing, Error> {
    let what = match condition {
        Some(condition) => format!("{name} to be {condition}"),
        None => format!("{name} to be ready"),
    };
    until(resources, name, what, pods, patience, |object| {
        ready::judge(object, condition)
    })
    .await
}

/// Waits until `judge` finds an object ready; `what` names the wait in an error.
pub async fn until(
    resources: &Resources,
    name: &ObjectName,
    what: String,
    pods: Option<&str>,
    patience: &Patience<'_>,
    judge: impl Fn(&Value) -> Standing,
) -> Result<Standing, Error> {
    let kind = resources.find(&name.api_version, &name.kind).await?;
    let api = resources.api(&kind, name.namespace.as_deref());
    let mut object = pin!(watcher::watch_object(api, &name.name).default_backoff());
    let mut around = pin!(match (pods, &name.namespace) {
        (Some(selector), Some(namespace)) => pod_events(resources, namespace, selector).left_stream(),
        _ => futures::stream::pending().right_stream(),
    });
    let mut last = LastSeen::default();
    let mut said = String::new();
    loop {
        tokio::select! {
            biased;
            () = patience.stop.cancelled() => return Err(Error::Stopped { what }),
            () = tokio::time::sleep_until(patience.until) => {
                return Err(Error::NotReady { what, after: patience.limit, seen: last.lines() });
            }
            Some(seen) = object.next() => match seen {
                Ok(seen) => {
                    last.trouble = None;
                    last.object = seen.map(|object| judge(&with_kind(&object, &kind)));
                    if let Some(standing) = last.object.as_ref().filter(|standing| standing.ready) {
                        return Ok(standing.clone());
                    }
                }
                Err(error) => last.trouble = Some(error.to_string()),
            },
            Some(event) = around.next() => match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                    last.pods.insert(pod.metadata.name.clone().unwrap_or_default(), to_value(&pod));
                }
                Ok(watcher::Event::Delete(pod)) => drop(last.pods.remove(&pod.metadata.name.unwrap_or_default())),
                Ok(watcher::Event::Init) => last.pods.clear(),
                Ok(watcher::Event::InitDone) | Err(_) => {}
            },
        }
        let text = last.lines().join("; ");
        if text != said {
            (patience.seen)(text.clone());
            said = text;
        }
    }
}

/// Lists and watches may leave out what everybody knows.
fn with_kind(object: &DynamicObject, kind: &Kind) -> Value {
    let mut value = to_value(object);
    value["kind"] = kind.resource.kind.clone().into();
    value
}

fn pod_events(
    resources: &Resources,
    namespace: &str,
    selector: &str,
) -> impl futures::Stream<Item = watcher::Result<watcher::Event<DynamicObject>>> + use<> {
    let pods = kube::api::ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(resources.client().clone(), namespace, &pods);
    watcher::watcher(api, watcher::Config::default().labels(selector)).default_backoff()
}

/// Waits until an object is gone. What keeps it (finalizers) is what was last seen.
pub async fn gone(resources: &Resources, name: &ObjectName, patience: &Patience<'_>) -> Result<(), Error> {
    let kind = match resources.find(&name.api_version, &name.kind).await {
        Err(Error::UnknownKind { .. }) => return Ok(()),
        kind => kind?,
    };
    let what = format!("{name} to be gone");
    let mut object =
        pin!(watcher::watch_object(resources.api(&kind, name.namespace.as_deref()), &name.name).default_backoff());
    let mut last = String::from("it was not looked at");
    loop {
        tokio::select! {
            biased;
            () = patience.stop.cancelled() => return Err(Error::Stopped { what }),
            () = tokio::time::sleep_until(patience.until) => {
                return Err(Error::NotReady { what, after: patience.limit, seen: vec![last] });
            }
            Some(seen) = object.next() => match seen {
                Ok(None) => return Ok(()),
                Ok(Some(object)) => {
                    last = still_there(&to_value(&object));
                    (patience.seen)(last.clone());
                }
                Err(error) => last = format!("the watch: {error}"),
            },
        }
    }
}

/// Why an object is still there: its finalizers, or for a Namespace what its conditions say.
fn still_there(object: &Value) -> String {
    let mut found: Vec<String> = Vec::new();
    for list in ["/metadata/finalizers", "/spec/finalizers"] {
        let names = object
            .pointer(list)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        if !names.is_empty() {
            found.push(format!("finalizers {}", names.join(", ")));
        }
    }
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let troubles = conditions.iter().filter(|condition| condition["status"] == "True");
    found.extend(
        troubles
            .filter_map(|condition| condition["message"].as_str())
            .map(str::to_owned),
    );
    if found.is_empty() {
        "it is still there".to_owned()
    } else {
        found.join("; ")
    }
}
