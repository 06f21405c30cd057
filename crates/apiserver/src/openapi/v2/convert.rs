//! OpenAPI v3 → v2: pure, a path or a schema at a time.
//!
//! What a real server's v2 document lacks is left out here too: defaults, and the schemas of error answers. Source of
//! the rules: kubernetes/kube-openapi `pkg/builder`, `pkg/schemaconv`; k/k `api/openapi-spec/swagger.json`.

use serde_json::{Map, Value, json};

const V3_SCHEMAS: &str = "#/components/schemas/";

/// The paths' operations, and the parameters which they share.
pub(super) fn path_item(item: Value) -> Value {
    let convert = |(key, value): (String, Value)| {
        let value = if key == "parameters" {
            parameters(value).into()
        } else {
            operation(value)
        };
        (key, value)
    };
    Value::Object(members(item).into_iter().map(convert).collect())
}

fn operation(operation: Value) -> Value {
    let mut from = members(operation);
    let mut all = Vec::new();
    let mut consumes = Vec::new();
    if let Some(body) = from.remove("requestBody") {
        let required = body.get("required").and_then(Value::as_bool).unwrap_or(false);
        let content = members(take(body, "content"));
        consumes = content.keys().cloned().collect();
        // Every media type has the same schema.
        let first = content.into_iter().next().map(|(_, media)| take(media, "schema"));
        let mut body = json!({"name": "body", "in": "body", "schema": schema(first.unwrap_or_default())});
        if required {
            body["required"] = true.into();
        }
        all.push(body);
    }
    all.extend(parameters(from.remove("parameters").unwrap_or_default()));
    let (responses, produces) = responses(from.remove("responses").unwrap_or_default());

    let mut to = Map::new();
    for key in ["description", "tags", "operationId"] {
        if let Some(value) = from.remove(key) {
            to.insert(key.to_owned(), value);
        }
    }
    for (key, list) in [
        ("consumes", consumes),
        ("produces", produces),
        ("schemes", vec!["https".to_owned()]),
    ] {
        if !list.is_empty() {
            to.insert(key.to_owned(), list.into());
        }
    }
    if !all.is_empty() {
        to.insert("parameters".to_owned(), all.into());
    }
    to.insert("responses".to_owned(), responses.into());
    to.extend(from); // x-kubernetes-action, x-kubernetes-group-version-kind
    Value::Object(to)
}

/// What v3 keeps in `schema` stands beside the name in v2.
fn parameters(list: Value) -> Vec<Value> {
    let Value::Array(list) = list else { return Vec::new() };
    let convert = |parameter: Value| {
        let mut to = members(parameter);
        for (key, value) in members(to.remove("schema").unwrap_or_default()) {
            to.insert(key, value);
        }
        Value::Object(to)
    };
    list.into_iter().map(convert).collect()
}

/// The answers and, sorted, all media types in which they come.
fn responses(responses: Value) -> (Map<String, Value>, Vec<String>) {
    let mut produces = std::collections::BTreeSet::new();
    let mut to = Map::new();
    for (code, response) in members(responses) {
        let mut response = members(response);
        let content = members(response.remove("content").unwrap_or_default());
        let mut answer = Map::new();
        if let Some(description) = response.remove("description") {
            answer.insert("description".to_owned(), description);
        }
        for (media_type, media) in content {
            produces.insert(media_type);
            let found = take(media, "schema");
            if !found.is_null() && !answer.contains_key("schema") {
                answer.insert("schema".to_owned(), schema(found));
            }
        }
        to.insert(code, answer.into());
    }
    (to, produces.into_iter().collect())
}

/// A schema, all the way down.
pub(super) fn schema(schema: Value) -> Value {
    let mut to = Map::new();
    let schema = members(schema);
    // kubectl takes v2's word that nothing else is allowed, so upstream says nothing of the form of such a value.
    let is = |key: &str| schema.get(key) == Some(&Value::Bool(true));
    let is_open = is("nullable") || is("x-kubernetes-preserve-unknown-fields");
    for (key, value) in schema {
        match key.as_str() {
            "default" | "nullable" | "anyOf" | "not" => {}
            "type" | "properties" | "items" if is_open => {}
            "$ref" => {
                to.insert(key, reference(&value));
            }
            // v3 wraps a reference that has a description of its own; v2 lets them stand together.
            "allOf" => {
                let Value::Array(list) = value else { continue };
                match <[Value; 1]>::try_from(list) {
                    Ok([only]) => to.extend(members(self::schema(only))),
                    Err(list) => {
                        to.insert(key, list.into_iter().map(self::schema).collect());
                    }
                }
            }
            // IntOrString and Quantity: text in v2. Of a custom resource it is about its fields, and left out.
            "oneOf" if !is_a_choice_of_types(&value) => {}
            "oneOf" => {
                to.insert("type".to_owned(), "string".into());
            }
            "properties" => {
                let properties = members(value)
                    .into_iter()
                    .map(|(name, value)| (name, self::schema(value)));
                to.insert(key, Value::Object(properties.collect()));
            }
            "items" | "additionalProperties" if value.is_object() => {
                to.insert(key, self::schema(value));
            }
            _ => {
                to.insert(key, value);
            }
        }
    }
    Value::Object(to)
}

fn is_a_choice_of_types(options: &Value) -> bool {
    let mut options = options.as_array().into_iter().flatten().filter_map(Value::as_object);
    options.all(|option| option.len() == 1 && option.contains_key("type"))
}

fn reference(target: &Value) -> Value {
    let target = target.as_str().unwrap_or_default();
    match target.strip_prefix(V3_SCHEMAS) {
        Some(name) => format!("#/definitions/{name}").into(),
        None => target.into(),
    }
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn take(value: Value, key: &str) -> Value {
    members(value).remove(key).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_keeps_its_description_and_loses_its_default() {
        let v3 = json!({"allOf": [{"$ref": "#/components/schemas/a.b.C"}], "default": {}, "description": "the c"});
        assert_eq!(
            schema(v3),
            json!({"$ref": "#/definitions/a.b.C", "description": "the c"})
        );
    }

    #[test]
    fn what_is_a_number_or_text_is_text() {
        let v3 = json!({"properties": {"port": {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}}});
        assert_eq!(
            schema(v3),
            json!({"properties": {"port": {"format": "int-or-string", "type": "string"}}})
        );
    }

    #[test]
    fn what_v2_cannot_say_of_a_custom_resource_is_left_out() {
        let v3 = json!({"properties": {
            "open": {"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": true},
            "null": {"type": "string", "nullable": true},
            "one": {"type": "object", "oneOf": [{"required": ["a"]}], "not": {"required": ["b"]}},
        }});
        assert_eq!(
            schema(v3),
            json!({"properties": {
                "open": {"x-kubernetes-preserve-unknown-fields": true}, "null": {}, "one": {"type": "object"},
            }})
        );
    }

    #[test]
    fn a_body_is_a_parameter() {
        let v3 = json!({"post": {
            "requestBody": {"content": {"*/*": {"schema": {"$ref": "#/components/schemas/X"}}}, "required": true},
            "parameters": [{"name": "dryRun", "in": "query", "schema": {"type": "string", "uniqueItems": true}}],
            "responses": {
                "201": {"description": "Created", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/X"}}}},
                "401": {"description": "Unauthorized"},
            },
            "x-kubernetes-action": "post",
        }});
        let x = json!({"$ref": "#/definitions/X"});
        assert_eq!(
            path_item(v3),
            json!({"post": {
                "consumes": ["*/*"], "produces": ["application/json"], "schemes": ["https"],
                "parameters": [
                    {"name": "body", "in": "body", "schema": x, "required": true},
                    {"name": "dryRun", "in": "query", "type": "string", "uniqueItems": true},
                ],
                "responses": {"201": {"description": "Created", "schema": x}, "401": {"description": "Unauthorized"}},
                "x-kubernetes-action": "post",
            }})
        );
    }
}
