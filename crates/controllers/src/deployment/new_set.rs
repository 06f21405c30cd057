//! The ReplicaSet of the Deployment's current template: made, found again, or brought back.
//!
//! Owns its name, its revision, and what the Deployment says when it is new. (k/k `pkg/controller/deployment/sync.go`,
//! `getNewReplicaSet`, v1.36.)

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use super::rolling::{self, Bounds};
use super::rollout::Rollout;
use super::status::{self, PROGRESSING};
use super::template::{self, HASH_LABEL};
use super::{desired, replicas, revision};
use crate::error::{self, Doing, Error, Result};
use crate::ownership;

impl Rollout<'_> {
    /// Brings the new set's and the Deployment's revision up to date, if there is a new set.
    pub(super) async fn note_revision(&mut self) -> Result<()> {
        let Some(mut new) = self.new.clone() else { return Ok(()) };
        let changed = revision::note_on_new_set(&mut new, &self.deployment, revision::next(&self.old));
        let min_ready = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let spec = new.spec.get_or_insert_default();
        let min_ready_changed = spec.min_ready_seconds.unwrap_or_default() != min_ready.unwrap_or_default();
        if changed || min_ready_changed {
            spec.min_ready_seconds = min_ready;
            self.new = Some(self.replace(&new).await?);
            return Ok(());
        }
        let number = revision::of(new.metadata.annotations.as_ref());
        let mut needs_write = revision::note_on_deployment(&mut self.deployment, number);
        if status::lacks_progress_condition(&self.deployment) {
            let message = format!("Found new replica set \"{}\"", new.name_any());
            self.set_progressing("True", status::NEW_SET_FOUND, message);
            needs_write = true;
        }
        if needs_write { self.write_status().await } else { Ok(()) }
    }

    pub(super) async fn ensure_new_set(&mut self) -> Result<()> {
        if self.new.is_some() {
            return self.note_revision().await;
        }
        let number = revision::next(&self.old);
        let wanted = self.new_set(number);
        let size = replicas(&wanted);
        let name = wanted.name_any();
        let api: Api<ReplicaSet> = Api::namespaced(self.controller.client.clone(), &self.key.namespace);
        let created = match api.create(&PostParams::default(), &wanted).await {
            Ok(created) => created,
            Err(error) if error::is_already_exists(&error) => {
                let existing = api
                    .get(&name)
                    .await
                    .doing(|| format!("looking at ReplicaSet `{name}`"))?;
                return self.take_or_collide(existing).await;
            }
            Err(error) if error::is_namespace_terminating(&error) => return Ok(()),
            Err(error) => {
                let message = format!(
                    "Failed to create new replica set \"{name}\": {}",
                    error::message(&error)
                );
                if status::has_deadline(&self.deployment) {
                    self.set_progressing("False", status::SET_CREATE_ERROR, message.clone());
                    // The creation's own error is the one to report.
                    let _ = self.write_status().await;
                }
                self.controller
                    .recorder
                    .warning(&self.deployment, status::SET_CREATE_ERROR, message);
                return Err(error).doing(|| format!("creating ReplicaSet `{name}` of Deployment `{}`", self.key));
            }
        };
        if size > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            self.controller
                .recorder
                .normal(&self.deployment, "ScalingReplicaSet", message);
        }
        self.new = Some(created);
        let mut needs_write = revision::note_on_deployment(&mut self.deployment, number);
        if status::has_deadline(&self.deployment) {
            let message = format!("Created new replica set \"{name}\"");
            self.set_progressing("True", status::NEW_SET_CREATED, message);
            needs_write = true;
        }
        if needs_write { self.write_status().await } else { Ok(()) }
    }

    /// The set that a missing new one is to be.
    fn new_set(&self, number: i64) -> ReplicaSet {
        let spec = self.deployment.spec.clone().unwrap_or_default();
        let collisions = self
            .deployment
            .status
            .as_ref()
            .and_then(|status| status.collision_count);
        let hash = template::hash(&spec.template, collisions);
        let mut template = spec.template;
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec.selector;
        selector
            .match_labels
            .get_or_insert_default()
            .insert(HASH_LABEL.to_owned(), hash.clone());
        let total = self.old.iter().map(replicas).sum();
        let is_rolling = rolling::is_rolling(&self.deployment);
        let size = rolling::new_size(
            is_rolling,
            desired(&self.deployment),
            Bounds::of(&self.deployment),
            0,
            total,
        );
        let mut set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", self.key.name)),
                namespace: Some(self.key.namespace.clone()),
                owner_references: Some(vec![ownership::controller_ref(&self.deployment)]),
                labels: Some(labels),
                ..Default::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        revision::note_on_new_set(&mut set, &self.deployment, number);
        revision::note_sizes(&mut set, &self.deployment);
        set
    }

    /// A set of that name exists: it is ours (the cache is behind), or another template has the same hash.
    async fn take_or_collide(&mut self, existing: ReplicaSet) -> Result<()> {
        let ours = ownership::is_controlled_by(&existing.metadata, &self.deployment.uid().unwrap_or_default());
        let theirs = existing.spec.as_ref().and_then(|spec| spec.template.as_ref());
        let same = template::are_equal(theirs, self.deployment.spec.as_ref().map(|spec| &spec.template));
        if ours && same {
            self.new = Some(existing);
            return self.note_revision().await;
        }
        let count = self
            .deployment
            .status
            .get_or_insert_default()
            .collision_count
            .get_or_insert_default();
        *count += 1;
        self.write_status().await?;
        let name = existing.name_any();
        Err(Error::new(format!(
            "another template has the name `{name}`: trying the next one for `{}`",
            self.key
        )))
    }

    fn set_progressing(&mut self, status: &str, reason: &str, message: String) {
        let condition = status::condition(PROGRESSING, status, reason, message, self.now());
        status::set(self.deployment.status.get_or_insert_default(), condition);
    }
}
