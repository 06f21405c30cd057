//! `load`: does an action to each ready pod, and keeps doing it to those that become ready later.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use super::app::App;
use super::error::CliError;
use super::{labs, parse_duration, signals};
use crate::exit::Code;
use crate::k8s;
use crate::k8s::forward::{self, Answer, container_ports, is_ready};
use crate::scenario::model::Action;
use crate::scenario::suggestion;
use crate::ui::{Format, Out};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The lab
    #[arg(value_name = "SCENARIO")]
    scenario: String,
    /// What to do; left out, the actions are shown
    #[arg(value_name = "ACTION")]
    action: Option<String>,
    /// Keep doing it to new pods for this long, not until Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Do it once to the pods that are ready now
    #[arg(long, conflicts_with = "duration")]
    once: bool,
    /// Which pods
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    pods: Pods,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Pods {
    /// Every pod that the action selects
    #[default]
    All,
    /// The first of them, by name
    One,
}

pub(super) async fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let known = labs::the_one(app, Some(&args.scenario))?;
    let scenario = app.scenario_of(&known.lab);
    let names = || scenario.actions.iter().map(|action| action.name.as_str());
    let Some(name) = &args.action else {
        let rows: Vec<Vec<String>> = scenario
            .actions
            .iter()
            .map(|action| vec![action.name.clone(), action.description.clone().unwrap_or_default()])
            .collect();
        app.out.line(crate::ui::table::columns("", &rows));
        return Ok(Code::Fine);
    };
    let action = scenario.action(name).ok_or_else(|| {
        let nearest = suggestion::nearest(name, names());
        let hint = match nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!(
                "actions of `{}`: {}",
                scenario.name,
                names().collect::<Vec<_>>().join(", ")
            ),
        };
        CliError::usage(format!("unknown action `{name}`")).hint(hint)
    })?;
    let (session, _) = labs::session(app, &known.lab).await?;
    let doing = Doing {
        client: session.cluster.client.clone(),
        namespace: &known.lab.namespace,
        action,
        out: Some(&app.out),
        one: args.pods == Pods::One,
    };
    if args.once {
        doing.once().await
    } else {
        doing.hold(args.duration).await
    }
}

/// An action that is being done to the pods of a lab.
pub(super) struct Doing<'a> {
    pub(super) client: Client,
    pub(super) namespace: &'a str,
    pub(super) action: &'a Action,
    /// Where the answers are shown, if anywhere.
    pub(super) out: Option<&'a Out>,
    /// To one pod only.
    pub(super) one: bool,
}

impl Doing<'_> {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    /// To the pods that are ready now; an error when there is none, or when one of them does not take it.
    async fn once(&self) -> Result<Code, CliError> {
        let list = self.pods().list(&ListParams::default().labels(&self.action.pods)).await;
        let list = list.map_err(|error| k8s::Error::of("listing the pods", error))?;
        let mut ready: Vec<(String, Value)> = list.items.iter().map(named).filter(|(_, pod)| is_ready(pod)).collect();
        ready.sort_by(|a, b| a.0.cmp(&b.0));
        if self.one {
            ready.truncate(1);
        }
        if ready.is_empty() {
            let message = format!("no pod with `{}` is ready", self.action.pods);
            return Err(CliError::new(Code::NotReady, message).hint("k8slab status --why says what keeps them"));
        }
        let asked = ready.iter().map(|(name, pod)| self.ask(name, pod));
        let answers = futures::future::join_all(asked).await;
        let all = answers
            .iter()
            .zip(&ready)
            .all(|(answer, (name, _))| self.tell(name, answer));
        Ok(if all { Code::Fine } else { Code::Failed })
    }

    /// To each pod when it becomes ready, until Ctrl-C or for some time.
    async fn hold(&self, duration: Option<Duration>) -> Result<Code, CliError> {
        if let Some(out) = self.out.filter(|out| out.format != Format::Json) {
            let end = duration.map_or("Ctrl-C ends it".to_owned(), |d| {
                format!("for {}", crate::scenario::duration::shown(d))
            });
            out.say(format!(
                "{} on every ready pod with {}, new ones too; {end}",
                self.action.get, self.action.pods
            ));
        }
        let end = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = signals::interrupted() => {}
            () = end => {}
            () = self.keep_on() => {}
        }
        Ok(Code::Fine)
    }

    /// To each pod once when it becomes ready, and again when its containers were restarted, for as long as it is polled
    /// and somebody reads the answers.
    pub(super) async fn keep_on(&self) {
        let config = watcher::Config::default().labels(&self.action.pods);
        let mut events = std::pin::pin!(watcher(self.pods(), config).default_backoff());
        // Which incarnation of each pod was asked: its uid and how often its containers were started.
        let mut asked: BTreeMap<String, String> = BTreeMap::new();
        let mut asking = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some((name, incarnation, answer)) = asking.next() => {
                    let name: String = name;
                    if !self.tell(&name, &answer) && asked.get(&name) == Some(&incarnation) {
                        // Its next change is another chance.
                        asked.remove(&name);
                    }
                }
                Some(event) = events.next() => match event {
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                        let (name, value) = named(&pod);
                        let incarnation = incarnation(&value);
                        let others = self.one && !asked.is_empty() && !asked.contains_key(&name);
                        if is_ready(&value) && !others && asked.get(&name) != Some(&incarnation) {
                            asked.insert(name.clone(), incarnation.clone());
                            asking.push(async move {
                                let answer = self.ask(&name, &value).await;
                                (name, incarnation, answer)
                            });
                        }
                    }
                    Ok(watcher::Event::Delete(pod)) => drop(asked.remove(&pod.name_any())),
                    Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                    Err(error) => tracing::debug!("watching the pods: {error}"),
                },
            }
            if self.out.is_some_and(Out::is_closed) {
                return;
            }
        }
    }

    async fn ask(&self, name: &str, pod: &Value) -> Result<Answer, String> {
        let port = self
            .action
            .port
            .or_else(|| container_ports(pod).map(|(_, port)| port).next());
        let port = port.ok_or("it declares no port")?;
        let asked = forward::get(&self.client, self.namespace, name, port, &self.action.get).await;
        asked.map_err(|error| crate::steps::chain(&error))
    }

    /// Shows an answer; whether it was a good one.
    fn tell(&self, name: &str, answer: &Result<Answer, String>) -> bool {
        let good = matches!(answer, Ok(answer) if answer.status < 400);
        let Some(out) = self.out else { return good };
        match answer {
            Ok(answer) if out.format == Format::Json => {
                out.json_line(&json!({"pod": name, "status": answer.status, "body": answer.body}));
            }
            Err(why) if out.format == Format::Json => out.json_line(&json!({"pod": name, "error": why})),
            Ok(answer) => {
                let body: String = answer.body.trim().chars().take(120).collect();
                out.say(format!("  {name}   {} {body}", answer.status));
            }
            Err(why) => out.say(format!("  {name}   {why}")),
        }
        good
    }
}

fn named(pod: &Pod) -> (String, Value) {
    (pod.name_any(), serde_json::to_value(pod).unwrap_or_default())
}

fn incarnation(pod: &Value) -> String {
    let statuses = pod
        .pointer("/status/containerStatuses")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let restarts: i64 = statuses
        .iter()
        .filter_map(|status| status["restartCount"].as_i64())
        .sum();
    format!(
        "{} {restarts}",
        pod.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default()
    )
}
