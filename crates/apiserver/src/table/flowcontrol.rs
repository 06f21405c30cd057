//! FlowSchema and PriorityLevelConfiguration.

use serde_json::Value;

use super::column::{AGE, Column, NAME, int, shown, text};
use super::show;
use crate::strategy::walk::{self, at};

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    Some(match kind {
        "FlowSchema" => FLOW_SCHEMA,
        "PriorityLevelConfiguration" => PRIORITY_LEVEL_CONFIGURATION,
        _ => return None,
    })
}

static FLOW_SCHEMA: &[Column] = &[
    NAME,
    text(
        "PriorityLevel",
        "The priority level of its requests",
        &["spec", "priorityLevelConfiguration", "name"],
    ),
    int(
        "MatchingPrecedence",
        "Lower ones match first",
        &["spec", "matchingPrecedence"],
    )
    .of_type("string"),
    text(
        "DistinguisherMethod",
        "What tells its flows apart",
        &["spec", "distinguisherMethod", "type"],
    )
    .or("<none>"),
    AGE,
    shown("MissingPL", "Whether its priority level does not exist", |schema, _| {
        show::condition(schema, "Dangling")
            .map_or("?", |condition| walk::text(condition, &["status"]))
            .into()
    }),
];

static PRIORITY_LEVEL_CONFIGURATION: &[Column] = &[
    NAME,
    text("Type", "Limited or Exempt", &["spec", "type"]),
    shown("NominalConcurrencyShares", "Its share of the server", |level, _| {
        number(level, &["spec", "limited", "nominalConcurrencyShares"])
    }),
    shown("Queues", "Number of queues", |level, _| queuing(level, "queues")),
    shown("HandSize", "Queues a flow may use", |level, _| {
        queuing(level, "handSize")
    }),
    shown("QueueLengthLimit", "Requests a queue may hold", |level, _| {
        queuing(level, "queueLengthLimit")
    }),
    AGE,
];

fn queuing(level: &Value, field: &str) -> Value {
    number(level, &["spec", "limited", "limitResponse", "queuing", field])
}

fn number(level: &Value, path: &[&str]) -> Value {
    at(level, path).cloned().unwrap_or_else(|| "<none>".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::testing::row;

    const V1: &str = "flowcontrol.apiserver.k8s.io/v1";

    #[test]
    fn flows_and_levels() {
        let schema = json!({"metadata": {"name": "probes"}, "spec": {"matchingPrecedence": 2,
            "priorityLevelConfiguration": {"name": "exempt"}},
            "status": {"conditions": [{"type": "Dangling", "status": "False"}]}});
        assert_eq!(
            row(V1, "FlowSchema", &schema),
            "probes  exempt  2  <none>  <unknown>  False"
        );
        let level = json!({"metadata": {"name": "w"}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 30, "limitResponse": {"type": "Queue", "queuing":
                {"queues": 64, "handSize": 6, "queueLengthLimit": 50}}}}});
        assert_eq!(
            row(V1, "PriorityLevelConfiguration", &level),
            "w  Limited  30  64  6  50  <unknown>"
        );
        let exempt = json!({"metadata": {"name": "e"}, "spec": {"type": "Exempt"}});
        assert_eq!(
            row(V1, "PriorityLevelConfiguration", &exempt),
            "e  Exempt  <none>  <none>  <none>  <none>  <unknown>"
        );
    }
}
