//! Messages into JSON, as Go's decoder and encoder together would show them.

use apimachinery::quantity::Quantity;
use apimachinery::{duration, time};
use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Number, Value};

use super::Error;
use super::table::{Cardinality, Field, Kind, MessageId, Presence, Table};
use super::wire::{self, Reader, WireValue};

/// Messages in messages. Each may be two levels of JSON (a list or map and its item), and JSON deeper than 128 levels
/// could not be read back from a store.
const MAX_DEPTH: usize = 50;
/// Levels of JSON with a raw extension.
const MAX_JSON_DEPTH: usize = 120;

pub(super) struct Decoder<'t> {
    table: &'t Table,
    depth: usize,
}

/// What went wrong in a field; the message's name is added where it is known.
type Reason = String;

impl<'t> Decoder<'t> {
    pub(super) fn new(table: &'t Table) -> Self {
        Self { table, depth: 0 }
    }

    /// Reads `bytes` as a message and adds its fields to `out`.
    pub(super) fn message(&mut self, bytes: &[u8], id: MessageId, out: &mut Map<String, Value>) -> Result<(), Error> {
        let Some(message) = self.table.message(id) else {
            return Ok(());
        };
        let malformed = |reason| Error::Malformed {
            message: message.name,
            reason,
        };
        if self.depth >= MAX_DEPTH {
            return Err(malformed("it is nested too deeply".to_owned()));
        }
        self.depth += 1;
        let mut fields = Reader::new(bytes);
        while let Some((number, value)) = fields.next().map_err(malformed)? {
            // What a newer client knows and we do not is dropped, as a server of our version would.
            let Some(field) = message.field(number) else { continue };
            match (field.kind, field.cardinality, value) {
                (Kind::Message(id), Cardinality::One, WireValue::Bytes(bytes)) if field.name == "-" => {
                    self.message(bytes, id, out)?;
                }
                (Kind::Message(id), Cardinality::One, WireValue::Bytes(bytes)) => {
                    // A message that comes twice is one message.
                    let slot = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                    if let Value::Object(inner) = slot {
                        self.message(bytes, id, inner)?;
                    }
                }
                (Kind::Message(id), Cardinality::Many, WireValue::Bytes(bytes)) => {
                    let mut item = Map::new();
                    self.message(bytes, id, &mut item)?;
                    push(out, field.name, Value::Object(item));
                }
                (_, Cardinality::Many, value) => self.items(field, value, out).map_err(malformed)?,
                (_, Cardinality::Map, WireValue::Bytes(entry)) => self.entry(field, entry, out, message.name)?,
                (_, Cardinality::One, value) => {
                    let shown = self.value(field.kind, value, message.name)?;
                    match shown.filter(|value| field.presence != Presence::OmitEmpty || !is_zero(value, field.kind)) {
                        Some(value) => drop(out.insert(field.name.to_owned(), value)),
                        None => drop(out.shift_remove(field.name)),
                    }
                }
                (_, Cardinality::Map, _) => return Err(malformed(wrong_wire_type(field.name))),
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// One item of a repeated field, or several packed numbers.
    fn items(&mut self, field: Field, value: WireValue<'_>, out: &mut Map<String, Value>) -> Result<(), Reason> {
        if let (Kind::Integer | Kind::Bool, WireValue::Bytes(packed)) = (field.kind, value) {
            let mut numbers = Reader::new(packed);
            while !numbers.is_at_end() {
                let number = WireValue::Varint(numbers.varint()?);
                push(out, field.name, plain(field.kind, number)?.unwrap_or_default());
            }
            return Ok(());
        }
        let value = self.value(field.kind, value, "").map_err(|error| match error {
            Error::Malformed { reason, .. } => reason,
            other => other.to_string(),
        })?;
        push(out, field.name, value.unwrap_or_default());
        Ok(())
    }

    /// A map's entry: a message of a key (1) and a value (2), either of which may be left out when empty.
    fn entry(
        &mut self,
        field: Field,
        entry: &[u8],
        out: &mut Map<String, Value>,
        message: &'static str,
    ) -> Result<(), Error> {
        let malformed = |reason| Error::Malformed { message, reason };
        let (mut key, mut inner) = (String::new(), None);
        let mut parts = Reader::new(entry);
        while let Some((number, value)) = parts.next().map_err(malformed)? {
            match (number, value) {
                (1, WireValue::Bytes(text)) => key = wire::text(text),
                (2, value) => inner = Some(value),
                _ => {}
            }
        }
        let inner = inner.unwrap_or(match field.kind {
            Kind::Bool | Kind::Integer => WireValue::Varint(0),
            Kind::Double => WireValue::Fixed64(0),
            _ => WireValue::Bytes(&[]),
        });
        let value = self.value(field.kind, inner, message)?.unwrap_or_default();
        let map = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(map) = map {
            map.insert(key, value);
        }
        Ok(())
    }

    /// One value; `None` when there is nothing to show (a zero time, an empty raw extension).
    fn value(&mut self, kind: Kind, value: WireValue<'_>, message: &'static str) -> Result<Option<Value>, Error> {
        let malformed = |reason| Error::Malformed { message, reason };
        let WireValue::Bytes(bytes) = value else {
            return plain(kind, value).map_err(malformed);
        };
        let schema = |decoder: &mut Self, bytes: &[u8]| {
            let mut schema = Map::new();
            decoder
                .message(bytes, decoder.table.schema_props(), &mut schema)
                .map(|()| Value::Object(schema))
        };
        Ok(match kind {
            Kind::Message(id) => {
                let mut object = Map::new();
                self.message(bytes, id, &mut object)?;
                Some(Value::Object(object))
            }
            Kind::SchemaOrBool => {
                let (mut allows, mut inner) = (false, None);
                let mut fields = Reader::new(bytes);
                while let Some(field) = fields.next().map_err(malformed)? {
                    match field {
                        (1, WireValue::Varint(value)) => allows = value != 0,
                        (2, WireValue::Bytes(bytes)) => inner = Some(schema(self, bytes)?),
                        _ => {}
                    }
                }
                Some(inner.unwrap_or(Value::Bool(allows)))
            }
            Kind::SchemaOrList | Kind::SchemaOrStrings => {
                let (mut inner, mut list) = (None, Vec::new());
                let mut fields = Reader::new(bytes);
                while let Some(field) = fields.next().map_err(malformed)? {
                    match field {
                        (1, WireValue::Bytes(bytes)) => inner = Some(schema(self, bytes)?),
                        (2, WireValue::Bytes(text)) if kind == Kind::SchemaOrStrings => {
                            list.push(Value::String(wire::text(text)));
                        }
                        (2, WireValue::Bytes(bytes)) => list.push(schema(self, bytes)?),
                        _ => {}
                    }
                }
                // Of both Go shows the list of schemas, but not the list of strings.
                match inner {
                    Some(schema) if list.is_empty() || kind == Kind::SchemaOrStrings => Some(schema),
                    _ => (!list.is_empty()).then_some(Value::Array(list)),
                }
            }
            Kind::Raw => {
                let value = raw(bytes).map_err(malformed)?;
                if value
                    .as_ref()
                    .is_some_and(|value| 2 * self.depth + depth(value) > MAX_JSON_DEPTH)
                {
                    return Err(malformed("the JSON in it is nested too deeply".to_owned()));
                }
                value
            }
            _ => plain(kind, value).map_err(malformed)?,
        })
    }
}

/// A value that holds no messages of the table.
fn plain(kind: Kind, value: WireValue<'_>) -> Result<Option<Value>, Reason> {
    Ok(match (kind, value) {
        (Kind::Bool, WireValue::Varint(value)) => Some(Value::Bool(value != 0)),
        // Negative numbers are sign-extended to 64 bits, whatever their width.
        (Kind::Integer, WireValue::Varint(value)) => Some(Value::from(value as i64)),
        (Kind::Double, WireValue::Fixed64(bits)) => Some(Value::Number(double(f64::from_bits(bits))?)),
        (Kind::String, WireValue::Bytes(bytes)) => Some(Value::String(wire::text(bytes))),
        (Kind::Bytes, WireValue::Bytes(bytes)) => {
            Some(Value::String(base64::engine::general_purpose::STANDARD.encode(bytes)))
        }
        (Kind::Quantity, WireValue::Bytes(bytes)) => Some(quantity(bytes)?),
        (Kind::Time, WireValue::Bytes(bytes)) => timestamp(bytes)?.map(|at| Value::String(time::format(at))),
        (Kind::MicroTime, WireValue::Bytes(bytes)) => timestamp(bytes)?.map(|at| Value::String(time::format_micro(at))),
        (Kind::Duration, WireValue::Bytes(bytes)) => {
            let nanos = numbers(bytes)?.0.unwrap_or_default();
            Some(Value::String(duration::format_go(SignedDuration::from_nanos(nanos))))
        }
        (Kind::IntOrString, WireValue::Bytes(bytes)) => Some(int_or_string(bytes)?),
        (Kind::Strings, WireValue::Bytes(bytes)) => Some(strings(bytes)?),
        _ => return Err("a field has another wire type than its kind".to_owned()),
    })
}

fn wrong_wire_type(name: &str) -> Reason {
    format!("the field `{name}` has another wire type than its kind")
}

fn push(out: &mut Map<String, Value>, name: &str, item: Value) {
    if let Value::Array(list) = out.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
        list.push(item);
    }
}

/// Whether Go leaves a value out for being empty. Structs are never empty to it, whatever is in them.
fn is_zero(value: &Value, kind: Kind) -> bool {
    match (kind, value) {
        (Kind::String | Kind::Bytes, Value::String(text)) => text.is_empty(),
        (Kind::Integer | Kind::Double, Value::Number(number)) => number.as_f64() == Some(0.0),
        (Kind::Bool, Value::Bool(value)) => !value,
        _ => false,
    }
}

/// Go writes whole numbers without a fraction.
fn double(value: f64) -> Result<Number, Reason> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        return Ok(Number::from(value as i64));
    }
    Number::from_f64(value).ok_or_else(|| format!("{value} is no number in JSON"))
}

/// The first two numbered fields, as numbers.
fn numbers(bytes: &[u8]) -> Result<(Option<i64>, Option<i64>), Reason> {
    let mut out = (None, None);
    let mut fields = Reader::new(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, WireValue::Varint(value)) => out.0 = Some(value as i64),
            (2, WireValue::Varint(value)) => out.1 = Some(value as i64),
            _ => {}
        }
    }
    Ok(out)
}

/// Seconds and nanos; an empty message is the zero time.
fn timestamp(bytes: &[u8]) -> Result<Option<Timestamp>, Reason> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (seconds, nanos) = numbers(bytes)?;
    let (seconds, nanos) = (seconds.unwrap_or_default(), nanos.unwrap_or_default());
    let nanos = i32::try_from(nanos).map_err(|_| format!("{nanos} are too many nanoseconds"))?;
    Timestamp::new(seconds, nanos)
        .map(Some)
        .map_err(|_| format!("{seconds} s are beyond the calendar"))
}

fn quantity(bytes: &[u8]) -> Result<Value, Reason> {
    let mut text = String::new();
    let mut fields = Reader::new(bytes);
    while let Some(field) = fields.next()? {
        if let (1, WireValue::Bytes(bytes)) = field {
            text = wire::text(bytes);
        }
    }
    if text.is_empty() {
        return Ok(Value::from("0"));
    }
    Quantity::normalize(&text)
        .map(Value::String)
        .map_err(|error| error.to_string())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Reason> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    let mut fields = Reader::new(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, WireValue::Varint(kind)) => is_text = kind == 1,
            (2, WireValue::Varint(value)) => number = value as i64,
            (3, WireValue::Bytes(bytes)) => text = wire::text(bytes),
            _ => {}
        }
    }
    Ok(if is_text {
        Value::String(text)
    } else {
        Value::from(number)
    })
}

fn strings(bytes: &[u8]) -> Result<Value, Reason> {
    let mut list = Vec::new();
    let mut fields = Reader::new(bytes);
    while let Some(field) = fields.next()? {
        if let (1, WireValue::Bytes(bytes)) = field {
            list.push(Value::String(wire::text(bytes)));
        }
    }
    Ok(Value::Array(list))
}

fn raw(bytes: &[u8]) -> Result<Option<Value>, Reason> {
    let mut json: &[u8] = &[];
    let mut fields = Reader::new(bytes);
    while let Some(field) = fields.next()? {
        if let (1, WireValue::Bytes(bytes)) = field {
            json = bytes;
        }
    }
    if json.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(json)
        .map(Some)
        .map_err(|error| format!("the JSON in it: {error}"))
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}
