//! Pods that nobody will end any more: those of a node that is gone, and those that were deleted before they had one.
//!
//! Owns their last status and their removal. (k/k `pkg/controller/podgc/gc_controller.go`, v1.36; its limit on finished
//! pods, 12,500, is beyond what a lab keeps.)

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::Context;
use crate::error::{self, Doing, Result};
use crate::informers::Change;
use crate::key::Key;
use crate::pods;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;

/// How long a node may be missing before its pods are given up: it may be on its way back.
const QUARANTINE: Duration = Duration::from_secs(40);

pub(crate) struct PodGc {
    context: Context,
    client: Client,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do. Keys are pods.
pub(crate) fn start(context: &Context) -> PodGc {
    let queue = WorkQueue::new();
    let (wake, informers) = (queue.clone(), context.informers.clone());
    context.informers.nodes.on_change(move |change| {
        if let Change::Deleted(node) = change {
            let name = node.name_any();
            for pod in informers.pods.all().iter().filter(|pod| node_of(pod) == name) {
                wake.add_after(Key::of(&**pod), QUARANTINE);
            }
        }
    });
    let (wake, informers) = (queue.clone(), context.informers.clone());
    context.informers.pods.on_change(move |change| {
        let (Change::Added(pod) | Change::Updated { new: pod, .. }) = change else {
            return;
        };
        let node = node_of(pod);
        if node.is_empty() {
            if pods::is_terminating(pod) {
                wake.add(Key::of(&**pod));
            }
        } else if informers.nodes.get(&Key::new("", node)).is_none() {
            // Or the cache of nodes has not been filled yet; it is looked at again.
            wake.add_after(Key::of(&**pod), QUARANTINE);
        }
    });
    PodGc {
        context: context.clone(),
        client: context.client(PodGc::NAME),
        queue,
    }
}

fn node_of(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

impl Reconcile for PodGc {
    const NAME: &'static str = "pod-garbage-collector";
    const WORKERS: usize = 2;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let informers = &self.context.informers;
        let Some(pod) = informers.pods.get(key) else {
            return Ok(());
        };
        let node = node_of(&pod);
        if node.is_empty() {
            return if pods::is_terminating(&pod) {
                self.remove(&pod, None).await
            } else {
                Ok(())
            };
        }
        if informers.nodes.get(&Key::new("", node)).is_some() {
            return Ok(());
        }
        // Not in the cache; the API server has the last word.
        let nodes: Api<Node> = Api::all(self.client.clone());
        let found = nodes
            .get_metadata_opt(node)
            .await
            .doing(|| format!("looking for node `{node}`"))?;
        match found {
            Some(_) => Ok(()),
            None => self.remove(&pod, Some("PodGC: node no longer exists")).await,
        }
    }
}

impl PodGc {
    /// Says why, if the pod has not ended by itself, and removes it without grace.
    async fn remove(&self, pod: &Pod, why: Option<&str>) -> Result<()> {
        let key = Key::of(pod);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        if let Some(why) = why.filter(|_| !pods::is_terminal(pod)) {
            let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"phase": "Failed", "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": why,
                "lastTransitionTime": Time(self.context.clock.now())}]}});
            match api
                .patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                Err(error) if error::is_not_found(&error) => return Ok(()),
                done => done.doing(|| format!("failing pod `{key}` of a node that is gone"))?,
            };
        }
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.uid(),
                resource_version: None,
            }),
            ..Default::default()
        };
        match api.delete(&key.name, &parameters).await {
            Err(error) if error::is_not_found(&error) || error::is_conflict(&error) => Ok(()),
            done => done.map(drop).doing(|| format!("removing pod `{key}`")),
        }
    }
}
