//! A StatefulSet's pods and claims: how they are called, made, owned and deleted.
//!
//! (k/k `pkg/controller/statefulset/{stateful_pod_control,stateful_set_utils}.go`, v1.36.)

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::StatefulSets;
use super::plan::{POD_NAME_LABEL, View};
use crate::error::{self, Doing, Error, Result};
use crate::history::{REVISION_LABEL, template_of};
use crate::key::Key;
use crate::ownership;

const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The claims of one member, as they are to be.
fn claims(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let templates = spec.volume_claim_templates.iter().flatten();
    let claim = templates.map(|template| {
        let mut claim = template.clone();
        claim.metadata.name = Some(format!("{}-{}-{ordinal}", template.name_any(), set.name_any()));
        claim.metadata.namespace = set.namespace();
        let wanted = spec.selector.match_labels.clone().unwrap_or_default();
        claim.labels_mut().extend(wanted);
        claim.status = None;
        claim
    });
    claim.collect()
}

/// The pod of this ordinal, from a revision's template.
fn pod(view: &View<'_>, ordinal: i32, revision: &ControllerRevision) -> Pod {
    let set = view.set;
    let name = format!("{}-{ordinal}", set.name_any());
    let template = template_of(revision).unwrap_or_else(|| view.spec.template.clone());
    let meta = template.metadata.unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    labels.insert(POD_NAME_LABEL.to_owned(), name.clone());
    labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
    labels.insert(REVISION_LABEL.to_owned(), revision.name_any());
    let mut spec = template.spec.unwrap_or_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = view.spec.service_name.clone();
    let volumes = spec.volumes.get_or_insert_default();
    for template in view.spec.volume_claim_templates.iter().flatten() {
        // A claim takes the place of a volume of the same name.
        volumes.retain(|volume| volume.name != template.name_any());
        volumes.push(Volume {
            name: template.name_any(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: format!("{}-{name}", template.name_any()),
                read_only: None,
            }),
            ..Default::default()
        });
    }
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: set.namespace(),
            labels: Some(labels),
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![ownership::controller_ref(set)]),
            ..Default::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// Who is to own a claim: the set, the pod that goes away, or nobody.
fn owner_of_claim(set: &StatefulSet, spec: &StatefulSetSpec, condemned: Option<&Pod>) -> Option<OwnerReference> {
    let policy = spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |policy: Option<&String>| policy.is_some_and(|policy| policy == "Delete");
    let when_deleted = deletes(policy.and_then(|policy| policy.when_deleted.as_ref()));
    let when_scaled = deletes(policy.and_then(|policy| policy.when_scaled.as_ref()));
    match condemned {
        Some(pod) if when_scaled => Some(ownership::controller_ref(pod)),
        _ => when_deleted.then(|| ownership::controller_ref(set)),
    }
}

impl StatefulSets {
    /// Claims first, then the pod. False where there was nothing to wait for.
    pub(super) async fn create(&self, view: &View<'_>, ordinal: i32, revision: &ControllerRevision) -> Result<bool> {
        let set = view.set;
        self.make_claims(set, view.spec, ordinal).await?;
        let pod = pod(view, ordinal, revision);
        let (name, set_name) = (pod.name_any(), set.name_any());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        match api.create(&PostParams::default(), &pod).await {
            Ok(_) => {
                let message = format!("create Pod {name} in StatefulSet {set_name} successful");
                self.recorder.normal(set, "SuccessfulCreate", message);
                Ok(true)
            }
            Err(error) if error::is_namespace_terminating(&error) => Ok(false),
            Err(error) => {
                if !error::is_already_exists(&error) {
                    let why = error::message(&error);
                    let message = format!("create Pod {name} in StatefulSet {set_name} failed error: {why}");
                    self.recorder.warning(set, "FailedCreate", message);
                }
                Err(error).doing(|| format!("creating pod `{name}` of StatefulSet `{}`", Key::of(set)))
            }
        }
    }

    pub(super) async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<bool> {
        let (name, set_name) = (pod.name_any(), set.name_any());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: pod.uid(),
                resource_version: None,
            }),
            ..Default::default()
        };
        match api.delete(&name, &params).await {
            Ok(_) => {
                let message = format!("delete Pod {name} in StatefulSet {set_name} successful");
                self.recorder.normal(set, "SuccessfulDelete", message);
                Ok(true)
            }
            Err(error) if error::is_not_found(&error) => Ok(false),
            Err(error) => {
                let why = error::message(&error);
                let message = format!("delete Pod {name} in StatefulSet {set_name} failed error: {why}");
                self.recorder.warning(set, "FailedDelete", message);
                Err(error).doing(|| format!("deleting pod `{name}` of StatefulSet `{}`", Key::of(set)))
            }
        }
    }

    /// Makes the claims of a member that are not there.
    pub(super) async fn make_claims(&self, set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32) -> Result<()> {
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        for mut claim in claims(set, spec, ordinal) {
            let name = claim.name_any();
            match self.context.informers.claims.get(&Key::of(&claim)) {
                Some(there) if there.metadata.deletion_timestamp.is_some() => {
                    return Err(Error::new(format!("pvc {name} is being deleted")));
                }
                Some(_) => continue,
                None => {}
            }
            claim.metadata.owner_references = owner_of_claim(set, spec, None).map(|owner| vec![owner]);
            let (pod, set_name) = (format!("{}-{ordinal}", set.name_any()), set.name_any());
            match api.create(&PostParams::default(), &claim).await {
                Ok(_) => {
                    let message = format!("create Claim {name} Pod {pod} in StatefulSet {set_name} success");
                    self.recorder.normal(set, "SuccessfulCreate", message);
                }
                Err(error) if error::is_already_exists(&error) => {}
                Err(error) => {
                    let why = error::message(&error);
                    let message =
                        format!("create Claim {name} for Pod {pod} in StatefulSet {set_name} failed error: {why}");
                    self.recorder.warning(set, "FailedCreate", message);
                    return Err(error).doing(|| format!("creating claim `{name}`"));
                }
            }
        }
        Ok(())
    }

    /// Brings the owners of a member's claims to what the retention policy says. Other owners stay.
    pub(super) async fn own_claims(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        ordinal: i32,
        condemned: Option<&Pod>,
    ) -> Result<()> {
        let wanted = owner_of_claim(set, spec, condemned);
        let pod_name = format!("{}-{ordinal}", set.name_any());
        for claim in claims(set, spec, ordinal) {
            let key = Key::of(&claim);
            let Some(claim) = self.context.informers.claims.get(&key) else {
                continue;
            };
            let owners = claim.owner_references();
            let is_ours = |owner: &OwnerReference| {
                Some(&owner.uid) == set.metadata.uid.as_ref() || (owner.kind == "Pod" && owner.name == pod_name)
            };
            let mut changed: Vec<_> = owners.iter().filter(|owner| !is_ours(owner)).cloned().collect();
            changed.extend(wanted.clone());
            let same = owners.len() == changed.len()
                && owners
                    .iter()
                    .all(|owner| changed.iter().any(|other| other.uid == owner.uid));
            if same {
                continue;
            }
            let mut updated = PersistentVolumeClaim::clone(&claim);
            updated.metadata.owner_references = Some(changed);
            let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
            match api.replace(&key.name, &PostParams::default(), &updated).await {
                Err(error) if error::is_not_found(&error) => {}
                written => written
                    .map(drop)
                    .doing(|| format!("changing the owners of claim `{key}`"))?,
            }
        }
        Ok(())
    }

    /// An adopted pod gets the name label that selects it alone.
    pub(super) async fn label(&self, pod: &Pod) -> Result<()> {
        let key = Key::of(pod);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = Patch::Merge(json!({"metadata": {"uid": pod.uid(), "labels": {POD_NAME_LABEL: key.name}}}));
        match api.patch_metadata(&key.name, &PatchParams::default(), &patch).await {
            Err(error) if error::is_not_found(&error) => Ok(()),
            written => written.map(drop).doing(|| format!("labelling pod `{key}`")),
        }
    }
}
