//! VolumeBinding: what a pod's claims ask of a node, and what has to happen before the pod may be bound.
//!
//! [`read`] and [`Wanted::check`] decide, pure over what the mirrors hold; [`bind`] tells the provisioner which node was
//! chosen and waits until every claim is bound. (k/k `pkg/scheduler/framework/plugins/volumebinding`, v1.36; which static
//! volume a claim gets is left to the PV controller, which looks again once a node is selected.)

use std::sync::Arc;
use std::time::Duration;

use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{NodeSelector, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::cluster::NodeInfo;
use super::filter::{Refusal, term_matches};
use crate::mirror::Key;
use crate::storage::{Storage, is_bound};

pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// `bindTimeoutSeconds` of the plugin's arguments.
const BIND_TIMEOUT: Duration = Duration::from_secs(600);

/// What a pod's claims ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Where the volumes of its bound claims can be reached.
    affinities: Vec<NodeSelector>,
    /// A bound claim whose volume is gone.
    lost_volume: bool,
    /// Claims that wait for this pod to get a node.
    delayed: Vec<Delayed>,
}

#[derive(Clone, Debug)]
struct Delayed {
    claim: Key,
    /// Selected earlier, by a pod that shares the claim or by an earlier attempt.
    node: Option<String>,
    /// A volume that is there suits it, or a provisioner can make one.
    available: bool,
}

/// Reads a pod's claims; an error is about no node in particular, in upstream's words.
pub(super) fn read(pod: &Pod, storage: &Storage) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    let namespace = pod.namespace().unwrap_or_default();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let name = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => source.claim_name.clone(),
            (None, Some(_)) => format!("{}-{}", pod.name_any(), volume.name),
            (None, None) => continue,
        };
        let Some(claim) = storage.claims.get(&namespace, &name) else {
            return Err(match volume.ephemeral {
                Some(_) => {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
                }
                None => format!("persistentvolumeclaim \"{name}\" not found"),
            });
        };
        read_claim(&claim, storage, &mut wanted)?;
    }
    Ok(wanted)
}

fn read_claim(claim: &PersistentVolumeClaim, storage: &Storage, wanted: &mut Wanted) -> Result<(), String> {
    let name = claim.name_any();
    let spec = claim.spec.clone().unwrap_or_default();
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
        let volume = spec.volume_name.unwrap_or_default();
        return Err(format!(
            "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
        ));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
    }
    if is_bound(claim) {
        match storage.volumes.get("", spec.volume_name.as_deref().unwrap_or_default()) {
            None => wanted.lost_volume = true,
            Some(volume) => wanted.affinities.extend(affinity(&volume).cloned()),
        }
        return Ok(());
    }
    let class = storage.class_of(claim).filter(|class| {
        class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
            && spec.volume_name.as_deref().unwrap_or_default().is_empty()
    });
    let Some(class) = class else {
        return Err("pod has unbound immediate PersistentVolumeClaims".into());
    };
    wanted.delayed.push(Delayed {
        claim: Key::of(claim),
        node: claim.annotations().get(SELECTED_NODE).cloned(),
        available: class.provisioner != NO_PROVISIONER
            || storage.volumes.all().iter().any(|volume| could_serve(volume, claim)),
    });
    Ok(())
}

fn affinity(volume: &PersistentVolume) -> Option<&NodeSelector> {
    volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()
}

/// Whether a volume is free and large enough for a claim of the same class.
fn could_serve(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(offered), Some(asked)) = (&volume.spec, &claim.spec) else {
        return false;
    };
    let size = |list: Option<
        &std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >| { list.and_then(|list| list.get("storage")?.0.parse::<Quantity>().ok()) };
    let reserved_for_other = offered.claim_ref.as_ref().is_some_and(|reference| {
        reference.name != claim.metadata.name || reference.namespace != claim.metadata.namespace
    });
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let modes = offered.access_modes.as_deref().unwrap_or_default();
    phase == Some("Available")
        && !reserved_for_other
        && offered.storage_class_name.as_deref().unwrap_or_default()
            == asked.storage_class_name.as_deref().unwrap_or_default()
        && asked.access_modes.iter().flatten().all(|mode| modes.contains(mode))
        && size(offered.capacity.as_ref()) >= size(asked.resources.as_ref().and_then(|it| it.requests.as_ref()))
}

impl Wanted {
    /// Whether the node can reach what is bound, and get what is not.
    pub(super) fn check(&self, node: &NodeInfo) -> Result<(), Refusal> {
        if self.lost_volume {
            let reason = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
            return Err(Refusal::fixed(reason));
        }
        let reached =
            |selector: &NodeSelector| selector.node_selector_terms.iter().any(|term| term_matches(term, node));
        if !self.affinities.iter().all(reached) {
            return Err(Refusal::fixed("node(s) didn't match PersistentVolume's node affinity"));
        }
        let suits =
            |delayed: &Delayed| delayed.available && delayed.node.as_ref().is_none_or(|chosen| *chosen == node.name);
        match self.delayed.iter().all(suits) {
            true => Ok(()),
            false => Err(Refusal::fixed(
                "node(s) didn't find available persistent volumes to bind",
            )),
        }
    }
}

/// Selects `node` for the claims that wait, and returns once all of them are bound.
pub(super) async fn bind(client: &Client, storage: &Storage, wanted: &Wanted, node: &str) -> Result<(), String> {
    if wanted.delayed.is_empty() {
        return Ok(());
    }
    for delayed in wanted.delayed.iter().filter(|delayed| delayed.node.is_none()) {
        let Key { namespace, name } = &delayed.claim;
        let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
        let patch = Patch::Merge(json!({"metadata": {"annotations": {SELECTED_NODE: node}}}));
        api.patch_metadata(name, &PatchParams::default(), &patch)
            .await
            .map_err(|error| format!("updating claim `{namespace}/{name}`: {error}"))?;
    }
    let mut changed = storage.claims.subscribe();
    let all_bound = async {
        let mut selected = vec![false; wanted.delayed.len()];
        loop {
            let mut open = false;
            for (delayed, selected) in wanted.delayed.iter().zip(&mut selected) {
                let Key { namespace, name } = &delayed.claim;
                let claim: Arc<PersistentVolumeClaim> = storage
                    .claims
                    .get(namespace, name)
                    .ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
                if is_bound(&claim) {
                    continue;
                }
                open = true;
                // The provisioner gives the choice back where it cannot make the volume.
                match claim.annotations().contains_key(SELECTED_NODE) {
                    true => *selected = true,
                    false if *selected => {
                        return Err(format!("provisioning failed for PVC \"{name}\""));
                    }
                    false => {}
                }
            }
            if !open {
                return Ok(());
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::time::timeout(BIND_TIMEOUT, all_bound)
        .await
        .unwrap_or_else(|_| Err("context deadline exceeded".into()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn node(name: &str) -> NodeInfo {
        let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
        NodeInfo::read(&serde_json::from_value(node).unwrap())
    }

    fn storage() -> Storage {
        let storage = Storage::default();
        let class = |name: &str, provisioner: &str, mode: &str| {
            let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
            storage.classes.put(serde_json::from_value(class).unwrap());
        };
        class("standard", "k8slab.dev/local-path", "WaitForFirstConsumer");
        class("manual", NO_PROVISIONER, "WaitForFirstConsumer");
        class("now", "k8slab.dev/local-path", "Immediate");
        storage
    }

    fn claim(storage: &Storage, name: &str, mut more: Value) {
        let bound = more["spec"].get("volumeName").is_some();
        more["metadata"]["name"] = json!(name);
        more["metadata"]["namespace"] = json!("d");
        if bound {
            more["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
        }
        more["spec"]["resources"] = json!({"requests": {"storage": "1Gi"}});
        storage.claims.put(serde_json::from_value(more).unwrap());
    }

    fn volume(storage: &Storage, name: &str, host: &str) {
        let volume = json!({"metadata": {"name": name}, "status": {"phase": "Available"},
            "spec": {"storageClassName": "manual", "capacity": {"storage": "2Gi"}, "nodeAffinity": {"required": {
                "nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}}}});
        storage.volumes.put(serde_json::from_value(volume).unwrap());
    }

    fn wanted(storage: &Storage, claim: &str) -> Result<Wanted, String> {
        let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [], "volumes": [
            {"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}});
        read(&serde_json::from_value(pod).unwrap(), storage)
    }

    #[test]
    fn a_pod_waits_for_claims_that_nobody_will_bind_for_it() {
        let storage = storage();
        claim(&storage, "now", json!({"spec": {"storageClassName": "now"}}));
        claim(&storage, "none", json!({"spec": {"storageClassName": ""}}));
        let refused = |name: &str| wanted(&storage, name).unwrap_err();
        assert_eq!(refused("absent"), "persistentvolumeclaim \"absent\" not found");
        for unbound in ["now", "none"] {
            assert_eq!(refused(unbound), "pod has unbound immediate PersistentVolumeClaims");
        }
    }

    #[test]
    fn a_bound_volume_ties_its_pod_to_the_nodes_that_reach_it() {
        let storage = storage();
        claim(&storage, "data", json!({"spec": {"volumeName": "pv"}}));
        volume(&storage, "pv", "a");
        let wanted = wanted(&storage, "data").unwrap();
        assert_eq!(wanted.check(&node("a")), Ok(()));
        let reasons = wanted.check(&node("b")).unwrap_err().reasons;
        assert_eq!(reasons, ["node(s) didn't match PersistentVolume's node affinity"]);
    }

    #[test]
    fn a_delayed_claim_needs_a_provisioner_or_a_volume_and_stays_with_its_node() {
        let storage = storage();
        claim(&storage, "new", json!({"spec": {"storageClassName": "standard"}}));
        assert_eq!(wanted(&storage, "new").unwrap().check(&node("a")), Ok(()));
        let chosen =
            json!({"metadata": {"annotations": {SELECTED_NODE: "a"}}, "spec": {"storageClassName": "standard"}});
        claim(&storage, "chosen", chosen);
        assert!(wanted(&storage, "chosen").unwrap().check(&node("b")).is_err());
        claim(&storage, "static", json!({"spec": {"storageClassName": "manual"}}));
        let reasons = wanted(&storage, "static")
            .unwrap()
            .check(&node("a"))
            .unwrap_err()
            .reasons;
        assert_eq!(reasons, ["node(s) didn't find available persistent volumes to bind"]);
        volume(&storage, "pv", "a");
        assert_eq!(wanted(&storage, "static").unwrap().check(&node("a")), Ok(()));
    }
}
