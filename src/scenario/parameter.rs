//! Parameters: typed, bounded values that set fields in manifests.
//!
//! Owns what a value may be and how it gets into a manifest. The manifests stay plain YAML.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity;
use serde_json::{Number, Value};

use super::manifest::Target;
use super::model::Scenario;
use super::suggestion;

/// A value that `--set` can change.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The name after `--set`.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// What values there are.
    pub kind: ParameterKind,
    /// The value without `--set`; `None` leaves what the manifest says.
    pub default: Option<Value>,
    /// The value without `--set`, with `--offline`.
    pub offline: Option<Value>,
    /// The fields it sets.
    pub sets: Vec<Target>,
}

/// A type with its bounds.
#[derive(Clone, Debug, PartialEq)]
pub enum ParameterKind {
    /// A whole number.
    Integer {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// Any number.
    Number {
        /// The smallest.
        min: f64,
        /// The largest.
        max: f64,
    },
    /// `true` or `false`.
    Boolean,
    /// Text; one of these unless the list is empty.
    String(Vec<String>),
    /// A Kubernetes quantity.
    Quantity {
        /// The smallest.
        min: Option<Quantity>,
        /// The largest.
        max: Option<Quantity>,
    },
    /// Text that is never shown or written down.
    Secret,
}

impl ParameterKind {
    /// The name of the type in scenario files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Integer { .. } => "integer",
            Self::Number { .. } => "number",
            Self::Boolean => "boolean",
            Self::String(_) => "string",
            Self::Quantity { .. } => "quantity",
            Self::Secret => "secret",
        }
    }

    /// Reads a value, or says why it is none, as the end of a sentence that starts with the value.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        match self {
            Self::Integer { min, max } => match text.parse::<i64>() {
                Ok(value) if (*min..=*max).contains(&value) => Ok(Value::Number(value.into())),
                Ok(_) => Err(outside(*min > i64::MIN, min, *max < i64::MAX, max)),
                Err(_) => Err("is not a whole number".to_owned()),
            },
            Self::Number { min, max } => match text.parse::<f64>().ok().filter(|value| value.is_finite()) {
                Some(value) if (*min..=*max).contains(&value) => Number::from_f64(value)
                    .map(Value::Number)
                    .ok_or_else(|| "is not a number".to_owned()),
                Some(_) => Err(outside(min.is_finite(), min, max.is_finite(), max)),
                None => Err("is not a number".to_owned()),
            },
            Self::Boolean => match text {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err("is neither `true` nor `false`".to_owned()),
            },
            Self::String(one_of) if !one_of.is_empty() && !one_of.iter().any(|value| value == text) => {
                Err(format!("is none of {}", one_of.join(", ")))
            }
            Self::String(_) | Self::Secret => Ok(Value::String(text.to_owned())),
            Self::Quantity { min, max } => {
                let value: Quantity = text
                    .parse()
                    .map_err(|_| "is not a quantity such as `500m` or `64Mi`".to_owned())?;
                let small = min.as_ref().is_some_and(|min| value < *min);
                let large = max.as_ref().is_some_and(|max| value > *max);
                if small || large {
                    let shown = |bound: &Option<Quantity>| bound.as_ref().map(ToString::to_string).unwrap_or_default();
                    return Err(outside(min.is_some(), shown(min), max.is_some(), shown(max)));
                }
                Ok(Value::String(text.to_owned()))
            }
        }
    }

    /// Whether a field that now holds `present` can take a value of this type.
    pub fn fits(&self, present: &Value) -> bool {
        match self {
            Self::Integer { .. } | Self::Number { .. } => present.is_number(),
            Self::Boolean => present.is_boolean(),
            Self::String(_) | Self::Secret => present.is_string(),
            Self::Quantity { .. } => present.is_string() || present.is_number(),
        }
    }
}

fn outside(has_min: bool, min: impl ToString, has_max: bool, max: impl ToString) -> String {
    match (has_min, has_max) {
        (true, true) => format!("is not between {} and {}", min.to_string(), max.to_string()),
        (true, false) => format!("is less than {}", min.to_string()),
        _ => format!("is more than {}", max.to_string()),
    }
}

/// A scenario's manifests with the values of a run in them.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The manifests by path.
    pub manifests: BTreeMap<String, Vec<Value>>,
    /// The values that were set or defaulted, for the journal; secrets are left out.
    pub values: BTreeMap<String, Value>,
}

/// A value that cannot be used, with a hint.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ValueError {
    /// What is wrong.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
}

/// Puts values into a copy of the scenario's manifests. `given` are the user's texts by parameter name.
pub fn resolve(scenario: &Scenario, given: &BTreeMap<String, String>, offline: bool) -> Result<Resolved, ValueError> {
    for name in given.keys() {
        if !scenario.parameters.iter().any(|parameter| parameter.name == *name) {
            let names: Vec<&str> = scenario
                .parameters
                .iter()
                .map(|parameter| parameter.name.as_str())
                .collect();
            let hint = match suggestion::nearest(name, names.iter().copied()) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None if names.is_empty() => format!("`{}` has no parameters", scenario.name),
                None => format!("parameters of `{}`: {}", scenario.name, names.join(", ")),
            };
            return Err(ValueError {
                message: format!("unknown parameter `{name}`"),
                hint: Some(hint),
            });
        }
    }
    let mut resolved = Resolved {
        manifests: scenario.manifests.clone(),
        values: BTreeMap::new(),
    };
    for parameter in &scenario.parameters {
        let default = parameter
            .offline
            .as_ref()
            .filter(|_| offline)
            .or(parameter.default.as_ref());
        let value = match given.get(&parameter.name) {
            Some(text) => Some(parameter.kind.parse(text).map_err(|why| {
                let shown = if parameter.kind == ParameterKind::Secret {
                    "the value"
                } else {
                    text
                };
                let message = format!("parameter `{}`: `{shown}` {why}", parameter.name);
                ValueError {
                    message,
                    hint: parameter.description.clone(),
                }
            })?),
            None => default.cloned(),
        };
        let Some(value) = value else { continue };
        for target in &parameter.sets {
            let documents = resolved
                .manifests
                .get_mut(&target.file)
                .map(Vec::as_mut_slice)
                .unwrap_or_default();
            target.set(documents, value.clone()).map_err(|why| ValueError {
                message: format!("parameter `{}`: {why}", parameter.name),
                hint: None,
            })?;
        }
        if parameter.kind != ParameterKind::Secret {
            resolved.values.insert(parameter.name.clone(), value);
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_held_to_their_type_and_bounds() {
        let percent = ParameterKind::Integer { min: 1, max: 100 };
        assert_eq!(percent.parse("50"), Ok(50.into()));
        assert_eq!(percent.parse("101").unwrap_err(), "is not between 1 and 100");
        assert_eq!(percent.parse("5o").unwrap_err(), "is not a whole number");
        let cpu = ParameterKind::Quantity {
            min: "10m".parse().ok(),
            max: None,
        };
        assert_eq!(cpu.parse("1"), Ok("1".into()));
        assert_eq!(cpu.parse("5m").unwrap_err(), "is less than 10m");
        assert!(cpu.parse("much").is_err());
        let choice = ParameterKind::String(vec!["a".into(), "b".into()]);
        assert_eq!(choice.parse("c").unwrap_err(), "is none of a, b");
        assert!(
            ParameterKind::Number {
                min: f64::NEG_INFINITY,
                max: 1.0
            }
            .parse("NaN")
            .is_err()
        );
    }
}
