//! Events, as client-go's recorders write them: core ones with a count (kubelet), `events.k8s.io` ones with a series
//! (scheduler).
//!
//! Owns correlation (same again, similar, too many) and the one task that writes. Must not know what is worth an event.
//! Source of the rules: client-go 0.36 `tools/record/events_cache.go`, `tools/events/event_broadcaster.go`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use apimachinery::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event as CoreEvent, EventSource, ObjectReference};
use k8s_openapi::api::events::v1::Event as SeriesEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

/// Events that wait to be written; more are dropped, as upstream drops them.
const QUEUE: usize = 1000;
/// Differing messages of one kind within [`SIMILAR_WINDOW`] before they are combined.
const SIMILAR_LIMIT: usize = 10;
const SIMILAR_WINDOW: SignedDuration = SignedDuration::from_secs(600);
/// Events about one object in a row, and how fast the right to more comes back.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
/// How long a series goes on without being seen again.
const SERIES_WINDOW: SignedDuration = SignedDuration::from_mins(6);
/// Objects and messages remembered (upstream: an LRU of 4096).
const REMEMBERED: usize = 1024;

/// `Normal` or `Warning`.
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

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) about: ObjectReference,
    pub(crate) severity: Severity,
    pub(crate) reason: &'static str,
    /// Only `events.k8s.io` keeps it.
    pub(crate) action: &'static str,
    pub(crate) message: String,
}

/// A reference to an object as events carry it.
pub(crate) fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}

/// Which of the two APIs is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// `v1`, with `count`.
    Core,
    /// `events.k8s.io/v1`, with `series`.
    Series,
}

/// Takes events without ever waiting; a task of its own writes them.
#[derive(Clone)]
pub(crate) struct Recorder(mpsc::Sender<Event>);

impl Recorder {
    /// The recorder, and the task that writes until every recorder is dropped.
    pub(crate) fn new(
        client: Client,
        component: &'static str,
        host: String,
        flavour: Flavour,
        clock: Arc<dyn Clock>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, events) = mpsc::channel(QUEUE);
        let writer = Writer {
            client,
            component,
            host,
            flavour,
            clock,
            correlator: Correlator::default(),
            last_name: 0,
        };
        (Self(sender), writer.run(events))
    }

    /// A recorder whose events the test reads itself.
    #[cfg(test)]
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, events) = mpsc::channel(QUEUE);
        (Self(sender), events)
    }

    /// Records an event. Dropped when too many wait.
    pub(crate) fn record(&self, event: Event) {
        if let Err(error) = self.0.try_send(event) {
            tracing::warn!("dropping an event: {error}");
        }
    }
}

struct Writer {
    client: Client,
    component: &'static str,
    host: String,
    flavour: Flavour,
    clock: Arc<dyn Clock>,
    correlator: Correlator,
    last_name: i128,
}

impl Writer {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            let now = self.clock.now();
            let written = match self.correlator.correlate(event, self.flavour, now) {
                Verdict::Drop => Ok(()),
                Verdict::Create(event) => self.create(event, now).await,
                Verdict::Again { event, name, count } => match self.again(&event, &name, count, now).await {
                    // Its time to live was over.
                    Err(kube::Error::Api(status)) if status.code == 404 => self.create(event, now).await,
                    other => other,
                },
            };
            if let Err(error) = written {
                tracing::warn!("writing an event: {error}");
            }
        }
    }

    async fn create(&mut self, event: Event, now: Timestamp) -> Result<(), kube::Error> {
        // Two events in one tick of the clock still need two names.
        self.last_name = now.as_nanosecond().max(self.last_name + 1);
        let name = format!(
            "{}.{:x}",
            event.about.name.as_deref().unwrap_or_default(),
            self.last_name
        );
        let namespace = namespace(&event);
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            ..Default::default()
        };
        let result = match self.flavour {
            Flavour::Core => {
                let body = CoreEvent {
                    metadata,
                    involved_object: event.about.clone(),
                    type_: Some(event.severity.as_str().into()),
                    reason: Some(event.reason.into()),
                    message: Some(event.message.clone()),
                    count: Some(1),
                    first_timestamp: Some(Time(now)),
                    last_timestamp: Some(Time(now)),
                    source: Some(EventSource {
                        component: Some(self.component.into()),
                        host: Some(self.host.clone()),
                    }),
                    reporting_component: Some(self.component.into()),
                    reporting_instance: Some(self.host.clone()),
                    ..Default::default()
                };
                Api::namespaced(self.client.clone(), &namespace)
                    .create(&PostParams::default(), &body)
                    .await
                    .map(drop)
            }
            Flavour::Series => {
                let body = SeriesEvent {
                    metadata,
                    regarding: Some(event.about.clone()),
                    type_: Some(event.severity.as_str().into()),
                    reason: Some(event.reason.into()),
                    action: Some(event.action.into()),
                    note: Some(cut(&event.message, 1024)),
                    event_time: Some(MicroTime(now)),
                    reporting_controller: Some(self.component.into()),
                    reporting_instance: Some(format!("{}-{}", self.component, self.host)),
                    ..Default::default()
                };
                Api::namespaced(self.client.clone(), &namespace)
                    .create(&PostParams::default(), &body)
                    .await
                    .map(drop)
            }
        };
        if result.is_ok() {
            self.correlator.written(&event, name, now);
        }
        result
    }

    async fn again(&self, event: &Event, name: &str, count: i32, now: Timestamp) -> Result<(), kube::Error> {
        let namespace = namespace(event);
        let parameters = PatchParams::default();
        match self.flavour {
            Flavour::Core => {
                let patch = json!({"count": count, "lastTimestamp": Time(now), "message": event.message});
                let api = Api::<CoreEvent>::namespaced(self.client.clone(), &namespace);
                api.patch(name, &parameters, &Patch::Strategic(patch)).await.map(drop)
            }
            Flavour::Series => {
                let patch = json!({"series": {"count": count, "lastObservedTime": MicroTime(now)}});
                let api = Api::<SeriesEvent>::namespaced(self.client.clone(), &namespace);
                api.patch(name, &parameters, &Patch::Strategic(patch)).await.map(drop)
            }
        }
    }
}

fn namespace(event: &Event) -> String {
    event
        .about
        .namespace
        .clone()
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or_else(|| "default".into())
}

fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// What becomes of an event.
#[derive(Debug, PartialEq)]
enum Verdict {
    Drop,
    Create(Event),
    /// Written before under `name`; this is the `count`th time.
    Again {
        event: Event,
        name: String,
        count: i32,
    },
}

/// The memory behind counts and limits. Pure but for what it remembers.
#[derive(Default)]
struct Correlator {
    /// Events that exist, by everything that makes them equal.
    written: HashMap<Same, Written>,
    /// Messages seen of each kind of event.
    similar: HashMap<Similar, (Timestamp, HashSet<String>)>,
    /// What is left of each object's burst.
    budget: HashMap<String, (Timestamp, f64)>,
}

struct Written {
    name: String,
    count: i32,
    seen: Timestamp,
}

type Similar = (String, Option<String>, Severity, &'static str);
type Same = (Similar, String);

impl Correlator {
    fn correlate(&mut self, mut event: Event, flavour: Flavour, now: Timestamp) -> Verdict {
        if flavour == Flavour::Core && !self.spend(&object(&event), now) {
            return Verdict::Drop;
        }
        if flavour == Flavour::Core && self.too_many_similar(&event, now) {
            event.message = format!("(combined from similar events): {}", event.message);
        }
        let key = same(&event);
        match self.written.get_mut(&key) {
            Some(written) if flavour == Flavour::Core || now.duration_since(written.seen) < SERIES_WINDOW => {
                written.count += 1;
                written.seen = now;
                Verdict::Again {
                    name: written.name.clone(),
                    count: written.count,
                    event,
                }
            }
            _ => Verdict::Create(event),
        }
    }

    fn written(&mut self, event: &Event, name: String, now: Timestamp) {
        if self.written.len() >= REMEMBERED {
            // The half that was not seen for longest; once in 512 new events.
            let mut seen: Vec<_> = self.written.values().map(|written| written.seen).collect();
            let (_, median, _) = seen.select_nth_unstable(REMEMBERED / 2);
            let median = *median;
            self.written.retain(|_, written| written.seen > median);
            self.similar
                .retain(|_, (since, _)| now.duration_since(*since) < SIMILAR_WINDOW);
            self.budget.retain(|_, (_, left)| *left < BURST);
        }
        self.written.insert(
            same(event),
            Written {
                name,
                count: 1,
                seen: now,
            },
        );
    }

    /// A token bucket an object.
    fn spend(&mut self, object: &str, now: Timestamp) -> bool {
        let (since, left) = self.budget.entry(object.to_owned()).or_insert((now, BURST));
        let refilled = now.duration_since(*since).as_secs_f64() / REFILL_SECONDS;
        *left = (*left + refilled).min(BURST);
        *since = now;
        let enough = *left >= 1.0;
        if enough {
            *left -= 1.0;
        }
        enough
    }

    /// Once a kind of event is combined, all of its messages share one event.
    fn too_many_similar(&mut self, event: &Event, now: Timestamp) -> bool {
        let (since, messages) = self
            .similar
            .entry(similar(event))
            .or_insert_with(|| (now, HashSet::new()));
        if now.duration_since(*since) > SIMILAR_WINDOW {
            messages.clear();
        }
        *since = now;
        if messages.len() <= SIMILAR_LIMIT {
            messages.insert(event.message.clone());
        }
        messages.len() > SIMILAR_LIMIT
    }
}

fn object(event: &Event) -> String {
    let about = &event.about;
    format!(
        "{}/{}",
        about.kind.as_deref().unwrap_or_default(),
        about.uid.as_deref().or(about.name.as_deref()).unwrap_or_default()
    )
}

fn similar(event: &Event) -> Similar {
    (
        object(event),
        event.about.field_path.clone(),
        event.severity,
        event.reason,
    )
}

fn same(event: &Event) -> Same {
    let combined = event.message.starts_with("(combined from similar events): ");
    (
        similar(event),
        if combined { String::new() } else { event.message.clone() },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> Event {
        Event {
            about: ObjectReference {
                kind: Some("Pod".into()),
                uid: Some("u".into()),
                ..Default::default()
            },
            severity: Severity::Warning,
            reason: "BackOff",
            action: "",
            message: message.into(),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_same_again_counts_up() {
        let mut correlator = Correlator::default();
        assert_eq!(
            correlator.correlate(event("x"), Flavour::Core, at(0)),
            Verdict::Create(event("x"))
        );
        correlator.written(&event("x"), "p.1".into(), at(0));
        let again = |count| Verdict::Again {
            event: event("x"),
            name: "p.1".into(),
            count,
        };
        assert_eq!(correlator.correlate(event("x"), Flavour::Core, at(5)), again(2));
        assert_eq!(correlator.correlate(event("x"), Flavour::Core, at(5000)), again(3));
    }

    #[test]
    fn a_series_ends_after_six_quiet_minutes() {
        let mut correlator = Correlator::default();
        correlator.written(&event("x"), "p.1".into(), at(0));
        assert!(matches!(
            correlator.correlate(event("x"), Flavour::Series, at(300)),
            Verdict::Again { count: 2, .. }
        ));
        assert!(matches!(
            correlator.correlate(event("x"), Flavour::Series, at(700)),
            Verdict::Create(_)
        ));
    }

    #[test]
    fn the_eleventh_different_message_is_combined_with_the_ones_after_it() {
        let mut correlator = Correlator::default();
        for n in 0..10 {
            assert_eq!(
                correlator.correlate(event(&n.to_string()), Flavour::Core, at(n)),
                Verdict::Create(event(&n.to_string()))
            );
        }
        let combined = event("(combined from similar events): 10");
        assert_eq!(
            correlator.correlate(event("10"), Flavour::Core, at(10)),
            Verdict::Create(combined.clone())
        );
        correlator.written(&combined, "p.c".into(), at(10));
        let Verdict::Again { name, count, .. } = correlator.correlate(event("11"), Flavour::Core, at(11)) else {
            panic!()
        };
        assert_eq!((name.as_str(), count), ("p.c", 2));
    }

    #[test]
    fn an_object_that_talks_too_much_is_silenced_until_its_budget_refills() {
        let mut correlator = Correlator::default();
        correlator.written(&event("x"), "p.1".into(), at(0));
        let mut speak = |second| correlator.correlate(event("x"), Flavour::Core, at(second)) != Verdict::Drop;
        assert!((0..25).all(|_| speak(0)));
        assert!(!speak(1));
        assert!(speak(400));
    }
}
