//! FlowSchema and PriorityLevelConfiguration.

use super::cell::{NONE, age, condition, count, name, text_or};
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::{at, text};

pub(super) static FLOW_SCHEMA: Printer = Printer {
    columns: &[
        NAME,
        Column::text("PriorityLevel", "Where its requests go."),
        Column::text("MatchingPrecedence", "Lower numbers are asked first."),
        Column::text("DistinguisherMethod", "What tells flows apart."),
        AGE,
        Column::text("MissingPL", "Whether its priority level is missing."),
    ],
    cells: |schema, now| {
        let dangling = condition(schema, "Dangling").map_or("?", |condition| text(condition, &["status"]));
        vec![
            name(schema),
            text(schema, &["spec", "priorityLevelConfiguration", "name"]).into(),
            count(schema, &["spec", "matchingPrecedence"]).into(),
            text_or(schema, &["spec", "distinguisherMethod", "type"], NONE),
            age(schema, now),
            dangling.into(),
        ]
    },
};

pub(super) static PRIORITY_LEVEL: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Type", "Whether the level has a limit."),
        Column::text(
            "NominalConcurrencyShares",
            "Its share of what the server can do at once.",
        ),
        Column::text("Queues", "How many queues it has."),
        Column::text("HandSize", "In how many of them one flow may wait."),
        Column::text("QueueLengthLimit", "How many requests a queue holds."),
        AGE,
    ],
    cells: |level, now| {
        let limited = |path: &[&str]| {
            at(level, &["spec", "limited"])
                .and_then(|limited| at(limited, path))
                .cloned()
                .unwrap_or_else(|| NONE.into())
        };
        let queuing = |key: &str| limited(&["limitResponse", "queuing", key]);
        vec![
            name(level),
            text(level, &["spec", "type"]).into(),
            limited(&["nominalConcurrencyShares"]),
            queuing("queues"),
            queuing("handSize"),
            queuing("queueLengthLimit"),
            age(level, now),
        ]
    },
};
