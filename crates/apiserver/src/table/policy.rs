//! PodDisruptionBudget.

use super::cell::{age, count, name, plain};
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::at;

pub(super) static POD_DISRUPTION_BUDGET: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Min Available", "How many Pods must stay."),
        Column::text("Max Unavailable", "How many Pods may go."),
        Column::integer("Allowed Disruptions", "How many Pods may go now."),
        AGE,
    ],
    cells: |budget, now| {
        let bound = |key: &str| {
            at(budget, &["spec", key])
                .map_or_else(|| "N/A".to_owned(), plain)
                .into()
        };
        vec![
            name(budget),
            bound("minAvailable"),
            bound("maxUnavailable"),
            count(budget, &["status", "disruptionsAllowed"]).into(),
            age(budget, now),
        ]
    },
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    #[test]
    fn a_budget_has_one_bound() {
        let budget =
            json!({"metadata": {"name": "b"}, "spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}});
        assert_eq!(row(&POD_DISRUPTION_BUDGET, &budget)[..4], ["b", "50%", "N/A", "1"]);
    }
}
