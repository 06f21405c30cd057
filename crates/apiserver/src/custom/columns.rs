//! `PrinterColumn`: a column of a custom resource's table (`additionalPrinterColumns`).

use apimachinery::{duration, time};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::json_path::JsonPath;
use crate::strategy::walk::{int, list, text};

/// A `TableColumnDefinition` and where its cells come from.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PrinterColumn {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    format: String,
    description: String,
    priority: i64,
    #[serde(skip)]
    path: Option<JsonPath>,
}

impl PrinterColumn {
    /// The columns of a version: the name, then its own, or the age if it has none.
    pub(crate) fn of_version(version: &Value) -> Box<[Self]> {
        let name = Self {
            name: "Name".to_owned(),
            kind: "string".to_owned(),
            format: "name".to_owned(),
            description: "Name of the object, unique among its kind in a namespace".to_owned(),
            priority: 0,
            path: JsonPath::parse(".metadata.name").ok(),
        };
        let own = list(version, &["additionalPrinterColumns"]);
        let mut columns = vec![name];
        if own.is_empty() {
            columns.push(Self {
                name: "Age".to_owned(),
                kind: "date".to_owned(),
                format: String::new(),
                description: "Time since the object was created".to_owned(),
                priority: 0,
                path: JsonPath::parse(".metadata.creationTimestamp").ok(),
            });
        }
        columns.extend(own.iter().map(Self::read));
        columns.into()
    }

    fn read(column: &Value) -> Self {
        let field = |name: &str| text(column, &[name]).to_owned();
        Self {
            name: field("name"),
            kind: field("type"),
            format: field("format"),
            description: match text(column, &["description"]) {
                "" => format!(
                    "Custom resource definition column (in JSONPath format): {}",
                    field("jsonPath")
                ),
                description => description.to_owned(),
            },
            priority: int(column, &["priority"]).unwrap_or(0),
            path: JsonPath::parse(text(column, &["jsonPath"])).ok(),
        }
    }

    /// The column's cell in the row of `object`; null where there is nothing.
    pub(crate) fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(value) = self.path.as_ref().and_then(|path| path.first(object)) else {
            return Value::Null;
        };
        match (self.kind.as_str(), value) {
            (_, Value::Null) => Value::Null,
            ("string", Value::String(text)) => text.as_str().into(),
            ("string", other) => other.to_string().into(),
            ("boolean", Value::Bool(_)) | ("number", Value::Number(_)) => value.clone(),
            ("integer", Value::Number(number)) => match number.as_i64() {
                Some(number) => number.into(),
                // Kubernetes cuts fractions off.
                None => number.as_f64().map_or(Value::Null, |number| (number as i64).into()),
            },
            ("date", Value::String(text)) => match time::parse(text) {
                Some(at) => duration::age(Some(at), now).into(),
                None => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cell_is_what_its_type_says() {
        let version = json!({"additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "List", "type": "string", "jsonPath": ".spec.list"},
            {"name": "Since", "type": "date", "jsonPath": ".spec.since", "priority": 1},
            {"name": "Wrong", "type": "integer", "jsonPath": ".spec.text"},
            {"name": "Missing", "type": "string", "jsonPath": ".spec.no"},
        ]});
        let columns = PrinterColumn::of_version(&version);
        let object = json!({"metadata": {"name": "a"}, "spec": {
            "size": 3, "list": ["x"], "since": "1970-01-01T00:00:00Z", "text": "t",
        }});
        let now = Timestamp::from_second(3600).unwrap();
        let cells: Vec<Value> = columns.iter().map(|column| column.cell(&object, now)).collect();
        assert_eq!(
            cells,
            [
                json!("a"),
                json!(3),
                json!("[\"x\"]"),
                json!("60m"),
                json!(null),
                json!(null)
            ]
        );
    }

    #[test]
    fn a_version_without_columns_shows_the_age() {
        let columns = PrinterColumn::of_version(&json!({}));
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["Name", "Age"]);
    }
}
