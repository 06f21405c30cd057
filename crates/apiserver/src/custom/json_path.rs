//! `JsonPath`: the part of Kubernetes' JSONPath that definitions use, for printer columns, selectable fields and scale.
//!
//! Fields, indices, wildcards and filters of one comparison (`.status.conditions[?(@.type=="Ready")].status`); no
//! recursive descent, no slices.

use serde_json::Value;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonPath(Box<[Step]>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(Box<str>),
    Index(i64),
    Every,
    /// Items of a list for which the comparison holds.
    Where(Box<[Step]>, Comparison, Value),
    /// Items of a list that have something there.
    Having(Box<[Step]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Why a path cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(String);

impl JsonPath {
    /// Reads `.spec.replicas`, with or without the leading dot or `$`, or braces around it.
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        let text = text.trim();
        let text = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .unwrap_or(text);
        steps(text.strip_prefix('$').unwrap_or(text)).map(Self)
    }

    /// The first value there.
    pub(crate) fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        walk(&self.0, value)
    }

    /// The place of a simple path, made where it is missing.
    pub(crate) fn set(&self, value: &mut Value, new: Value) {
        let mut at = value;
        for step in &self.0 {
            let Step::Field(name) = step else { return };
            if !at.is_object() {
                *at = Value::Object(serde_json::Map::new());
            }
            at = &mut at[&**name];
        }
        *at = new;
    }
}

fn steps(text: &str) -> Result<Box<[Step]>, Malformed> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after).ok_or_else(|| Malformed("unterminated array".to_owned()))?;
            steps.push(bracket(after[..end].trim())?);
            rest = &after[end + 1..];
            continue;
        }
        let (name, after) = name(rest.strip_prefix('.').unwrap_or(rest));
        match name.as_str() {
            "" if steps.is_empty() && after.is_empty() => {}
            "" if after.starts_with('[') => {}
            "" => return Err(Malformed("unexpected empty field".to_owned())),
            "*" => steps.push(Step::Every),
            name => steps.push(Step::Field(name.into())),
        }
        rest = after;
    }
    Ok(steps.into())
}

/// Where the bracket ends, quotes and inner brackets passed over.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A name up to the next dot or bracket; a backslash takes the next character as it is.
fn name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

fn bracket(inner: &str) -> Result<Step, Malformed> {
    if let Some(text) = unquoted(inner) {
        return Ok(Step::Field(text.into()));
    }
    if inner == "*" {
        return Ok(Step::Every);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|inner| inner.strip_suffix(')')) {
        return self::filter(filter);
    }
    inner
        .parse()
        .map(Step::Index)
        .map_err(|_| Malformed(format!("invalid array index {inner}")))
}

fn unquoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text[1..].strip_suffix(quote)?;
    Some(inner.replace("\\", ""))
}

fn filter(text: &str) -> Result<Step, Malformed> {
    const OPERATORS: [(&str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let path = |text: &str| {
        let text = text.trim();
        steps(text.strip_prefix('@').unwrap_or(text))
    };
    for (operator, comparison) in OPERATORS {
        let Some((left, right)) = text.split_once(operator) else {
            continue;
        };
        let right = right.trim();
        let literal = match unquoted(right) {
            Some(text) => Value::String(text),
            None => serde_json::from_str(right).map_err(|_| Malformed(format!("unrecognized literal {right}")))?,
        };
        return Ok(Step::Where(path(left)?, comparison, literal));
    }
    Ok(Step::Having(path(text)?))
}

fn walk<'a>(steps: &[Step], value: &'a Value) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(value);
    };
    match step {
        Step::Field(name) => walk(rest, value.get(&**name)?),
        Step::Index(index) => {
            let items = value.as_array()?;
            let index = if *index < 0 {
                items.len().checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?
            } else {
                usize::try_from(*index).ok()?
            };
            walk(rest, items.get(index)?)
        }
        Step::Every => match value {
            Value::Array(items) => items.iter().find_map(|item| walk(rest, item)),
            Value::Object(fields) => fields.values().find_map(|value| walk(rest, value)),
            _ => None,
        },
        Step::Where(path, comparison, literal) => value
            .as_array()?
            .iter()
            .filter(|item| walk(path, item).is_some_and(|found| holds(found, *comparison, literal)))
            .find_map(|item| walk(rest, item)),
        Step::Having(path) => value
            .as_array()?
            .iter()
            .filter(|item| walk(path, item).is_some())
            .find_map(|item| walk(rest, item)),
    }
}

fn holds(left: &Value, comparison: Comparison, right: &Value) -> bool {
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (left, right) if left == right => Some(std::cmp::Ordering::Equal),
        _ => None,
    };
    match comparison {
        Comparison::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
        Comparison::NotEqual => !order.is_some_and(std::cmp::Ordering::is_eq),
        Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn first(path: &str, value: &Value) -> Option<Value> {
        JsonPath::parse(path).unwrap().first(value).cloned()
    }

    #[test]
    fn what_definitions_write_is_found() {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "spec": {"replicas": 3, "ports": [{"port": 1}, {"port": 2}]},
            "status": {"conditions": [{"type": "Old", "status": "No"}, {"type": "Ready", "status": "True"}]},
        });
        for (path, expected) in [
            (".spec.replicas", json!(3)),
            ("spec.replicas", json!(3)),
            ("{.spec.replicas}", json!(3)),
            (r".metadata.annotations.a\.b/c", json!("x")),
            (".metadata.annotations['a.b/c']", json!("x")),
            (".spec.ports[1].port", json!(2)),
            (".spec.ports[-1].port", json!(2)),
            (".spec.ports[*].port", json!(1)),
            (".spec.ports[?(@.port>1)].port", json!(2)),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!("True")),
            (".status.conditions[?(@.type == 'Ready')].status", json!("True")),
        ] {
            assert_eq!(first(path, &object), Some(expected), "{path}");
        }
        assert_eq!(first(".spec.ports[7].port", &object), None);
        assert_eq!(first(".status.conditions[?(@.type=='X')].status", &object), None);
    }

    #[test]
    fn a_simple_path_can_be_written() {
        let path = JsonPath::parse(".spec.size").unwrap();
        let mut object = json!({});
        path.set(&mut object, 2.into());
        assert_eq!(object, json!({"spec": {"size": 2}}));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_no_panic() {
        for text in [".a[", ".a[x]", "..a", ".a[?(@.b==c)]"] {
            assert!(JsonPath::parse(text).is_err(), "{text}");
        }
    }
}
