//! Event, in either of its forms.

use jiff::Timestamp;
use serde_json::Value;

use super::cell::{count, name, since};
use super::{Column, NAME, Printer};
use crate::strategy::walk::{at, text};

pub(super) static EVENT: Printer = Printer {
    columns: &[
        Column::text("Last Seen", "Time since it last happened."),
        Column::text("Type", "Normal or Warning."),
        Column::text("Reason", "What happened, in a word."),
        Column::text("Object", "What it happened to."),
        Column::text("Subobject", "Which part of the object.").wide(),
        Column::text("Source", "Who saw it.").wide(),
        Column::text("Message", "What happened, in a sentence."),
        Column::text("First Seen", "Time since it first happened.").wide(),
        Column::text("Count", "How often it happened.").wide(),
        NAME.wide(),
    ],
    cells: event,
};

/// The first of two fields that says something: core/v1 and events.k8s.io name them differently.
fn either<'a>(event: &'a Value, core: &[&str], new: &[&str]) -> &'a str {
    match text(event, core) {
        "" => text(event, new),
        found => found,
    }
}

fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let moment = |paths: &[&[&str]]| {
        let path = paths
            .iter()
            .find(|path| !text(event, path).is_empty())
            .copied()
            .unwrap_or(&["eventTime"]);
        since(event, path, now)
    };
    let first = moment(&[&["firstTimestamp"], &["deprecatedFirstTimestamp"], &["eventTime"]]);
    let mut last = moment(&[
        &["lastTimestamp"],
        &["deprecatedLastTimestamp"],
        &["firstTimestamp"],
        &["deprecatedFirstTimestamp"],
        &["eventTime"],
    ]);
    let mut times = count(event, &["count"]).max(count(event, &["deprecatedCount"])).max(1);
    if at(event, &["series"]).is_some() {
        last = since(event, &["series", "lastObservedTime"], now);
        times = count(event, &["series", "count"]);
    }
    let kind = either(event, &["involvedObject", "kind"], &["regarding", "kind"]).to_lowercase();
    let target = match either(event, &["involvedObject", "name"], &["regarding", "name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        last.into(),
        text(event, &["type"]).into(),
        text(event, &["reason"]).into(),
        target.into(),
        either(event, &["involvedObject", "fieldPath"], &["regarding", "fieldPath"]).into(),
        source(event).into(),
        either(event, &["message"], &["note"]).trim().into(),
        first.into(),
        times.into(),
        name(event),
    ]
}

fn source(event: &Value) -> String {
    let first = |paths: [&[&str]; 3]| {
        paths
            .iter()
            .map(|path| text(event, path))
            .find(|found| !found.is_empty())
    };
    let component = match first([
        &["source", "component"],
        &["deprecatedSource", "component"],
        &["reportingComponent"],
    ]) {
        Some(component) => component,
        None => text(event, &["reportingController"]),
    };
    match first([
        &["source", "host"],
        &["deprecatedSource", "host"],
        &["reportingInstance"],
    ]) {
        Some(instance) => format!("{component}, {instance}"),
        None => component.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    #[test]
    fn both_forms_print_the_same() {
        let core = json!({"metadata": {"name": "a.1"}, "type": "Normal", "reason": "Pulled", "message": "done\n", "count": 3,
            "involvedObject": {"kind": "Pod", "name": "a", "fieldPath": "spec.containers{c}"},
            "source": {"component": "kubelet", "host": "n"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:59:00Z"});
        let new = json!({"metadata": {"name": "a.1"}, "type": "Normal", "reason": "Pulled", "note": "done\n",
            "deprecatedCount": 3, "regarding": {"kind": "Pod", "name": "a", "fieldPath": "spec.containers{c}"},
            "deprecatedSource": {"component": "kubelet", "host": "n"},
            "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z", "deprecatedLastTimestamp": "2026-01-01T00:59:00Z"});
        let expected = [
            "60s",
            "Normal",
            "Pulled",
            "pod/a",
            "spec.containers{c}",
            "kubelet, n",
            "done",
            "60m",
            "3",
            "a.1",
        ];
        assert_eq!(row(&EVENT, &core), expected);
        assert_eq!(row(&EVENT, &new), expected);
    }

    #[test]
    fn a_single_event_of_the_new_kind_counts_once() {
        let event = json!({"metadata": {"name": "a"}, "eventTime": "2026-01-01T00:58:00.000000Z",
            "involvedObject": {"kind": "Node"}, "reportingComponent": "default-scheduler", "reportingInstance": "n",
            "firstTimestamp": null, "lastTimestamp": null});
        let cells = row(&EVENT, &event);
        assert_eq!(
            (&*cells[0], &*cells[3], &*cells[5], &*cells[8]),
            ("2m", "node", "default-scheduler, n", "1")
        );
    }
}
