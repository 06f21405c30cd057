//! Fills in defaults, and drops nulls that are no values.

use serde_json::Value;

use super::Node;

impl Node {
    /// Fills in defaults below this place: for what is missing, and for null where null is no value.
    pub(crate) fn default(&self, value: &mut Value) {
        if self.has_defaults {
            self.fill(value);
        }
        self.drop_nulls(value);
    }

    fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, node) in &self.properties {
                    let missing = match map.get(&**name) {
                        None => true,
                        Some(value) => value.is_null() && !node.nullable,
                    };
                    if let Some(default) = node.default.as_ref().filter(|_| missing) {
                        map.insert(name.to_string(), (**default).clone());
                    }
                }
                for (name, value) in map {
                    if let Some(node) = self.property(name).or(self.additional.as_deref()) {
                        node.fill(value);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(node) = &self.items {
                    items.iter_mut().for_each(|item| node.fill(item));
                }
            }
            _ => {}
        }
    }

    fn drop_nulls(&self, value: &mut Value) {
        match value {
            Value::Object(map) => map.retain(|name, value| {
                let Some(node) = self.property(name) else {
                    if let Some(node) = &self.additional {
                        node.drop_nulls(value);
                    }
                    return true;
                };
                node.drop_nulls(value);
                // A place without a type holds anything, null too.
                !value.is_null() || node.nullable || node.kind.is_none()
            }),
            Value::Array(items) => {
                if let Some(node) = &self.items {
                    items.iter_mut().for_each(|item| node.drop_nulls(item));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_gets_its_default_and_what_is_there_stays() {
        let node = Node::compile(&json!({"type": "object", "properties": {
            "a": {"type": "integer", "default": 1},
            "b": {"type": "object", "default": {}, "properties": {"c": {"type": "string", "default": "x"}}},
            "d": {"type": "object", "properties": {"e": {"type": "string", "default": "y"}}},
            "f": {"type": "array", "items": {"type": "object", "properties": {"g": {"type": "boolean", "default": true}}}},
            "n": {"type": "string", "nullable": true, "default": "z"},
            "o": {"type": "string"},
        }}));
        let mut value = json!({"a": null, "f": [{}, {"g": false}], "n": null, "o": null});
        node.default(&mut value);
        assert_eq!(
            value,
            json!({"a": 1, "f": [{"g": true}, {"g": false}], "n": null, "b": {"c": "x"}})
        );
    }
}
