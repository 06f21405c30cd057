//! Namespace: empties one that is being deleted, kind by kind, and then lets go of it.
//!
//! Owns the deletion of content and the five conditions that tell how far it is. Must not know what the kinds are: it
//! asks discovery. (k/k `pkg/controller/namespace/deletion`, v1.36.)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde::de::IgnoredAny;

use crate::Context;
use crate::discovery::{self, Discovered, Kind};
use crate::error::{self, Doing, Error, Result};
use crate::informers::{Change, Informers};
use crate::key::Key;
use crate::pods;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;

/// The finalizer that this controller takes away.
const FINALIZER: &str = "kubernetes";
/// How long things with finalizers are supposed to need.
const FINALIZER_ESTIMATE: Duration = Duration::from_secs(15);

pub(crate) struct Namespaces {
    context: Context,
    client: Client,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> Namespaces {
    let queue = WorkQueue::new();
    let wake = queue.clone();
    context.informers.namespaces.on_change(move |change| {
        if let Change::Added(namespace) | Change::Updated { new: namespace, .. } = change
            && namespace.metadata.deletion_timestamp.is_some()
        {
            wake.add(Key::of(&**namespace));
        }
    });
    let emptied = Emptied {
        informers: context.informers.clone(),
        queue: queue.clone(),
    };
    context.informers.pods.on_change(move |change| {
        if let Change::Deleted(pod) = change {
            emptied.tell(pod.metadata.namespace.as_deref().unwrap_or_default());
        }
    });
    Namespaces {
        context: context.clone(),
        client: context.client(Namespaces::NAME),
        queue,
    }
}

/// Hears of deleted objects, so that the end of a namespace need not wait for the next estimate.
#[derive(Clone)]
pub(crate) struct Emptied {
    informers: Informers,
    queue: Arc<WorkQueue<Key>>,
}

impl Emptied {
    /// Something in `namespace` was deleted.
    pub(crate) fn tell(&self, namespace: &str) {
        let key = Key::new("", namespace);
        let is_ending = |namespace: Arc<Namespace>| namespace.metadata.deletion_timestamp.is_some();
        if self.informers.namespaces.get(&key).is_some_and(is_ending)
            && self.informers.pods.in_namespace(namespace).is_empty()
        {
            self.queue.add(key);
        }
    }
}

impl Namespaces {
    /// For those who see deletions that this controller does not.
    pub(crate) fn emptied(&self) -> Emptied {
        Emptied {
            informers: self.context.informers.clone(),
            queue: self.queue.clone(),
        }
    }
}

impl Reconcile for Namespaces {
    const NAME: &'static str = "namespace-controller";
    const WORKERS: usize = 10;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        // Not from the cache: what is deleted below cannot be brought back.
        let found = api
            .get_opt(&key.name)
            .await
            .doing(|| format!("looking at namespace `{key}`"))?;
        let Some(mut namespace) = found.filter(|found| found.metadata.deletion_timestamp.is_some()) else {
            return Ok(());
        };
        if !has_finalizer(&namespace) {
            return Ok(());
        }
        let mut status = namespace.status.clone().unwrap_or_default();
        status.phase = Some("Terminating".to_owned());
        let report = self.empty(&key.name).await?;
        report.tell(&mut status, self.context.clock.now());
        if namespace.status.as_ref() != Some(&status) {
            namespace.status = Some(status);
            let written = api.replace_status(&key.name, &PostParams::default(), &namespace).await;
            namespace = written.doing(|| format!("writing the status of namespace `{key}`"))?;
        }
        match report.verdict() {
            Verdict::Failed(why) => Err(Error::new(format!("emptying namespace `{key}`: {why}"))),
            Verdict::Wait(estimate) => {
                self.queue.add_after(key.clone(), estimate / 2 + Duration::from_secs(1));
                Ok(())
            }
            Verdict::Empty => self.let_go(&api, namespace).await,
        }
    }
}

impl Namespaces {
    /// Deletes everything in the namespace: pods first, so that they still find what they need while they end.
    async fn empty(&self, namespace: &str) -> Result<Report> {
        let Discovered { kinds, failures } = discovery::discover(&self.client).await?;
        let mut report = Report::default();
        report.undiscovered.extend(
            failures
                .into_iter()
                .map(|(version, error)| format!("{version}: {error}")),
        );
        let deletable = |kind: &Kind| kind.namespaced && kind.can("delete") && kind.can("list");
        let is_pods = |kind: &Kind| kind.resource.group.is_empty() && kind.resource.plural == "pods";
        let (pods, others): (Vec<Kind>, Vec<Kind>) = kinds.into_iter().filter(deletable).partition(is_pods);
        for kind in &pods {
            self.empty_of_pods(kind, namespace, &mut report).await;
        }
        if !report.remaining.is_empty() || !report.failed.is_empty() {
            return Ok(report);
        }
        for kind in &others {
            self.empty_of(kind, namespace, Duration::ZERO, &mut report).await;
        }
        Ok(report)
    }

    async fn empty_of_pods(&self, kind: &Kind, namespace: &str, report: &mut Report) {
        // What they may take at most, asked before they are told to end.
        let grace = |pod: &Arc<Pod>| {
            let spec = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
            let seconds = pod.metadata.deletion_grace_period_seconds.or(spec).unwrap_or_default();
            (!pods::is_terminal(pod)).then(|| u64::try_from(seconds).unwrap_or_default())
        };
        let longest = self
            .context
            .informers
            .pods
            .in_namespace(namespace)
            .iter()
            .filter_map(grace)
            .max();
        self.empty_of(
            kind,
            namespace,
            Duration::from_secs(longest.unwrap_or_default()),
            report,
        )
        .await;
    }

    async fn empty_of(&self, kind: &Kind, namespace: &str, estimate: Duration, report: &mut Report) {
        let name = format!("{}.{}", kind.resource.plural, kind.resource.group);
        if let Err(error) = self.delete_all(kind, namespace).await {
            report.failed.push(format!("{name}: {}", error::message(&error)));
            return;
        }
        let left = match kind
            .api(&self.client, namespace)
            .list_metadata(&ListParams::default())
            .await
        {
            Ok(left) => left.items,
            Err(error) => return report.failed.push(format!("{name}: {}", error::message(&error))),
        };
        if left.is_empty() {
            return;
        }
        let finalizers = left
            .iter()
            .flat_map(|object| object.metadata.finalizers.iter().flatten());
        let mut any = false;
        for finalizer in finalizers {
            any = true;
            *report.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        let estimate = if any {
            estimate.max(FINALIZER_ESTIMATE)
        } else {
            estimate
        };
        if estimate.is_zero() {
            // No grace and no finalizer, and still there: created a moment ago, or the store is behind.
            report.failed.push(format!(
                "unexpected items still remain in namespace: {namespace} for gvr: {name}"
            ));
        }
        report.estimate = report.estimate.max(estimate);
        report.remaining.insert(name, left.len());
    }

    async fn delete_all(&self, kind: &Kind, namespace: &str) -> kube::Result<()> {
        if kind.can("deletecollection") {
            let uri = format!("{}?propagationPolicy=Background", kind.path(namespace));
            let request = http::Request::delete(uri)
                .body(Vec::new())
                .map_err(kube::Error::HttpError)?;
            return self.client.request::<IgnoredAny>(request).await.map(drop);
        }
        let api = kind.api(&self.client, namespace);
        for object in api.list_metadata(&ListParams::default()).await? {
            match api.delete(&object.name_any(), &DeleteParams::background()).await {
                Err(error) if !error::is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn let_go(&self, api: &Api<Namespace>, mut namespace: Namespace) -> Result<()> {
        let name = namespace.name_any();
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        match api
            .replace_subresource("finalize", &name, &PostParams::default(), &namespace)
            .await
        {
            Err(error) if error::is_not_found(&error) => Ok(()),
            done => done.map(drop).doing(|| format!("finalizing namespace `{name}`")),
        }
    }
}

fn has_finalizer(namespace: &Namespace) -> bool {
    let finalizers = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.as_deref())
        .unwrap_or_default();
    finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

/// What one pass over a namespace found.
#[derive(Debug, Default)]
struct Report {
    undiscovered: Vec<String>,
    failed: Vec<String>,
    /// Objects left, by `plural.group`.
    remaining: BTreeMap<String, usize>,
    /// Objects that carry a finalizer.
    finalizers: BTreeMap<String, usize>,
    /// How long what is left may need.
    estimate: Duration,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Empty,
    Wait(Duration),
    Failed(String),
}

impl Report {
    fn verdict(&self) -> Verdict {
        let errors: Vec<&str> = self
            .undiscovered
            .iter()
            .chain(&self.failed)
            .map(String::as_str)
            .collect();
        if !errors.is_empty() {
            return Verdict::Failed(errors.join(", "));
        }
        if self.remaining.is_empty() {
            Verdict::Empty
        } else {
            Verdict::Wait(self.estimate)
        }
    }

    /// Pure: puts the five conditions into the status.
    fn tell(&self, status: &mut NamespaceStatus, now: Timestamp) {
        let list = |counts: &BTreeMap<String, usize>, join: &str| {
            let parts = counts
                .iter()
                .map(|(name, count)| format!("{name} {join} {count} resource instances"));
            parts.collect::<Vec<_>>().join(", ")
        };
        let mut tell = |type_: &str, problem: Option<(&str, String)>, ok: (&str, &str)| {
            let is_problem = problem.is_some();
            let (reason, message) = problem.unwrap_or((ok.0, ok.1.to_owned()));
            set(status, type_, is_problem, reason, message, now);
        };
        let some = |text: String, reason, prefix: &str| (!text.is_empty()).then(|| (reason, format!("{prefix}{text}")));
        tell(
            "NamespaceDeletionDiscoveryFailure",
            some(
                self.undiscovered.join(", "),
                "DiscoveryFailed",
                "Discovery failed for some groups, ",
            ),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        );
        tell(
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        );
        tell(
            "NamespaceDeletionContentFailure",
            some(
                self.failed.join(", "),
                "ContentDeletionFailed",
                "Failed to delete all resource types, ",
            ),
            (
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        );
        tell(
            "NamespaceContentRemaining",
            some(
                list(&self.remaining, "has"),
                "SomeResourcesRemain",
                "Some resources are remaining: ",
            ),
            ("ContentRemoved", "All content successfully removed"),
        );
        tell(
            "NamespaceFinalizersRemaining",
            some(
                list(&self.finalizers, "in"),
                "SomeFinalizersRemain",
                "Some content in the namespace has finalizers remaining: ",
            ),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        );
    }
}

fn set(status: &mut NamespaceStatus, type_: &str, is_true: bool, reason: &str, message: String, now: Timestamp) {
    let value = if is_true { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let index = conditions
        .iter()
        .position(|condition| condition.type_ == type_)
        .unwrap_or_else(|| {
            conditions.push(NamespaceCondition {
                type_: type_.to_owned(),
                ..Default::default()
            });
            conditions.len() - 1
        });
    let condition = &mut conditions[index];
    if condition.status != value {
        condition.status = value.to_owned();
        condition.last_transition_time = Some(Time(now));
    }
    condition.reason = Some(reason.to_owned());
    condition.message = Some(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_told_in_conditions() {
        let mut report = Report {
            estimate: FINALIZER_ESTIMATE,
            ..Report::default()
        };
        report.remaining = [("widgets.example.com".to_owned(), 2), ("pods.".to_owned(), 1)].into();
        report.finalizers = [("example.com/hold".to_owned(), 2)].into();
        assert_eq!(report.verdict(), Verdict::Wait(FINALIZER_ESTIMATE));
        let mut status = NamespaceStatus::default();
        report.tell(&mut status, Timestamp::UNIX_EPOCH);
        let told: Vec<_> = status
            .conditions
            .iter()
            .flatten()
            .map(|condition| {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                format!(
                    "{}={} {}: {}",
                    condition.type_,
                    condition.status,
                    text(&condition.reason),
                    text(&condition.message)
                )
            })
            .collect();
        insta::assert_debug_snapshot!(told, @r#"
        [
            "NamespaceDeletionDiscoveryFailure=False ResourcesDiscovered: All resources successfully discovered",
            "NamespaceDeletionGroupVersionParsingFailure=False ParsedGroupVersions: All legacy kube types successfully parsed",
            "NamespaceDeletionContentFailure=False ContentDeleted: All content successfully deleted, may be waiting on finalization",
            "NamespaceContentRemaining=True SomeResourcesRemain: Some resources are remaining: pods. has 1 resource instances, widgets.example.com has 2 resource instances",
            "NamespaceFinalizersRemaining=True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/hold in 2 resource instances",
        ]
        "#);
    }

    #[test]
    fn an_api_that_does_not_answer_blocks() {
        let report = Report {
            undiscovered: vec!["metrics.k8s.io/v1beta1: gone".to_owned()],
            ..Report::default()
        };
        assert_eq!(
            report.verdict(),
            Verdict::Failed("metrics.k8s.io/v1beta1: gone".to_owned())
        );
    }
}
