//! The Node object and its Lease: registration, heartbeats, conditions.
//!
//! Must not know pods. Source of the rules: `pkg/kubelet/kubelet_node_status.go`, `nodestatus/setters.go` of kubernetes
//! 1.36; the condition `LimitsNotEnforced` is ours.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
    ObjectReference,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::events::{Event, Recorder, Severity};
use crate::host::{self, Capacity};
use crate::kubelet::images::Images;
use crate::privileges::NOT_ENFORCED_REASON;
use crate::runtime::{Limits, Runtime};

/// The release whose behaviour this kubelet has.
pub(crate) const KUBELET_VERSION: &str = "v1.36.2";
const PODS: usize = 110;
const IMAGES_REPORTED: usize = 50;
const HEARTBEAT: Duration = Duration::from_secs(10);
/// An unchanged status is written again after this long.
const STALE: SignedDuration = SignedDuration::from_mins(5);
const LEASE_SECONDS: i32 = 40;
const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Below this the node says so: upstream's threshold.
const LEAST_MEMORY: u64 = 100 << 20;
/// Upstream speaks up at a tenth of the disk. Here it is a person's disk, of which a tenth is plenty for a lab: a bound in
/// bytes it is, as minikube and kind have theirs lowered.
const LEAST_DISK: u64 = 512 << 20;

/// What the node says of itself.
pub(crate) struct NodeReporter {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
    pub(crate) pod_cidr: String,
    /// On the file system that pods write to.
    pub(crate) dir: PathBuf,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) images: Arc<dyn Images>,
}

/// `status.capacity` and `status.allocatable`: nothing is kept back from pods.
pub(crate) fn resources(capacity: &Capacity, disk_bytes: u64) -> BTreeMap<String, Quantity> {
    let kibibytes = |bytes: u64| Quantity(format!("{}Ki", bytes / 1024));
    BTreeMap::from([
        ("cpu".to_owned(), Quantity(capacity.cpus.to_string())),
        ("memory".to_owned(), kibibytes(capacity.memory_bytes)),
        ("ephemeral-storage".to_owned(), kibibytes(disk_bytes)),
        ("hugepages-1Gi".to_owned(), Quantity("0".into())),
        ("hugepages-2Mi".to_owned(), Quantity("0".into())),
        ("pods".to_owned(), Quantity(PODS.to_string())),
    ])
}

/// Size and free bytes of the file system that `dir` is on.
pub(crate) fn disk(dir: &std::path::Path) -> (u64, u64) {
    match nix::sys::statvfs::statvfs(dir) {
        Ok(disk) => (
            disk.blocks() * disk.fragment_size(),
            disk.blocks_available() * disk.fragment_size(),
        ),
        Err(_) => (0, 0),
    }
}

impl NodeReporter {
    /// Makes the Node object, or takes up the one that is there, and writes a first status: afterwards it is Ready.
    pub(crate) async fn register(&self) -> Result<Node, kube::Error> {
        let nodes = Api::<Node>::all(self.client.clone());
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            labels: Some(self.labels()),
            annotations: Some(
                [(
                    "volumes.kubernetes.io/controller-managed-attach-detach".into(),
                    "true".into(),
                )]
                .into(),
            ),
            ..Default::default()
        };
        let spec = json!({"podCIDR": self.pod_cidr, "podCIDRs": [self.pod_cidr]});
        let wanted: Node =
            serde_json::from_value(json!({"metadata": metadata, "spec": spec})).map_err(kube::Error::SerdeError)?;
        match nodes.create(&PostParams::default(), &wanted).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let labels = json!({"metadata": {"labels": self.labels()}});
                nodes
                    .patch(&self.name, &PatchParams::default(), &Patch::Strategic(labels))
                    .await?;
            }
            Err(error) => return Err(error),
        }
        let known = nodes.get(&self.name).await?;
        let before = known.status.unwrap_or_default();
        let node = self.write_status(&self.status(&before, self.clock.now())).await?;
        self.drop_not_ready(&node).await?;
        self.event(&node, Severity::Normal, "Starting", "Starting kubelet.".into());
        if !is_ready(&before) {
            self.event(
                &node,
                Severity::Normal,
                "NodeReady",
                format!("Node {} status is now: NodeReady", self.name),
            );
        }
        if let Limits::NotEnforced(why) = self.runtime.limits() {
            self.event(&node, Severity::Warning, NOT_ENFORCED_REASON, why);
        }
        if let Err(error) = self.renew_lease(&node).await {
            // The next heartbeat tries again.
            tracing::warn!("making the lease of node `{}`: {error}", self.name);
        }
        Ok(node)
    }

    /// Heartbeats for ever.
    pub(crate) async fn run(self, mut node: Node) {
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.tick().await;
        let mut written = self.clock.now();
        loop {
            beat.tick().await;
            if let Err(error) = self.renew_lease(&node).await {
                tracing::warn!("renewing the lease of node `{}`: {error}", self.name);
            }
            let now = self.clock.now();
            let known = node.status.clone().unwrap_or_default();
            let status = self.status(&known, now);
            if same_but_heartbeats(&known, &status) && now.duration_since(written) < STALE {
                continue;
            }
            match self.write_status(&status).await {
                Ok(fresh) => (node, written) = (fresh, now),
                // Somebody deleted it. We still run.
                Err(kube::Error::Api(status)) if status.code == 404 => match self.register().await {
                    Ok(fresh) => (node, written) = (fresh, now),
                    Err(error) => tracing::warn!("registering node `{}` again: {error}", self.name),
                },
                Err(error) => tracing::warn!("writing the status of node `{}`: {error}", self.name),
            }
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let arch = architecture();
        let pairs = [
            ("beta.kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            // Everything runs on the one node, so it is what other clusters call the control plane.
            ("node-role.kubernetes.io/control-plane", ""),
        ];
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    fn status(&self, known: &NodeStatus, now: Timestamp) -> NodeStatus {
        let (disk_bytes, disk_free) = disk(&self.dir);
        let resources = resources(&host::capacity(), disk_bytes);
        let memory_free = host::usage().map_or(u64::MAX, |usage| usage.available_bytes);
        let address = |type_: &str, address: String| NodeAddress {
            type_: type_.to_owned(),
            address,
        };
        let mut images: Vec<_> = self.images.list();
        images.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        let images = images
            .into_iter()
            .take(IMAGES_REPORTED)
            .map(|(names, size)| ContainerImage {
                names: Some(names),
                size_bytes: i64::try_from(size).ok(),
            });
        let short_of_disk = disk_bytes > 0 && disk_free < LEAST_DISK;
        NodeStatus {
            capacity: Some(resources.clone()),
            allocatable: Some(resources),
            addresses: Some(vec![
                address("InternalIP", self.ip.to_string()),
                address("Hostname", self.name.clone()),
            ]),
            conditions: Some(self.conditions(known, memory_free < LEAST_MEMORY, short_of_disk, now)),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: 10250 }),
            }),
            images: Some(images.collect()),
            node_info: Some(node_info()),
            ..Default::default()
        }
    }

    fn conditions(
        &self,
        known: &NodeStatus,
        short_of_memory: bool,
        short_of_disk: bool,
        now: Timestamp,
    ) -> Vec<NodeCondition> {
        let pressure = |type_, short, bad: (&'static str, &'static str), good: (&'static str, &'static str)| {
            let (reason, message) = if short { bad } else { good };
            (type_, short, reason, message.to_owned())
        };
        let mut conditions = vec![
            pressure(
                "MemoryPressure",
                short_of_memory,
                (
                    "KubeletHasInsufficientMemory",
                    "kubelet has insufficient memory available",
                ),
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ),
            pressure(
                "DiskPressure",
                short_of_disk,
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ),
            (
                "PIDPressure",
                false,
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available".to_owned(),
            ),
        ];
        if let Limits::NotEnforced(why) = self.runtime.limits() {
            conditions.push((NOT_ENFORCED_REASON, true, NOT_ENFORCED_REASON, why));
        }
        conditions.push((
            "Ready",
            true,
            "KubeletReady",
            "kubelet is posting ready status".to_owned(),
        ));
        let before = known.conditions.as_deref().unwrap_or_default();
        let condition = |(type_, holds, reason, message): (&str, bool, &str, String)| {
            let status = if holds { "True" } else { "False" };
            let same = before.iter().find(|old| old.type_ == type_ && old.status == status);
            NodeCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: same
                    .and_then(|old| old.last_transition_time.clone())
                    .or(Some(Time(now))),
            }
        };
        conditions.into_iter().map(condition).collect()
    }

    async fn write_status(&self, status: &NodeStatus) -> Result<Node, kube::Error> {
        let mut status = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
        // The list as a whole: merged by type, an address that changed would stay beside its successor.
        status["addresses"] = with_replace(status["addresses"].take());
        let patch = Patch::Strategic(json!({"status": status}));
        Api::<Node>::all(self.client.clone())
            .patch_status(&self.name, &PatchParams::default(), &patch)
            .await
    }

    /// A node that is ready keeps nobody away.
    async fn drop_not_ready(&self, node: &Node) -> Result<(), kube::Error> {
        let taints = node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.clone())
            .unwrap_or_default();
        let rest: Vec<_> = taints.iter().filter(|taint| taint.key != NOT_READY).cloned().collect();
        if rest.len() == taints.len() {
            return Ok(());
        }
        let taints = if rest.is_empty() { Value::Null } else { json!(rest) };
        let patch = Patch::Merge(json!({"spec": {"taints": taints}}));
        let nodes = Api::<Node>::all(self.client.clone());
        nodes.patch(&self.name, &PatchParams::default(), &patch).await.map(drop)
    }

    async fn renew_lease(&self, node: &Node) -> Result<(), kube::Error> {
        let leases = Api::<Lease>::namespaced(self.client.clone(), LEASES);
        let spec = LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(self.clock.now())),
            ..Default::default()
        };
        let patch = Patch::Merge(json!({"spec": spec}));
        match leases.patch(&self.name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => return other.map(drop),
        }
        let owner = OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: self.name.clone(),
            uid: node.uid().unwrap_or_default(),
            ..Default::default()
        };
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            owner_references: Some(vec![owner]),
            ..Default::default()
        };
        leases
            .create(
                &PostParams::default(),
                &Lease {
                    metadata,
                    spec: Some(spec),
                },
            )
            .await
            .map(drop)
    }

    fn event(&self, node: &Node, severity: Severity, reason: &'static str, message: String) {
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(self.name.clone()),
            uid: node.uid(),
            ..Default::default()
        };
        self.recorder.record(Event {
            about,
            severity,
            reason,
            action: "",
            message,
        });
    }
}

/// A list that replaces the old one in a strategic merge patch.
fn with_replace(mut list: Value) -> Value {
    if let Some(items) = list.as_array_mut() {
        items.push(json!({"$patch": "replace"}));
    }
    list
}

fn is_ready(status: &NodeStatus) -> bool {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn same_but_heartbeats(old: &NodeStatus, new: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
            // Written with whole seconds, read back so.
            condition.last_transition_time = None;
        }
        status
            .conditions
            .iter_mut()
            .for_each(|conditions| conditions.sort_by(|a, b| a.type_.cmp(&b.type_)));
        (
            status.capacity,
            status.conditions,
            status.addresses,
            status.images.filter(|i| !i.is_empty()),
            status.node_info,
        )
    };
    still(old) == still(new)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn node_info() -> NodeSystemInfo {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let release = read("/etc/os-release");
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let machine = read("/etc/machine-id");
    // Readable by root only; any stable name of the machine will do.
    let uuid = Some(read("/sys/class/dmi/id/product_uuid")).filter(|uuid| !uuid.is_empty());
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("k8slab://{}", env!("CARGO_PKG_VERSION")),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.to_owned(),
        system_uuid: uuid.unwrap_or_else(|| machine.clone()),
        machine_id: machine,
        operating_system: "linux".to_owned(),
        os_image: pretty.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned()),
        ..Default::default()
    }
}
