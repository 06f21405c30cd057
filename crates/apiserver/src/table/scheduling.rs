//! PriorityClass.

use super::column::{AGE, Column, NAME, bool, int, text};

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    (kind == "PriorityClass").then_some(PRIORITY_CLASS)
}

static PRIORITY_CLASS: &[Column] = &[
    NAME,
    int("Value", "The priority; higher goes first", &["value"]),
    bool(
        "Global-Default",
        "Whether pods without a class get this one",
        &["globalDefault"],
        false,
    ),
    AGE,
    text(
        "PreemptionPolicy",
        "Whether its pods may push others out",
        &["preemptionPolicy"],
    ),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::testing::row;

    #[test]
    fn a_priority_class_shows_its_number() {
        let class = json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000,
            "preemptionPolicy": "PreemptLowerPriority"});
        assert_eq!(
            row("scheduling.k8s.io/v1", "PriorityClass", &class),
            "system-node-critical  2000001000  false  <unknown>  PreemptLowerPriority"
        );
    }
}
