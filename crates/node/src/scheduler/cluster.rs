//! What the scheduler knows: nodes, pods that sit on them, nothing that a filter would not read.
//!
//! Plain data, fed by the loop in `mod.rs`.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Node, Pod, PodAffinityTerm, Taint};
use kube::ResourceExt;

use super::requests::{Amounts, HostPort, host_ports, pod_requests};

/// A node, as far as placement depends on it. Two equal values schedule alike: a heartbeat changes nothing here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeInfo {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.unschedulable`: cordoned.
    pub unschedulable: bool,
    /// `spec.taints`.
    pub taints: Vec<Taint>,
    /// `status.allocatable`.
    pub allocatable: Amounts,
}

impl NodeInfo {
    /// Reads a Node.
    pub fn read(node: &Node) -> Self {
        let spec = node.spec.clone().unwrap_or_default();
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        Self {
            name: node.name_any(),
            labels: node.labels().clone(),
            unschedulable: spec.unschedulable.unwrap_or(false),
            taints: spec.taints.unwrap_or_default(),
            allocatable: Amounts::read(allocatable),
        }
    }
}

/// A pod that has a node (or is on its way there) and is not finished.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placed {
    /// Its node.
    pub node: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// What it takes from the node.
    pub requests: Amounts,
    /// Ports it takes on the node.
    pub host_ports: Vec<HostPort>,
    /// `requiredDuringScheduling…` terms of its pod anti-affinity: it keeps others away.
    pub anti_affinity: Vec<PodAffinityTerm>,
    /// `spec.priority`.
    pub priority: i32,
    /// It has a deletion timestamp.
    pub terminating: bool,
}

impl Placed {
    /// Reads a pod as if it sat on `node`.
    pub fn read(pod: &Pod, node: &str) -> Self {
        let anti_affinity = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
        let terms = anti_affinity.and_then(|anti| anti.required_during_scheduling_ignored_during_execution.clone());
        Self {
            node: node.to_owned(),
            namespace: pod.namespace().unwrap_or_default(),
            labels: pod.labels().clone(),
            requests: pod.spec.as_ref().map(pod_requests).unwrap_or_default(),
            host_ports: host_ports(pod),
            anti_affinity: terms.unwrap_or_default(),
            priority: pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0),
            terminating: pod.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// Everything placement depends on.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Nodes by name.
    pub nodes: BTreeMap<String, NodeInfo>,
    /// Placed pods by uid.
    pub placed: HashMap<String, Placed>,
}

impl Cluster {
    /// The pods on a node.
    pub fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Placed> {
        self.placed.values().filter(move |placed| placed.node == node)
    }
}
