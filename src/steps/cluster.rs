//! The step before all others: a cluster that answers, a context for the user, a namespace for the lab. Undone, it is
//! the last step of all: the namespace goes, the audit looks for what is left, context and cluster go.

use apimachinery::quantity::{Format, Quantity};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};

use super::{
    Done, Effect, Explanation, FailureKind, Observation, Session, Step, StepContext, StepError, Thing, ThingClass,
};
use crate::exec::script::Script;
use crate::k8s::apply::{Applier, namespace_name, owner};
use crate::k8s::{self, ObjectName, audit, wait};
use crate::lab::LABEL;
use crate::providers::{Cluster, Explained, Presence};
use crate::scenario::manifest;

pub(super) struct ClusterStep;

impl Step for ClusterStep {
    fn kind(&self) -> &'static str {
        "cluster"
    }

    fn observe<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Observation, StepError>> {
        Box::pin(async move {
            let cluster = match cx.around.provider.find().await? {
                Presence::Running(cluster) => *cluster,
                Presence::Stopped => return Ok(Observation::Differs(vec!["the cluster is stopped".to_owned()])),
                Presence::Absent => return Ok(Observation::Missing),
            };
            let session = enter(cx, cluster);
            let mut differing = Vec::new();
            let lab = cx.around.lab;
            if !has_context(cx, session)? {
                differing.push(format!("context `{}` missing", lab.context));
            }
            if session.resources.get(&namespace_name(&lab.namespace)).await?.is_none() {
                differing.push(format!("namespace `{}` missing", lab.namespace));
            }
            Ok(if differing.is_empty() {
                Observation::Present(summary(cx, session))
            } else {
                Observation::Differs(differing)
            })
        })
    }

    fn run<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            let provider = cx.around.provider;
            let mut effect = Effect::Unchanged;
            let cluster = match provider.find().await? {
                Presence::Running(cluster) => *cluster,
                Presence::Absent | Presence::Stopped => {
                    cx.voice.making(Thing {
                        class: ThingClass::Cluster,
                        name: cx.around.lab.cluster.clone(),
                    });
                    effect = Effect::Changed;
                    cx.voice.seen("starting the cluster".to_owned());
                    provider.ensure(&|text| cx.voice.note(text)).await?
                }
            };
            cluster
                .warnings
                .iter()
                .for_each(|warning| cx.voice.note(warning.clone()));
            let session = enter(cx, cluster);
            requirements(cx, session).await?;
            if put_context(cx, session)? == Effect::Changed {
                effect = Effect::Changed;
            }
            if ensure_namespace(cx, session).await? == Effect::Changed {
                effect = Effect::Changed;
            }
            Ok(Done {
                effect,
                summary: summary(cx, session),
            })
        })
    }

    fn undo<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            let lab = cx.around.lab;
            let mut said = Vec::new();
            let mut left = Vec::new();
            // Where the cluster is gone, everything in it is.
            if let Some(session) = cx.around.cluster.get() {
                if remove_namespace(cx, session).await? {
                    said.push(format!("namespace `{}` gone", lab.namespace));
                }
                cx.voice.seen("looking for what is left behind".to_owned());
                left = leftovers(cx, session).await?;
            }
            if !left.is_empty() && !cx.around.removal.force {
                let message = format!("`{}` left {} behind", lab.id, objects(left.len()));
                let lines = left.iter().map(ObjectName::to_string);
                let error = StepError::new(FailureKind::Leftovers, message).last_seen(lines);
                return Err(error.hint("`k8slab down --force` goes on all the same"));
            }
            left.iter()
                .for_each(|name| cx.voice.note(format!("left behind: {name}")));
            if remove_context(cx)? {
                said.push(format!("context `{}` removed", lab.context));
            }
            cx.voice.gone(Thing {
                class: ThingClass::Context,
                name: lab.context.clone(),
            });
            if cx.around.shared {
                said.push("the cluster stays for other labs".to_owned());
            } else {
                cx.voice.seen("stopping the cluster".to_owned());
                said.push(cx.around.provider.release(cx.around.removal.delete_cluster).await?);
            }
            cx.voice.gone(Thing {
                class: ThingClass::Cluster,
                name: lab.cluster.clone(),
            });
            Ok(Done::changed(said.join(", ")))
        })
    }

    fn explain(&self, cx: &Explanation<'_>, script: &mut Script) {
        let lab = cx.lab;
        let kubectl = ["kubectl", "--context", &lab.context];
        if cx.down {
            script.run(
                &[
                    &kubectl[..],
                    &["delete", "namespace", "--ignore-not-found", &lab.namespace],
                ]
                .concat(),
            );
            cx.provider.explain(&Explained::Release, script);
            return;
        }
        cx.provider.explain(
            &Explained::Cluster {
                context: &lab.context,
                namespace: &lab.namespace,
            },
            script,
        );
        let namespace = namespace_object(&lab.namespace, &lab.id);
        let text = serde_yaml::to_string(&namespace).unwrap_or_default();
        script.run_with_input(&[&kubectl[..], &["apply", "-f", "-"]].concat(), &text);
    }
}

fn objects(count: usize) -> String {
    if count == 1 {
        "an object".to_owned()
    } else {
        format!("{count} objects")
    }
}

fn enter<'a>(cx: &'a StepContext<'_>, cluster: Cluster) -> &'a Session {
    // Whoever comes second uses the first one's.
    let _ = cx.around.cluster.set(Session::new(cluster));
    match cx.around.cluster.get() {
        Some(session) => session,
        None => unreachable!("it was set in the line before"),
    }
}

fn summary(cx: &StepContext<'_>, session: &Session) -> String {
    format!("{}, context `{}`", session.cluster.summary, cx.around.lab.context)
}

fn has_context(cx: &StepContext<'_>, session: &Session) -> Result<bool, StepError> {
    let lab = cx.around.lab;
    cx.around
        .kubeconfig
        .has(&lab.context, &session.cluster.kubeconfig, &lab.namespace)
        .map_err(config_error)
}

fn config_error(error: crate::kubeconfig::ConfigError) -> StepError {
    let mut failed = StepError::new(FailureKind::Failed, super::chain(&error));
    failed.hints.extend(error.hint());
    failed
}

fn put_context(cx: &StepContext<'_>, session: &Session) -> Result<Effect, StepError> {
    if has_context(cx, session)? {
        return Ok(Effect::Unchanged);
    }
    let lab = cx.around.lab;
    cx.voice.making(Thing {
        class: ThingClass::Context,
        name: lab.context.clone(),
    });
    cx.around
        .kubeconfig
        .put(&lab.context, &session.cluster.kubeconfig, &lab.namespace)
        .map_err(config_error)?;
    Ok(Effect::Changed)
}

fn remove_context(cx: &StepContext<'_>) -> Result<bool, StepError> {
    cx.around
        .kubeconfig
        .remove(&cx.around.lab.context)
        .map_err(config_error)
}

fn namespace_object(namespace: &str, lab: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {
        LABEL: lab,
        // The built-in labs meet the strictest of Kubernetes' Pod Security Standards, and say so.
        "pod-security.kubernetes.io/enforce": "restricted",
    }}})
}

async fn ensure_namespace(cx: &StepContext<'_>, session: &Session) -> Result<Effect, StepError> {
    let lab = cx.around.lab;
    let name = namespace_name(&lab.namespace);
    let terminating = |live: &Value| manifest::text(live, "/status/phase") == "Terminating";
    let mut live = session.resources.get(&name).await?;
    if live.as_ref().is_some_and(terminating) {
        let seen = |text| {
            cx.voice
                .seen(format!("namespace `{}` is still going away: {text}", lab.namespace))
        };
        wait::gone(&session.resources, &name, &cx.patience(&seen)).await?;
        live = None;
    }
    match live.as_ref().map(|live| owner(live)) {
        // Somebody else's namespace is used as it is, and stays.
        Some(None) => return Ok(Effect::Unchanged),
        Some(Some(id)) if id == lab.id => return Ok(Effect::Unchanged),
        Some(Some(id)) => {
            let error = k8s::Error::Foreign {
                object: name,
                owner: Some(id.to_owned()),
            };
            return Err(error.into());
        }
        None => {}
    }
    cx.voice.making(Thing {
        class: ThingClass::Namespace,
        name: lab.namespace.clone(),
    });
    let applier = Applier {
        resources: &session.resources,
        lab: &lab.id,
        namespace: &lab.namespace,
        scaled: &[],
    };
    let mut wanted = namespace_object(&lab.namespace, &lab.id);
    if lab.folder.is_some()
        && let Some(labels) = wanted.pointer_mut("/metadata/labels").and_then(Value::as_object_mut)
    {
        // What own scenarios run is their author's business.
        labels.remove("pod-security.kubernetes.io/enforce");
    }
    applier.apply(&wanted).await?;
    Ok(Effect::Changed)
}

/// Deletes the lab's namespace and waits until it is gone. Not one that was there before.
async fn remove_namespace(cx: &StepContext<'_>, session: &Session) -> Result<bool, StepError> {
    let lab = cx.around.lab;
    let name = namespace_name(&lab.namespace);
    let applier = Applier {
        resources: &session.resources,
        lab: &lab.id,
        namespace: &lab.namespace,
        scaled: &[],
    };
    let deleted = applier.delete(&name).await?;
    if deleted {
        let seen = |text| cx.voice.seen(format!("namespace `{}`: {text}", lab.namespace));
        match wait::gone(&session.resources, &name, &cx.patience(&seen)).await {
            Err(error @ k8s::Error::NotReady { .. }) if cx.around.removal.force => cx.voice.note(error.to_string()),
            gone => gone?,
        }
    }
    cx.voice.gone(Thing {
        class: ThingClass::Namespace,
        name: lab.namespace.clone(),
    });
    Ok(deleted)
}

/// Everything that carries the lab's label, and everything the journal says the lab made, that is still there.
async fn leftovers(cx: &StepContext<'_>, session: &Session) -> Result<Vec<ObjectName>, StepError> {
    let mut left = audit::labelled(&session.resources, &cx.around.lab.id).await?;
    let made = cx.around.made.iter().filter(|thing| thing.class == ThingClass::Object);
    for name in made.filter_map(|thing| ObjectName::parse(&thing.name)) {
        let live = session.resources.get(&name).await?;
        let ours = live.as_ref().is_some_and(|live| owner(live) == Some(&cx.around.lab.id));
        if ours && !left.contains(&name) {
            left.push(name);
        }
    }
    Ok(left)
}

/// Compares what the scenario requires with what the nodes can give, before anything is made.
async fn requirements(cx: &StepContext<'_>, session: &Session) -> Result<(), StepError> {
    let requires = &cx.around.scenario.requires;
    if requires.cpu.is_none() && requires.memory.is_none() && requires.nodes.is_none() {
        return Ok(());
    }
    let nodes = nodes(cx, session).await?;
    let refuse = |what: String| {
        let message = format!("`{}` requires {what}", cx.around.scenario.name);
        Err(StepError::new(FailureKind::Prerequisite, message).hint("another cluster may have it: `--cluster`"))
    };
    if let Some(count) = requires.nodes.filter(|count| *count as usize != nodes.len()) {
        return refuse(format!("{count} node(s), the cluster has {}", nodes.len()));
    }
    for (resource, wanted) in [("cpu", &requires.cpu), ("memory", &requires.memory)] {
        let Some(wanted) = wanted.as_deref().and_then(|text| text.parse::<Quantity>().ok()) else {
            continue;
        };
        let allocatable = nodes
            .iter()
            .filter_map(|node| node.status.as_ref()?.allocatable.as_ref()?.get(resource));
        let sum: Quantity = allocatable
            .filter_map(|quantity| quantity.0.parse::<Quantity>().ok())
            .sum();
        if sum < wanted {
            let format = if resource == "cpu" {
                Format::DecimalSi
            } else {
                Format::BinarySi
            };
            return refuse(format!(
                "{resource} {wanted}, the nodes offer {}",
                sum.with_format(format)
            ));
        }
    }
    Ok(())
}

/// The cluster's nodes; a cluster that has just started is given the time to register one.
async fn nodes(cx: &StepContext<'_>, session: &Session) -> Result<Vec<Node>, StepError> {
    let api: Api<Node> = Api::all(session.cluster.client.clone());
    let fail = |error| k8s::Error::of("listing the nodes", error);
    let found = api.list(&ListParams::default()).await.map_err(fail)?.items;
    if !found.is_empty() {
        return Ok(found);
    }
    cx.voice.seen("the node is not registered yet".to_owned());
    let mut seen = std::pin::pin!(
        watcher(api, watcher::Config::default())
            .default_backoff()
            .applied_objects()
    );
    loop {
        tokio::select! {
            biased;
            () = cx.stop.cancelled() => return Err(StepError::stopped()),
            () = tokio::time::sleep_until(cx.until) => {
                return Err(StepError::new(FailureKind::NotReady, "waiting for a node to register: gave up"));
            }
            Some(node) = seen.next() => match node {
                Ok(node) => return Ok(vec![node]),
                // The watch is taken up again by itself.
                Err(error) => cx.voice.seen(format!("watching the nodes: {error}")),
            },
        }
    }
}
