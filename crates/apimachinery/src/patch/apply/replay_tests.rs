//! Replays what Kubernetes' own field manager did (testdata/apply.jsonl, see testdata/README.md) and compares.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Error, FieldSet, Writer, apply, keep_times, track_update};
use crate::gvk::GroupVersionKind;
use crate::patch::merge;
use crate::schema::tests::BUILT_IN;
use crate::schema::{Schemas, conform};
use crate::status::Status;

/// Steps through one scenario. `Err` says where we differ.
fn replay(scenario: &Value) -> Result<(), String> {
    let kind = GroupVersionKind::new(text(scenario, "group"), "v1", text(scenario, "kind"));
    let custom = scenario
        .get("structural")
        .map(|schema| Schemas::from_structural(&kind, schema).unwrap());
    let schema = custom.as_ref().unwrap_or(&BUILT_IN).kind(&kind).unwrap();
    let start: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let mut live: Option<Value> = None;
    for (index, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
        let reset_fields = match (text(scenario, "kind"), text(step, "subresource")) {
            ("ConfigMap", _) => FieldSet::default(),
            (_, "status") => FieldSet::of_fields(&[&["spec"]]),
            _ => FieldSet::of_fields(&[&["status"]]),
        };
        let writer = Writer {
            manager: text(step, "manager"),
            api_version: &kind.api_version(),
            subresource: text(step, "subresource"),
            reset_fields: &reset_fields,
            now: start + SignedDuration::from_secs(index as i64),
        };
        let outcome = if text(step, "op") == "apply" {
            let force = step.get("force").is_some();
            apply(live.as_ref(), &step["object"], schema, &writer, force)
        } else {
            let mut new = live.clone().unwrap_or_else(|| json!({}));
            merge::apply(&mut new, &step["object"]).unwrap();
            if custom.is_none() {
                conform(&mut new, schema).unwrap();
            }
            track_update(live.as_ref(), &mut new, schema, &writer);
            Ok(new)
        };
        let at = format!("{} step {index}", scenario["name"]);
        match outcome {
            Ok(mut object) => {
                if custom.is_none() {
                    conform(&mut object, schema).unwrap();
                }
                if let Some(live) = &live {
                    keep_times(&mut object, live);
                }
                object["metadata"]["uid"] = json!("u");
                let mut expected = step
                    .get("result")
                    .ok_or(format!("{at}: expected {}", step["error"]))?
                    .clone();
                let mut got = object.clone();
                drop_nulls(&mut expected);
                drop_nulls(&mut got);
                if got != expected {
                    return Err(format!("{at}:\n got      {got}\n expected {expected}"));
                }
                live = Some(object);
            }
            Err(error) => compare_errors(error, step).map_err(|message| format!("{at}: {message}"))?,
        }
    }
    Ok(())
}

fn compare_errors(error: Error, step: &Value) -> Result<(), String> {
    let expected = step
        .get("error")
        .ok_or(format!("unexpected {error}"))?
        .as_str()
        .unwrap()
        .to_owned();
    let lines = |text: &str| -> Vec<String> {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // Go walks maps in no order; where it stops at the first unknown field of an object is not defined either.
        lines.sort();
        lines
    };
    let got = error.to_string();
    if lines(&got) != lines(&expected) {
        return Err(format!("\n got      {got}\n expected {expected}"));
    }
    let causes = |value: &Value| {
        let mut causes: Vec<String> = value.as_array().into_iter().flatten().map(Value::to_string).collect();
        causes.sort();
        causes
    };
    let status = Status::from(error).to_value();
    let (got, expected) = (causes(&status["details"]["causes"]), causes(&step["causes"]));
    if got != expected {
        return Err(format!("causes\n got      {got:?}\n expected {expected:?}"));
    }
    Ok(())
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Go prints a list that has to be there and is not as null; we leave it out.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[test]
fn every_step_ends_as_in_kubernetes() {
    let scenarios = include_str!("../../testdata/apply.jsonl").lines();
    let failures: Vec<String> = scenarios
        .filter_map(|line| replay(&serde_json::from_str(line).unwrap()).err())
        .collect();
    assert!(
        failures.is_empty(),
        "{} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
