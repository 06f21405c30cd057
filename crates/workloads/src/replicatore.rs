//! An operator that keeps an image running: for each resource a Deployment and a Service, kept as the resource says.
//!
//! Read from top to bottom: the types that become the CRD, `run` that watches (the resources, what is made for them, and
//! the pods below), `reconcile` that does the work, and `Standing` that judges how it went. What is made belongs to the
//! resource by its ownerReferences: with the resource it goes, whether the operator lives or not.

#![expect(
    unreachable_pub,
    reason = "`KubeSchema` works on a copy of the struct, inside a function"
)]

use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, CustomResource, KubeSchema, Resource as _, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::condition::{self, Condition};
use crate::lease::{Candidate, Lost};
use crate::operator::{self, Backoff};
use crate::web::pod_name;

/// Who we are: in Events, as the manager of the fields that we write, and the name of the Lease.
const NAME: &str = "replicatore-operator";
/// On everything that is made for a resource, whose name is the value.
const INSTANCE: &str = "app.kubernetes.io/instance";
/// On everything that is made for any resource.
const MADE_BY_US: &str = "app.kubernetes.io/managed-by=replicatore-operator";

/// An image that runs in so many replicas behind a Service of its own.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "example.alnao.it",
    version = "v1",
    kind = "Replicatore",
    plural = "replicatori",
    shortname = "rep",
    doc = "An image that runs in so many replicas behind a Service of its own.",
    namespaced,
    status = "ReplicatoreStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn = r#"{"name": "Image", "type": "string", "jsonPath": ".spec.image"}"#,
    printcolumn = r#"{"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas"}"#,
    printcolumn = r#"{"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas"}"#,
    printcolumn = r#"{"name": "Degraded", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Degraded\")].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    validation = kube::core::Rule::new("size(self.metadata.name) <= 55")
        .message("the Service is called NAME-service and may have 63 characters: a name has at most 55")
)]
pub struct ReplicatoreSpec {
    /// The image of the pods. It serves HTTP on port 80.
    #[schemars(length(min = 1, max = 255))]
    pub image: String,
    /// How many pods.
    #[schemars(range(min = 0, max = 50))]
    pub replicas: i32,
}

/// How it stands.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReplicatoreStatus {
    /// The generation of the resource that this is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// Pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// The pods' labels, for `kubectl scale` and the HorizontalPodAutoscaler.
    #[serde(default)]
    pub selector: String,
    /// `Ready` and `Degraded`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// What every reconciliation needs.
struct Context {
    client: Client,
    now: condition::Now,
    backoff: Backoff<ObjectRef<Replicatore>>,
}

/// Runs until SIGTERM, or until another replica leads; the exit code.
pub(crate) fn main(args: &[String]) -> i32 {
    operator::main(NAME, args, |client, stop| async move {
        let leases: Api<Lease> = Api::default_namespaced(client.clone());
        let mut candidate = Candidate::new(leases, NAME, &pod_name());
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = candidate.win() => {}
        }
        tokio::select! {
            lost = candidate.hold() => return Err(lost),
            () = run(client, stop, operator::now) => {}
        }
        // Nothing of ours runs any more: the next one may start at once.
        if let Err(error) = candidate.release().await {
            crate::complain(&format!("{NAME}: giving the lease back: {error}"));
        }
        Ok::<(), Lost>(())
    })
}

/// Watches the client's namespace until `stop`.
pub(crate) async fn run(client: Client, stop: CancellationToken, now: condition::Now) {
    let ours = watcher::Config::default().labels(MADE_BY_US);
    let resources: Api<Replicatore> = Api::default_namespaced(client.clone());
    // A change of a child asks for its owner to be reconciled; that is all there is to repairing drift.
    Controller::new(resources, watcher::Config::default())
        .owns(Api::<Deployment>::default_namespaced(client.clone()), ours.clone())
        .owns(Api::<Service>::default_namespaced(client.clone()), ours.clone())
        // Pods belong to the Deployment's ReplicaSet: their label says whose they are.
        .watches(Api::<Pod>::default_namespaced(client.clone()), ours, |pod| {
            let name = pod.labels().get(INSTANCE)?;
            Some(ObjectRef::new(name).within(&pod.namespace()?))
        })
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(
            reconcile,
            retry,
            Arc::new(Context {
                client,
                now,
                backoff: Backoff::default(),
            }),
        )
        .for_each(|outcome| async {
            if let Err(error) = outcome {
                crate::complain(&format!("{NAME}: {error}"));
            }
        })
        .await;
}

/// Makes what one resource asks for, looks how it stands, and says so in its status.
async fn reconcile(resource: Arc<Replicatore>, context: Arc<Context>) -> kube::Result<Action> {
    if resource.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let client = &context.client;
    let made = async {
        let deployment: Deployment = operator::apply(client, NAME, deployment(&resource)).await?;
        let _: Service = operator::apply(client, NAME, service(&resource)).await?;
        Ok(deployment)
    };
    let made = made.await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pods = pods.list(&ListParams::default().labels(&selector(&resource))).await?;
    let status = status(&resource, made.as_ref(), &pods.items, (context.now)());
    if resource.status.as_ref() != Some(&status) {
        let degraded = |status: &ReplicatoreStatus| {
            let found = condition::find(&status.conditions, "Degraded").filter(|found| found.status == "True");
            found.map(|found| found.message.clone())
        };
        if let Some(trouble) =
            degraded(&status).filter(|now| resource.status.as_ref().and_then(degraded).as_ref() != Some(now))
        {
            operator::publish(client, NAME, &*resource, "Degraded", trouble).await?;
        }
        let resources: Api<Replicatore> = Api::default_namespaced(client.clone());
        let patch = Patch::Merge(json!({ "status": status }));
        resources
            .patch_status(&resource.name_any(), &PatchParams::apply(NAME), &patch)
            .await?;
    }
    // What the API server refused may be accepted later: a quota, a name that is taken.
    made?;
    context.backoff.succeeded(&ObjectRef::from_obj(&*resource));
    Ok(Action::await_change())
}

/// After a failure: soon, then less and less often.
fn retry(resource: Arc<Replicatore>, _error: &kube::Error, context: Arc<Context>) -> Action {
    Action::requeue(context.backoff.failed(ObjectRef::from_obj(&*resource)))
}

/// The pods of a resource.
fn selector(resource: &Replicatore) -> String {
    format!("{INSTANCE}={}", resource.name_any())
}

/// What all children have: the resource's own labels (a lab finds what it made by one of them), ours, and the owner.
fn metadata(resource: &Replicatore, suffix: &str) -> Value {
    let mut labels = resource.labels().clone();
    labels.insert(INSTANCE.to_owned(), resource.name_any());
    labels.insert("app.kubernetes.io/name".to_owned(), "replicatore".to_owned());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), NAME.to_owned());
    json!({
        "name": format!("{}-{suffix}", resource.name_any()),
        "labels": labels,
        "ownerReferences": [resource.controller_owner_ref(&())],
    })
}

fn deployment(resource: &Replicatore) -> Value {
    let metadata = metadata(resource, "deployment");
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": resource.spec.replicas,
            "selector": { "matchLabels": { INSTANCE: resource.name_any() } },
            "template": {
                "metadata": { "labels": metadata["labels"] },
                "spec": {
                    "containers": [{
                        "name": "replicatore",
                        "image": resource.spec.image,
                        "ports": [{ "name": "http", "containerPort": 80 }],
                    }],
                },
            },
        },
    })
}

fn service(resource: &Replicatore) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(resource, "service"),
        "spec": {
            "selector": { INSTANCE: resource.name_any() },
            "ports": [{ "name": "http", "port": 80, "targetPort": "http" }],
        },
    })
}

/// How it stands: the Deployment's counts, and the first thing that is wrong, in the words of whoever saw it.
fn status(
    resource: &Replicatore,
    made: Result<&Deployment, &kube::Error>,
    pods: &[Pod],
    now: k8s_openapi::jiff::Timestamp,
) -> ReplicatoreStatus {
    let before = resource.status.clone().unwrap_or_default();
    let generation = resource.metadata.generation.unwrap_or(0);
    let seen = made
        .ok()
        .and_then(|deployment| deployment.status.clone())
        .unwrap_or_default();
    let ready = seen.ready_replicas.unwrap_or(0);
    let trouble = match made {
        Err(error) => Some(condition::refusal(error)),
        Ok(_) => pods.iter().find_map(condition::trouble),
    };
    let complete = made.is_ok() && ready == resource.spec.replicas && seen.updated_replicas.unwrap_or(0) == ready;
    let reason = if complete { "AllReady" } else { "Waiting" };
    let message = format!("{ready} of {} pods are ready", resource.spec.replicas);
    let (degraded, why) = (
        trouble.is_some(),
        trouble.unwrap_or_else(|| ("AsExpected", String::new())),
    );
    let mut conditions = before.conditions;
    condition::set(&mut conditions, "Ready", complete, (reason, message), generation, now);
    condition::set(&mut conditions, "Degraded", degraded, why, generation, now);
    ReplicatoreStatus {
        observed_generation: generation,
        replicas: seen.replicas.unwrap_or(0),
        ready_replicas: ready,
        selector: selector(resource),
        conditions,
    }
}
