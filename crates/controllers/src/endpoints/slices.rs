//! EndpointSlices: at most a hundred endpoints each, changed as little as possible.
//!
//! [`wanted_groups`] and [`plan`] decide, pure. (k/k `pkg/controller/endpointslice`, `staging/…/endpointslice/
//! reconciler.go`, v1.36.)

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::time;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};

use super::tracker::{self, Tracker};
use super::{HEADLESS, LAST_CHANGE, SERVICE_NAME};
use crate::Context;
use crate::error::{self, Doing, Result};
use crate::events::Recorder;
use crate::informers::Change;
use crate::key::Key;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;
use crate::{ownership, pods};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";
/// `--max-endpoints-per-slice`
const CAPACITY: usize = 100;

pub(crate) struct Slices {
    context: Context,
    client: Client,
    recorder: Recorder,
    queue: Arc<WorkQueue<Key>>,
    tracker: Tracker,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> Slices {
    let queue = WorkQueue::new();
    super::watch(context, &queue);
    let wake = queue.clone();
    context.informers.endpoint_slices.on_change(move |change| {
        // Somebody else's hand, or our own: looking costs little, and a plan for what is as it should be is empty.
        let slice = change.object();
        if let Some(service) = slice.labels().get(SERVICE_NAME).filter(|_| is_ours(slice)) {
            wake.add(Key::new(slice.namespace().unwrap_or_default(), service));
        }
    });
    let (informers, wake) = (context.informers.clone(), queue.clone());
    context.informers.nodes.on_change(move |change| {
        if let Change::Updated { old, new } = change
            && zone(old) == zone(new)
        {
            return;
        }
        informers
            .services
            .all()
            .iter()
            .for_each(|service| wake.add(Key::of(&**service)));
    });
    Slices {
        context: context.clone(),
        client: context.client(Slices::NAME),
        recorder: context.recorder("endpoint-slice-controller"),
        queue,
        tracker: Tracker::default(),
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

fn zone(node: &Node) -> Option<&String> {
    node.labels().get(ZONE)
}

impl Reconcile for Slices {
    const NAME: &'static str = "endpointslice-controller";
    const WORKERS: usize = 5;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let informers = &self.context.informers;
        // The slices of a Service that is gone go with their owner.
        let Some(service) = informers.services.get(key) else {
            self.tracker.forget(key);
            return Ok(());
        };
        if super::wanted(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let mut existing = informers.endpoint_slices.in_namespace(&key.namespace);
        existing.retain(|slice| is_ours(slice) && slice.labels().get(SERVICE_NAME) == Some(&key.name));
        if self.tracker.is_ahead_of(key, &existing) {
            // What is awaited wakes us; this is for what somebody else undid.
            self.queue.add_after(key.clone(), tracker::PATIENCE);
            return Ok(());
        }
        let members = super::members(informers, &service);
        let zone_of = |node: &str| zone(&*informers.nodes.get(&Key::new("", node))?).cloned();
        let groups = wanted_groups(&service, &members, zone_of);
        let plan = plan(&service, groups, &existing, super::last_change(&service, &members));
        let acted = self.act(key, plan).await;
        if let Err(error) = &acted
            && !error.is_conflict()
        {
            let message = format!("Error updating Endpoint Slices for Service {key}: {}", error.cause());
            self.recorder
                .warning(&*service, "FailedToUpdateEndpointSlices", message);
        }
        acted
    }
}

impl Slices {
    async fn act(&self, key: &Key, plan: Plan) -> Result<()> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        for slice in &plan.create {
            match api.create(&PostParams::default(), slice).await {
                Err(error) if error::is_namespace_terminating(&error) => return Ok(()),
                created => {
                    let created = created.doing(|| format!("creating an EndpointSlice of Service `{key}`"))?;
                    self.tracker.wrote(key, &created);
                }
            }
        }
        for slice in &plan.update {
            let name = slice.name_any();
            let written = api.replace(&name, &PostParams::default(), slice).await;
            let written = written.doing(|| format!("updating EndpointSlice `{name}` of Service `{key}`"))?;
            self.tracker.wrote(key, &written);
        }
        for name in &plan.delete {
            match api.delete(name, &DeleteParams::default()).await {
                Err(error) if !error::is_not_found(&error) => {
                    return Err(error).doing(|| format!("deleting EndpointSlice `{name}` of Service `{key}`"));
                }
                _ => self.tracker.deleted(key, name),
            }
        }
        Ok(())
    }
}

/// Endpoints with the same ports, which may share a slice.
#[derive(Clone, Debug, Default, PartialEq)]
struct Group {
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

/// Pure: what the slices of a Service are to hold together. There is always a group, if an empty one.
fn wanted_groups(service: &Service, members: &[Arc<Pod>], zone_of: impl Fn(&str) -> Option<String>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for pod in members {
        let Some(ports) = ports(service, pod) else { continue };
        let endpoint = endpoint(service, pod, &zone_of);
        match groups.iter_mut().find(|group| group.ports == ports) {
            Some(group) => group.endpoints.push(endpoint),
            None => groups.push(Group {
                ports,
                endpoints: vec![endpoint],
            }),
        }
    }
    if groups.is_empty() {
        groups.push(Group::default());
    }
    groups
}

/// The Service's ports on this pod; names that the pod does not know are left out. None if there is nothing to reach.
fn ports(service: &Service, pod: &Pod) -> Option<Vec<EndpointPort>> {
    let declared = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    if declared.is_empty() {
        return super::is_headless(service).then(Vec::new);
    }
    let resolved = declared.iter().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(super::port_on(pod, port)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    Some(resolved.collect())
}

fn endpoint(service: &Service, pod: &Pod, zone_of: impl Fn(&str) -> Option<String>) -> Endpoint {
    let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
    let node_name = super::node_name(pod);
    Endpoint {
        addresses: super::address(pod).map(str::to_owned).into_iter().collect(),
        conditions: Some(EndpointConditions {
            // "Ready" is never true of a terminating pod, unless the Service asks not to care.
            ready: Some(super::publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: super::hostname(pod, service),
        target_ref: Some(super::target_ref(pod)),
        zone: node_name.as_deref().and_then(zone_of),
        node_name,
        ..Default::default()
    }
}

/// What is to be written.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    create: Vec<EndpointSlice>,
    update: Vec<EndpointSlice>,
    delete: Vec<String>,
}

/// Pure: the smallest change that makes the slices hold the groups. An endpoint stays in its slice; new ones fill slices
/// that change anyway, then those with room, then new slices.
fn plan(service: &Service, groups: Vec<Group>, existing: &[Arc<EndpointSlice>], changed: Option<Timestamp>) -> Plan {
    let mut plan = Plan::default();
    let labels = labels(service);
    let mut left: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    for group in groups {
        let (mine, others): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|slice| slice.ports.as_deref().unwrap_or_default() == group.ports);
        left = others;
        // By pod, so that each is found once.
        let mut missing: BTreeMap<(Vec<String>, Option<String>), Endpoint> = group
            .endpoints
            .into_iter()
            .map(|endpoint| (identity(&endpoint), endpoint))
            .collect();
        let mut kept: Vec<(EndpointSlice, bool)> = mine
            .iter()
            .map(|slice| {
                let before = slice.endpoints.as_deref().unwrap_or_default();
                let now: Vec<Endpoint> = before
                    .iter()
                    .filter_map(|endpoint| missing.remove(&identity(endpoint)))
                    .collect();
                let differs = now != before || slice.labels() != &labels;
                let mut slice = EndpointSlice::clone(slice);
                slice.endpoints = Some(now);
                (slice, differs)
            })
            .collect();
        let mut missing = missing.into_values();
        kept.sort_by_key(|(slice, differs)| (!differs, slice.name_any()));
        for (slice, differs) in &mut kept {
            let endpoints = slice.endpoints.get_or_insert_default();
            let room = CAPACITY.saturating_sub(endpoints.len());
            let before = endpoints.len();
            endpoints.extend(missing.by_ref().take(room));
            *differs |= endpoints.len() != before;
        }
        let mut rest: Vec<Endpoint> = missing.collect();
        while !rest.is_empty() {
            let after = rest.split_off(rest.len().min(CAPACITY));
            plan.create
                .push(new_slice(service, &group.ports, std::mem::replace(&mut rest, after)));
        }
        // An empty slice goes, unless it is the only one the Service would have.
        let placeholder = group.ports.is_empty();
        let mut has_one = !plan.create.is_empty();
        for (mut slice, differs) in kept {
            let is_empty = slice.endpoints.as_ref().is_none_or(Vec::is_empty);
            if is_empty && (!placeholder || has_one) {
                plan.delete.push(slice.name_any());
                continue;
            }
            has_one = true;
            if differs {
                slice.metadata.labels = Some(labels.clone());
                plan.update.push(slice);
            }
        }
        if placeholder && !has_one {
            plan.create.push(new_slice(service, &group.ports, Vec::new()));
        }
    }
    plan.delete.extend(left.into_iter().map(|slice| slice.name_any()));
    for slice in plan.create.iter_mut().chain(&mut plan.update) {
        if let Some(changed) = changed {
            let annotations = slice.metadata.annotations.get_or_insert_default();
            annotations.insert(LAST_CHANGE.to_owned(), time::format_nano(changed));
        }
    }
    plan
}

/// What makes an endpoint the same one in another state.
fn identity(endpoint: &Endpoint) -> (Vec<String>, Option<String>) {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (endpoint.addresses.clone(), uid)
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if super::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn new_slice(service: &Service, ports: &[EndpointPort], endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels(service)),
            owner_references: Some(vec![ownership::controller_ref(service)]),
            ..Default::default()
        },
        address_type: "IPv4".to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.to_vec()),
    }
}

#[cfg(test)]
mod tests;
