//! `NoExecute` taints: pods that do not tolerate one leave the node, at once or when their patience ends.
//!
//! Owns the patience of each pod; a restart starts it again, as upstream's does. [`patience`] decides, pure.
//! (k/k `pkg/controller/tainteviction/taint_eviction.go`, v1.36.)

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::Context;
use crate::error::{self, Doing, Result};
use crate::events::Recorder;
use crate::informers::{Change, Informers};
use crate::key::Key;
use crate::pods;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;

pub(crate) struct TaintEviction {
    context: Context,
    client: Client,
    recorder: Recorder,
    queue: Arc<WorkQueue<Key>>,
    /// Since when a pod stands under a taint that it tolerates for a while.
    since: Mutex<HashMap<Key, Instant>>,
}

/// Registers the controller's handlers; the controller runs when the caches do. Keys are pods.
pub(crate) fn start(context: &Context) -> TaintEviction {
    let queue = WorkQueue::new();
    let (wake, informers) = (queue.clone(), context.informers.clone());
    context.informers.nodes.on_change(move |change| {
        let before = match change {
            Change::Updated { old, .. } => no_execute(old),
            _ => Vec::new(),
        };
        if !matches!(change, Change::Deleted(_)) && before != no_execute(change.object()) {
            let name = change.object().name_any();
            pods_of(&informers, &name).for_each(|pod| wake.add(Key::of(&*pod)));
        }
    });
    let (wake, informers) = (queue.clone(), context.informers.clone());
    context.informers.pods.on_change(move |change| {
        let pod = change.object();
        let is_news = match change {
            Change::Updated { old, new } => node_of(old) != node_of(new) || tolerations(old) != tolerations(new),
            Change::Added(_) | Change::Deleted(_) => true,
        };
        if is_news && !taints_on(&informers, pod).is_empty() {
            wake.add(Key::of(&**pod));
        }
    });
    TaintEviction {
        context: context.clone(),
        client: context.client(TaintEviction::NAME),
        recorder: context.recorder("taint-eviction-controller"),
        queue,
        since: Mutex::default(),
    }
}

fn node_of(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default()
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    taints
        .iter()
        .filter(|taint| taint.effect == "NoExecute")
        .cloned()
        .collect()
}

fn taints_on(informers: &Informers, pod: &Pod) -> Vec<Taint> {
    informers
        .nodes
        .get(&Key::new("", node_of(pod)))
        .map(|node| no_execute(&node))
        .unwrap_or_default()
}

fn pods_of<'a>(informers: &Informers, node: &'a str) -> impl Iterator<Item = Arc<Pod>> + use<'a> {
    informers.pods.all().into_iter().filter(move |pod| node_of(pod) == node)
}

impl Reconcile for TaintEviction {
    const NAME: &'static str = "node-controller";
    const WORKERS: usize = 8;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let informers = &self.context.informers;
        let pod = informers
            .pods
            .get(key)
            .filter(|pod| !pods::is_terminating(pod) && !pods::is_terminal(pod));
        let Some(pod) = pod else {
            self.since().remove(key);
            return Ok(());
        };
        match patience(&taints_on(informers, &pod), tolerations(&pod)) {
            Patience::Endless => {
                if self.since().remove(key).is_some() {
                    let message = format!("Cancelling deletion of Pod {key}");
                    self.recorder.normal(&*pod, "TaintManagerEviction", message);
                }
                Ok(())
            }
            Patience::For(patience) => {
                let since = *self.since().entry(key.clone()).or_insert_with(Instant::now);
                match patience.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
                    Some(left) => {
                        self.queue.add_after(key.clone(), left);
                        Ok(())
                    }
                    None => self.evict(&pod, key).await,
                }
            }
        }
    }
}

impl TaintEviction {
    fn since(&self) -> MutexGuard<'_, HashMap<Key, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn evict(&self, pod: &Pod, key: &Key) -> Result<()> {
        self.recorder
            .normal(pod, "TaintManagerEviction", format!("Marking for deletion Pod {key}"));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": Time(self.context.clock.now())}]}});
        match api
            .patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
        {
            Err(error) if error::is_not_found(&error) => return Ok(()),
            done => done.doing(|| format!("marking pod `{key}` for its eviction"))?,
        };
        let preconditions = Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        });
        match api
            .delete(
                &key.name,
                &DeleteParams {
                    preconditions,
                    ..Default::default()
                },
            )
            .await
        {
            Err(error) if error::is_not_found(&error) || error::is_conflict(&error) => Ok(()),
            done => done.map(drop).doing(|| format!("evicting pod `{key}`")),
        }
    }
}

/// How long a pod stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    For(Duration),
    Endless,
}

/// Pure: the shortest patience among the tolerations that the taints need; none at all if a taint is not tolerated.
fn patience(taints: &[Taint], tolerations: &[Toleration]) -> Patience {
    let mut shortest = Patience::Endless;
    for taint in taints {
        let mut tolerating = tolerations
            .iter()
            .filter(|toleration| tolerates(toleration, taint))
            .peekable();
        if tolerating.peek().is_none() {
            return Patience::For(Duration::ZERO);
        }
        for toleration in tolerating {
            let Some(seconds) = toleration.toleration_seconds else {
                continue;
            };
            let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            shortest = match shortest {
                Patience::For(other) => Patience::For(limit.min(other)),
                Patience::Endless => Patience::For(limit),
            };
        }
    }
    shortest
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if given(&toleration.effect).is_some_and(|effect| effect != taint.effect)
        || given(&toleration.key).is_some_and(|key| key != taint.key)
    {
        return false;
    }
    match toleration
        .operator
        .as_deref()
        .filter(|operator| !operator.is_empty())
        .unwrap_or("Equal")
    {
        "Exists" => true,
        "Equal" => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn stays(tolerations: Value) -> Patience {
        let taint = |key: &str, value: &str| Taint {
            key: key.into(),
            value: Some(value.into()),
            effect: "NoExecute".into(),
            ..Default::default()
        };
        let tolerations: Vec<Toleration> = serde_json::from_value(tolerations).unwrap();
        patience(&[taint("a", "1"), taint("b", "2")], &tolerations)
    }

    #[test]
    fn a_pod_stays_as_long_as_its_shortest_toleration() {
        let now = Patience::For(Duration::ZERO);
        assert_eq!(stays(json!([])), now);
        assert_eq!(
            stays(json!([{"key": "a", "operator": "Exists"}])),
            now,
            "the other taint is not tolerated"
        );
        assert_eq!(stays(json!([{"operator": "Exists"}])), Patience::Endless);
        assert_eq!(stays(json!([{"operator": "Exists", "effect": "NoSchedule"}])), now);
        let both = json!([{"key": "a", "value": "1", "tolerationSeconds": 60},
            {"key": "b", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}]);
        assert_eq!(stays(both), Patience::For(Duration::from_secs(30)));
        assert_eq!(
            stays(json!([{"key": "a", "value": "2"}, {"key": "b", "operator": "Exists"}])),
            now
        );
    }
}
