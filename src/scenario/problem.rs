//! One thing wrong with a scenario file, where it stands, and the report of all of them.

use std::fmt;

use super::yaml::Position;

/// The way to a field: `spec.steps[2].needs[0]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(String);

impl FieldPath {
    /// The top of the file.
    pub fn root() -> Self {
        Self::default()
    }

    /// A field below.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        if self.0.is_empty() {
            Self(name.to_owned())
        } else {
            Self(format!("{}.{name}", self.0))
        }
    }

    /// An item of the list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "the file" } else { &self.0 })
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProblemKind {
    /// Not YAML.
    #[error("not YAML: {0}")]
    Syntax(String),
    /// Something else than one document.
    #[error("expected one scenario in the file, got {0}")]
    Documents(usize),
    /// Another kind of file.
    #[error("expected `{expected}`, got `{got}`")]
    NotThis {
        /// What is understood.
        expected: &'static str,
        /// What was there.
        got: String,
    },
    /// A field nobody knows.
    #[error("unknown field `{got}`")]
    UnknownField {
        /// As written.
        got: String,
        /// What was probably meant.
        nearest: Option<String>,
        /// The fields there are.
        known: Vec<String>,
    },
    /// The same key twice.
    #[error("the key `{key}` is there twice, first in line {first}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// The line of the first one.
        first: usize,
    },
    /// A field that must be there.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// A value of another type.
    #[error("expected {expected}, got {got}")]
    WrongType {
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A value of the right type that cannot be used.
    #[error("`{value}` {why}")]
    Invalid {
        /// As written.
        value: String,
        /// Why not, as the end of a sentence.
        why: String,
    },
    /// A name that refers to nothing.
    #[error("unknown {what} `{got}`")]
    Unknown {
        /// What was looked for: step, feature, action, file.
        what: &'static str,
        /// As written.
        got: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// Two things of one name.
    #[error("the {what} `{name}` is there twice, first in line {first}")]
    Twice {
        /// What is doubled.
        what: &'static str,
        /// Its name.
        name: String,
        /// The line of the first one.
        first: usize,
    },
    /// Steps that wait for each other.
    #[error("steps wait for each other in a ring: {}", ring.join(" → "))]
    Cycle {
        /// Every step on the ring, the first one again at the end.
        ring: Vec<String>,
    },
    /// A path that leaves the scenario's folder.
    #[error("`{0}` leaves the scenario's folder")]
    Outside(String),
    /// A file that could not be read.
    #[error("reading `{path}`: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's words.
        why: String,
    },
    /// Anything else, said in full.
    #[error("{message}")]
    Other {
        /// The sentence.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

impl ProblemKind {
    /// What to try, if there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownField {
                nearest: Some(name), ..
            }
            | Self::Unknown {
                nearest: Some(name), ..
            } => Some(format!("did you mean `{name}`?")),
            Self::UnknownField {
                nearest: None, known, ..
            } => Some(format!("known here: {}", known.join(", "))),
            Self::Other { hint, .. } => hint.clone(),
            Self::Outside(_) => Some("paths stay below the folder, symbolic links included".into()),
            _ => None,
        }
    }
}

/// One thing wrong, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// The file, as the user named it.
    pub file: String,
    /// The place, if it has one.
    pub at: Option<Position>,
    /// The field.
    pub path: FieldPath,
    /// What is wrong.
    pub kind: ProblemKind,
    /// The line of the file, for the caret.
    pub line: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}", self.file)?;
        if let Some(at) = self.at {
            write!(f, ":{}:{}", at.line, at.column)?;
        }
        write!(f, ": {}: {}", self.path, self.kind)?;
        if let (Some(at), Some(line)) = (self.at, &self.line) {
            let number = at.line.to_string();
            let before: String = line
                .chars()
                .take(at.column - 1)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            write!(
                f,
                "\n    {number} | {line}\n    {} | {before}^",
                " ".repeat(number.len())
            )?;
        }
        if let Some(hint) = self.kind.hint() {
            write!(f, "\n    hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything wrong with a scenario, in file order.
#[derive(Clone, Debug, PartialEq)]
pub struct Problems {
    /// The scenario's file, as the user named it.
    pub scenario: String,
    /// What is wrong; never empty.
    pub list: Vec<Problem>,
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = match self.list.len() {
            1 => "a problem".to_owned(),
            n => format!("{n} problems"),
        };
        write!(f, "scenario `{}` has {count}", self.scenario)?;
        self.list.iter().try_for_each(|problem| write!(f, "\n{problem}"))
    }
}
