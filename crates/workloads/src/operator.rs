//! How an operator of the lab lives: a client, probes, a signal that ends it, a log line for every outcome.
//!
//! Owns the process. What is watched and what is done about it is each operator's own, and reads there from top to end.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::server;

/// Where the kubelet asks whether the operator lives.
const PROBES: u16 = 8081;

/// Runs an operator until SIGTERM, SIGINT or its own end; the exit code.
///
/// In a pod the client is the ServiceAccount's, elsewhere the kubeconfig's current context. On the command line
/// `--context NAME` chooses another one, and there are no probes: nobody asks.
pub(crate) fn main<F, R, E>(name: &str, args: &[String], program: F) -> i32
where
    F: FnOnce(Client, CancellationToken) -> R,
    R: Future<Output = Result<(), E>>,
    E: Display,
{
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            crate::complain(&format!("{name}: {error}"));
            return 1;
        }
    };
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(&stop).map_err(|error| error.to_string())?;
        let client = connect(args).await?;
        crate::say(&format!("{name}: watching namespace `{}`", client.default_namespace()));
        if args.is_empty() {
            let alive = |_| async { server::respond(server::ok()) };
            let listener = server::bind(PROBES).await.map_err(|error| error.to_string())?;
            tokio::spawn(server::serve_until(listener, alive, stop.clone()));
        }
        program(client, stop).await.map_err(|error| error.to_string())
    });
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            crate::complain(&format!("{name}: {error}"));
            1
        }
    }
}

/// As pid 1 a process ignores signals that it does not handle.
pub(crate) fn stop_on_signals(stop: &CancellationToken) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

async fn connect(args: &[String]) -> Result<Client, String> {
    let told = |error: &dyn Display| format!("connecting to the cluster: {error}");
    match args {
        [] => Client::try_default().await.map_err(|error| told(&error)),
        [flag, context] if flag == "--context" => {
            let options = kube::config::KubeConfigOptions {
                context: Some(context.clone()),
                ..Default::default()
            };
            let config = kube::Config::from_kubeconfig(&options).await;
            let config = config.map_err(|error| told(&error))?;
            Client::try_from(config).map_err(|error| told(&error))
        }
        other => Err(format!(
            "expected nothing or `--context NAME`, got `{}`",
            other.join(" ")
        )),
    }
}

/// The wall clock, for what is written into objects. Waiting uses tokio's time.
#[expect(
    clippy::disallowed_methods,
    reason = "a program in a container has the container's clock"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// Publishes an Event about an object. A Recorder of its own each time: one that is kept would count a second text
/// with the same reason as a repetition of the first, and `kubectl describe` would never show it.
pub(crate) async fn publish<K>(client: &Client, by: &str, about: &K, reason: &str, note: String) -> kube::Result<()>
where
    K: kube::Resource<DynamicType = ()>,
{
    let warning = matches!(reason, "Degraded" | "Rejected");
    let event = Event {
        type_: if warning { EventType::Warning } else { EventType::Normal },
        reason: reason.to_owned(),
        note: Some(note),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    let recorder = Recorder::new(client.clone(), Reporter::from(by));
    recorder.publish(&event, &about.object_ref(&())).await
}

/// Server-side apply in the client's namespace: only the fields written here are ours, whatever else somebody sets stays.
pub(crate) async fn apply<K>(client: &Client, by: &str, wanted: Value) -> kube::Result<K>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::default_namespaced(client.clone());
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let params = PatchParams::apply(by).force();
    api.patch(name, &params, &Patch::Apply(&wanted)).await
}

/// How long to wait after an object's failures in a row: half a second, doubled each time, at most a minute.
#[derive(Debug)]
pub(crate) struct Backoff<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// The object failed once more.
    pub(crate) fn failed(&self, object: K) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object).or_default();
        *count = (*count + 1).min(8);
        Duration::from_millis(250 << *count).min(Duration::from_secs(60))
    }

    /// The object is well.
    pub(crate) fn succeeded(&self, object: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_retried_less_and_less_often() {
        let backoff = Backoff::default();
        let waits: Vec<u128> = (0..10).map(|_| backoff.failed("a").as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000]);
        assert_eq!(backoff.failed("b").as_millis(), 500);
        backoff.succeeded(&"a");
        assert_eq!(backoff.failed("a").as_millis(), 500);
    }
}
