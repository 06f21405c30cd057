//! Event, in either of its forms. After k/k `pkg/apis/core/validation/events.go` at 1.36.

use apimachinery::field::{Error, Path};
use apimachinery::names::qualified_name;
use serde_json::Value;

use super::Strategy;
use super::check::text_messages;
use super::walk::{at, int, is_zero, object, text};

/// Rules of Events.
pub(super) static EVENT: Strategy = Strategy {
    validate,
    validate_new: |event, errors| {
        if is_new_form(event) {
            validate_new_form(event, errors);
        }
    },
    create_on_update: true,
    ..Strategy::PLAIN
};

/// Longest texts of an event that has an `eventTime`.
const INSTANCE_MAX: usize = 128;
const ACTION_MAX: usize = 128;
const REASON_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

/// Whether it came as events.k8s.io.
fn is_new_form(event: &Value) -> bool {
    text(event, &["apiVersion"]).starts_with("events.k8s.io/") || at(event, &["regarding"]).is_some()
}

fn either<'a>(event: &'a Value, core: &[&str], new: &[&str]) -> &'a str {
    match text(event, core) {
        "" => text(event, new),
        found => found,
    }
}

fn validate(event: &Value, errors: &mut Vec<Error>) {
    let own = text(event, &["metadata", "namespace"]);
    let involved = either(event, &["involvedObject", "namespace"], &["regarding", "namespace"]);
    let mismatch = |errors: &mut Vec<Error>| {
        let path = Path::new("involvedObject.namespace");
        errors.push(Error::invalid(&path, involved, "does not match event.namespace"));
    };
    if at(event, &["eventTime"]).is_none() {
        let fits = if involved.is_empty() {
            matches!(own, "" | "default")
        } else {
            own == involved
        };
        if !fits {
            mismatch(errors);
        }
        return;
    }
    if involved.is_empty() && !matches!(own, "default" | "kube-system") {
        mismatch(errors);
    }
    let name = if is_new_form(event) {
        "reportingController"
    } else {
        "reportingComponent"
    };
    let controller = either(event, &["reportingComponent"], &["reportingController"]);
    if controller.is_empty() {
        errors.push(Error::required(&Path::new(name), ""));
    }
    text_messages(qualified_name(controller), &Path::new(name), controller, errors);
    for (key, max) in [
        ("reportingInstance", INSTANCE_MAX),
        ("action", ACTION_MAX),
        ("reason", REASON_MAX),
    ] {
        let value = text(event, &[key]);
        if value.is_empty() {
            errors.push(Error::required(&Path::new(key), ""));
        }
        too_long(key, value, max, errors);
    }
    too_long("message", either(event, &["message"], &["note"]), NOTE_MAX, errors);
}

fn too_long(key: &str, value: &str, max: usize, errors: &mut Vec<Error>) {
    if value.len() > max {
        errors.push(Error::invalid(
            &Path::new(key),
            "",
            format!("can have at most {max} characters"),
        ));
    }
}

/// What the new API asks for beyond the old one.
fn validate_new_form(event: &Value, errors: &mut Vec<Error>) {
    if object(event, &["series"]).is_some() {
        if int(event, &["series", "count"]).unwrap_or(0) < 2 {
            errors.push(Error::invalid(&Path::new("series.count"), "", "should be at least 2"));
        }
        if at(event, &["series", "lastObservedTime"]).is_none() {
            errors.push(Error::required(&Path::new("series.lastObservedTime"), ""));
        }
    }
    if at(event, &["eventTime"]).is_none() {
        errors.push(Error::required(&Path::new("eventTime"), ""));
    }
    let kind = text(event, &["type"]);
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(Error::invalid(
            &Path::new("type"),
            "",
            format!("has invalid value: {kind}"),
        ));
    }
    for (key, new) in [
        ("firstTimestamp", "deprecatedFirstTimestamp"),
        ("lastTimestamp", "deprecatedLastTimestamp"),
        ("count", "deprecatedCount"),
        ("source", "deprecatedSource"),
    ] {
        if [key, new]
            .iter()
            .any(|key| event.get(*key).is_some_and(|value| !is_zero(value)))
        {
            errors.push(Error::invalid(&Path::new(key), "", "needs to be unset"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(event: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        validate(event, &mut errors);
        (EVENT.validate_new)(event, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_old_event_stands_beside_its_object() {
        let mut event = json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}});
        assert!(problems(&event).is_empty());
        event["involvedObject"]["namespace"] = json!("b");
        assert_eq!(
            problems(&event),
            ["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace",]
        );
    }

    #[test]
    fn a_new_event_says_who_did_what_and_why() {
        let mut event = json!({"apiVersion": "events.k8s.io/v1", "metadata": {"namespace": "default"}, "type": "Normal",
            "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": {"kind": "Node", "name": "n"}, "reason": "R",
            "action": "A", "reportingController": "k8slab.dev/test", "reportingInstance": "i"});
        assert_eq!(problems(&event), Vec::<String>::new());
        event["reportingController"] = json!("");
        event["note"] = json!("x".repeat(1025));
        assert_eq!(problems(&event)[0], "reportingController: Required value");
        assert!(
            problems(&event).contains(&"message: Invalid value: \"\": can have at most 1024 characters".to_owned())
        );
    }
}
