//! The checks that many kinds share: each looks at one field and adds what is wrong, in Kubernetes' words.
//!
//! A path is built only where there is something to say: these run on every write.

use apimachinery::field::{Error, Path};
use apimachinery::labels::Selector;
use apimachinery::names::{dns1123_label, label_value, port_name, qualified_name};
use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::names::port_number;
use super::quantities::amount;
use super::walk::{at, has, int, is_zero, list, object, same, strings, text};

/// What upstream says of a field that may not change.
pub(crate) const IMMUTABLE: &str = "field is immutable";

/// Adds an `Invalid` for every message.
pub(crate) fn messages(messages: Vec<String>, path: &Path, value: &Value, errors: &mut Vec<Error>) {
    errors.extend(
        messages
            .into_iter()
            .map(|message| Error::invalid(path, value.clone(), message)),
    );
}

/// Adds an `Invalid` for every message about a text.
pub(crate) fn text_messages(found: Vec<String>, path: &Path, value: &str, errors: &mut Vec<Error>) {
    errors.extend(found.into_iter().map(|message| Error::invalid(path, value, message)));
}

/// The field must be there and not be zero.
pub(crate) fn required<'a>(
    owner: &'a Value,
    path: &Path,
    key: &str,
    detail: &str,
    errors: &mut Vec<Error>,
) -> Option<&'a Value> {
    let value = owner.get(key).filter(|value| !is_zero(value));
    if value.is_none() {
        errors.push(Error::required(&path.child(key), detail));
    }
    value
}

/// The number must not be negative.
pub(crate) fn non_negative(owner: &Value, path: &Path, key: &str, errors: &mut Vec<Error>) {
    if let Some(number) = int(owner, &[key]).filter(|number| *number < 0) {
        errors.push(Error::invalid(
            &path.child(key),
            number,
            "must be greater than or equal to 0",
        ));
    }
}

/// The number must be positive.
pub(crate) fn positive(owner: &Value, path: &Path, key: &str, errors: &mut Vec<Error>) {
    if let Some(number) = int(owner, &[key]).filter(|number| *number <= 0) {
        errors.push(Error::invalid(&path.child(key), number, "must be greater than zero"));
    }
}

/// The quantity must not be negative.
pub(crate) fn non_negative_quantity(value: &Value, path: &Path, errors: &mut Vec<Error>) {
    if amount(value).is_some_and(|quantity| quantity < Quantity::ZERO) {
        errors.push(Error::invalid(
            path,
            value.clone(),
            "must be greater than or equal to 0",
        ));
    }
}

/// The text must be one of these; nothing is said of a missing one.
pub(crate) fn one_of(owner: &Value, path: &Path, key: &str, supported: &[&str], errors: &mut Vec<Error>) {
    let value = text(owner, &[key]);
    if !value.is_empty() && !supported.contains(&value) {
        errors.push(Error::not_supported(&path.child(key), value, supported));
    }
}

/// The text must be there and be one of these.
pub(crate) fn required_one_of(owner: &Value, path: &Path, key: &str, supported: &[&str], errors: &mut Vec<Error>) {
    if required(owner, path, key, "", errors).is_some() {
        one_of(owner, path, key, supported, errors);
    }
}

/// The text must be a DNS label; nothing is said of a missing one.
pub(crate) fn dns_label(owner: &Value, path: &Path, key: &str, errors: &mut Vec<Error>) {
    let value = text(owner, &[key]);
    if !value.is_empty() {
        text_messages(dns1123_label(value), &path.child(key), value, errors);
    }
}

/// The field must be as it was.
pub(crate) fn immutable(new: &Value, old: &Value, keys: &[&str], errors: &mut Vec<Error>) {
    if !same(at(new, keys), at(old, keys)) {
        let value = at(new, keys).cloned().unwrap_or(Value::Null);
        errors.push(Error::invalid(&Path::new(&keys.join(".")), value, IMMUTABLE));
    }
}

/// A map of labels.
pub(crate) fn labels(owner: &Value, keys: &[&str], path: &Path, errors: &mut Vec<Error>) {
    for (key, value) in strings(owner, keys) {
        text_messages(qualified_name(key), path, key, errors);
        text_messages(label_value(value), path, value, errors);
    }
}

/// Largest size of all annotations together.
const ANNOTATIONS_MAX: usize = 256 << 10;

/// A map of annotations.
pub(crate) fn annotations(owner: &Value, keys: &[&str], path: &Path, errors: &mut Vec<Error>) {
    let mut size = 0;
    for (key, value) in strings(owner, keys) {
        size += key.len() + value.len();
        // The rule is the one for labels, except that upper case is fine in the prefix too.
        text_messages(qualified_name(&key.to_ascii_lowercase()), path, key, errors);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(Error::too_long(path, ANNOTATIONS_MAX));
    }
}

/// A LabelSelector, if there is one.
pub(crate) fn label_selector(selector: &Value, path: &Path, errors: &mut Vec<Error>) {
    if has(selector, &["matchLabels"]) {
        labels(selector, &["matchLabels"], &path.child("matchLabels"), errors);
    }
    for (index, requirement) in list(selector, &["matchExpressions"]).iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = list(requirement, &["values"]);
        let operator = text(requirement, &["operator"]);
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.push(Error::required(
                &path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(Error::forbidden(
                &path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(Error::invalid(
                &path.child("operator"),
                operator,
                "not a valid selector operator",
            )),
        }
        let key = text(requirement, &["key"]);
        text_messages(qualified_name(key), &path.child("key"), key, errors);
        for (index, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            text_messages(label_value(value), &path.child("values").index(index), value, errors);
        }
    }
}

/// Whether a LabelSelector has no requirement at all.
pub(crate) fn selects_everything(selector: &Value) -> bool {
    !has(selector, &["matchLabels"]) && !has(selector, &["matchExpressions"])
}

/// Whether the selector matches the labels; `None` when it cannot be read.
pub(crate) fn selector_matches(selector: &Value, labels: Option<&Value>) -> Option<bool> {
    let selector = Selector::from_label_selector(selector).ok()?;
    let empty = super::walk::Object::new();
    Some(selector.matches(labels.and_then(Value::as_object).unwrap_or(&empty)))
}

/// An integer that is not negative, or a percentage.
pub(crate) fn int_or_percent(value: &Value, path: &Path, errors: &mut Vec<Error>) {
    match value {
        Value::String(text) if percent(value).is_none() => errors.push(Error::invalid(
            path,
            text.as_str(),
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used \
             for validation is '[0-9]+%')",
        )),
        Value::Number(_) if value.as_i64().is_some_and(|number| number < 0) => {
            errors.push(Error::invalid(path, value.clone(), "must be greater than or equal to 0"));
        }
        _ => {}
    }
}

/// The number of a percentage.
pub(crate) fn percent(value: &Value) -> Option<i64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // More digits than fit are a large percentage all the same.
    Some(digits.parse().unwrap_or(i64::MAX))
}

/// The number of an integer or a percentage; 0 for anything else.
pub(crate) fn int_or_percent_number(value: &Value) -> i64 {
    value.as_i64().or_else(|| percent(value)).unwrap_or(0)
}

/// At most 100 %.
pub(crate) fn at_most_100_percent(value: &Value, path: &Path, errors: &mut Vec<Error>) {
    if percent(value).is_some_and(|percent| percent > 100) {
        errors.push(Error::invalid(path, value.clone(), "must not be greater than 100%"));
    }
}

/// An IP address, without the spellings that parsers read differently.
pub(crate) fn ip(address: &str, path: &Path, errors: &mut Vec<Error>) {
    if address.parse::<std::net::IpAddr>().is_err() {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(Error::invalid(path, address, detail));
    }
}

/// An address behind a Service: not one that means the machine itself or its link.
pub(crate) fn endpoint_ip(address: &str, path: &Path, errors: &mut Vec<Error>) {
    let before = errors.len();
    ip(address, path, errors);
    let Ok(parsed) = address.parse::<std::net::IpAddr>() else {
        return;
    };
    if errors.len() > before {
        return;
    }
    let (link_local, link_multicast) = match parsed {
        std::net::IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(ip) => (ip.segments()[0] & 0xffc0 == 0xfe80, ip.segments()[0] & 0xff0f == 0xff02),
    };
    let detail = if parsed.is_unspecified() {
        format!("may not be unspecified ({address})")
    } else if parsed.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()
    } else if link_multicast {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()
    } else {
        return;
    };
    errors.push(Error::invalid(path, address, detail));
}

/// A range of addresses: `10.0.0.0/8`.
pub(crate) fn cidr(range: &str, path: &Path, errors: &mut Vec<Error>) {
    let fine = range.split_once('/').is_some_and(|(address, prefix)| {
        let max = match address.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(_)) => 32,
            Ok(std::net::IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        prefix.parse::<u8>().is_ok_and(|prefix| prefix <= max)
    });
    if !fine {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(Error::invalid(path, range, detail));
    }
}

/// A port by number or by name.
pub(crate) fn port_number_or_name(port: Option<&Value>, path: &Path, errors: &mut Vec<Error>) {
    match port {
        Some(Value::String(name)) => text_messages(port_name(name), path, name, errors),
        Some(number @ Value::Number(_)) => messages(port_number(number.as_i64().unwrap_or(-1)), path, number, errors),
        _ => messages(port_number(0), path, &0.into(), errors),
    }
}

/// Whether the object has the field at all (an empty object counts: it is a set pointer).
pub(crate) fn is_set(owner: &Value, key: &str) -> bool {
    object(owner, &[]).is_some_and(|map| map.get(key).is_some_and(|value| !value.is_null()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(errors: &[Error]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_selector_is_judged_part_by_part() {
        let mut errors = Vec::new();
        let selector = json!({"matchLabels": {"a": "b c"}, "matchExpressions": [
            {"key": "x", "operator": "In"}, {"key": "", "operator": "Is"}]});
        label_selector(&selector, &Path::new("spec.selector"), &mut errors);
        let texts = texts(&errors);
        assert!(texts[0].starts_with("spec.selector.matchLabels: Invalid value: \"b c\": a valid label must be"));
        assert_eq!(
            texts[1],
            "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
        );
        assert_eq!(
            texts[2],
            "spec.selector.matchExpressions[1].operator: Invalid value: \"Is\": not a valid selector operator"
        );
    }

    #[test]
    fn a_percentage_is_digits_and_a_sign() {
        assert_eq!(percent(&json!("25%")), Some(25));
        assert_eq!(percent(&json!("-1%")), None);
        assert_eq!(percent(&json!("%")), None);
        let mut errors = Vec::new();
        int_or_percent(&json!("1.5%"), &Path::new("x"), &mut errors);
        int_or_percent(&json!(-1), &Path::new("x"), &mut errors);
        at_most_100_percent(&json!("101%"), &Path::new("x"), &mut errors);
        assert_eq!(errors.len(), 3);
    }
}
