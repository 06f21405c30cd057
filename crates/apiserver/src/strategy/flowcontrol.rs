//! FlowSchema and PriorityLevelConfiguration. After k/k `pkg/apis/flowcontrol/v1/defaults.go` at 1.36.

use super::walk::{ensure_at, fill, fill_zero, inner};
use super::{Generation, Status, Strategy, empty_status};

/// Rules of FlowSchemas.
pub(super) static FLOW_SCHEMA: Strategy = Strategy {
    default: |schema| {
        if let Some(spec) = ensure_at(schema, &["spec"]) {
            fill_zero(spec, "matchingPrecedence", 1000);
        }
    },
    ..RULES
};

/// Rules of PriorityLevelConfigurations.
pub(super) static PRIORITY_LEVEL: Strategy = Strategy {
    default: |level| {
        let Some(spec) = ensure_at(level, &["spec"]) else {
            return;
        };
        if let Some(exempt) = inner(spec, "exempt") {
            fill(exempt, "nominalConcurrencyShares", 0);
            fill(exempt, "lendablePercent", 0);
        }
        if let Some(limited) = inner(spec, "limited") {
            fill(limited, "nominalConcurrencyShares", 30);
            fill(limited, "lendablePercent", 0);
            if let Some(queuing) = inner(limited, "limitResponse").and_then(|response| inner(response, "queuing")) {
                fill_zero(queuing, "queues", 64);
                fill_zero(queuing, "handSize", 8);
                fill_zero(queuing, "queueLengthLimit", 50);
            }
        }
    },
    ..RULES
};

const RULES: Strategy = Strategy {
    status: Status::Fresh(empty_status),
    generation: Generation::Spec,
    unconditional_update: false,
    create_on_update: true,
    ..Strategy::PLAIN
};
