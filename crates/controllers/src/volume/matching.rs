//! Which volume satisfies which claim.
//!
//! Pure. (k/k `pkg/controller/volume/persistentvolume/index.go`, `component-helpers/storage/volume/pv_helpers.go`, v1.36.)

use std::sync::Arc;

use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;

use crate::selector;

/// The class a claim asks for, beta annotation first; empty: none.
pub(super) fn claim_class(claim: &PersistentVolumeClaim) -> &str {
    let annotated = claim.annotations().get("volume.beta.kubernetes.io/storage-class");
    let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotated.or(named).map_or("", String::as_str)
}

/// The class a volume belongs to; empty: none.
pub(super) fn volume_class(volume: &PersistentVolume) -> &str {
    let annotated = volume.annotations().get("volume.beta.kubernetes.io/storage-class");
    let named = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotated.or(named).map_or("", String::as_str)
}

/// Whether the volume's `claimRef` names this claim, by uid if it has one.
pub(super) fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        return false;
    };
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && reference
            .uid
            .as_ref()
            .is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
}

fn storage(
    list: Option<&std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) -> Quantity {
    list.and_then(|list| list.get("storage")?.0.parse().ok())
        .unwrap_or_else(|| Quantity::from_value(0, apimachinery::quantity::Format::BinarySi))
}

/// How much a volume holds.
pub(super) fn capacity(volume: &PersistentVolume) -> Quantity {
    storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

/// How much a claim asks for.
pub(super) fn request(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref()))
}

fn mode_of(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

fn has_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let offered = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref());
    let wanted = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref());
    wanted
        .unwrap_or_default()
        .iter()
        .all(|mode| offered.unwrap_or_default().contains(mode))
}

/// Why a volume that a claim names cannot be had, in upstream's words.
pub(super) fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    let mode = |mode: Option<&String>| mode_of(mode).to_owned();
    let (volume_spec, claim_spec) = (volume.spec.as_ref(), claim.spec.as_ref());
    if capacity(volume) < request(claim) {
        return Some("requested PV is too small".into());
    }
    if volume_class(volume) != claim_class(claim) {
        return Some("storageClassName does not match".into());
    }
    if mode(volume_spec.and_then(|spec| spec.volume_mode.as_ref()))
        != mode(claim_spec.and_then(|spec| spec.volume_mode.as_ref()))
    {
        return Some("incompatible volumeMode".into());
    }
    (!has_modes(volume, claim)).then(|| "incompatible accessMode".into())
}

/// The smallest volume that satisfies the claim; one that is reserved for it comes first. With `only_reserved` no other.
pub(super) fn best(
    claim: &PersistentVolumeClaim,
    volumes: Vec<Arc<PersistentVolume>>,
    only_reserved: bool,
) -> Option<Arc<PersistentVolume>> {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let wanted = wanted.map(selector::of).transpose().ok()?;
    let suits = |volume: &Arc<PersistentVolume>| {
        if volume.metadata.deletion_timestamp.is_some() || mismatch(volume, claim).is_some() {
            return false;
        }
        if is_reserved_for(volume, claim) {
            return true;
        }
        let free = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let selected = wanted
            .as_ref()
            .is_none_or(|wanted| selector::matches(wanted, volume.metadata.labels.as_ref()));
        !only_reserved && free && selected && phase == Some("Available")
    };
    let order = |volume: &Arc<PersistentVolume>| (!is_reserved_for(volume, claim), capacity(volume), volume.name_any());
    volumes.into_iter().filter(suits).min_by_key(order)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(name: &str, size: &str, more: Value) -> Arc<PersistentVolume> {
        let mut volume = json!({"metadata": {"name": name, "labels": {"disk": name}},
            "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Available"}});
        volume["spec"]
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut claim = json!({"metadata": {"name": "data", "namespace": "d", "uid": "u"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        claim["spec"]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        serde_json::from_value(claim).unwrap()
    }

    #[test]
    fn the_smallest_volume_that_is_large_enough_is_taken() {
        let volumes = || {
            vec![
                volume("big", "10Gi", json!({})),
                volume("fits", "2Gi", json!({})),
                volume("small", "500Mi", json!({})),
                volume("classy", "1Gi", json!({"storageClassName": "fast"})),
            ]
        };
        let name =
            |spec: Value, only_reserved| best(&claim(spec), volumes(), only_reserved).map(|found| found.name_any());
        assert_eq!(name(json!({}), false).as_deref(), Some("fits"));
        assert_eq!(name(json!({}), true), None);
        assert_eq!(
            name(json!({"storageClassName": "fast"}), false).as_deref(),
            Some("classy")
        );
        assert_eq!(name(json!({"accessModes": ["ReadWriteMany"]}), false), None);
        let selector = json!({"selector": {"matchLabels": {"disk": "big"}}});
        assert_eq!(name(selector, false).as_deref(), Some("big"));
    }

    #[test]
    fn a_reserved_volume_comes_first_and_belongs_to_nobody_else() {
        let reserved = |name: &str| volume("mine", "50Gi", json!({"claimRef": {"name": name, "namespace": "d"}}));
        let found = |name: &str, only| {
            best(
                &claim(json!({})),
                vec![volume("fits", "2Gi", json!({})), reserved(name)],
                only,
            )
        };
        assert_eq!(found("data", true).unwrap().name_any(), "mine");
        assert_eq!(found("data", false).unwrap().name_any(), "mine");
        assert_eq!(found("other", false).unwrap().name_any(), "fits");
    }

    #[test]
    fn a_volume_that_does_not_suit_says_why() {
        let why = |size: &str, more: Value| mismatch(&volume("v", size, more), &claim(json!({})));
        assert_eq!(why("1Gi", json!({})), None);
        assert_eq!(why("1Mi", json!({})).as_deref(), Some("requested PV is too small"));
        assert_eq!(
            why("1Gi", json!({"storageClassName": "x"})).as_deref(),
            Some("storageClassName does not match")
        );
        assert_eq!(
            why("1Gi", json!({"volumeMode": "Block"})).as_deref(),
            Some("incompatible volumeMode")
        );
        assert_eq!(
            why("1Gi", json!({"accessModes": ["ReadOnlyMany"]})).as_deref(),
            Some("incompatible accessMode")
        );
    }
}
