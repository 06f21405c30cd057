//! Validation of an object against its schema, in the words in which Kubernetes answers.
//!
//! What an update leaves as it was is not looked at again (ratcheting): a schema may have become stricter meanwhile.

use std::collections::HashSet;

use apimachinery::field::{Error, Path};
use serde_json::{Map, Value};

use super::{Checks, ListType, Node, Type, format};

impl Node {
    /// Everything wrong with an object; `old` is what it replaces.
    pub(crate) fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Error> {
        let mut errors = Vec::new();
        self.check(object, old, &Path::root(), &mut errors);
        errors
    }

    fn check(&self, value: &Value, old: Option<&Value>, path: &Path, errors: &mut Vec<Error>) {
        if old == Some(value) {
            return;
        }
        if !self.has_type(value) {
            errors.push(wrong_type(self.kind.map_or("", Type::as_str), value, path));
            return;
        }
        if value.is_null() {
            return;
        }
        if let Some(checks) = &self.checks {
            checks.check(value, old, path, errors);
        }
        match value {
            Value::Object(map) => self.check_object(map, old, path, errors),
            Value::Array(items) => self.check_array(items, old, path, errors),
            _ => {}
        }
    }

    fn has_type(&self, value: &Value) -> bool {
        let Some(kind) = self.kind else { return true };
        match (kind, value) {
            (_, Value::Null) => self.nullable,
            (Type::Object, Value::Object(_))
            | (Type::Array, Value::Array(_))
            | (Type::String | Type::IntOrString, Value::String(_))
            | (Type::Boolean, Value::Bool(_))
            | (Type::Number, Value::Number(_)) => true,
            (Type::Integer | Type::IntOrString, Value::Number(number)) => {
                number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            _ => false,
        }
    }

    fn check_object(&self, map: &Map<String, Value>, old: Option<&Value>, path: &Path, errors: &mut Vec<Error>) {
        for name in &self.required {
            if !map.contains_key(&**name) {
                errors.push(Error::required(&path.child(name), ""));
            }
        }
        for (name, value) in map {
            // The metadata has rules of its own.
            if name == "metadata" && (self.embedded || path.as_str().is_empty()) {
                continue;
            }
            if let Some(node) = self.property(name).or(self.additional.as_deref()) {
                let old = old.and_then(|old| old.get(name));
                node.check(value, old, &path.child(name), errors);
            }
        }
        if self.embedded {
            for name in ["apiVersion", "kind"] {
                if map.get(name).and_then(Value::as_str).unwrap_or_default().is_empty() {
                    errors.push(Error::required(&path.child(name), "must not be empty"));
                }
            }
        }
    }

    fn check_array(&self, items: &[Value], old: Option<&Value>, path: &Path, errors: &mut Vec<Error>) {
        if let Some(node) = &self.items {
            for (index, item) in items.iter().enumerate() {
                let old = old.and_then(|old| self.counterpart(old, item, index));
                node.check(item, old, &path.index(index), errors);
            }
        }
        let Some(list) = &self.list else { return };
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let identity = match list {
                ListType::Set => item.clone(),
                ListType::Map(keys) => self.keys(item, keys),
            };
            if !seen.insert(identity.to_string()) {
                errors.push(Error::duplicate(&path.index(index), identity));
            }
        }
    }

    /// What tells an item of a map-like list from the others.
    fn keys(&self, item: &Value, keys: &[Box<str>]) -> Value {
        let keys = keys.iter().filter_map(|key| {
            let value = item.get(&**key)?;
            Some((key.to_string(), value.clone()))
        });
        Value::Object(keys.collect())
    }

    /// The item of the old list that the new one takes the place of.
    fn counterpart<'a>(&self, old: &'a Value, item: &Value, index: usize) -> Option<&'a Value> {
        let items = old.as_array()?;
        match &self.list {
            Some(ListType::Map(keys)) => {
                let wanted = self.keys(item, keys);
                items.iter().find(|item| self.keys(item, keys) == wanted)
            }
            Some(ListType::Set) => items.iter().find(|old| *old == item),
            None => items.get(index),
        }
    }
}

impl Checks {
    fn check(&self, value: &Value, old: Option<&Value>, path: &Path, errors: &mut Vec<Error>) {
        if !self.values.is_empty() && !self.values.iter().any(|known| same(known, value)) {
            let values: Vec<String> = self.values.iter().map(plain).collect();
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            errors.push(Error::not_supported(path, value.clone(), &values));
        }
        let mut invalid = |detail: String| {
            errors.push(Error::invalid(path, value.clone(), format!("{path} in body {detail}")));
        };
        match value {
            Value::String(text) => {
                if let Some(least) = self.min_length.filter(|least| text.chars().count() < *least) {
                    invalid(format!("should be at least {least} chars long"));
                }
                if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
                    invalid(format!("should match '{pattern}'"));
                }
                if let Some(most) = self.max_length.filter(|most| text.chars().count() > *most) {
                    errors.push(Error::too_long(path, most));
                }
                if !format::holds(&self.format, text) {
                    let (format, text) = (&self.format, apimachinery::quote::quote(text));
                    let detail = format!("{path} in body must be of type {format}: {text}");
                    errors.push(Error::type_invalid(path, value.clone(), detail));
                }
            }
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or_default();
                if let Some(factor) = self.multiple_of.filter(|factor| (number / factor).fract() != 0.0) {
                    invalid(format!("should be a multiple of {factor}"));
                }
                if let Some(most) = self.maximum {
                    match self.exclusive_maximum {
                        true if number >= most => invalid(format!("should be less than {most}")),
                        false if number > most => invalid(format!("should be less than or equal to {most}")),
                        _ => {}
                    }
                }
                if let Some(least) = self.minimum {
                    match self.exclusive_minimum {
                        true if number <= least => invalid(format!("should be greater than {least}")),
                        false if number < least => invalid(format!("should be greater than or equal to {least}")),
                        _ => {}
                    }
                }
            }
            Value::Array(items) => {
                if let Some(least) = self.min_items.filter(|least| items.len() < *least) {
                    invalid(format!("should have at least {least} items"));
                }
                if let Some(most) = self.max_items.filter(|most| items.len() > *most) {
                    errors.push(Error::too_many(path, items.len(), most));
                }
            }
            Value::Object(map) => {
                if let Some(least) = self.min_properties.filter(|least| map.len() < *least) {
                    invalid(format!("should have at least {least} properties"));
                }
                if let Some(most) = self.max_properties.filter(|most| map.len() > *most) {
                    errors.push(Error::too_many(path, map.len(), most));
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        self.check_junctors(value, old, path, errors);
    }

    fn check_junctors(&self, value: &Value, old: Option<&Value>, path: &Path, errors: &mut Vec<Error>) {
        let attempts = |nodes: &[Node]| -> Vec<Vec<Error>> {
            let attempt = |node: &Node| {
                let mut errors = Vec::new();
                node.check(value, old, path, &mut errors);
                errors
            };
            nodes.iter().map(attempt).collect()
        };
        // These are said of no field; the field's path is in the text.
        let mut composite = |detail: String| {
            errors.push(Error::invalid(&Path::new("<nil>"), "", format!("\"{path}\" {detail}")));
        };
        let mut nearest: Vec<Error> = Vec::new();
        let best = |attempts: Vec<Vec<Error>>| attempts.into_iter().min_by_key(Vec::len).unwrap_or_default();
        if !self.any_of.is_empty() {
            let attempts = attempts(&self.any_of);
            if !attempts.iter().any(Vec::is_empty) {
                composite("must validate at least one schema (anyOf)".to_owned());
                nearest.extend(best(attempts));
            }
        }
        if !self.one_of.is_empty() {
            let attempts = attempts(&self.one_of);
            match attempts.iter().filter(|errors| errors.is_empty()).count() {
                1 => {}
                0 => {
                    composite("must validate one and only one schema (oneOf). Found none valid".to_owned());
                    nearest.extend(best(attempts));
                }
                more => composite(format!(
                    "must validate one and only one schema (oneOf). Found {more} valid alternatives"
                )),
            }
        }
        if !self.all_of.is_empty() {
            let attempts = attempts(&self.all_of);
            let failed = attempts.iter().filter(|errors| !errors.is_empty()).count();
            if failed > 0 {
                let none = if failed == attempts.len() {
                    ". None validated"
                } else {
                    ""
                };
                composite(format!("must validate all the schemas (allOf){none}"));
                nearest.extend(attempts.into_iter().flatten());
            }
        }
        if let Some(not) = &self.not
            && not.validate(value, None).is_empty()
        {
            composite("must not validate the schema (not)".to_owned());
        }
        errors.append(&mut nearest);
    }
}

fn wrong_type(wanted: &str, value: &Value, path: &Path) -> Error {
    let got = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Error::type_invalid(path, got, format!("{path} in body must be of type {wanted}: \"{got}\""))
}

/// Equal as JSON: `1` and `1.0` are.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(schema: &Value, value: &Value) -> Vec<String> {
        let root = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": schema}}}});
        let object = json!({"spec": {"x": value}});
        let errors = Node::compile(&root).validate(&object, None);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn errors_are_worded_as_kubernetes_words_them() {
        for (schema, value, expected) in [
            (
                json!({"type": "integer"}),
                json!("a"),
                r#"spec.x: Invalid value: "string": spec.x in body must be of type integer: "string""#,
            ),
            (
                json!({"type": "string", "enum": ["a", "b"]}),
                json!("q"),
                r#"spec.x: Unsupported value: "q": supported values: "a", "b""#,
            ),
            (
                json!({"type": "integer", "minimum": 1}),
                json!(0),
                "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
            ),
            (
                json!({"type": "string", "pattern": "^a$"}),
                json!("b"),
                r#"spec.x: Invalid value: "b": spec.x in body should match '^a$'"#,
            ),
            (
                json!({"type": "string", "maxLength": 1}),
                json!("bc"),
                "spec.x: Too long: may not be more than 1 byte",
            ),
            (
                json!({"type": "array", "maxItems": 1, "items": {"type": "integer"}}),
                json!([1, 2]),
                "spec.x: Too many: 2: must have at most 1 item",
            ),
            (
                json!({"type": "object", "required": ["y"]}),
                json!({}),
                "spec.x.y: Required value",
            ),
            (
                json!({"type": "string", "format": "date-time"}),
                json!("now"),
                r#"spec.x: Invalid value: "now": spec.x in body must be of type date-time: "now""#,
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}}),
                json!([1, 1]),
                "spec.x[1]: Duplicate value: 1",
            ),
        ] {
            assert_eq!(errors(&schema, &value), [expected], "{schema}");
        }
        let one_of = json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
        assert_eq!(
            errors(&one_of, &json!({})),
            [
                r#"<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found none valid"#,
                "spec.x.a: Required value",
            ]
        );
    }

    #[test]
    fn int_or_string_takes_both_and_null_only_where_it_may() {
        let free = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
        assert!(errors(&free, &json!(1)).is_empty() && errors(&free, &json!("50%")).is_empty());
        assert_eq!(errors(&free, &json!(true)).len(), 1);
        assert!(errors(&json!({"type": "string", "nullable": true}), &json!(null)).is_empty());
        assert_eq!(errors(&json!({"type": "string"}), &json!(null)).len(), 1);
    }

    #[test]
    fn what_an_update_leaves_alone_is_not_looked_at_again() {
        let node = Node::compile(&json!({"type": "object", "properties": {
            "a": {"type": "integer", "maximum": 1}, "b": {"type": "integer", "maximum": 1},
        }}));
        let old = json!({"a": 5, "b": 1});
        assert!(node.validate(&json!({"a": 5, "b": 0}), Some(&old)).is_empty());
        assert_eq!(node.validate(&json!({"a": 6, "b": 0}), Some(&old)).len(), 1);
    }
}
