//! Event, in the shape in which it is stored (core/v1).

use apimachinery::duration;
use jiff::Timestamp;
use serde_json::Value;

use crate::strategy::walk::{self, at};
use crate::table::column::{Column, NAME, shown, text};
use crate::table::show::{self, or};

pub(super) static EVENT: &[Column] = &[
    shown("Last Seen", "Time since it last happened", last_seen),
    text("Type", "Normal or Warning", &["type"]),
    text("Reason", "What happened, in a word", &["reason"]),
    shown("Object", "What it happened to", object),
    text("Subobject", "The part it happened to", &["involvedObject", "fieldPath"]).wide(),
    shown("Source", "Who reports it, and from where", source).wide(),
    shown("Message", "What happened, in a sentence", |event, _| {
        walk::text(event, &["message"]).trim().into()
    }),
    shown("First Seen", "Time since it first happened", first_seen).wide(),
    shown("Count", "How often it happened", count).wide(),
    NAME.wide(),
];

fn first(event: &Value) -> Option<Timestamp> {
    show::time(event, &["firstTimestamp"]).or_else(|| show::time(event, &["eventTime"]))
}

fn first_seen(event: &Value, now: Timestamp) -> Value {
    duration::age(first(event), now).into()
}

fn last_seen(event: &Value, now: Timestamp) -> Value {
    let last = match at(event, &["series"]) {
        Some(series) => show::time(series, &["lastObservedTime"]),
        None => show::time(event, &["lastTimestamp"]).or_else(|| first(event)),
    };
    duration::age(last, now).into()
}

fn count(event: &Value, _: Timestamp) -> Value {
    match at(event, &["series"]) {
        Some(series) => walk::int(series, &["count"]).unwrap_or_default(),
        // One that happened once does not say so.
        None => walk::int(event, &["count"]).filter(|count| *count != 0).unwrap_or(1),
    }
    .into()
}

fn object(event: &Value, _: Timestamp) -> Value {
    let kind = walk::text(event, &["involvedObject", "kind"]).to_lowercase();
    match walk::text(event, &["involvedObject", "name"]) {
        "" => kind.into(),
        name => format!("{kind}/{name}").into(),
    }
}

fn source(event: &Value, _: Timestamp) -> Value {
    let component = or(
        walk::text(event, &["source", "component"]),
        walk::text(event, &["reportingComponent"]),
    );
    match or(
        walk::text(event, &["source", "host"]),
        walk::text(event, &["reportingInstance"]),
    ) {
        "" => component.into(),
        instance => format!("{component}, {instance}").into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::{headings, row};

    #[test]
    fn the_message_stands_between_wide_columns() {
        let names: Vec<_> = EVENT.iter().map(|column| column.name).collect();
        assert_eq!(names[5..8], ["Source", "Message", "First Seen"]);
        assert_eq!(
            headings("v1", "Event"),
            "Last Seen  Type  Reason  Object  Message | Subobject  Source  First Seen  Count  Name"
        );
    }

    #[test]
    fn an_event_of_the_kubelet() {
        let event = json!({
            "metadata": {"name": "p.17"}, "type": "Warning", "reason": "BackOff", "message": "Back-off restarting\n", "count": 4,
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{web}"},
            "source": {"component": "kubelet", "host": "k8slab"},
            "firstTimestamp": "2026-01-02T11:50:00Z", "lastTimestamp": "2026-01-02T11:59:48Z",
        });
        assert_eq!(
            row("v1", "Event", &event),
            "12s  Warning  BackOff  pod/p  Back-off restarting | spec.containers{web}  kubelet, k8slab  10m  4  p.17"
        );
    }

    #[test]
    fn an_event_under_its_new_name_shows_the_same() {
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "n"}, "type": "Normal", "reason": "Made",
            "note": "made", "regarding": {"kind": "Node"}, "reportingController": "lab", "reportingInstance": "",
            "eventTime": "2026-01-02T11:59:00.123456Z",
        });
        assert_eq!(
            row("events.k8s.io/v1", "Event", &event),
            "59s  Normal  Made  node  made |   lab  59s  1  n"
        );
        let mut series = event;
        series["series"] = json!({"count": 7, "lastObservedTime": "2026-01-02T11:59:58.000000Z"});
        assert_eq!(
            row("events.k8s.io/v1", "Event", &series),
            "2s  Normal  Made  node  made |   lab  59s  7  n"
        );
    }
}
