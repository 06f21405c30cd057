//! What names, labels and keys may look like, with Kubernetes' own words for what is wrong.
//!
//! Each function returns the reasons why `value` is not valid; none means that it is. Source of the rules and of the
//! wording: `apimachinery/pkg/api/validate/content` and `pkg/util/validation`, 1.36.

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// A DNS label (RFC 1123): at most 63 of `a-z0-9-`.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut reasons = too_long(value, 63);
    if !is_label(value) {
        reasons.push(if is_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            regex(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    reasons
}

/// A DNS subdomain (RFC 1123): labels and dots, at most 253.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut reasons = too_long(value, 253);
    if !is_subdomain(value) {
        reasons.push(regex(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            SUBDOMAIN,
            &["example.com"],
        ));
    }
    reasons
}

/// A DNS label that starts with a letter (RFC 1035): names of Services.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut reasons = too_long(value, 63);
    if !is_label(value) || !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        reasons.push(regex(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    reasons
}

/// A label's or annotation's key, a finalizer, a taint's key: `[prefix/]name`.
pub fn qualified_name(value: &str) -> Vec<String> {
    const WORDS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let examples = &["MyName", "my.name", "123-abc"];
    let mut reasons = Vec::new();
    let name = match value.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                reasons.push("prefix part must be non-empty".to_owned());
            } else {
                reasons.extend(
                    dns1123_subdomain(prefix)
                        .into_iter()
                        .map(|reason| format!("prefix part {reason}")),
                );
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex(WORDS, KEY, examples)
            )];
        }
    };
    if name.is_empty() {
        reasons.push("name part must be non-empty".to_owned());
    } else {
        reasons.extend(
            too_long(name, 63)
                .into_iter()
                .map(|reason| format!("name part {reason}")),
        );
    }
    if !is_key(name) {
        reasons.push(format!("name part {}", regex(WORDS, KEY, examples)));
    }
    reasons
}

/// A label's value: empty, or at most 63 of `A-Za-z0-9-_.`.
pub fn label_value(value: &str) -> Vec<String> {
    let mut reasons = too_long(value, 63);
    if !value.is_empty() && !is_key(value) {
        reasons.push(regex(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    reasons
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut reasons = if value.len() > 253 {
        vec!["must be no more than 253 characters".to_owned()]
    } else {
        Vec::new()
    };
    if value.is_empty()
        || !value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        reasons.push(regex(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    if value == "." {
        reasons.push("must not be '.'".to_owned());
    } else if value == ".." {
        reasons.push("must not be '..'".to_owned());
    } else if value.starts_with("..") {
        reasons.push("must not start with '..'".to_owned());
    }
    reasons
}

/// The name of a container's or Service's port: at most 15 of `a-z0-9-` with a letter.
pub fn port_name(value: &str) -> Vec<String> {
    let mut reasons = if value.len() > 15 {
        vec!["must be no more than 15 characters".to_owned()]
    } else {
        Vec::new()
    };
    if value.is_empty()
        || !value
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        reasons.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        reasons.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        reasons.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        reasons.push("must not begin or end with a hyphen".to_owned());
    }
    reasons
}

fn too_long(value: &str, max: usize) -> Vec<String> {
    if value.len() > max {
        vec![format!("must be no more than {max} bytes")]
    } else {
        Vec::new()
    }
}

fn regex(words: &str, regex: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!(
        "{words} (e.g. {}regex used for validation is '{regex}')",
        examples.join(" or ")
    )
}

fn is_label(value: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bounded(value, inner, |b| inner(b) || b == b'-')
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

fn is_key(value: &str) -> bool {
    bounded(
        value,
        |b| b.is_ascii_alphanumeric(),
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
    )
}

fn bounded(value: &str, ends: impl Fn(u8) -> bool, inside: impl Fn(u8) -> bool) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(|&b| ends(b))
        && bytes.last().is_some_and(|&b| ends(b))
        && bytes.iter().all(|&b| inside(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_fine_have_no_reasons() {
        assert!(dns1123_label("my-name").is_empty());
        assert!(dns1123_subdomain("a.b-c.d").is_empty());
        assert!(dns1035_label("abc-123").is_empty());
        assert!(qualified_name("example.com/My_Name.x").is_empty());
        assert!(label_value("").is_empty() && label_value("A-b_c.9").is_empty());
        assert!(config_map_key("a.b_c-D").is_empty());
        assert!(port_name("http-2").is_empty());
    }

    #[test]
    fn reasons_are_worded_as_kubernetes_words_them() {
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns1123_subdomain("A"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
              start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(dns1035_label("1a").len(), 1);
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("a/b/c").len(), 1);
        assert_eq!(
            qualified_name("")[1],
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        );
        assert_eq!(label_value("-").len(), 1);
        assert_eq!(config_map_key(".."), ["must not be '..'"]);
        assert_eq!(port_name("-1-").len(), 2);
    }
}
