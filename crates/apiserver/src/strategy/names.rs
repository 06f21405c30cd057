//! What the name of an object of some kind must look like, and the few kinds of name that [`apimachinery::names`] lacks.

use apimachinery::names::{dns1123_label, dns1123_subdomain};

/// What the name of an object of some kind must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Lower case DNS-1123 subdomain: most kinds.
    Subdomain,
    /// Lower case DNS-1123 label: Namespace, Service.
    Label,
    /// Whatever may stand in a URL path: RBAC.
    PathSegment,
}

impl Rule {
    /// What is wrong with a name. With `prefix` it is a `generateName`, which may end in a dash.
    pub fn check(self, name: &str, prefix: bool) -> Vec<String> {
        // Upstream's `maskTrailingDash`: judged as if the generated part were there.
        let masked;
        let name = match name.strip_suffix('-') {
            Some(stem) if prefix && !stem.is_empty() => {
                masked = format!("{stem}a");
                masked.as_str()
            }
            _ => name,
        };
        match self {
            Self::Subdomain => dns1123_subdomain(name),
            Self::Label => dns1123_label(name),
            Self::PathSegment => path_segment(name),
        }
    }
}

/// What may stand alone between two slashes of a URL.
pub(crate) fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ['/', '%']
        .iter()
        .filter(|c| text.contains(**c))
        .map(|c| format!("may not contain '{c}'"))
        .collect()
}

/// `*.` and a DNS subdomain: a host of an Ingress.
pub(crate) fn wildcard_subdomain(text: &str) -> Vec<String> {
    match text.strip_prefix("*.") {
        Some(rest) if dns1123_subdomain(rest).is_empty() && text.len() <= 253 => Vec::new(),
        _ => vec![
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of \
             lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', \
             regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        ],
    }
}

/// The name of an environment variable.
pub(crate) fn env_name(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.is_empty() {
        messages.push("environment variable name must be non-empty".to_owned());
    }
    if !text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=') {
        messages.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    messages
}

/// The name of an HTTP header.
pub(crate) fn header_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Vec::new();
    }
    vec![
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for \
         validation is '[-A-Za-z0-9]+')"
            .to_owned(),
    ]
}

/// The number of a port.
pub(crate) fn port_number(port: i64) -> Vec<String> {
    range(port, 1, 65535)
}

/// A whole number between two others.
pub(crate) fn range(number: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&number) {
        Vec::new()
    } else {
        vec![format!("must be between {low} and {high}, inclusive")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_may_end_in_a_dash() {
        assert!(Rule::Subdomain.check("web-", true).is_empty());
        assert!(!Rule::Subdomain.check("web-", false).is_empty());
        assert!(!Rule::Subdomain.check("-", true).is_empty());
    }

    #[test]
    fn a_role_may_have_colons() {
        assert!(Rule::PathSegment.check("system:node", false).is_empty());
        assert!(!Rule::Subdomain.check("system:node", false).is_empty());
        assert_eq!(path_segment("a/b%"), ["may not contain '/'", "may not contain '%'"]);
    }

    #[test]
    fn ports_headers_and_variables_are_judged_as_upstream_judges_them() {
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
        assert!(wildcard_subdomain("*.example.com").is_empty());
        assert!(!wildcard_subdomain("*example.com").is_empty());
        assert!(env_name("9 lives").is_empty());
        assert!(!env_name("A=B").is_empty());
        assert!(!header_name("a b").is_empty());
    }
}
