//! OpenAPI v2 as protobuf: the messages of google/gnostic-models, `openapiv2/OpenAPIv2.proto` (v0.7), of which an API
//! server's documents need a part.
//!
//! Pure. Field numbers stand beside the JSON names; vendor extensions are YAML text there, of which JSON is a kind.

use serde_json::Value;

/// A message that is being written.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u32, message: Self) {
        self.bytes(field, &message.0);
    }

    /// A string field, where the JSON has one.
    fn text(&mut self, field: u32, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u32, list: Option<&Value>) {
        for text in list.and_then(Value::as_array).into_iter().flatten() {
            self.text(field, Some(text));
        }
    }

    fn flag(&mut self, field: u32, value: Option<&Value>) {
        if value.and_then(Value::as_bool) == Some(true) {
            self.varint(u64::from(field) << 3);
            self.varint(1);
        }
    }

    fn number(&mut self, field: u32, value: Option<&Value>) {
        if let Some(number) = value.and_then(Value::as_i64) {
            self.varint(u64::from(field) << 3);
            self.varint(number as u64);
        }
    }

    fn double(&mut self, field: u32, value: Option<&Value>) {
        if let Some(number) = value.and_then(Value::as_f64) {
            self.varint(u64::from(field) << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// `NamedX { name = 1, value = 2 }`.
    fn named(&mut self, field: u32, name: &str, value: Self) {
        let mut entry = Self::default();
        entry.bytes(1, name.as_bytes());
        entry.message(2, value);
        self.message(field, entry);
    }

    /// All `x-…` of an object as `NamedAny`.
    fn extensions(&mut self, field: u32, object: &Value) {
        for (name, value) in members(object).filter(|(name, _)| name.starts_with("x-")) {
            self.named(field, name, any(value));
        }
    }
}

fn members(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten()
}

/// `Any { yaml = 2 }`.
fn any(value: &Value) -> Message {
    let mut any = Message::default();
    any.bytes(2, value.to_string().as_bytes());
    any
}

fn wrapped(field: u32, inner: Message) -> Message {
    let mut outer = Message::default();
    outer.message(field, inner);
    outer
}

/// `Document`, all but paths and definitions.
pub(super) fn document(version: &str) -> Message {
    let mut to = Message::default();
    to.bytes(1, b"2.0");
    let mut info = Message::default();
    info.bytes(1, b"Kubernetes");
    info.bytes(2, version.as_bytes());
    to.message(2, info);
    let mut requirement = Message::default();
    requirement.named(1, "BearerToken", Message::default());
    to.message(12, requirement);
    let mut key = Message::default();
    for (field, text) in [
        (1, "apiKey"),
        (2, "authorization"),
        (3, "header"),
        (4, "Bearer Token authentication"),
    ] {
        key.bytes(field, text.as_bytes());
    }
    let mut definitions = Message::default();
    definitions.named(1, "BearerToken", wrapped(2, key));
    to.message(13, definitions);
    to
}

/// One entry of `Document.paths`.
pub(super) fn add_path(document: &mut Message, path: &str, item: &Value) {
    let mut paths = Message::default();
    paths.named(2, path, path_item(item));
    document.message(8, paths);
}

/// One entry of `Document.definitions`.
pub(super) fn add_definition(document: &mut Message, name: &str, value: &Value) {
    let mut definitions = Message::default();
    definitions.named(1, name, schema(value));
    document.message(9, definitions);
}

fn path_item(item: &Value) -> Message {
    let mut to = Message::default();
    let verbs = [
        (2, "get"),
        (3, "put"),
        (4, "post"),
        (5, "delete"),
        (6, "options"),
        (7, "head"),
        (8, "patch"),
    ];
    for (field, verb) in verbs {
        if let Some(found) = item.get(verb) {
            to.message(field, operation(found));
        }
    }
    parameters(&mut to, 9, item.get("parameters"));
    to.extensions(10, item);
    to
}

fn operation(from: &Value) -> Message {
    let mut to = Message::default();
    to.texts(1, from.get("tags"));
    to.text(3, from.get("description"));
    to.text(5, from.get("operationId"));
    to.texts(6, from.get("produces"));
    to.texts(7, from.get("consumes"));
    parameters(&mut to, 8, from.get("parameters"));
    let mut responses = Message::default();
    for (code, response) in from.get("responses").into_iter().flat_map(members) {
        responses.named(1, code, wrapped(1, self::response(response)));
    }
    to.message(9, responses);
    to.texts(10, from.get("schemes"));
    to.extensions(13, from);
    to
}

fn response(from: &Value) -> Message {
    let mut to = Message::default();
    to.text(1, from.get("description"));
    if let Some(found) = from.get("schema") {
        to.message(2, wrapped(1, schema(found)));
    }
    to
}

/// `ParametersItem { parameter = 1 }` → `Parameter { body_parameter = 1, non_body_parameter = 2 }`.
fn parameters(to: &mut Message, field: u32, list: Option<&Value>) {
    for from in list.and_then(Value::as_array).into_iter().flatten() {
        let parameter = match from.get("in").and_then(Value::as_str) {
            Some("body") => {
                let mut body = Message::default();
                body.text(1, from.get("description"));
                body.text(2, from.get("name"));
                body.text(3, from.get("in"));
                body.flag(4, from.get("required"));
                body.message(5, schema(from.get("schema").unwrap_or(&Value::Null)));
                wrapped(1, body)
            }
            Some("path") => wrapped(2, wrapped(4, simple_parameter(from, [5, 6, 19]))),
            // Query parameters may be empty, so their numbers are one higher.
            Some("query") => wrapped(2, wrapped(3, simple_parameter(from, [6, 7, 20]))),
            _ => wrapped(2, wrapped(1, simple_parameter(from, [5, 6, 19]))),
        };
        to.message(field, wrapped(1, parameter));
    }
}

fn simple_parameter(from: &Value, [kind, format, unique]: [u32; 3]) -> Message {
    let mut to = Message::default();
    to.flag(1, from.get("required"));
    to.text(2, from.get("in"));
    to.text(3, from.get("description"));
    to.text(4, from.get("name"));
    to.text(kind, from.get("type"));
    to.text(format, from.get("format"));
    to.flag(unique, from.get("uniqueItems"));
    to
}

fn schema(from: &Value) -> Message {
    let mut to = Message::default();
    to.text(1, from.get("$ref"));
    to.text(2, from.get("format"));
    to.text(3, from.get("title"));
    to.text(4, from.get("description"));
    to.double(6, from.get("multipleOf"));
    to.double(7, from.get("maximum"));
    to.flag(8, from.get("exclusiveMaximum"));
    to.double(9, from.get("minimum"));
    to.flag(10, from.get("exclusiveMinimum"));
    to.number(11, from.get("maxLength"));
    to.number(12, from.get("minLength"));
    to.text(13, from.get("pattern"));
    to.number(14, from.get("maxItems"));
    to.number(15, from.get("minItems"));
    to.flag(16, from.get("uniqueItems"));
    to.number(17, from.get("maxProperties"));
    to.number(18, from.get("minProperties"));
    to.texts(19, from.get("required"));
    for value in from.get("enum").and_then(Value::as_array).into_iter().flatten() {
        to.message(20, any(value));
    }
    match from.get("additionalProperties") {
        Some(Value::Bool(allowed)) => {
            let mut item = Message::default();
            item.varint(2 << 3);
            item.varint(u64::from(*allowed));
            to.message(21, item);
        }
        Some(found) => to.message(21, wrapped(1, schema(found))),
        None => {}
    }
    if from.get("type").is_some() {
        let mut kinds = Message::default();
        kinds.text(1, from.get("type"));
        to.message(22, kinds);
    }
    if let Some(items) = from.get("items") {
        to.message(23, wrapped(1, schema(items)));
    }
    for value in from.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        to.message(24, schema(value));
    }
    if let Some(properties) = from.get("properties") {
        let mut list = Message::default();
        for (name, value) in members(properties) {
            list.named(1, name, schema(value));
        }
        to.message(25, list);
    }
    to.extensions(31, from);
    to
}
