//! The rules of aggregated ClusterRoles: what `kubectl get clusterrole view -o yaml` shows of the roles it collects.
//!
//! Owns `rules` of every ClusterRole with an `aggregationRule`. Decisions do not wait for it: the authorizer collects
//! for itself. (k/k `pkg/controller/clusterroleaggregation`, v1.36.)

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::json;

use crate::Context;
use crate::error::{Doing, Result};
use crate::informers::Informer;
use crate::key::Key;
use crate::reconcile::Reconcile;
use crate::selector;
use crate::workqueue::WorkQueue;

/// Writes the collected rules back.
pub(crate) struct Aggregation {
    roles: Informer<ClusterRole>,
    client: Client,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> Aggregation {
    let queue = WorkQueue::new();
    let (wake, roles) = (queue.clone(), context.informers.cluster_roles.clone());
    // Any role may be part of any aggregated one, before its change or after.
    context.informers.cluster_roles.on_change(move |_| {
        for role in roles.all().iter().filter(|role| role.aggregation_rule.is_some()) {
            wake.add(Key::of(&**role));
        }
    });
    Aggregation {
        roles: context.informers.cluster_roles.clone(),
        client: context.client(Aggregation::NAME),
        queue,
    }
}

/// The rules of all of `roles` that `target` selects, selector by selector, by role name, each rule once. `roles` are
/// sorted by name.
fn collect(target: &ClusterRole, roles: &[Arc<ClusterRole>]) -> Result<Vec<PolicyRule>> {
    let aggregation = target.aggregation_rule.iter();
    let mut rules = Vec::new();
    for selector in aggregation.flat_map(|rule| rule.cluster_role_selectors.iter().flatten()) {
        let selector = selector::of(selector)?;
        let parts = roles.iter().filter(|part| {
            part.metadata.name != target.metadata.name && selector::matches(&selector, part.metadata.labels.as_ref())
        });
        for rule in parts.flat_map(|part| part.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Ok(rules)
}

impl Reconcile for Aggregation {
    const NAME: &'static str = "clusterrole-aggregation-controller";
    const WORKERS: usize = 5;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let Some(role) = self.roles.get(key).filter(|role| role.aggregation_rule.is_some()) else {
            return Ok(());
        };
        let rules = collect(&role, &self.roles.all())?;
        if rules == role.rules.as_deref().unwrap_or_default() {
            return Ok(());
        }
        // Applied with force: whoever wrote rules into an aggregated role loses them, and is told so by `managedFields`.
        let api: Api<ClusterRole> = Api::all(self.client.clone());
        let wanted = json!({"apiVersion": ClusterRole::api_version(&()), "kind": ClusterRole::kind(&()),
            "metadata": {"name": key.name}, "rules": rules});
        api.patch(
            &key.name,
            &PatchParams::apply(Self::NAME).force(),
            &Patch::Apply(wanted),
        )
        .await
        .map(drop)
        .doing(|| format!("writing the rules of ClusterRole `{key}`"))
    }
}
