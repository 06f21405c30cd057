//! `status`: a lab at one moment, its next move, and the first broken link of its chain.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::app::App;
use super::error::CliError;
use super::labs;
use crate::engine::folder::{self, KnownLab};
use crate::exit::Code;
use crate::k8s::pods;
use crate::k8s::ready::judge;
use crate::k8s::snapshot::{Snapshot, last_time};
use crate::k8s::why::{Broken, first_broken_link};
use crate::providers::NextMove;
use crate::row;
use crate::ui::Format;
use crate::ui::table::columns;
use crate::ui::time::{age, from_now, of_day};

/// How many events are shown.
const EVENTS: usize = 8;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The lab; left out, all of them
    #[arg(value_name = "SCENARIO")]
    scenario: Option<String>,
    /// Walk the chain and say where it first breaks
    #[arg(long)]
    why: bool,
}

pub(super) async fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let known = match &args.scenario {
        Some(_) => vec![labs::the_one(app, args.scenario.as_deref())?],
        None => folder::known(&app.paths)?,
    };
    if known.is_empty() {
        app.out.say("no lab is up");
    }
    let mut documents = Vec::new();
    for lab in &known {
        let view = View::take(app, lab).await?;
        if app.out.format == Format::Json {
            documents.push(view.json());
        } else if args.why {
            app.out.line(view.why());
        } else {
            app.out.line(view.text());
        }
    }
    if app.out.format == Format::Json {
        app.out.json(&documents);
    }
    Ok(Code::Fine)
}

struct View<'a> {
    known: &'a KnownLab,
    snapshot: Snapshot,
    moves: Vec<NextMove>,
    broken: Option<Broken>,
    warnings: Vec<String>,
    now: Timestamp,
}

impl<'a> View<'a> {
    async fn take(app: &App, known: &'a KnownLab) -> Result<Self, CliError> {
        let (session, provider) = labs::session(app, &known.lab).await?;
        let snapshot = Snapshot::take(&session.resources, &known.lab.namespace).await?;
        let mut moves = provider.next_moves(&session).await;
        moves.retain(|next| next.namespace == known.lab.namespace);
        let broken = first_broken_link(&snapshot);
        Ok(Self {
            known,
            snapshot,
            moves,
            broken,
            warnings: session.cluster.warnings,
            now: app.clock.now(),
        })
    }

    fn json(&self) -> Value {
        let pods: Vec<Value> = self
            .snapshot
            .pods
            .iter()
            .map(|pod| {
                let name = name(pod);
                let usage = self.usage(name);
                json!({
                    "name": name,
                    "phase": pod.pointer("/status/phase"),
                    "trouble": pods::trouble(pod).map(|trouble| trouble.words),
                    "cpuMillicores": usage.map(|usage| usage.millicores),
                    "memoryBytes": usage.map(|usage| usage.memory),
                })
            })
            .collect();
        let standing = |object: &Value| {
            let standing = judge(object, None);
            json!({ "ready": standing.ready, "summary": standing.summary, "why": standing.why })
        };
        json!({
            "lab": self.known.lab,
            "up": self.known.record.is_up(),
            "workloads": self.snapshot.workloads.iter().map(standing).collect::<Vec<_>>(),
            "autoscalers": self.snapshot.autoscalers.iter().map(standing).collect::<Vec<_>>(),
            "pods": pods,
            "nextMoves": self.moves,
            "firstBrokenLink": self.broken,
            "warnings": self.warnings,
        })
    }

    fn usage(&self, pod: &str) -> Option<crate::k8s::metrics::Usage> {
        self.snapshot
            .usage
            .as_ref()
            .and_then(|usage: &BTreeMap<_, _>| usage.get(pod).copied())
    }

    fn why(&self) -> String {
        let name = &self.known.lab.scenario;
        match &self.broken {
            None => format!("{name}: every link holds"),
            Some(broken) => format!(
                "{name}: first broken link: {} of {}\n  seen: {}\n  hint: {}",
                broken.link, broken.object, broken.seen, broken.hint
            ),
        }
    }

    fn text(&self) -> String {
        let lab = &self.known.lab;
        let state = if self.known.record.is_up() { "up" } else { "unfinished" };
        let since = self
            .known
            .record
            .began
            .map(|at| format!(" since {}", of_day(at)))
            .unwrap_or_default();
        let mut parts = vec![format!(
            "{} is {state}{since}, on {}, namespace {}",
            lab.scenario, lab.cluster, lab.namespace
        )];
        parts.extend(self.warnings.iter().map(|warning| format!("  note: {warning}")));
        for workload in &self.snapshot.workloads {
            parts.push(standing_line(workload));
        }
        let rows: Vec<Vec<String>> = self.snapshot.pods.iter().map(|pod| self.pod_row(pod)).collect();
        if !rows.is_empty() {
            parts.push(columns("    ", &rows));
        }
        for hpa in &self.snapshot.autoscalers {
            parts.push(standing_line(hpa));
            parts.push(condition_lines(hpa));
            let own = self.moves.iter().filter(|next| next.name == name(hpa));
            parts.extend(own.map(|next| format!("    next   {}", self.next_line(next))));
        }
        let events = self.event_lines();
        if !events.is_empty() {
            parts.push(format!("  events\n{events}"));
        }
        if self.broken.is_some() {
            parts.push(format!("  {}", self.why().replace('\n', "\n  ")));
        }
        parts.retain(|part| !part.is_empty());
        parts.join("\n")
    }

    fn pod_row(&self, pod: &Value) -> Vec<String> {
        let state = match pods::trouble(pod) {
            None => pod
                .pointer("/status/phase")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            Some(trouble) => trouble.words,
        };
        let (cpu, memory) = match self.usage(name(pod)) {
            Some(usage) => (
                format!("{}m", usage.millicores),
                format!("{}Mi", usage.memory / 1024 / 1024),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let statuses = pod
            .pointer("/status/containerStatuses")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let restarts: i64 = statuses
            .iter()
            .filter_map(|status| status["restartCount"].as_i64())
            .sum();
        let created = pod
            .pointer("/metadata/creationTimestamp")
            .and_then(Value::as_str)
            .unwrap_or_default();
        row![
            name(pod),
            state,
            cpu,
            memory,
            format!("{restarts} restarts"),
            age(created, self.now)
        ]
    }

    /// When the HPA looks again, and what holds it.
    fn next_line(&self, next: &NextMove) -> String {
        let mut parts = Vec::new();
        if let Some(at) = next.next_sync {
            parts.push(format!("sync {}", from_now(at, self.now)));
        }
        if let Some(wanted) = next
            .recommended_replicas
            .filter(|wanted| *wanted != next.current_replicas)
        {
            parts.push(format!(
                "the metric asks for {wanted}, there are {}",
                next.current_replicas
            ));
        }
        if let Some(held) = &next.scale_down_held {
            parts.push(format!(
                "scale-down not before {} (holds {})",
                of_day(held.until),
                held.replicas
            ));
        }
        if let Some(limit) = &next.scale_up_limit {
            let until = limit
                .until
                .map(|at| format!(" until {}", of_day(at)))
                .unwrap_or_default();
            parts.push(format!("scale-up to at most {}{until}", limit.replicas));
        }
        if parts.is_empty() {
            "no move expected".to_owned()
        } else {
            parts.join("; ")
        }
    }

    fn event_lines(&self) -> String {
        let events = &self.snapshot.events;
        let rows: Vec<Vec<String>> = events[events.len().saturating_sub(EVENTS)..]
            .iter()
            .map(|event| {
                let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                let at = last_time(event)
                    .parse::<Timestamp>()
                    .map_or_else(|_| "?".to_owned(), of_day);
                let about = format!("{}/{}", text("/involvedObject/kind"), text("/involvedObject/name"));
                let count = event["count"]
                    .as_i64()
                    .filter(|count| *count > 1)
                    .map(|count| format!(" (×{count})"));
                row![
                    at,
                    text("/reason"),
                    about,
                    format!("{}{}", text("/message"), count.unwrap_or_default())
                ]
            })
            .collect();
        columns("    ", &rows)
    }
}

fn name(object: &Value) -> &str {
    object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn standing_line(object: &Value) -> String {
    let standing = judge(object, None);
    match standing.why {
        Some(why) => format!("  {}   {why}", standing.summary),
        None => format!("  {}", standing.summary),
    }
}

fn condition_lines(object: &Value) -> String {
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let rows: Vec<Vec<String>> = conditions
        .iter()
        .map(|condition| {
            vec![
                text(condition, "type"),
                text(condition, "status"),
                text(condition, "reason"),
                text(condition, "message"),
            ]
        })
        .collect();
    if rows.is_empty() {
        String::new()
    } else {
        columns("    ", &rows)
    }
}
