//! Keeps what a `Supercrud` asks for: the application's Deployment and Service, and the database's password.
//!
//! The same shape as `replicatore`, which is the one to read first; the HTTP API beside the loop is `api`.

use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Engine, Supercrud, SupercrudStatus, api};
use crate::condition::{self, Now, Why};
use crate::lease::Candidate;
use crate::operator::{self, Backoff};
use crate::web::pod_name;

/// Who we are: in Events, as the manager of the fields that we write, and the name of the Lease.
const NAME: &str = "supercrud-operator";
/// On everything that is made for a resource, whose name is the value.
const INSTANCE: &str = "app.kubernetes.io/instance";
/// On everything that is made for any resource.
const MADE_BY_US: &str = "app.kubernetes.io/managed-by=supercrud-operator";
/// Where the data is. The Secret belongs to it: the password goes with the data that it opens, not with the resource.
const DATA: &str = "supercrud-data";

/// What every reconciliation needs.
struct Context {
    client: Client,
    now: Now,
    backoff: Backoff<ObjectRef<Supercrud>>,
}

/// Runs until SIGTERM, or until another replica leads; the exit code.
pub(crate) fn main(args: &[String]) -> i32 {
    operator::main(NAME, args, |client, stop| async move {
        // Every replica answers; one of them acts.
        let api = tokio::spawn(api::serve(client.clone(), stop.clone()));
        let leases: Api<Lease> = Api::default_namespaced(client.clone());
        let mut candidate = Candidate::new(leases, NAME, &pod_name());
        tokio::select! {
            () = stop.cancelled() => {}
            () = candidate.win() => tokio::select! {
                lost = candidate.hold() => return Err(lost.to_string()),
                () = run(client, stop, operator::now) => {
                    if let Err(error) = candidate.release().await {
                        crate::complain(&format!("{NAME}: giving the lease back: {error}"));
                    }
                }
            }
        }
        api.await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    })
}

/// Watches the client's namespace until `stop`.
pub(crate) async fn run(client: Client, stop: CancellationToken, now: Now) {
    let ours = watcher::Config::default().labels(MADE_BY_US);
    let resources: Api<Supercrud> = Api::default_namespaced(client.clone());
    let context = Context {
        client: client.clone(),
        now,
        backoff: Backoff::default(),
    };
    Controller::new(resources, watcher::Config::default())
        .owns(Api::<Deployment>::default_namespaced(client.clone()), ours.clone())
        .owns(Api::<Service>::default_namespaced(client.clone()), ours.clone())
        .watches(Api::<Pod>::default_namespaced(client), ours, |pod| {
            let name = pod.labels().get(INSTANCE)?;
            Some(ObjectRef::new(name).within(&pod.namespace()?))
        })
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, retry, Arc::new(context))
        .for_each(|outcome| async {
            if let Err(error) = outcome {
                crate::complain(&format!("{NAME}: {error}"));
            }
        })
        .await;
}

/// Makes what one resource asks for, looks how it stands, and says so in its status.
async fn reconcile(resource: Arc<Supercrud>, context: Arc<Context>) -> kube::Result<Action> {
    if resource.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let client = &context.client;
    let made = make(client, &resource).await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pods = pods.list(&ListParams::default().labels(&selector(&resource))).await?;
    let trouble = match &made {
        Err(error) => Some(refusal(client, &resource, error).await?),
        Ok(_) => pods.items.iter().find_map(condition::trouble),
    };
    let status = status(&resource, made.as_ref().ok(), trouble.clone(), (context.now)());
    if resource.status.as_ref() != Some(&status) {
        let known = resource.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let known = condition::find(known, "Degraded").map(|degraded| degraded.message.as_str());
        if let Some((_, words)) = trouble.filter(|(_, words)| known != Some(words)) {
            operator::publish(client, NAME, &*resource, "Degraded", words).await?;
        }
        let resources: Api<Supercrud> = Api::default_namespaced(client.clone());
        let patch = Patch::Merge(json!({ "status": status }));
        resources
            .patch_status(&resource.name_any(), &PatchParams::apply(NAME), &patch)
            .await?;
    }
    made?;
    context.backoff.succeeded(&ObjectRef::from_obj(&*resource));
    Ok(Action::await_change())
}

/// After a failure: soon, then less and less often.
fn retry(resource: Arc<Supercrud>, _error: &kube::Error, context: Arc<Context>) -> Action {
    Action::requeue(context.backoff.failed(ObjectRef::from_obj(&*resource)))
}

/// The password, if PostgreSQL needs one, then Deployment and Service.
async fn make(client: &Client, resource: &Supercrud) -> kube::Result<(Deployment, Service)> {
    if resource.spec.database == Engine::Postgres {
        ensure_password(client, resource).await?;
    }
    let deployment = operator::apply(client, NAME, deployment(resource)).await?;
    let service = operator::apply(client, NAME, service(resource)).await?;
    Ok((deployment, service))
}

/// A password that nobody had to think of, made once: an existing Secret is never touched.
async fn ensure_password(client: &Client, resource: &Supercrud) -> kube::Result<()> {
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let name = format!("{}-database", resource.name_any());
    if secrets.get_opt(&name).await?.is_some() {
        return Ok(());
    }
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
    let owner = claims.get_opt(DATA).await?.and_then(|claim| claim.owner_ref(&()));
    let mut secret = Secret {
        string_data: Some([("password".to_owned(), uuid::Uuid::new_v4().simple().to_string())].into()),
        ..Secret::default()
    };
    secret.metadata.name = Some(name);
    secret.metadata.labels = Some(labels(resource));
    secret.metadata.owner_references = owner.map(|owner| vec![owner]);
    match secrets.create(&PostParams::default(), &secret).await {
        // Somebody was faster: theirs is as good.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

/// What was refused; for a port that is taken, by whom.
async fn refusal(client: &Client, resource: &Supercrud, error: &kube::Error) -> kube::Result<Why> {
    let (reason, message) = condition::refusal(error);
    let Some(port) = resource
        .spec
        .node_port
        .filter(|_| message.contains("already allocated"))
    else {
        return Ok((reason, message));
    };
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let services = services.list(&ListParams::default()).await?;
    let holds = |service: &&Service| {
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        ports.into_iter().any(|held| held.node_port == Some(port))
    };
    let holder = services.items.iter().find(holds).map(|service| service.name_any());
    let holder = holder.map_or("a Service of another namespace".to_owned(), |name| {
        format!("Service `{name}`")
    });
    Ok((
        "NodePortTaken",
        format!("node port {port} is held by {holder}: {message}"),
    ))
}

/// The pods of a resource.
fn selector(resource: &Supercrud) -> String {
    format!("{INSTANCE}={}", resource.name_any())
}

/// The resource's own labels (a lab finds what it made by one of them), and ours.
fn labels(resource: &Supercrud) -> std::collections::BTreeMap<String, String> {
    let mut labels = resource.labels().clone();
    labels.insert(INSTANCE.to_owned(), resource.name_any());
    labels.insert("app.kubernetes.io/name".to_owned(), "supercrud".to_owned());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), NAME.to_owned());
    labels
}

fn metadata(resource: &Supercrud, suffix: &str) -> Value {
    json!({
        "name": format!("{}-{suffix}", resource.name_any()),
        "labels": labels(resource),
        "ownerReferences": [resource.controller_owner_ref(&())],
    })
}

fn deployment(resource: &Supercrud) -> Value {
    let (env, volumes, mounts) = match resource.spec.database {
        Engine::Postgres => {
            let password =
                json!({ "secretKeyRef": { "name": format!("{}-database", resource.name_any()), "key": "password" } });
            let host = json!({ "name": "DB_HOST", "value": "postgres-service" });
            (
                json!([host, { "name": "DB_PASSWORD", "valueFrom": password }]),
                json!([]),
                json!([]),
            )
        }
        Engine::Sqlite => (
            json!([{ "name": "DATABASE_URL", "value": "sqlite:///data/items.db?mode=rwc" }]),
            json!([{ "name": "data", "persistentVolumeClaim": { "claimName": DATA } }]),
            json!([{ "name": "data", "mountPath": "/data" }]),
        ),
    };
    let probe = |path: &str, period: u8| json!({ "httpGet": { "path": path, "port": "http" }, "periodSeconds": period, "timeoutSeconds": 5 });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(resource, "deployment"),
        "spec": {
            "replicas": resource.spec.replicas,
            "selector": { "matchLabels": { INSTANCE: resource.name_any() } },
            // A pod goes when its successor is ready.
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": "25%" } },
            "template": {
                "metadata": { "labels": labels(resource) },
                "spec": {
                    "automountServiceAccountToken": false,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "fsGroup": 65532,
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [{
                        "name": "application",
                        "image": resource.spec.image,
                        "imagePullPolicy": "IfNotPresent",
                        "ports": [{ "name": "http", "containerPort": 8000 }],
                        "env": env,
                        "volumeMounts": mounts,
                        // Small, so that the page's 33 fit into a lab.
                        "resources": { "requests": { "cpu": "5m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
                        "readinessProbe": probe("/readyz", 1),
                        "livenessProbe": probe("/healthz", 10),
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": { "drop": ["ALL"] },
                        },
                    }],
                    "volumes": volumes,
                },
            },
        },
    })
}

fn service(resource: &Supercrud) -> Value {
    let mut port = json!({ "name": "http", "port": 80, "targetPort": "http" });
    if let Some(node_port) = resource.spec.node_port {
        port["nodePort"] = node_port.into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(resource, "service"),
        "spec": { "type": "NodePort", "selector": { INSTANCE: resource.name_any() }, "ports": [port] },
    })
}

/// How it stands: the Deployment's counts, and the first thing that is wrong, in the words of whoever saw it.
fn status(
    resource: &Supercrud,
    made: Option<&(Deployment, Service)>,
    trouble: Option<Why>,
    now: Timestamp,
) -> SupercrudStatus {
    let before = resource.status.clone().unwrap_or_default();
    let generation = resource.metadata.generation.unwrap_or(0);
    let seen = made
        .and_then(|(deployment, _)| deployment.status.clone())
        .unwrap_or_default();
    let ports = made.and_then(|(_, service)| service.spec.as_ref()?.ports.as_ref()?.first()?.node_port);
    let (ready, wanted) = (seen.ready_replicas.unwrap_or(0), resource.spec.replicas);
    let complete = made.is_some() && ready == wanted && seen.updated_replicas.unwrap_or(0) == wanted;
    let reason = if complete { "AllReady" } else { "Waiting" };
    let mut conditions = before.conditions;
    let counted = (reason, format!("{ready} of {wanted} pods are ready"));
    condition::set(&mut conditions, "Ready", complete, counted, generation, now);
    let degraded = trouble.is_some();
    let why = trouble.unwrap_or_else(|| ("AsExpected", String::new()));
    condition::set(&mut conditions, "Degraded", degraded, why, generation, now);
    SupercrudStatus {
        observed_generation: generation,
        replicas: seen.replicas.unwrap_or(0),
        ready_replicas: ready,
        available_replicas: seen.available_replicas.unwrap_or(0),
        selector: selector(resource),
        node_port: ports,
        conditions,
    }
}
