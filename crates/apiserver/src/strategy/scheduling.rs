//! PriorityClass. After k/k `pkg/apis/scheduling` at 1.36.

use apimachinery::field::{Error, Path};
use serde_json::Value;

use super::check::{self, immutable};
use super::walk::{fill, flag, int, text};
use super::{Generation, Strategy};

/// Rules of PriorityClasses.
pub(super) static PRIORITY_CLASS: Strategy = Strategy {
    default: |class| {
        if let Some(map) = class.as_object_mut() {
            fill(map, "preemptionPolicy", "PreemptLowerPriority");
            fill(map, "value", 0);
        }
    },
    validate,
    validate_update: |new, old, errors| {
        if int(new, &["value"]) != int(old, &["value"]) {
            errors.push(Error::forbidden(
                &Path::new("value"),
                "may not be changed in an update.",
            ));
        }
        immutable(new, old, &["preemptionPolicy"], errors);
    },
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// Highest value that is not the system's.
const USER_MAX: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] = [
    ("system-node-critical", 2_000_001_000),
    ("system-cluster-critical", 2_000_000_000),
];

fn validate(class: &Value, errors: &mut Vec<Error>) {
    let name = text(class, &["metadata", "name"]);
    let value = int(class, &["value"]).unwrap_or(0);
    if name.starts_with("system-") {
        let reason = match SYSTEM.iter().find(|(known, _)| *known == name) {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, known)) if *known != value => Some(format!("value of {name} PriorityClass must be {known}")),
            Some(_) if flag(class, &["globalDefault"]) => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(reason) = reason {
            let detail =
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {reason}");
            errors.push(Error::forbidden(&Path::new("metadata.name"), detail));
        }
    } else if value > USER_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_MAX}");
        errors.push(Error::forbidden(&Path::new("value"), detail));
    }
    check::one_of(
        class,
        &Path::root(),
        "preemptionPolicy",
        &["PreemptLowerPriority", "Never"],
        errors,
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn high_values_are_the_systems() {
        let mut errors = Vec::new();
        validate(&json!({"metadata": {"name": "a"}, "value": 1_000_000_001}), &mut errors);
        validate(&json!({"metadata": {"name": "system-a"}}), &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: \
             system-a is not a known system priority class",
            ]
        );
    }
}
