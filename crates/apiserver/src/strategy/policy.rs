//! PodDisruptionBudget. After k/k `pkg/apis/policy` at 1.36.

use serde_json::json;

use super::{Generation, Status, Strategy};

/// Rules of PodDisruptionBudgets.
pub(super) static POD_DISRUPTION_BUDGET: Strategy = Strategy {
    status: Status::Fresh(
        || json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}),
    ),
    generation: Generation::Spec,
    unconditional_update: false,
    ..Strategy::PLAIN
};
