//! PodDisruptionBudget. After k/k `pkg/apis/policy` at 1.36.

use apimachinery::field::{Error, Path};
use serde_json::{Value, json};

use super::check;
use super::walk::at;
use super::{Generation, Status, Strategy};

/// Rules of PodDisruptionBudgets.
pub(super) static POD_DISRUPTION_BUDGET: Strategy = Strategy {
    validate,
    status: Status::Fresh(
        || json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}),
    ),
    generation: Generation::Spec,
    unconditional_update: false,
    ..Strategy::PLAIN
};

fn validate(budget: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = budget.get("spec").unwrap_or(&Value::Null);
    let bounds = ["minAvailable", "maxUnavailable"].map(|key| at(spec, &[key]).map(|value| (key, value)));
    if bounds.iter().all(Option::is_some) {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        errors.push(Error::invalid(&path, spec.clone(), detail));
    }
    for (key, value) in bounds.into_iter().flatten() {
        check::int_or_percent(value, &path.child(key), errors);
        check::at_most_100_percent(value, &path.child(key), errors);
    }
    if let Some(selector) = at(spec, &["selector"]) {
        check::label_selector(selector, &path.child("selector"), errors);
    }
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    check::one_of(spec, &path, "unhealthyPodEvictionPolicy", &policies, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_has_one_bound() {
        let mut errors = Vec::new();
        validate(
            &json!({"spec": {"minAvailable": "150%", "maxUnavailable": -1}}),
            &mut errors,
        );
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec: Invalid value: {\"minAvailable\":\"150%\",\"maxUnavailable\":-1}: minAvailable and maxUnavailable cannot \
             be both set",
                "spec.minAvailable: Invalid value: \"150%\": must not be greater than 100%",
                "spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
    }
}
