//! Label selectors: `a=b,c in (d,e),!f`, parsed, printed and matched as `apimachinery/pkg/labels` does.

mod parse;

use std::fmt;

use serde_json::{Map, Value};

use crate::field;
use crate::names;

/// Which labels an object must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Sorted by key. `None` matches nothing at all.
    requirements: Option<Vec<Requirement>>,
}

/// One condition of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What is asked of it.
    pub operator: Operator,
    /// Values to compare with: sorted when parsed.
    pub values: Vec<String>,
}

/// What a requirement asks of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `a=b`
    Equals,
    /// `a==b`
    DoubleEquals,
    /// `a!=b`, true too when the label is absent
    NotEquals,
    /// `a in (b,c)`
    In,
    /// `a notin (b,c)`, true too when the label is absent
    NotIn,
    /// `a`
    Exists,
    /// `!a`
    DoesNotExist,
    /// `a>5`
    GreaterThan,
    /// `a<5`
    LessThan,
}

/// Why a selector cannot be read. The words are Kubernetes'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

impl Selector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self {
            requirements: Some(Vec::new()),
        }
    }

    /// Matches no object.
    pub fn nothing() -> Self {
        Self { requirements: None }
    }

    /// Reads the query form: `a=b,c in (d,e),!f,g>5`. Empty matches everything.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut requirements = parse::selector(text)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self {
            requirements: Some(requirements),
        })
    }

    /// From a `LabelSelector` object (`matchLabels`, `matchExpressions`). Null matches nothing, `{}` everything.
    pub fn from_label_selector(selector: &Value) -> Result<Self, ParseError> {
        let Some(selector) = selector.as_object() else {
            return Ok(Self::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in selector
            .get("matchLabels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key.clone(), Operator::Equals, vec![value])?);
        }
        for expression in selector
            .get("matchExpressions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    let other = crate::quote::quote(other);
                    return Err(ParseError(format!("{other} is not a valid label selector operator")));
                }
            };
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values
                .map(|value| value.as_str().unwrap_or_default().to_owned())
                .collect();
            requirements.push(Requirement::new(text("key").to_owned(), operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self {
            requirements: Some(requirements),
        })
    }

    /// From a plain map of labels (`spec.selector` of a Service or ReplicationController): all must be equal.
    /// Null and empty match everything here; callers that mean otherwise ask first.
    pub fn from_map(labels: &Value) -> Self {
        let labels = labels.as_object().into_iter().flatten();
        let mut requirements: Vec<_> = labels
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::Equals,
                values: vec![value.as_str().unwrap_or_default().to_owned()],
            })
            .collect();
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self {
            requirements: Some(requirements),
        }
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    /// Its conditions, sorted by key; empty for `nothing` too.
    pub fn requirements(&self) -> &[Requirement] {
        self.requirements.as_deref().unwrap_or_default()
    }

    /// Whether an object with these labels matches.
    pub fn matches(&self, labels: &Map<String, Value>) -> bool {
        self.matches_with(|key| labels.get(key).and_then(Value::as_str))
    }

    /// Whether an object with these labels matches.
    pub fn matches_iter<'a>(&self, labels: impl IntoIterator<Item = (&'a str, &'a str)> + Clone) -> bool {
        self.matches_with(|key| labels.clone().into_iter().find(|(k, _)| *k == key).map(|(_, v)| v))
    }

    /// Whether an object matches whose labels are found by `get`.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements
            .as_ref()
            .is_some_and(|all| all.iter().all(|one| one.matches(get(&one.key))))
    }

    /// Whether `object` (its `metadata.labels`) matches.
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|metadata| metadata.get("labels"));
        self.matches_with(|key| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements().iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl Requirement {
    /// Checked as `labels.NewRequirement` does.
    pub fn new(key: String, operator: Operator, values: Vec<String>) -> Result<Self, ParseError> {
        let mut errors = Vec::new();
        let reasons = names::qualified_name(&key);
        if !reasons.is_empty() {
            errors.push(field::Error::invalid(
                &field::Path::new("key"),
                key.as_str(),
                reasons.join("; "),
            ));
        }
        let path = field::Path::new("values");
        let wrong_count = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(detail) = wrong_count {
            errors.push(field::Error::invalid(&path, values.clone(), detail));
        }
        for (i, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(field::Error::invalid(&path.index(i), value.as_str(), detail));
            }
            let reasons = names::label_value(value);
            if !reasons.is_empty() {
                errors.push(field::Error::invalid(
                    &path.index(i).key(&key),
                    value.as_str(),
                    reasons.join("; "),
                ));
            }
        }
        if errors.is_empty() {
            Ok(Self { key, operator, values })
        } else {
            Err(ParseError(field::join(&errors)))
        }
    }

    /// Whether a label with this value (`None`: absent) satisfies it.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let among = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(among),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(among),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let number = |text: &str| text.parse::<i64>().ok();
                match (value.and_then(number), self.values.first().and_then(|v| number(v))) {
                    (Some(have), Some(bound)) if self.operator == Operator::GreaterThan => have > bound,
                    (Some(have), Some(bound)) => have < bound,
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let mut values = self.values.clone();
        values.sort();
        let values = values.join(",");
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn matches(selector: &str, labels: Value) -> bool {
        Selector::parse(selector).unwrap().matches(labels.as_object().unwrap())
    }

    #[test]
    fn every_operator_matches_as_upstream() {
        let labels = json!({"app": "x", "n": "7"});
        for (selector, expected) in [
            ("", true),
            ("app=x", true),
            ("app==x", true),
            ("app!=x", false),
            ("absent!=x", true),
            ("app in (x,y)", true),
            ("app in (y)", false),
            ("app notin (x)", false),
            ("absent notin (x)", true),
            ("app", true),
            ("absent", false),
            ("!app", false),
            ("!absent", true),
            ("n>6", true),
            ("n<7", false),
            ("app>1", false),
            ("app=x,n=8", false),
        ] {
            assert_eq!(matches(selector, labels.clone()), expected, "{selector}");
        }
    }

    #[test]
    fn selectors_are_printed_sorted_by_key() {
        for (text, printed) in [
            ("b=1,a=2", "a=2,b=1"),
            ("x in (b, a ,c)", "x in (a,b,c)"),
            ("x notin ()", "x notin ()"),
            ("x in (,a)", "x in (,a)"),
            ("x in (a,)", "x in (,a)"),
            ("in in (in,notin)", "in in (in,notin)"),
            (" !a , b ", "!a,b"),
            ("a=", "a="),
            ("a=,b", "a=,b"),
            ("x>1,y<2", "x>1,y<2"),
        ] {
            assert_eq!(Selector::parse(text).unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_why_in_kubernetes_words() {
        for (text, message) in [
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a,,b", "found ',', expected: identifier after ','"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            (
                "a ~ b",
                "unable to parse requirement: found '~', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            (
                "x>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value \
                 must be an integer",
            ),
        ] {
            assert_eq!(Selector::parse(text).unwrap_err().to_string(), message, "{text}");
        }
        let bad_key = Selector::parse("-a=b").unwrap_err().to_string();
        assert!(bad_key.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must"));
        assert!(Selector::parse("a=-").is_err());
        assert!(Selector::parse("a in (b").is_err());
    }

    #[test]
    fn a_label_selector_object_is_the_same_language() {
        let selector = json!({
            "matchLabels": {"b": "1"},
            "matchExpressions": [
                {"key": "a", "operator": "In", "values": ["y", "x"]},
                {"key": "c", "operator": "DoesNotExist"},
            ],
        });
        let selector = Selector::from_label_selector(&selector).unwrap();
        assert_eq!(selector.to_string(), "a in (x,y),b=1,!c");
        assert!(selector.matches_iter([("a", "x"), ("b", "1")]));
        assert!(Selector::from_label_selector(&json!({})).unwrap().is_everything());
        assert!(
            !Selector::from_label_selector(&Value::Null)
                .unwrap()
                .matches(&Map::new())
        );
        let odd = json!({"matchExpressions": [{"key": "a", "operator": "Like"}]});
        let message = Selector::from_label_selector(&odd).unwrap_err().to_string();
        assert_eq!(message, "\"Like\" is not a valid label selector operator");
        let object = json!({"metadata": {"labels": {"a": "y", "b": "1"}}});
        assert!(selector.matches_object(&object));
    }

    fn requirement() -> impl Strategy<Value = String> {
        let key = "[a-z]([a-z0-9.-]{0,6}[a-z0-9])?";
        let value = "([a-zA-Z0-9]([a-zA-Z0-9_.-]{0,6}[a-zA-Z0-9])?)?";
        prop_oneof![
            (key, prop::sample::select(vec!["=", "==", "!="]), value).prop_map(|(k, o, v)| format!("{k}{o}{v}")),
            (
                key,
                prop::sample::select(vec!["in", "notin"]),
                prop::collection::vec(value, 1..4)
            )
                .prop_map(|(k, o, v)| format!("{k} {o} ({})", v.join(","))),
            (key, any::<bool>()).prop_map(|(k, not)| if not { format!("!{k}") } else { k }),
            (
                key,
                prop::sample::select(vec![">", "<"]),
                any::<i32>().prop_map(i32::unsigned_abs)
            )
                .prop_map(|(k, o, n)| format!("{k}{o}{n}")),
        ]
    }

    proptest! {
        #[test]
        fn a_printed_selector_is_read_back(parts in prop::collection::vec(requirement(), 0..5)) {
            let selector = Selector::parse(&parts.join(",")).unwrap();
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-a-z0-9=!(),<> \\PC]{0,40}") {
            let _ = Selector::parse(&text);
        }
    }
}
