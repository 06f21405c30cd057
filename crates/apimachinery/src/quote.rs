//! Go's quoting, which Kubernetes' messages carry into every client's test suite.

use std::fmt::Write as _;

/// `text` as Go's `%q` prints it: double quotes, Go's escapes, unprintable characters as `\x`, `\u` or `\U`.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            // Writing to a String cannot fail.
            c if (c as u32) < 0x20 || c == '\x7f' => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if !printable(c) && (c as u32) < 0x1_0000 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c if !printable(c) => {
                let _ = write!(out, "\\U{:08x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `value` as Go's `json.Marshal` prints it: compact, with `<`, `>` and `&` escaped.
pub(crate) fn json(value: &serde_json::Value) -> String {
    // The three characters occur in JSON only inside strings, so replacing them in the text is safe.
    value
        .to_string()
        .replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
}

/// Close to `unicode.IsPrint`: no controls, no separators but the space, no private use.
fn printable(c: char) -> bool {
    !(c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c as u32,
            0xad | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0xfeff | 0xe000..=0xf8ff | 0xfff0..=0xfffb | 0xf_0000..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_go_does() {
        assert_eq!(quote("a \"b\" \\ 'c'"), r#""a \"b\" \\ 'c'""#);
        assert_eq!(
            quote("\n\x01\u{7f}é\u{a0}\u{feff}\u{1f600}"),
            r#""\n\x01\x7fé\u00a0\ufeff😀""#
        );
    }

    #[test]
    fn json_escapes_what_a_browser_could_misread() {
        assert_eq!(json(&serde_json::json!({"a": "<&>"})), r#"{"a":"\u003c\u0026\u003e"}"#);
    }
}
