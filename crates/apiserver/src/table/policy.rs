//! PodDisruptionBudget.

use serde_json::Value;

use super::column::{AGE, Column, NAME, int, shown};
use super::show;
use crate::strategy::walk::at;

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    (kind == "PodDisruptionBudget").then_some(POD_DISRUPTION_BUDGET)
}

static POD_DISRUPTION_BUDGET: &[Column] = &[
    NAME,
    shown("Min Available", "Pods that must stay", |budget, _| {
        limit(budget, "minAvailable")
    }),
    shown("Max Unavailable", "Pods that may go", |budget, _| {
        limit(budget, "maxUnavailable")
    }),
    int(
        "Allowed Disruptions",
        "Pods that may go now",
        &["status", "disruptionsAllowed"],
    ),
    AGE,
];

fn limit(budget: &Value, field: &str) -> Value {
    at(budget, &["spec", field])
        .map_or_else(|| "N/A".to_owned(), show::plain)
        .into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::testing::row;

    #[test]
    fn a_budget_has_a_number_or_a_share() {
        let of = |spec| {
            let budget = json!({"metadata": {"name": "b"}, "spec": spec, "status": {"disruptionsAllowed": 1}});
            row("policy/v1", "PodDisruptionBudget", &budget)
        };
        assert_eq!(of(json!({"minAvailable": 2})), "b  2  N/A  1  <unknown>");
        assert_eq!(of(json!({"maxUnavailable": "25%"})), "b  N/A  25%  1  <unknown>");
    }
}
