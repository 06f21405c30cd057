//! YAML that remembers where each value stood.
//!
//! Owns the tree of positioned nodes and the way plain scalars become values. Knows nothing of scenarios. Duplicate
//! keys stay in the tree, so that a reader can report each of them with both positions.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number, Value};

/// More nodes than any honest file has; aliases that multiply stop here.
const NODE_LIMIT: usize = 200_000;
/// Deeper than any honest file nests.
const DEPTH_LIMIT: usize = 200;

/// A place in a file; both numbers count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
}

impl From<Marker> for Position {
    fn from(marker: Marker) -> Self {
        Self {
            line: marker.line().max(1),
            column: marker.col() + 1,
        }
    }
}

/// A value and where it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where the value starts.
    pub at: Position,
    /// The value.
    pub data: Data,
}

/// A mapping's key and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Where the key starts.
    pub at: Position,
    /// The key.
    pub name: String,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// `null`, `~` or nothing.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number; a leading `0` means octal, as Kubernetes reads it.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in file order, duplicates included.
    Map(Vec<(Key, Node)>),
}

/// What is not YAML, and where.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{detail}")]
pub struct SyntaxError {
    /// Where the parser stopped.
    pub at: Position,
    /// What it did not understand.
    pub detail: String,
}

impl SyntaxError {
    fn new(at: impl Into<Position>, detail: impl Into<String>) -> Self {
        Self {
            at: at.into(),
            detail: detail.into(),
        }
    }
}

impl Node {
    /// What kind of value this is, as a user would say it.
    pub fn kind(&self) -> &'static str {
        match self.data {
            Data::Null => "nothing",
            Data::Bool(_) => "a boolean",
            Data::Integer(_) | Data::Float(_) => "a number",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
        }
    }

    /// The value as JSON; of duplicate keys the last one wins.
    pub fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Integer(value) => Value::Number((*value).into()),
            Data::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Data::Text(value) => Value::String(value.clone()),
            Data::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Data::Map(entries) => {
                let pairs = entries.iter().map(|(key, value)| (key.name.clone(), value.to_json()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    /// The value as a user would write it in one line, for messages.
    pub fn shown(&self) -> String {
        match &self.data {
            Data::Text(text) => text.clone(),
            Data::List(_) | Data::Map(_) => self.kind().to_owned(),
            _ => self.to_json().to_string(),
        }
    }

    /// The entry of a mapping with this key.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Data::Map(entries) = &self.data else { return None };
        entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }
}

/// All documents of a file; empty ones are left out.
pub fn parse(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let mut tree = Tree {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
    };
    let mut documents = Vec::new();
    while let Some((event, span)) = tree.next()? {
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => {
                let node = tree.node(event, span, 0)?;
                if node.data != Data::Null {
                    documents.push(node);
                }
                tree.anchors.clear();
            }
        }
    }
    Ok(documents)
}

struct Tree<'input> {
    parser: Parser<'input, saphyr_parser::StrInput<'input>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'input> Tree<'input> {
    fn next(&mut self) -> Result<Option<(Event<'input>, Span)>, SyntaxError> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => Err(SyntaxError::new(*error.marker(), error.info())),
        }
    }

    fn inside(&mut self, opened: Span) -> Result<(Event<'input>, Span), SyntaxError> {
        self.next()?
            .ok_or_else(|| SyntaxError::new(opened.start, "the file ends inside this value"))
    }

    fn count(&mut self, span: Span, nodes: usize) -> Result<(), SyntaxError> {
        self.nodes += nodes;
        if self.nodes > NODE_LIMIT {
            return Err(SyntaxError::new(
                span.start,
                format!("more than {NODE_LIMIT} values in one file"),
            ));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'input>, span: Span, depth: usize) -> Result<Node, SyntaxError> {
        self.count(span, 1)?;
        if depth > DEPTH_LIMIT {
            return Err(SyntaxError::new(
                span.start,
                format!("nested deeper than {DEPTH_LIMIT} levels"),
            ));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = Node {
                    at: span.start.into(),
                    data: scalar(&text, style, tag.as_deref(), span)?,
                };
                Ok(self.remember(anchor, node))
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.inside(span)? {
                        (Event::SequenceEnd, _) => break,
                        (event, at) => items.push(self.node(event, at, depth + 1)?),
                    }
                }
                Ok(self.remember(
                    anchor,
                    Node {
                        at: span.start.into(),
                        data: Data::List(items),
                    },
                ))
            }
            Event::MappingStart(anchor, _) => self.mapping(anchor, span, depth),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node =
                    node.ok_or_else(|| SyntaxError::new(span.start, "an alias of something not yet finished"))?;
                self.count(span, size(&node))?;
                Ok(Node {
                    at: span.start.into(),
                    ..node
                })
            }
            other => Err(SyntaxError::new(
                span.start,
                format!("a value was expected here, not {other:?}"),
            )),
        }
    }

    fn mapping(&mut self, anchor: usize, span: Span, depth: usize) -> Result<Node, SyntaxError> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, at) = self.inside(span)?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, at, depth + 1)?;
            let name = match key.data {
                Data::List(_) | Data::Map(_) => return Err(SyntaxError::new(at.start, "a key must be a plain value")),
                Data::Null => "null".to_owned(),
                _ => key.shown(),
            };
            let (event, value_at) = self.inside(span)?;
            let value = self.node(event, value_at, depth + 1)?;
            entries.push((Key { at: key.at, name }, value));
        }
        // A block mapping's own marker is where its first key's colon stood or later; readers look at the key.
        let at = entries
            .first()
            .map_or(span.start.into(), |(key, _)| key.at.min(span.start.into()));
        Ok(self.remember(
            anchor,
            Node {
                at,
                data: Data::Map(entries),
            },
        ))
    }

    fn remember(&mut self, anchor: usize, node: Node) -> Node {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        node
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.data {
        Data::List(items) => items.iter().map(size).sum(),
        Data::Map(entries) => entries.iter().map(|(_, value)| 1 + size(value)).sum(),
        _ => 0,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Data, SyntaxError> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => return Ok(Data::Text(text.to_owned())),
        Some(tag) if !tag.is_yaml_core_schema() => {
            return Err(SyntaxError::new(
                span.start,
                format!("the tag `{tag}` means nothing here"),
            ));
        }
        _ => {}
    }
    Ok(if style == ScalarStyle::Plain {
        plain(text)
    } else {
        Data::Text(text.to_owned())
    })
}

/// As Kubernetes' own YAML reader takes a plain scalar: the core schema, and `0644` is octal.
fn plain(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => return Data::Bool(true),
        "false" | "False" | "FALSE" => return Data::Bool(false),
        _ => {}
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Data::Text(text.to_owned());
    }
    let whole = if let Some(hex) = digits.strip_prefix("0x") {
        i64::from_str_radix(hex, 16).ok()
    } else if let Some(octal) = digits.strip_prefix("0o") {
        i64::from_str_radix(octal, 8).ok()
    } else if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
        i64::from_str_radix(digits, 8).ok()
    } else {
        digits.parse().ok()
    };
    if let Some(value) = whole {
        return Data::Integer(sign * value);
    }
    let number = digits.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match text.parse::<f64>() {
        Ok(value) if number && value.is_finite() => Data::Float(value),
        _ => Data::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Node {
        parse(text).unwrap().remove(0)
    }

    #[test]
    fn values_know_their_line_and_column() {
        let node = only("a: 1\nb:\n  - c: x\n    d: [1, two]\n");
        let Data::List(items) = &node.get("b").unwrap().data else {
            panic!("a list")
        };
        assert_eq!(items[0].at, Position { line: 3, column: 5 });
        assert_eq!(items[0].get("d").unwrap().at, Position { line: 4, column: 8 });
        assert_eq!(
            node.to_json(),
            serde_json::json!({"a": 1, "b": [{"c": "x", "d": [1, "two"]}]})
        );
    }

    #[test]
    fn duplicate_keys_are_kept_apart() {
        let node = only("a: 1\na: 2\n");
        let Data::Map(entries) = &node.data else {
            panic!("a mapping")
        };
        assert_eq!(entries.iter().map(|(key, _)| key.at.line).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn plain_scalars_are_read_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("0644", Data::Integer(420)),
            ("0o644", Data::Integer(420)),
            ("-3", Data::Integer(-3)),
            ("1.5", Data::Float(1.5)),
            ("1e3", Data::Float(1000.0)),
            ("128Mi", Data::Text("128Mi".into())),
            ("0089", Data::Float(89.0)),
            (".", Data::Text(".".into())),
            ("1.2.3", Data::Text("1.2.3".into())),
            ("infinity", Data::Text("infinity".into())),
            ("~", Data::Null),
        ] {
            assert_eq!(plain(text), expected, "`{text}`");
        }
    }

    #[test]
    fn an_alias_is_a_copy_and_a_bomb_is_refused() {
        assert_eq!(
            only("a: &x [1]\nb: *x\n").to_json(),
            serde_json::json!({"a": [1], "b": [1]})
        );
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
            bomb.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
        }
        assert!(parse(&bomb).unwrap_err().detail.contains("more than"));
    }

    #[test]
    fn rubbish_is_an_error_with_a_position() {
        for text in [
            "a: [1, 2\n",
            "a: b: c\n",
            "a: *nobody\n",
            "? [a]\n: b\n",
            "a: \"x\nb",
            "{",
            "a: !mine 1",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.at.line >= 1, "{text:?}: {error}");
        }
    }

    #[test]
    fn documents_are_counted_without_the_empty_ones() {
        assert_eq!(parse("---\na: 1\n---\n---\nb: 2\n").unwrap().len(), 2);
        assert_eq!(parse("# nothing\n").unwrap().len(), 0);
    }
}
