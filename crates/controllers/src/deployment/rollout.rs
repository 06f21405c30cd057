//! One pass over one Deployment: finds its ReplicaSets, moves them one step, and says how far it is.
//!
//! Owns the acting. What to do is decided by its pure neighbours.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};

use super::rolling::{self, Bounds, Size};
use super::scaling::{self, Active, Target};
use super::{Deployments, available, desired, replicas, revision, status, template};
use crate::error::{self, Doing, Result};
use crate::key::Key;
use crate::ownership::{self, Claim};
use crate::{pods, selector};

/// A pass over a Deployment. Every write brings the written object back, so that the next one builds on it.
pub(super) struct Rollout<'a> {
    pub(super) controller: &'a Deployments,
    pub(super) key: &'a Key,
    pub(super) deployment: Deployment,
    /// The set whose template is the Deployment's.
    pub(super) new: Option<ReplicaSet>,
    /// All others, oldest first.
    pub(super) old: Vec<ReplicaSet>,
}

impl<'a> Rollout<'a> {
    pub(super) fn new(controller: &'a Deployments, key: &'a Key, deployment: &Deployment) -> Self {
        Self {
            controller,
            key,
            deployment: deployment.clone(),
            new: None,
            old: Vec::new(),
        }
    }

    pub(super) async fn sync(mut self) -> Result<()> {
        let Some(spec) = self.deployment.spec.clone() else {
            return Ok(());
        };
        if spec.selector == LabelSelector::default() {
            return self.refuse_to_select_all().await;
        }
        self.find_sets(&spec.selector).await?;
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return self.write_counts().await;
        }
        if let Some(condition) = status::pause_condition(&self.deployment, self.now()) {
            status::set(self.deployment.status.get_or_insert_default(), condition);
            self.write_status().await?;
        }
        let paused = spec.paused.unwrap_or_default();
        if paused || self.was_scaled() {
            self.note_revision().await?;
            self.scale().await?;
            if paused {
                self.clean_up().await?;
            }
            return self.write_counts().await;
        }
        if rolling::is_rolling(&self.deployment) {
            self.roll().await
        } else {
            self.recreate().await
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.controller.context.clock.now()
    }

    async fn refuse_to_select_all(&mut self) -> Result<()> {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        self.controller
            .recorder
            .warning(&self.deployment, "SelectingAll", message);
        let generation = self.deployment.metadata.generation;
        let status = self.deployment.status.get_or_insert_default();
        if status.observed_generation < generation {
            status.observed_generation = generation;
            self.write_status().await?;
        }
        Ok(())
    }

    /// Claims ReplicaSets and tells the new one from the old ones.
    async fn find_sets(&mut self, selector: &LabelSelector) -> Result<()> {
        let wanted = selector::of(selector)?;
        let candidates = self
            .controller
            .context
            .informers
            .replica_sets
            .in_namespace(&self.key.namespace);
        let claim = Claim {
            owner: &self.deployment,
            selector: &wanted,
            client: &self.controller.client,
        };
        let mut sets: Vec<ReplicaSet> = claim
            .of(candidates)
            .await?
            .into_iter()
            .map(Arc::unwrap_or_clone)
            .collect();
        sets.sort_by_cached_key(|set| (set.creation_timestamp(), set.name_any()));
        let template = self.deployment.spec.as_ref().map(|spec| &spec.template);
        let is_new =
            |set: &ReplicaSet| template::are_equal(set.spec.as_ref().and_then(|spec| spec.template.as_ref()), template);
        // The oldest with this template, in the unlikely case that there are several.
        self.new = sets.iter().position(is_new).map(|index| sets.remove(index));
        self.old = sets;
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    fn was_scaled(&self) -> bool {
        let wanted = desired(&self.deployment);
        self.all()
            .filter(|set| replicas(set) > 0)
            .filter_map(revision::desired_before)
            .any(|before| before != wanted)
    }

    // ---- rolling and recreating

    async fn roll(&mut self) -> Result<()> {
        self.ensure_new_set().await?;
        let bounds = Bounds::of(&self.deployment);
        let wanted = desired(&self.deployment);
        if let Some(new) = &self.new {
            let total = self.all().map(replicas).sum();
            let size = match replicas(new) {
                now if now >= wanted => wanted,
                now => rolling::new_size(true, wanted, bounds, now, total),
            };
            if self.scale_new(size).await? {
                return self.write_progress().await;
            }
        }
        let size = |set: &ReplicaSet| Size {
            replicas: replicas(set),
            available: available(set),
        };
        let new = self.new.as_ref().map_or(
            Size {
                replicas: 0,
                available: 0,
            },
            size,
        );
        let old: Vec<Size> = self.old.iter().map(size).collect();
        let steps = rolling::shrink_old(wanted, bounds, new, &old);
        for step in &steps {
            self.scale_old(step.set, step.to).await?;
        }
        if steps.is_empty() && self.is_complete() {
            self.clean_up().await?;
        }
        self.write_progress().await
    }

    async fn recreate(&mut self) -> Result<()> {
        self.note_revision().await?;
        let mut scaled = false;
        for index in 0..self.old.len() {
            scaled |= self.scale_old(index, 0).await?;
        }
        if scaled || self.old_pods_run() {
            return self.write_progress().await;
        }
        self.ensure_new_set().await?;
        self.scale_new(desired(&self.deployment)).await?;
        if self.is_complete() {
            self.clean_up().await?;
        }
        self.write_progress().await
    }

    fn is_complete(&self) -> bool {
        let none = DeploymentStatus::default();
        status::is_complete(&self.deployment, self.deployment.status.as_ref().unwrap_or(&none))
    }

    /// True while a pod of an old ReplicaSet may still run.
    fn old_pods_run(&self) -> bool {
        if self
            .old
            .iter()
            .any(|set| set.status.as_ref().is_some_and(|status| status.replicas > 0))
        {
            return true;
        }
        let pods = self.controller.context.informers.pods.in_namespace(&self.key.namespace);
        let is_old = |uid: &str| self.old.iter().any(|set| set.metadata.uid.as_deref() == Some(uid));
        pods.iter().any(|pod| {
            let owner = ownership::controller_of(&pod.metadata);
            owner.is_some_and(|owner| is_old(&owner.uid)) && !pods::is_terminal(pod)
        })
    }

    // ---- sizes

    /// A new size for the Deployment, without a rollout step.
    async fn scale(&mut self) -> Result<()> {
        let wanted = desired(&self.deployment);
        let active = self.all().filter(|set| replicas(set) > 0).count();
        if active <= 1 {
            let in_old = self.old.iter().position(|set| replicas(set) > 0);
            return match (in_old, &self.new) {
                (Some(index), _) => self.scale_old(index, wanted).await.map(drop),
                (None, Some(_)) => self.scale_new(wanted).await.map(drop),
                // Nothing is active and there is no new set: the newest of the old ones.
                (None, None) if !self.old.is_empty() => self.scale_old(self.old.len() - 1, wanted).await.map(drop),
                (None, None) => Ok(()),
            };
        }
        if self.new.as_ref().is_some_and(|new| is_saturated(new, wanted)) {
            for index in 0..self.old.len() {
                self.scale_old(index, 0).await?;
            }
            return Ok(());
        }
        if rolling::is_rolling(&self.deployment) {
            self.scale_in_proportion(wanted).await
        } else {
            Ok(())
        }
    }

    async fn scale_in_proportion(&mut self, wanted: i32) -> Result<()> {
        let target = Target {
            desired: wanted,
            surge: Bounds::of(&self.deployment).surge,
            status_replicas: self
                .deployment
                .status
                .as_ref()
                .and_then(|status| status.replicas)
                .unwrap_or_default(),
        };
        let indexed = self.old.iter().enumerate().map(|(index, set)| (Some(index), set));
        let indexed = indexed.chain(self.new.as_ref().map(|set| (None, set)));
        let (places, active): (Vec<_>, Vec<_>) = indexed
            .filter(|(_, set)| replicas(set) > 0)
            .map(|(place, set)| {
                let created = set.creation_timestamp().map(|time| time.0);
                let most_before = revision::most_before(set);
                (
                    place,
                    Active {
                        replicas: replicas(set),
                        most_before,
                        created,
                        name: set.name_any(),
                    },
                )
            })
            .unzip();
        for (place, size) in places.into_iter().zip(scaling::distribute(target, &active)) {
            // Annotations too, even where the size stays: the next share is in proportion to them.
            match place {
                Some(index) => {
                    let set = self.old[index].clone();
                    self.old[index] = self.resize(set, size).await?.0;
                }
                None => {
                    if let Some(set) = self.new.clone() {
                        self.new = Some(self.resize(set, size).await?.0);
                    }
                }
            }
        }
        Ok(())
    }

    /// True if the new set's size had to change.
    async fn scale_new(&mut self, size: i32) -> Result<bool> {
        let Some(set) = self.new.clone().filter(|set| replicas(set) != size) else {
            return Ok(false);
        };
        let (set, scaled) = self.resize(set, size).await?;
        self.new = Some(set);
        Ok(scaled)
    }

    /// True if the old set's size had to change.
    async fn scale_old(&mut self, index: usize, size: i32) -> Result<bool> {
        let set = self.old[index].clone();
        if replicas(&set) == size {
            return Ok(false);
        }
        let (set, scaled) = self.resize(set, size).await?;
        self.old[index] = set;
        Ok(scaled)
    }

    async fn resize(&self, mut set: ReplicaSet, size: i32) -> Result<(ReplicaSet, bool)> {
        let before = replicas(&set);
        let noted = revision::note_sizes(&mut set, &self.deployment);
        if before == size && !noted {
            return Ok((set, false));
        }
        set.spec.get_or_insert_default().replicas = Some(size);
        let set = self.replace(&set).await?;
        if before != size {
            let direction = if before < size { "up" } else { "down" };
            let message = format!(
                "Scaled {direction} replica set {} from {before} to {size}",
                set.name_any()
            );
            self.controller
                .recorder
                .normal(&self.deployment, "ScalingReplicaSet", message);
        }
        Ok((set, before != size))
    }

    pub(super) async fn replace(&self, set: &ReplicaSet) -> Result<ReplicaSet> {
        let name = set.name_any();
        let api: Api<ReplicaSet> = Api::namespaced(self.controller.client.clone(), &self.key.namespace);
        let written = api.replace(&name, &PostParams::default(), set).await;
        written.doing(|| format!("updating ReplicaSet `{name}` of Deployment `{}`", self.key))
    }

    /// Deletes old sets beyond the history limit, lowest revision first; never one that may still have pods.
    async fn clean_up(&self) -> Result<()> {
        let limit = self
            .deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.filter(|&limit| limit != i32::MAX) else {
            return Ok(());
        };
        let mut alive: Vec<&ReplicaSet> = self
            .old
            .iter()
            .filter(|set| set.metadata.deletion_timestamp.is_none())
            .collect();
        let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        alive.sort_by_key(|set| revision::of(set.metadata.annotations.as_ref()));
        let api: Api<ReplicaSet> = Api::namespaced(self.controller.client.clone(), &self.key.namespace);
        for set in alive.into_iter().take(surplus) {
            let status = set.status.clone().unwrap_or_default();
            if status.replicas != 0 || replicas(set) != 0 || set.metadata.generation > status.observed_generation {
                continue;
            }
            let name = set.name_any();
            match api.delete(&name, &DeleteParams::default()).await {
                Err(error) if !error::is_not_found(&error) => {
                    return Err(error).doing(|| format!("deleting ReplicaSet `{name}` of Deployment `{}`", self.key));
                }
                _ => {}
            }
        }
        Ok(())
    }

    // ---- status

    /// Writes counts and what they say of a rollout's progress.
    async fn write_progress(&mut self) -> Result<()> {
        let now = self.now();
        let mut status = status::counts(&self.deployment, &self.old, self.new.as_ref(), now);
        status::judge(&self.deployment, &self.old, self.new.as_ref(), &mut status, now);
        if self.deployment.status.as_ref() == Some(&status) {
            // Nothing will wake us when a deadline passes.
            if let Some(wait) = status::look_again(&self.deployment, &status, now) {
                self.controller.queue.add_after(self.key.clone(), wait);
            }
            return Ok(());
        }
        self.deployment.status = Some(status);
        self.write_status().await
    }

    /// Writes counts alone.
    async fn write_counts(&mut self) -> Result<()> {
        let status = status::counts(&self.deployment, &self.old, self.new.as_ref(), self.now());
        if self.deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        self.deployment.status = Some(status);
        self.write_status().await
    }

    /// Writes the status as it stands, and the revision annotation with it.
    pub(super) async fn write_status(&mut self) -> Result<()> {
        let api: Api<Deployment> = Api::namespaced(self.controller.client.clone(), &self.key.namespace);
        match api
            .replace_status(&self.key.name, &PostParams::default(), &self.deployment)
            .await
        {
            Ok(written) => {
                self.deployment = written;
                Ok(())
            }
            Err(error) if error::is_not_found(&error) => Ok(()),
            Err(error) => Err(error).doing(|| format!("writing the status of Deployment `{}`", self.key)),
        }
    }
}

/// The new set has all replicas, knows it, and they are available.
fn is_saturated(new: &ReplicaSet, wanted: i32) -> bool {
    replicas(new) == wanted && revision::desired_before(new) == Some(wanted) && available(new) == wanted
}
