//! `Column`: a heading and, beside it, where its cells come from, so that the two cannot fall out of step.
//!
//! Most cells are a field as it stands: those are data ([`text`], [`int`], …). The rest are functions ([`shown`]).

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::show;
use crate::strategy::walk;

/// A path of keys into an object.
type Path = &'static [&'static str];

/// A column's definition, as in `TableColumnDefinition`, and how its cells are made.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Column {
    /// Its heading, in title case; clients print it in capitals.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`, … As upstream's, it does not always say what the cell is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `name` for the column that names the object, else empty.
    pub format: &'static str,
    /// What it shows, in a sentence.
    pub description: &'static str,
    /// 0: always shown; 1: with `-o wide` only.
    pub priority: u8,
    #[serde(skip)]
    cell: Cell,
}

#[derive(Clone, Copy, Debug)]
enum Cell {
    /// Text; where it is missing or empty, what stands in for it.
    Text(Path, &'static str),
    Int(Path),
    Bool(Path, bool),
    Count(Path),
    Age,
    Labels(Path),
    Selector(Path),
    /// A field of each object of a list.
    Joined(Path, &'static str),
    Shown(fn(&Value, Timestamp) -> Value),
}

/// The object's name.
pub(super) const NAME: Column = Column {
    format: "name",
    ..text(
        "Name",
        "Name of the object, unique among its kind in a namespace",
        &["metadata", "name"],
    )
};

/// How long ago the object was made.
pub(super) const AGE: Column = column("Age", "string", "Time since the object was created", Cell::Age);

/// When the object was made.
pub(super) const CREATED_AT: Column = Column {
    kind: "date",
    ..text(
        "Created At",
        "When the object was created",
        &["metadata", "creationTimestamp"],
    )
};

const fn column(name: &'static str, kind: &'static str, description: &'static str, cell: Cell) -> Column {
    Column {
        name,
        kind,
        format: "",
        description,
        priority: 0,
        cell,
    }
}

/// A field that is text; empty where it is missing.
pub(super) const fn text(name: &'static str, description: &'static str, path: Path) -> Column {
    column(name, "string", description, Cell::Text(path, ""))
}

/// A field that is an integer; 0 where it is missing.
pub(super) const fn int(name: &'static str, description: &'static str, path: Path) -> Column {
    column(name, "integer", description, Cell::Int(path))
}

/// A field that is a boolean.
pub(super) const fn bool(name: &'static str, description: &'static str, path: Path, default: bool) -> Column {
    column(name, "boolean", description, Cell::Bool(path, default))
}

/// How many entries a list or map has.
pub(super) const fn count(name: &'static str, description: &'static str, path: Path) -> Column {
    column(name, "integer", description, Cell::Count(path))
}

/// A map of labels: `a=b,c=d`.
pub(super) const fn labels(name: &'static str, description: &'static str, path: Path) -> Column {
    column(name, "string", description, Cell::Labels(path))
}

/// A `LabelSelector`: `a=b,c in (d,e)`.
pub(super) const fn selector(name: &'static str, description: &'static str, path: Path) -> Column {
    column(name, "string", description, Cell::Selector(path))
}

/// The names of the containers in the list at `path`.
pub(super) const fn containers(path: Path) -> Column {
    let description = "Names of the containers in the template";
    column("Containers", "string", description, Cell::Joined(path, "name"))
}

/// The images of the containers in the list at `path`.
pub(super) const fn images(path: Path) -> Column {
    let description = "Images of the containers in the template";
    column("Images", "string", description, Cell::Joined(path, "image"))
}

/// Whatever the function makes of object and time.
pub(super) const fn shown(
    name: &'static str,
    description: &'static str,
    cell: fn(&Value, Timestamp) -> Value,
) -> Column {
    column(name, "string", description, Cell::Shown(cell))
}

impl Column {
    /// With `-o wide` only.
    pub(super) const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    /// Of another type than its cells suggest.
    pub(super) const fn of_type(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    /// Of another format.
    pub(super) const fn of_format(self, format: &'static str) -> Self {
        Self { format, ..self }
    }

    /// `default` where the text is missing or empty.
    pub(super) const fn or(self, default: &'static str) -> Self {
        match self.cell {
            Cell::Text(path, _) => Self {
                cell: Cell::Text(path, default),
                ..self
            },
            _ => panic!("only text has a default"),
        }
    }

    /// This column's cell in the row of `object`.
    pub(super) fn cell(&self, object: &Value, now: Timestamp) -> Value {
        match self.cell {
            Cell::Text(path, default) => show::or(walk::text(object, path), default).into(),
            Cell::Int(path) => walk::int(object, path).unwrap_or_default().into(),
            Cell::Bool(path, default) => walk::at(object, path)
                .and_then(Value::as_bool)
                .unwrap_or(default)
                .into(),
            Cell::Count(path) => show::count(object, path).into(),
            Cell::Age => show::age(object, &["metadata", "creationTimestamp"], now).into(),
            Cell::Labels(path) => show::labels(object, path).into(),
            Cell::Selector(path) => show::selector(object, path).into(),
            Cell::Joined(path, field) => walk::list(object, path)
                .iter()
                .map(|item| walk::text(item, &[field]))
                .collect::<Vec<_>>()
                .join(",")
                .into(),
            Cell::Shown(cell) => cell(object, now),
        }
    }
}
