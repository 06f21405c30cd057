//! Nodes: taints that follow from their conditions, and the verdict on one that no longer says anything.
//!
//! Owns the `node.kubernetes.io/…:NoSchedule` taints and the conditions of a silent node. What the kubelet reports it
//! leaves alone. With one node in the cluster every failure is a "full disruption", in which upstream evicts nothing
//! either: there are no `NoExecute` taints here. [`taints`] and [`verdict`] decide, pure.
//! (k/k `pkg/controller/nodelifecycle/node_lifecycle_controller.go`, v1.36.)

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::Context;
use crate::error::{self, Doing, Result};
use crate::events::Recorder;
use crate::informers::Change;
use crate::key::Key;
use crate::pods;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;

/// `--node-monitor-grace-period`
const GRACE: Duration = Duration::from_secs(50);
/// `--node-startup-grace-period`
const STARTUP_GRACE: Duration = Duration::from_secs(60);

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// A condition, the status of it that taints, and the taint.
const BY_CONDITION: &[(&str, &str, &str)] = &[
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];
/// Conditions that become Unknown with a silent node.
const REPORTED: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

pub(crate) struct Nodes {
    context: Context,
    client: Client,
    recorder: Recorder,
    queue: Arc<WorkQueue<Key>>,
    heartbeats: Heartbeats,
}

/// When a node was last heard of, by our own time: its clock may be wrong, and ours may have been off.
#[derive(Clone, Default)]
struct Heartbeats(Arc<Mutex<HashMap<String, Instant>>>);

impl Heartbeats {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, node: &str) {
        self.lock().insert(node.to_owned(), Instant::now());
    }
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> Nodes {
    let controller = Nodes {
        context: context.clone(),
        client: context.client(Nodes::NAME),
        recorder: context.recorder(Nodes::NAME),
        queue: WorkQueue::new(),
        heartbeats: Heartbeats::default(),
    };
    let (queue, heartbeats, recorder) = (
        controller.queue.clone(),
        controller.heartbeats.clone(),
        controller.recorder.clone(),
    );
    context.informers.nodes.on_change(move |change| {
        let node = change.object();
        let name = node.name_any();
        match change {
            Change::Added(_) => {
                heartbeats.heard(&name);
                let message = format!("Node {name} event: Registered Node {name} in Controller");
                recorder.normal(&**node, "RegisteredNode", message);
            }
            Change::Updated { old, new } => {
                if heartbeat(old) != heartbeat(new) {
                    heartbeats.heard(&name);
                }
            }
            Change::Deleted(_) => {
                heartbeats.lock().remove(&name);
                let message = format!("Node {name} event: Removing Node {name} from Controller");
                recorder.normal(&**node, "RemovingNode", message);
            }
        }
        queue.add(Key::new("", name));
    });
    let heartbeats = controller.heartbeats.clone();
    context.informers.node_leases.on_change(move |change| {
        let renewed = |lease: &k8s_openapi::api::coordination::v1::Lease| lease.spec.as_ref()?.renew_time.clone();
        match change {
            Change::Updated { old, new } if renewed(old) == renewed(new) => {}
            // No work: the next look is due when it is not renewed again.
            Change::Added(lease) | Change::Updated { new: lease, .. } => heartbeats.heard(&lease.name_any()),
            Change::Deleted(_) => {}
        }
    });
    controller
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn heartbeat(node: &Node) -> Option<Timestamp> {
    condition(node, "Ready")?
        .last_heartbeat_time
        .as_ref()
        .map(|time| time.0)
}

impl Reconcile for Nodes {
    const NAME: &'static str = "node-controller";
    const WORKERS: usize = 1;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let Some(node) = self.context.informers.nodes.get(key) else {
            return Ok(());
        };
        let heard = self
            .heartbeats
            .lock()
            .get(&key.name)
            .copied()
            .unwrap_or_else(Instant::now);
        let grace = if condition(&node, "Ready").is_some() {
            GRACE
        } else {
            STARTUP_GRACE
        };
        match grace.checked_sub(heard.elapsed()).filter(|left| !left.is_zero()) {
            Some(left) => self.queue.add_after(key.clone(), left),
            None => {
                if let Some(conditions) = verdict(&node, self.context.clock.now()) {
                    self.pronounce(&node, &conditions).await?;
                }
            }
        }
        self.taint(&node).await
    }
}

impl Nodes {
    /// Says that the node is silent, and that its pods may not be ready.
    async fn pronounce(&self, node: &Node, conditions: &[NodeCondition]) -> Result<()> {
        let name = node.name_any();
        let patch = json!({"metadata": {"resourceVersion": node.resource_version()},
            "status": {"conditions": conditions}});
        let api: Api<Node> = Api::all(self.client.clone());
        let written = api
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        written.doing(|| format!("writing the conditions of node `{name}`"))?;
        self.recorder
            .normal(node, "NodeNotReady", format!("Node {name} status is now: NodeNotReady"));
        let is_here = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(&name);
        for pod in self
            .context
            .informers
            .pods
            .all()
            .iter()
            .filter(|pod| is_here(pod) && pods::is_ready(pod))
        {
            self.mark_not_ready(pod).await?;
        }
        Ok(())
    }

    async fn mark_not_ready(&self, pod: &Pod) -> Result<()> {
        let now = Time(self.context.clock.now());
        let patch = json!({"status": {"conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": now}]}});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        match api
            .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch))
            .await
        {
            Err(error) if error::is_not_found(&error) => Ok(()),
            done => done
                .map(drop)
                .doing(|| format!("marking pod `{}` not ready", Key::of(pod))),
        }
    }

    async fn taint(&self, node: &Node) -> Result<()> {
        let have = node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.clone())
            .unwrap_or_default();
        let want = taints(node, &have);
        if have == want {
            return Ok(());
        }
        let name = node.name_any();
        let patch = json!({"metadata": {"resourceVersion": node.resource_version()}, "spec": {"taints": want}});
        let api: Api<Node> = Api::all(self.client.clone());
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if error::is_not_found(&error) => Ok(()),
            done => done.map(drop).doing(|| format!("tainting node `{name}`")),
        }
    }
}

/// Pure: the node's taints, with those that follow from its conditions as they should be.
fn taints(node: &Node, have: &[Taint]) -> Vec<Taint> {
    let status = |type_: &str| condition(node, type_).map(|condition| condition.status.as_str());
    let mut wanted: Vec<&str> = BY_CONDITION
        .iter()
        .filter(|(type_, tainting, _)| status(type_) == Some(*tainting))
        .map(|&(_, _, taint)| taint)
        .collect();
    if status("Ready").is_none() {
        // Nobody has spoken for it yet.
        wanted.push(NOT_READY);
    }
    if node
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or_default()
    {
        wanted.push(UNSCHEDULABLE);
    }
    let is_ours = |taint: &Taint| {
        let known = BY_CONDITION.iter().map(|&(_, _, key)| key).chain([UNSCHEDULABLE]);
        taint.effect == "NoSchedule" && known.into_iter().any(|key| key == taint.key)
    };
    let kept = have
        .iter()
        .filter(|taint| !is_ours(taint) || wanted.contains(&taint.key.as_str()))
        .cloned();
    let mut taints: Vec<Taint> = kept.collect();
    for key in wanted {
        if !taints
            .iter()
            .any(|taint| taint.effect == "NoSchedule" && taint.key == key)
        {
            taints.push(Taint {
                key: key.to_owned(),
                effect: "NoSchedule".to_owned(),
                ..Default::default()
            });
        }
    }
    taints
}

/// Pure: the conditions of a node that was silent for too long; none if they say so already.
fn verdict(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let mut conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let mut changed = false;
    for &type_ in REPORTED {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(Time(now));
                changed = true;
            }
            None => {
                let created = node.metadata.creation_timestamp.clone();
                conditions.push(NodeCondition {
                    type_: type_.to_owned(),
                    status: "Unknown".to_owned(),
                    reason: Some("NodeStatusNeverUpdated".to_owned()),
                    message: Some("Kubelet never posted node status.".to_owned()),
                    last_heartbeat_time: created,
                    last_transition_time: Some(Time(now)),
                });
                changed = true;
            }
        }
    }
    changed.then_some(conditions)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn node(spec: Value, conditions: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}))
            .unwrap()
    }

    fn printed(node: &Node) -> Vec<String> {
        let have = node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.clone())
            .unwrap_or_default();
        taints(node, &have)
            .iter()
            .map(|taint| format!("{}:{}", taint.key, taint.effect))
            .collect()
    }

    #[test]
    fn a_node_is_tainted_by_what_its_conditions_say() {
        let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
        assert_eq!(printed(&node(json!({}), ready("True"))), Vec::<String>::new());
        assert_eq!(
            printed(&node(json!({}), ready("False"))),
            [format!("{NOT_READY}:NoSchedule")]
        );
        assert_eq!(
            printed(&node(json!({}), ready("Unknown"))),
            [format!("{UNREACHABLE}:NoSchedule")]
        );
        assert_eq!(
            printed(&node(json!({}), json!([]))),
            [format!("{NOT_READY}:NoSchedule")]
        );
        let cordoned = node(json!({"unschedulable": true}), ready("True"));
        assert_eq!(printed(&cordoned), [format!("{UNSCHEDULABLE}:NoSchedule")]);
    }

    #[test]
    fn taints_of_others_stay() {
        let spec = json!({"taints": [{"key": "mine", "effect": "NoExecute"},
            {"key": NOT_READY, "effect": "NoSchedule"}, {"key": NOT_READY, "effect": "NoExecute"}]});
        let ready = json!([{"type": "Ready", "status": "True"}]);
        assert_eq!(
            printed(&node(spec, ready)),
            ["mine:NoExecute".to_owned(), format!("{NOT_READY}:NoExecute")]
        );
    }

    #[test]
    fn a_silent_node_is_unknown_once() {
        let mut node = node(
            json!({}),
            json!([{"type": "Ready", "status": "True", "reason": "KubeletReady"}]),
        );
        let conditions = verdict(&node, Timestamp::UNIX_EPOCH).unwrap();
        let told: Vec<_> = conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.reason.as_deref().unwrap()))
            .collect();
        let never = "NodeStatusNeverUpdated";
        let expected = [
            ("Ready", "NodeStatusUnknown"),
            ("MemoryPressure", never),
            ("DiskPressure", never),
            ("PIDPressure", never),
        ];
        assert_eq!(told, expected);
        node.status.as_mut().unwrap().conditions = Some(conditions);
        assert_eq!(verdict(&node, Timestamp::UNIX_EPOCH), None);
    }
}
