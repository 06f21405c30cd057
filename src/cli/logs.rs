//! `logs`: all pods of a lab, each line behind its pod's name; with `-f` new pods too.

use std::collections::BTreeSet;

use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, LogParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;

use super::app::App;
use super::error::CliError;
use super::{labs, signals};
use crate::exit::Code;
use crate::k8s;
use crate::lab::LABEL;
use crate::ui::{Format, Out};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The lab; may be left out where there is one
    #[arg(value_name = "SCENARIO")]
    scenario: Option<String>,
    /// Go on with what comes, from new pods too
    #[arg(long, short)]
    follow: bool,
    /// Only the last lines of each container
    #[arg(long, value_name = "N")]
    tail: Option<i64>,
    /// The containers before the last restart
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
}

pub(super) async fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let known = labs::the_one(app, args.scenario.as_deref())?;
    let (session, _) = labs::session(app, &known.lab).await?;
    let pods: Api<Pod> = Api::namespaced(session.cluster.client.clone(), &known.lab.namespace);
    let selector = format!("{LABEL}={}", known.lab.id);
    if args.follow {
        return follow(args, app, pods, &selector).await;
    }
    let list = pods.list(&ListParams::default().labels(&selector)).await;
    let list = list.map_err(|error| k8s::Error::of("listing the pods", error))?;
    for pod in list {
        for container in containers(&pod) {
            copy(&pods, &pod.name_any(), &container, args, &app.out).await;
        }
    }
    Ok(Code::Fine)
}

fn containers(pod: &Pod) -> Vec<String> {
    pod.spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| container.name.clone())
        .collect()
}

async fn follow(args: &Args, app: &App, pods: Api<Pod>, selector: &str) -> Result<Code, CliError> {
    let mut events = std::pin::pin!(
        watcher(pods.clone(), watcher::Config::default().labels(selector))
            .default_backoff()
            .applied_objects()
    );
    let mut interrupted = std::pin::pin!(signals::interrupted());
    // A container's id changes with each restart: each incarnation is read once.
    let mut read = BTreeSet::new();
    let mut copies = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = &mut interrupted => return Ok(Code::Fine),
            Some(event) = events.next() => {
                let Ok(pod) = event else { continue };
                for status in pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()) {
                    let started = status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some());
                    let Some(id) = status.container_id.clone().filter(|_| started) else { continue };
                    if !read.insert(id) {
                        continue;
                    }
                    let (pods, out, name, container) = (pods.clone(), app.out.clone(), pod.name_any(), status.name.clone());
                    let args = Args { scenario: None, follow: true, tail: args.tail, previous: false };
                    copies.spawn(async move { copy(&pods, &name, &container, &args, &out).await });
                }
            }
            Some(_) = copies.join_next() => {}
        }
        if app.out.is_closed() {
            return Ok(Code::Fine);
        }
    }
}

async fn copy(pods: &Api<Pod>, pod: &str, container: &str, args: &Args, out: &Out) {
    let params = LogParams {
        container: Some(container.to_owned()),
        follow: args.follow,
        tail_lines: args.tail,
        previous: args.previous,
        ..LogParams::default()
    };
    let lines = match pods.log_stream(pod, &params).await {
        Ok(stream) => stream.lines(),
        Err(error) => {
            let error = k8s::Error::of(
                format!("reading the log of pod `{pod}`, container `{container}`"),
                error,
            );
            return out.error(crate::steps::chain(&error));
        }
    };
    let mut lines = std::pin::pin!(lines);
    while let Ok(Some(line)) = lines.try_next().await {
        match out.format {
            Format::Json => out.json_line(&json!({"pod": pod, "container": container, "line": line})),
            _ => out.line(format!("{pod}   {line}")),
        }
        if out.is_closed() {
            return;
        }
    }
}
