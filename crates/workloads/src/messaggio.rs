//! The smallest operator there is: a resource that holds a text, and a controller that notices.
//!
//! Read from top to bottom: the type that becomes the CRD, `run` that watches, `reconcile` that does the work. There is
//! no finalizer: nothing outside the cluster has to be tidied up, and a resource whose controller is away can be deleted.

use std::sync::Arc;

use futures::StreamExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, CustomResource, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::condition::{Now, written};
use crate::operator::{self, Backoff};

/// Who we are: in Events, and as the manager of the fields that we write.
const NAME: &str = "messaggio-operator";

/// A text that somebody should read.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "example.alnao.it",
    version = "v1",
    kind = "Messaggio",
    plural = "messaggi",
    shortname = "mess",
    doc = "A text that somebody should read.",
    namespaced,
    status = "MessaggioStatus",
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".spec.message"}"#,
    printcolumn = r#"{"name": "Read", "type": "date", "jsonPath": ".status.when"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
pub struct MessaggioSpec {
    /// The text.
    #[schemars(length(min = 1, max = 1024))]
    pub message: String,
}

/// What the controller made of it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MessaggioStatus {
    /// The generation of the resource that was read.
    pub observed_generation: i64,
    /// The text as it was read.
    pub text: String,
    /// When it was read.
    #[schemars(extend("format" = "date-time"))]
    pub when: String,
}

/// What every reconciliation needs.
struct Context {
    client: Client,
    now: Now,
    backoff: Backoff<ObjectRef<Messaggio>>,
}

/// Runs until SIGTERM; the exit code.
pub(crate) fn main(args: &[String]) -> i32 {
    operator::main(NAME, args, |client, stop| async move {
        run(client, stop, operator::now).await;
        Ok::<_, kube::Error>(())
    })
}

/// Watches the messages of the client's namespace until `stop`.
pub(crate) async fn run(client: Client, stop: CancellationToken, now: Now) {
    let messages: Api<Messaggio> = Api::default_namespaced(client.clone());
    let context = Arc::new(Context {
        client: client.clone(),
        now,
        backoff: Backoff::default(),
    });
    let controller = Controller::new(messages.clone(), watcher::Config::default())
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile, retry, context)
        .for_each(|outcome| async {
            if let Err(error) = outcome {
                crate::complain(&format!("{NAME}: {error}"));
            }
        });
    tokio::select! {
        () = controller => {}
        () = farewells(client, messages) => {}
    }
}

/// Brings the status of one message up to date. Called for every change, and for every message at the start: what was
/// read before says nothing new, so a restart of the operator is silent.
async fn reconcile(message: Arc<Messaggio>, context: Arc<Context>) -> kube::Result<Action> {
    let name = message.name_any();
    let generation = message.metadata.generation.unwrap_or(0);
    let known = message.status.as_ref().map(|status| status.observed_generation);
    if known != Some(generation) {
        let text = &message.spec.message;
        let (tag, reason) = if known.is_none() {
            ("CREATE", "Created")
        } else {
            ("UPDATE", "Changed")
        };
        crate::say(&format!("[{tag}] {name}: {text}"));
        operator::publish(&context.client, NAME, &*message, reason, text.clone()).await?;
        let status = MessaggioStatus {
            observed_generation: generation,
            text: text.clone(),
            when: written((context.now)()),
        };
        let messages: Api<Messaggio> = Api::default_namespaced(context.client.clone());
        let patch = Patch::Merge(json!({ "status": status }));
        messages.patch_status(&name, &PatchParams::apply(NAME), &patch).await?;
    }
    context.backoff.succeeded(&ObjectRef::from_obj(&*message));
    Ok(Action::await_change())
}

/// After a failure: soon, then less and less often.
fn retry(message: Arc<Messaggio>, _error: &kube::Error, context: Arc<Context>) -> Action {
    Action::requeue(context.backoff.failed(ObjectRef::from_obj(&*message)))
}

/// Says goodbye to deleted messages. A controller never hears of them: what is gone has no state to reconcile. Those
/// that are deleted while the operator is away go unnoticed, which a finalizer would change, at its price.
async fn farewells(client: Client, messages: Api<Messaggio>) {
    let mut events = watcher(messages, watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        let Ok(watcher::Event::Delete(message)) = event else {
            continue;
        };
        let text = &message.spec.message;
        crate::say(&format!("[DELETE] {}: {text}", message.name_any()));
        if let Err(error) = operator::publish(&client, NAME, &message, "Deleted", text.clone()).await {
            crate::complain(&format!("{NAME}: {error}"));
        }
    }
}
