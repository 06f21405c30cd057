//! ControllerRevisions: what a StatefulSet's or DaemonSet's template was, and which state is which.
//!
//! Owns naming, numbering and truncation. Must not know how a controller rolls from one to the next.
//! (k/k `pkg/controller/history/controller_history.go`, v1.36.)

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::deployment::template_hash;
use crate::error::{self, Doing, Result};
use crate::informers::Informers;
use crate::key::Key;
use crate::ownership::{self, Claim};
use crate::selector;

/// On a pod: which revision it was made from.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";
pub(crate) const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The revisions of one owner.
pub(crate) struct History<'a, O> {
    pub(crate) owner: &'a O,
    pub(crate) template: &'a PodTemplateSpec,
    pub(crate) selector: &'a LabelSelector,
    pub(crate) collisions: Option<i32>,
    pub(crate) client: &'a Client,
}

/// Where an owner's history stands.
pub(crate) struct Current {
    /// The revision of the owner's template as it is now.
    pub(crate) update: Arc<ControllerRevision>,
    /// All of them, oldest first.
    pub(crate) all: Vec<Arc<ControllerRevision>>,
    /// How often a name was taken already.
    pub(crate) collisions: i32,
}

impl<O> History<'_, O>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    /// Finds the revision of the owner's template, or makes it; one that comes back moves to the end.
    pub(crate) async fn sync(&self, informers: &Informers) -> Result<Current> {
        let wanted = selector::of(self.selector)?;
        let namespace = self.owner.meta().namespace.clone().unwrap_or_default();
        let claim = Claim {
            owner: self.owner,
            selector: &wanted,
            client: self.client,
        };
        let mut all = claim
            .of(informers.controller_revisions.in_namespace(&namespace))
            .await?;
        all.sort_by_key(|revision| (revision.revision, revision.creation_timestamp(), revision.name_any()));
        let next = all.last().map_or(0, |last| last.revision) + 1;
        let collisions = self.collisions.unwrap_or_default();
        let data = self.data();
        let is_same = |revision: &Arc<ControllerRevision>| revision.data.as_ref().is_some_and(|known| known.0 == data);
        let Some(place) = all.iter().rposition(is_same) else {
            let (update, collisions) = self.create(next, data, collisions).await?;
            all.push(update.clone());
            return Ok(Current {
                update,
                all,
                collisions,
            });
        };
        if place + 1 < all.len() {
            let back = all.remove(place);
            all.push(self.renumber(&back, next).await?);
        }
        let update = all[all.len() - 1].clone();
        Ok(Current {
            update,
            all,
            collisions,
        })
    }

    fn api(&self) -> Api<ControllerRevision> {
        let namespace = self.owner.meta().namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A patch of the owner that brings the template back: what `kubectl rollout undo` sends.
    fn data(&self) -> Value {
        let mut template = serde_json::to_value(self.template).unwrap_or_default();
        template["$patch"] = json!("replace");
        json!({"spec": {"template": template}})
    }

    /// A name that is taken by another state moves on to the next.
    async fn create(&self, number: i64, data: Value, collisions: i32) -> Result<(Arc<ControllerRevision>, i32)> {
        let owner = Key::of(self.owner);
        let mut collisions = collisions;
        loop {
            let hash = template_hash(self.template, Some(collisions));
            let name = format!("{}-{hash}", owner.name.chars().take(223).collect::<String>());
            let labels = self
                .template
                .metadata
                .as_ref()
                .and_then(|metadata| metadata.labels.clone());
            let mut labels: BTreeMap<_, _> = labels.unwrap_or_default();
            labels.insert(HASH_LABEL.to_owned(), hash.clone());
            let revision = ControllerRevision {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: Some(owner.namespace.clone()),
                    labels: Some(labels),
                    annotations: self.owner.meta().annotations.clone(),
                    owner_references: Some(vec![ownership::controller_ref(self.owner)]),
                    ..Default::default()
                },
                data: Some(RawExtension(data.clone())),
                revision: number,
            };
            match self.api().create(&PostParams::default(), &revision).await {
                Ok(made) => return Ok((Arc::new(made), collisions)),
                Err(error) if error::is_already_exists(&error) => {
                    let there = self.api().get(&name).await;
                    let there = there.doing(|| format!("looking at revision `{name}`"))?;
                    let ours = ownership::is_controlled_by(&there.metadata, &self.owner.uid().unwrap_or_default());
                    if ours && there.data == revision.data {
                        return Ok((Arc::new(there), collisions));
                    }
                    collisions += 1;
                }
                Err(error) => return Err(error).doing(|| format!("creating a revision of `{owner}`")),
            }
        }
    }

    async fn renumber(&self, revision: &ControllerRevision, number: i64) -> Result<Arc<ControllerRevision>> {
        let name = revision.name_any();
        let patch = Patch::Merge(json!({"revision": number}));
        let changed = self.api().patch(&name, &PatchParams::default(), &patch).await;
        changed.map(Arc::new).doing(|| format!("renumbering revision `{name}`"))
    }

    /// Deletes the oldest revisions that nobody uses, beyond `limit`.
    pub(crate) async fn truncate(
        &self,
        all: &[Arc<ControllerRevision>],
        used: &BTreeSet<String>,
        limit: usize,
    ) -> Result<()> {
        let unused: Vec<_> = all
            .iter()
            .filter(|revision| !used.contains(&revision.name_any()))
            .collect();
        for revision in unused.iter().take(unused.len().saturating_sub(limit)) {
            let name = revision.name_any();
            match self.api().delete(&name, &DeleteParams::default()).await {
                Err(error) if !error::is_not_found(&error) => {
                    return Err(error).doing(|| format!("deleting revision `{name}`"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The template a revision stands for.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}
