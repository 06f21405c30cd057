//! Events as `kubectl describe` shows them: written once, then counted.
//!
//! [`Correlator`] decides, pure: a new Event, one more of an old one, one for many similar ones, or none at all.
//! [`Recorder`] is what controllers hold; [`Sink`] writes, in order, one at a time, under the identity of whoever
//! recorded. Recording never blocks and never fails a reconciliation. (client-go `tools/record`: `event.go`,
//! `events_cache.go`, v1.36.)

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use apimachinery::clock::Clock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

use crate::error;

/// Events that may wait to be written; more are dropped, as client-go's broadcaster does.
const WAITING: usize = 1000;
/// The how many-th different message of one kind about one object is combined with those to come…
const SIMILAR: usize = 10;
/// … within this time.
const SIMILAR_WITHIN: i64 = 600;
/// Events about one object from one source at once…
const BURST: f64 = 25.0;
/// … and how many seconds each further one takes.
const REFILL: f64 = 300.0;
/// Events live an hour in the store (`--event-ttl`); what was not seen for longer cannot be patched any more.
const FORGET_AFTER: i64 = 3600;
/// Entries kept before old ones are looked for.
const SWEEP_AT: usize = 512;

/// Whether something went as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
struct Occurrence {
    component: &'static str,
    about: ObjectReference,
    severity: Severity,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Records events under one component's name and identity.
#[derive(Clone)]
pub(crate) struct Recorder {
    component: &'static str,
    client: Client,
    clock: Arc<dyn Clock>,
    sink: Sink,
}

impl Recorder {
    pub(crate) fn normal<K>(&self, object: &K, reason: &str, message: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.record(object, Severity::Normal, reason, message.into());
    }

    pub(crate) fn warning<K>(&self, object: &K, reason: &str, message: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.record(object, Severity::Warning, reason, message.into());
    }

    fn record<K: Resource<DynamicType = ()>>(&self, object: &K, severity: Severity, reason: &str, message: String) {
        let mut about = object.object_ref(&());
        about.resource_version = object.meta().resource_version.clone();
        self.record_about(about, severity, reason, message);
    }

    pub(crate) fn record_about(&self, about: ObjectReference, severity: Severity, reason: &str, message: String) {
        let component = self.component;
        let occurrence = Occurrence {
            component,
            about,
            severity,
            reason: reason.to_owned(),
            message,
            at: self.clock.now(),
        };
        if self.sink.0.try_send((self.client.clone(), occurrence)).is_err() {
            tracing::debug!(component, reason, "an event is dropped: too many wait to be written");
        }
    }
}

/// Writes the events of all recorders, in the order in which they were recorded.
#[derive(Clone)]
pub(crate) struct Sink(mpsc::Sender<(Client, Occurrence)>);

impl Sink {
    /// The sink, and the loop that serves it until every recorder is gone.
    pub(crate) fn new() -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let write = async move {
            let mut correlator = Correlator::default();
            while let Some((client, occurrence)) = receiver.recv().await {
                write(&mut correlator, client, occurrence).await;
            }
        };
        (Self(sender), write)
    }

    pub(crate) fn recorder(&self, component: &'static str, client: Client, clock: Arc<dyn Clock>) -> Recorder {
        Recorder {
            component,
            client,
            clock,
            sink: self.clone(),
        }
    }
}

async fn write(correlator: &mut Correlator, client: Client, occurrence: Occurrence) {
    let Some(Correlated { event, seen_before }) = correlator.correlate(occurrence) else {
        return;
    };
    let name = event.metadata.name.clone().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client, event.metadata.namespace.as_deref().unwrap_or("default"));
    if seen_before {
        let patch = json!({
            "count": event.count,
            "lastTimestamp": event.last_timestamp,
            "message": event.message,
        });
        match api
            .patch(&name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
        {
            Ok(_) => return,
            // Its hour was over: write it again, with the count it has reached.
            Err(error) if error::is_not_found(&error) => {}
            Err(error) => return tracing::debug!(%name, error = error::message(&error), "counting an event"),
        }
    }
    match api.create(&PostParams::default(), &event).await {
        Ok(_) => {}
        Err(error) if error::is_namespace_terminating(&error) || error::is_not_found(&error) => {}
        Err(error) => tracing::warn!(%name, error = error::message(&error), "writing an event"),
    }
}

/// An Event to write: with `seen_before` as a patch of count, time and message, else new.
#[derive(Clone, Debug, PartialEq)]
struct Correlated {
    event: Event,
    seen_before: bool,
}

/// Remembers what was written lately.
#[derive(Default)]
struct Correlator {
    written: HashMap<Identity, Written>,
    similar: HashMap<Identity, Similar>,
    spam: HashMap<(&'static str, String), Tokens>,
    /// The number in the last name given: two events of one instant must not get the same name.
    last_name: i128,
}

/// What makes two occurrences the same (with the message) or similar (without it).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    component: &'static str,
    /// Kind, namespace, name, UID, API version and field path of the object.
    about: String,
    severity: Severity,
    reason: String,
    message: Option<String>,
}

struct Written {
    name: String,
    count: i32,
    first: Timestamp,
    last: Timestamp,
}

struct Similar {
    messages: HashSet<String>,
    last: Timestamp,
}

struct Tokens {
    left: f64,
    at: Timestamp,
}

impl Correlator {
    fn correlate(&mut self, occurrence: Occurrence) -> Option<Correlated> {
        let at = occurrence.at;
        self.sweep(at);
        let about = about(&occurrence.about);
        let mut identity = Identity {
            component: occurrence.component,
            about: about.clone(),
            severity: occurrence.severity,
            reason: occurrence.reason.clone(),
            message: None,
        };
        let message = if self.are_similar(&identity, &occurrence.message, at) {
            // Counted under the identity without a message.
            format!("(combined from similar events): {}", occurrence.message)
        } else {
            identity.message = Some(occurrence.message.clone());
            occurrence.message.clone()
        };
        let (name, count, first) = match self.written.get_mut(&identity) {
            Some(before) => {
                before.count += 1;
                before.last = at;
                (before.name.clone(), before.count, before.first)
            }
            None => {
                // Kubernetes' name: the object's, and the nanoseconds of the first time in hexadecimal.
                self.last_name = at.as_nanosecond().max(self.last_name + 1);
                let name = format!(
                    "{}.{:x}",
                    occurrence.about.name.as_deref().unwrap_or_default(),
                    self.last_name
                );
                self.written.insert(
                    identity,
                    Written {
                        name: name.clone(),
                        count: 1,
                        first: at,
                        last: at,
                    },
                );
                (name, 1, at)
            }
        };
        if !self.may_pass((occurrence.component, about), at) {
            return None;
        }
        let Occurrence {
            component,
            about,
            severity,
            reason,
            ..
        } = occurrence;
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(about.namespace.clone().unwrap_or_else(|| "default".to_owned())),
                ..Default::default()
            },
            involved_object: about,
            type_: Some(severity.as_str().to_owned()),
            reason: Some(reason),
            message: Some(message),
            source: Some(EventSource {
                component: Some(component.to_owned()),
                host: None,
            }),
            reporting_component: Some(component.to_owned()),
            count: Some(count),
            first_timestamp: Some(Time(first)),
            last_timestamp: Some(Time(at)),
            ..Default::default()
        };
        Some(Correlated {
            event,
            seen_before: count > 1,
        })
    }

    /// True once too many different messages of one kind came in a short time.
    fn are_similar(&mut self, kind: &Identity, message: &str, at: Timestamp) -> bool {
        let similar = self.similar.entry(kind.clone()).or_insert_with(|| Similar {
            messages: HashSet::new(),
            last: at,
        });
        if seconds(similar.last, at) > SIMILAR_WITHIN as f64 {
            similar.messages.clear();
        }
        similar.last = at;
        if similar.messages.contains(message) {
            return false;
        }
        // The set stays one below the limit, as client-go's does; what is in it is still counted on its own.
        if similar.messages.len() + 1 >= SIMILAR {
            return true;
        }
        similar.messages.insert(message.to_owned());
        false
    }

    /// Takes a token of the source's bucket for this object.
    fn may_pass(&mut self, who: (&'static str, String), at: Timestamp) -> bool {
        let tokens = self.spam.entry(who).or_insert(Tokens { left: BURST, at });
        tokens.left = (tokens.left + seconds(tokens.at, at) / REFILL).min(BURST);
        tokens.at = at;
        if tokens.left < 1.0 {
            return false;
        }
        tokens.left -= 1.0;
        true
    }

    fn sweep(&mut self, now: Timestamp) {
        let fresh = |last: Timestamp| seconds(last, now) < FORGET_AFTER as f64;
        if self.written.len() > SWEEP_AT {
            self.written.retain(|_, written| fresh(written.last));
        }
        if self.similar.len() > SWEEP_AT {
            self.similar.retain(|_, similar| fresh(similar.last));
        }
        if self.spam.len() > SWEEP_AT {
            self.spam
                .retain(|_, tokens| tokens.left + seconds(tokens.at, now) / REFILL < BURST);
        }
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

fn about(object: &ObjectReference) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    [
        &object.kind,
        &object.namespace,
        &object.name,
        &object.uid,
        &object.api_version,
        &object.field_path,
    ]
    .map(part)
    .join("/")
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn happened(reason: &str, message: &str, after: i64) -> Occurrence {
        Occurrence {
            component: "tester",
            about: ObjectReference {
                kind: Some("Deployment".into()),
                namespace: Some("shop".into()),
                name: Some("cart".into()),
                ..Default::default()
            },
            severity: Severity::Normal,
            reason: reason.into(),
            message: message.into(),
            at: start() + SignedDuration::from_secs(after),
        }
    }

    #[test]
    fn the_first_event_is_new_and_the_same_again_is_counted() {
        let mut correlator = Correlator::default();
        let first = correlator.correlate(happened("Scaled", "to 1", 0)).unwrap();
        assert!(!first.seen_before);
        assert_eq!(first.event.count, Some(1));
        assert_eq!(first.event.metadata.name.as_deref(), Some("cart.18867251edfa0000"));
        assert_eq!(first.event.metadata.namespace.as_deref(), Some("shop"));
        let second = correlator.correlate(happened("Scaled", "to 1", 7)).unwrap();
        assert!(second.seen_before);
        assert_eq!(second.event.count, Some(2));
        assert_eq!(second.event.metadata.name, first.event.metadata.name);
        assert_eq!(second.event.first_timestamp, first.event.first_timestamp);
        assert_eq!(
            second.event.last_timestamp,
            Some(Time(start() + SignedDuration::from_secs(7)))
        );
        assert!(!correlator.correlate(happened("Scaled", "to 2", 8)).unwrap().seen_before);
    }

    #[test]
    fn the_tenth_different_message_within_ten_minutes_is_combined() {
        let mut correlator = Correlator::default();
        for n in 0..9 {
            let event = correlator
                .correlate(happened("Scaled", &format!("to {n}"), n))
                .unwrap()
                .event;
            assert_eq!(event.message, Some(format!("to {n}")));
        }
        let tenth = correlator.correlate(happened("Scaled", "to 9", 9)).unwrap();
        assert_eq!(
            tenth.event.message.as_deref(),
            Some("(combined from similar events): to 9")
        );
        assert!(!tenth.seen_before);
        let eleventh = correlator.correlate(happened("Scaled", "to 10", 10)).unwrap();
        assert_eq!(
            eleventh.event.message.as_deref(),
            Some("(combined from similar events): to 10")
        );
        assert_eq!((eleventh.seen_before, eleventh.event.count), (true, Some(2)));
        let much_later = correlator.correlate(happened("Scaled", "to 11", 10 + 601)).unwrap();
        assert_eq!(much_later.event.message.as_deref(), Some("to 11"));
    }

    #[test]
    fn one_object_gets_twenty_five_events_at_once_and_then_one_in_five_minutes() {
        let mut correlator = Correlator::default();
        let passed = (0..60)
            .filter(|_| correlator.correlate(happened("Failed", "same", 0)).is_some())
            .count();
        assert_eq!(passed, 25);
        assert!(correlator.correlate(happened("Failed", "same", 299)).is_none());
        let next = correlator.correlate(happened("Failed", "same", 301)).unwrap();
        assert_eq!(next.event.count, Some(62));
    }

    #[test]
    fn old_entries_are_forgotten_when_there_are_many() {
        let mut correlator = Correlator::default();
        for n in 0..600 {
            let mut occurrence = happened("Scaled", "once", 0);
            occurrence.about.name = Some(format!("cart-{n}"));
            correlator.correlate(occurrence);
        }
        correlator.correlate(happened("Scaled", "once", 4000));
        assert_eq!(
            (
                correlator.written.len(),
                correlator.similar.len(),
                correlator.spam.len()
            ),
            (1, 1, 1)
        );
    }
}
