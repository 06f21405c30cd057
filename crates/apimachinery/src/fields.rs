//! Field selectors: `metadata.name=x,status.phase!=Running`, as `apimachinery/pkg/fields` reads them.
//!
//! Knows the language, not which fields a kind offers: the caller asks for each requirement's field.

use std::fmt;

use crate::quote::quote;

/// Which field values an object must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One condition of a selector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    /// The field, as `status.phase`.
    pub field: String,
    /// `!=` instead of `=`.
    pub negated: bool,
    /// The value to compare with, unescaped.
    pub value: String,
}

/// Why a selector cannot be read. The words are Kubernetes'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ParseError {
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term { selector: String, term: String },
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    #[error("invalid field selector: unescaped character in value: {}", u32::from(*.0))]
    Unescaped(char),
}

impl Selector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// One field must have one value.
    pub fn equals(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            requirements: vec![Requirement {
                field: field.into(),
                negated: false,
                value: value.into(),
            }],
        }
    }

    /// Reads `a=b,c==d,e!=f`; `\,`, `\=` and `\\` stand for themselves in a value. Empty matches everything.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut requirements = Vec::new();
        for term in split_terms(text).into_iter().filter(|term| !term.is_empty()) {
            let understood = term.char_indices().find_map(|(i, _)| {
                ["!=", "==", "="]
                    .into_iter()
                    .find_map(|op| Some((&term[..i], op, term[i..].strip_prefix(op)?)))
            });
            let Some((field, operator, value)) = understood else {
                return Err(ParseError::Term {
                    selector: text.to_owned(),
                    term: term.to_owned(),
                });
            };
            requirements.push(Requirement {
                field: field.to_owned(),
                negated: operator == "!=",
                value: unescape(value)?,
            });
        }
        Ok(Self { requirements })
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Its conditions, in the order of the text.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// The value that `field` must have, if the selector asks for exactly one.
    pub fn required_value(&self, field: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|one| one.field == field && !one.negated)
            .map(|one| one.value.as_str())
    }

    /// Whether an object matches whose fields are found by `get`; an absent field counts as empty.
    pub fn matches(&self, get: impl Fn(&str) -> Option<String>) -> bool {
        self.requirements
            .iter()
            .all(|one| (get(&one.field).as_deref().unwrap_or_default() == one.value) != one.negated)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, one) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = if one.negated { "!=" } else { "=" };
            write!(f, "{comma}{}{operator}{}", one.field, escape(&one.value))?;
        }
        Ok(())
    }
}

/// The message for a field that a kind does not select by, when only the two metadata fields are offered.
pub fn unknown_field_message(field: &str) -> String {
    format!(
        "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        quote(field)
    )
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn unescape(value: &str) -> Result<String, ParseError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(other) => return Err(ParseError::Escape(format!("\\{other}"))),
                None => return Err(ParseError::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(ParseError::Unescaped(c)),
            c => out.push(c),
        }
    }
    Ok(out)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_operators_are_read() {
        let selector = Selector::parse("metadata.name=a,spec.nodeName==n,status.phase!=Failed,").unwrap();
        assert_eq!(
            selector.to_string(),
            "metadata.name=a,spec.nodeName=n,status.phase!=Failed"
        );
        assert_eq!(selector.required_value("spec.nodeName"), Some("n"));
        assert_eq!(selector.required_value("status.phase"), None);
        let get = |phase: &'static str| {
            move |field: &str| match field {
                "metadata.name" => Some("a".to_owned()),
                "spec.nodeName" => Some("n".to_owned()),
                _ => Some(phase.to_owned()),
            }
        };
        assert!(selector.matches(get("Running")));
        assert!(!selector.matches(get("Failed")));
        assert!(Selector::parse("a=").unwrap().matches(|_| None));
    }

    #[test]
    fn what_cannot_be_read_says_why_in_kubernetes_words() {
        let message = |text: &str| Selector::parse(text).unwrap_err().to_string();
        assert_eq!(message("a=b,c"), "invalid selector: 'a=b,c'; can't understand 'c'");
        assert_eq!(
            message("a=b\\x"),
            "invalid field selector: invalid escape sequence: \\x"
        );
        assert_eq!(
            message("a=b=c"),
            "invalid field selector: unescaped character in value: 61"
        );
        assert_eq!(
            unknown_field_message("x"),
            "\"x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
    }

    proptest! {
        #[test]
        fn any_value_survives_escaping(field in "[a-z.]{1,8}", value in "\\PC{0,12}", negated in any::<bool>()) {
            let selector = Selector { requirements: vec![Requirement { field, negated, value }] };
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = Selector::parse(&text);
        }
    }
}
