//! `watch`: replicas, metric and events as they change, a line each.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};

use super::app::App;
use super::error::CliError;
use super::{labs, signals};
use crate::exit::Code;
use crate::k8s::Resources;
use crate::k8s::ready::judge;
use crate::k8s::resource::to_value;
use crate::k8s::snapshot::last_time;
use crate::ui::time::of_day;
use crate::ui::{Format, Out};

/// What is watched: `apiVersion` and `kind`.
const KINDS: [(&str, &str); 4] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("v1", "Event"),
];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The lab; may be left out where there is one
    #[arg(value_name = "SCENARIO")]
    scenario: Option<String>,
}

pub(super) async fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let known = labs::the_one(app, args.scenario.as_deref())?;
    let (session, _) = labs::session(app, &known.lab).await?;
    let mut streams = futures::stream::SelectAll::new();
    for (api_version, kind) in KINDS {
        streams.push(
            changes(&session.resources, &known.lab.namespace, api_version, kind)
                .await?
                .boxed(),
        );
    }
    let mut interrupted = std::pin::pin!(signals::interrupted());
    let mut shown = Shown {
        out: &app.out,
        began: app.clock.now(),
        last: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            biased;
            () = &mut interrupted => return Ok(Code::Fine),
            change = streams.next() => match change {
                Some(object) => shown.show(&object, app.clock.now()),
                None => return Ok(Code::Fine),
            },
        }
        if app.out.is_closed() {
            return Ok(Code::Fine);
        }
    }
}

async fn changes(
    resources: &Resources,
    namespace: &str,
    api_version: &'static str,
    kind: &'static str,
) -> Result<impl futures::Stream<Item = Value> + Send + use<>, CliError> {
    let found = resources.find(api_version, kind).await?;
    let api = resources.api(&found, Some(namespace));
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .applied_objects();
    Ok(
        stream.filter_map(move |object: watcher::Result<DynamicObject>| async move {
            // A watch that breaks is taken up again by itself.
            let mut value = to_value(&object.ok()?);
            value["kind"] = kind.into();
            Some(value)
        }),
    )
}

struct Shown<'a> {
    out: &'a Out,
    began: Timestamp,
    last: BTreeMap<String, String>,
}

impl Shown<'_> {
    fn show(&mut self, object: &Value, now: Timestamp) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let kind = text("/kind");
        let (at, line) = if kind == "Event" {
            // Old events are history, not news.
            let at = last_time(object).parse::<Timestamp>().unwrap_or(now);
            if at.as_second() + 1 < self.began.as_second() {
                return;
            }
            let about = format!("{}/{}", text("/involvedObject/kind"), text("/involvedObject/name"));
            (at, format!("{}   {about}: {}", text("/reason"), text("/message")))
        } else {
            let standing = judge(object, None);
            let why = standing.why.map(|why| format!("   {why}")).unwrap_or_default();
            (now, format!("{}{why}", standing.summary))
        };
        let key = format!("{kind}/{}", text("/metadata/name"));
        if self.last.get(&key) == Some(&line) {
            return;
        }
        match self.out.format {
            Format::Json => self.out.json_line(&json!({
                "at": at, "kind": kind, "name": text("/metadata/name"), "line": line, "status": object.get("status"),
            })),
            _ => self.out.line(format!("{}   {line}", of_day(at))),
        }
        self.last.insert(key, line);
    }
}
