//! Reads positioned YAML into values and collects everything that is wrong on the way.
//!
//! Owns strictness: unknown fields, duplicate keys, wrong types, missing fields. A reader that meets a problem notes it
//! and goes on, so that the user sees all of them at once. Knows nothing of what the fields mean.

use std::cell::RefCell;
use std::time::Duration;

use super::problem::{FieldPath, Problem, ProblemKind};
use super::yaml::{Data, Key, Node, Position};
use super::{duration, suggestion};

/// A value, its place and the way to it: enough to complain about it later.
#[derive(Clone, Debug, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stood.
    pub at: Position,
    /// The field it was in.
    pub path: FieldPath,
}

impl<T> At<T> {
    /// The same place with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At {
            value: change(self.value),
            at: self.at,
            path: self.path,
        }
    }
}

/// A node and the way to it.
#[derive(Clone, Debug)]
pub struct Field<'n> {
    /// The value as it stands in the file.
    pub node: &'n Node,
    /// The field it is in.
    pub path: FieldPath,
}

impl<'n> Field<'n> {
    /// The top of a document.
    pub fn root(node: &'n Node) -> Self {
        Self {
            node,
            path: FieldPath::root(),
        }
    }

    fn with<T>(&self, value: T) -> At<T> {
        At {
            value,
            at: self.node.at,
            path: self.path.clone(),
        }
    }
}

/// Collects problems of one file.
#[derive(Debug)]
pub struct Reader<'t> {
    file: String,
    text: &'t str,
    found: RefCell<Vec<Problem>>,
}

impl<'t> Reader<'t> {
    /// A reader of `text`, which the user knows as `file`.
    pub fn new(file: impl Into<String>, text: &'t str) -> Self {
        Self {
            file: file.into(),
            text,
            found: RefCell::default(),
        }
    }

    /// Everything noted so far, in file order.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|problem| problem.at);
        found.dedup();
        found
    }

    /// Notes a problem.
    pub fn problem(&self, at: Option<Position>, path: &FieldPath, kind: ProblemKind) {
        let line = at.and_then(|at| self.text.lines().nth(at.line - 1)).map(str::to_owned);
        let problem = Problem {
            file: self.file.clone(),
            at,
            path: path.clone(),
            kind,
            line,
        };
        self.found.borrow_mut().push(problem);
    }

    /// Notes a problem with a value read before.
    pub fn complain<T>(&self, about: &At<T>, kind: ProblemKind) {
        self.problem(Some(about.at), &about.path, kind);
    }

    fn wrong_type(&self, field: &Field<'_>, expected: &str) {
        let got = match &field.node.data {
            Data::Text(_) | Data::Integer(_) | Data::Float(_) | Data::Bool(_) => format!("`{}`", field.node.shown()),
            _ => field.node.kind().to_owned(),
        };
        self.problem(
            Some(field.node.at),
            &field.path,
            ProblemKind::WrongType {
                expected: expected.to_owned(),
                got,
            },
        );
    }

    /// A mapping with no other keys than `known`, none of them twice.
    pub fn mapping<'n>(&self, field: &Field<'n>, known: &[&str]) -> Option<Mapping<'n>> {
        let Data::Map(entries) = &field.node.data else {
            self.wrong_type(field, "a mapping");
            return None;
        };
        for (index, (key, _)) in entries.iter().enumerate() {
            let path = field.path.field(&key.name);
            if let Some((first, _)) = entries[..index].iter().find(|(earlier, _)| earlier.name == key.name) {
                let kind = ProblemKind::DuplicateKey {
                    key: key.name.clone(),
                    first: first.at.line,
                };
                self.problem(Some(key.at), &path, kind);
            } else if !known.contains(&key.name.as_str()) {
                let nearest = suggestion::nearest(&key.name, known.iter().copied());
                let known = known.iter().map(|&name| name.to_owned()).collect();
                let kind = ProblemKind::UnknownField {
                    got: key.name.clone(),
                    nearest,
                    known,
                };
                self.problem(Some(key.at), &path, kind);
            }
        }
        Some(Mapping {
            entries,
            at: field.node.at,
            path: field.path.clone(),
        })
    }

    /// A field that must be there.
    pub fn required<'n>(&self, mapping: &Mapping<'n>, name: &'static str) -> Option<Field<'n>> {
        let found = mapping.field(name);
        if found.is_none() {
            self.problem(Some(mapping.at), &mapping.path, ProblemKind::Missing(name));
        }
        found
    }

    /// Text; a number or boolean must be quoted to be text.
    pub fn text(&self, field: &Field<'_>) -> Option<At<String>> {
        match &field.node.data {
            Data::Text(text) => Some(field.with(text.clone())),
            _ => {
                self.wrong_type(field, "text");
                None
            }
        }
    }

    /// A whole number within bounds.
    pub fn integer(&self, field: &Field<'_>, min: i64, max: i64) -> Option<At<i64>> {
        match field.node.data {
            Data::Integer(value) if (min..=max).contains(&value) => Some(field.with(value)),
            Data::Integer(value) => {
                let why = format!("is not between {min} and {max}");
                let kind = ProblemKind::Invalid {
                    value: value.to_string(),
                    why,
                };
                self.problem(Some(field.node.at), &field.path, kind);
                None
            }
            _ => {
                self.wrong_type(field, "a whole number");
                None
            }
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self, field: &Field<'_>) -> Option<At<bool>> {
        match field.node.data {
            Data::Bool(value) => Some(field.with(value)),
            _ => {
                self.wrong_type(field, "`true` or `false`");
                None
            }
        }
    }

    /// A duration with its unit.
    pub fn duration(&self, field: &Field<'_>) -> Option<At<Duration>> {
        let read = match &field.node.data {
            Data::Text(text) => duration::parse(text),
            _ => None,
        };
        if read.is_none() {
            self.wrong_type(field, "a duration such as `90s`");
        }
        read.map(|duration| field.with(duration))
    }

    /// The items of a list.
    pub fn list<'n>(&self, field: &Field<'n>) -> Vec<Field<'n>> {
        match &field.node.data {
            Data::List(items) => {
                let items = items.iter().enumerate();
                items
                    .map(|(index, node)| Field {
                        node,
                        path: field.path.index(index),
                    })
                    .collect()
            }
            _ => {
                self.wrong_type(field, "a list");
                Vec::new()
            }
        }
    }

    /// A list of texts.
    pub fn texts(&self, field: &Field<'_>) -> Vec<At<String>> {
        self.list(field).iter().filter_map(|item| self.text(item)).collect()
    }

    /// Text that is one of `names`.
    pub fn one_of(&self, field: &Field<'_>, what: &'static str, names: &[&'static str]) -> Option<At<&'static str>> {
        let text = self.text(field)?;
        let found = names.iter().find(|name| **name == text.value);
        if found.is_none() {
            let nearest = suggestion::nearest(&text.value, names.iter().copied());
            let hint = nearest.map_or_else(
                || format!("one of: {}", names.join(", ")),
                |name| format!("did you mean `{name}`?"),
            );
            let message = format!("unknown {what} `{}`", text.value);
            self.complain(
                &text,
                ProblemKind::Other {
                    message,
                    hint: Some(hint),
                },
            );
        }
        found.map(|name| text.map(|_| *name))
    }
}

/// A mapping whose keys were checked.
#[derive(Clone, Debug)]
pub struct Mapping<'n> {
    entries: &'n [(Key, Node)],
    /// Where the mapping starts.
    pub at: Position,
    /// The way to it.
    pub path: FieldPath,
}

impl<'n> Mapping<'n> {
    /// The field with this name, if it is there.
    pub fn field(&self, name: &str) -> Option<Field<'n>> {
        let (_, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        Some(Field {
            node,
            path: self.path.field(name),
        })
    }

    /// The place of the mapping, to complain about the whole of it.
    pub fn place(&self) -> At<()> {
        At {
            value: (),
            at: self.at,
            path: self.path.clone(),
        }
    }

    /// Which of `names` are there, in the order of `names`.
    pub fn present(&self, names: &[&'static str]) -> Vec<&'static str> {
        names
            .iter()
            .copied()
            .filter(|name| self.entries.iter().any(|(key, _)| key.name == *name))
            .collect()
    }
}
