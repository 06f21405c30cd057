//! Which messages there are, and how JSON names and shows their fields.

use std::sync::OnceLock;

/// Written by `scripts/oracle protobuf-table`, which says what each column means.
const TEXT: &str = include_str!("../../data/kubernetes-1.36-protobuf.txt");

/// Every built-in kind's messages. Names are borrowed from the text in the binary.
pub(super) struct Table {
    kinds: Vec<(&'static str, &'static str, MessageId)>,
    messages: Vec<Message>,
    schema_props: MessageId,
}

pub(super) type MessageId = usize;

pub(super) struct Message {
    /// The Go type, as `v1.PodSpec`.
    pub(super) name: &'static str,
    /// Sorted by number.
    fields: Vec<Field>,
}

#[derive(Clone, Copy)]
pub(super) struct Field {
    number: u32,
    pub(super) cardinality: Cardinality,
    pub(super) kind: Kind,
    pub(super) presence: Presence,
    /// `-`: a message whose fields JSON shows as its parent's.
    pub(super) name: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cardinality {
    One,
    Many,
    /// String keys.
    Map,
}

/// When a single value is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Whenever it is on the wire: a pointer.
    Pointer,
    /// Always.
    Always,
    /// Unless it is zero.
    OmitEmpty,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Bool,
    Integer,
    Double,
    Bytes,
    Quantity,
    Time,
    MicroTime,
    Duration,
    IntOrString,
    /// JSON text in a message of one field.
    Raw,
    /// A list of strings in a message of one field.
    Strings,
    SchemaOrBool,
    SchemaOrList,
    SchemaOrStrings,
    Message(MessageId),
}

impl Table {
    /// The one table, read on first use.
    pub(super) fn get() -> &'static Self {
        static TABLE: OnceLock<Table> = OnceLock::new();
        TABLE.get_or_init(|| Self::read(TEXT))
    }

    /// The text is ours and a test reads every line of it: what cannot be read is left out.
    fn read(text: &'static str) -> Self {
        let mut table = Self {
            kinds: Vec::new(),
            messages: Vec::new(),
            schema_props: 0,
        };
        for line in text.lines() {
            let columns: Vec<&'static str> = line.split(' ').collect();
            match columns[..] {
                ["kind", version, kind, message] => {
                    table
                        .kinds
                        .extend(message.parse().ok().map(|message| (version, kind, message)));
                }
                ["message", _, name] => {
                    if name == "v1.JSONSchemaProps" {
                        table.schema_props = table.messages.len();
                    }
                    table.messages.push(Message {
                        name,
                        fields: Vec::new(),
                    });
                }
                [number, kind, presence, name] => {
                    let field = Field::read(number, kind, presence, name);
                    if let (Some(field), Some(message)) = (field, table.messages.last_mut()) {
                        message.fields.push(field);
                    }
                }
                _ => {}
            }
        }
        for message in &mut table.messages {
            message.fields.sort_by_key(|field| field.number);
            message.fields.shrink_to_fit();
        }
        table
    }

    /// The message of a kind. Kinds of `meta/v1` (`DeleteOptions`) are there in every version.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<MessageId> {
        let find = |version: &str| {
            self.kinds
                .iter()
                .find(|(v, k, _)| *v == version && *k == kind)
                .map(|found| found.2)
        };
        find(api_version).or_else(|| find("*"))
    }

    pub(super) fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(id)
    }

    pub(super) fn schema_props(&self) -> MessageId {
        self.schema_props
    }

    #[cfg(test)]
    pub(super) fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.kinds.iter().map(|(version, kind, _)| (*version, *kind))
    }
}

impl Message {
    pub(super) fn field(&self, number: u32) -> Option<Field> {
        let found = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        Some(self.fields[found])
    }
}

impl Field {
    fn read(number: &str, kind: &str, presence: &str, name: &'static str) -> Option<Self> {
        let (cardinality, kind) = match kind.as_bytes().first()? {
            b'*' => (Cardinality::Many, &kind[1..]),
            b'%' => (Cardinality::Map, &kind[1..]),
            _ => (Cardinality::One, kind),
        };
        let kind = match kind {
            "s" => Kind::String,
            "b" => Kind::Bool,
            "i" => Kind::Integer,
            "f" => Kind::Double,
            "y" => Kind::Bytes,
            "q" => Kind::Quantity,
            "t" => Kind::Time,
            "u" => Kind::MicroTime,
            "d" => Kind::Duration,
            "x" => Kind::IntOrString,
            "r" => Kind::Raw,
            "L" => Kind::Strings,
            "B" => Kind::SchemaOrBool,
            "A" => Kind::SchemaOrList,
            "S" => Kind::SchemaOrStrings,
            _ => Kind::Message(kind.strip_prefix('m')?.parse().ok()?),
        };
        let presence = match presence {
            "?" => Presence::Pointer,
            "!" => Presence::Always,
            "." => Presence::OmitEmpty,
            _ => return None,
        };
        Some(Self {
            number: number.parse().ok()?,
            cardinality,
            kind,
            presence,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_and_every_reference_leads_somewhere() {
        let table = Table::get();
        let fields: usize = table.messages.iter().map(|message| message.fields.len()).sum();
        assert_eq!(table.kinds.len() + table.messages.len() + fields, TEXT.lines().count());
        for (_, kind, message) in &table.kinds {
            assert!(table.message(*message).is_some(), "{kind}");
        }
        for message in &table.messages {
            for field in &message.fields {
                if let Kind::Message(id) = field.kind {
                    assert!(table.message(id).is_some(), "{} {}", message.name, field.name);
                }
            }
        }
        assert_eq!(table.messages[table.schema_props].name, "v1.JSONSchemaProps");
    }

    #[test]
    fn message_numbers_are_their_places() {
        for (place, line) in TEXT.lines().filter(|line| line.starts_with("message ")).enumerate() {
            assert_eq!(line.split(' ').nth(1), Some(place.to_string().as_str()));
        }
    }
}
