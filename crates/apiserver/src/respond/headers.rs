//! Headers that every answer carries.

use http::header::{CACHE_CONTROL, WARNING};
use http::{HeaderName, HeaderValue, Response};

use crate::body::Body;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// All warnings of an answer together.
const TOTAL: usize = 4 << 10;
/// One warning once the total is exceeded.
const SHORT: usize = 256;

/// Adds what is missing.
pub(crate) fn finish(response: &mut Response<Body>, audit_id: &str, warnings: &[String]) {
    let headers = response.headers_mut();
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    if let Ok(value) = HeaderValue::from_str(audit_id) {
        headers.insert(AUDIT_ID, value);
    }
    let long = warnings.iter().map(String::len).sum::<usize>() > TOTAL;
    let mut left = TOTAL;
    for warning in warnings {
        let text: String = warning.chars().take(if long { SHORT } else { usize::MAX }).collect();
        if text.len() > left {
            break;
        }
        left -= text.len();
        if let Ok(value) = HeaderValue::from_str(&quoted(&text)) {
            headers.append(WARNING, value);
        }
    }
}

/// `299 - "text"`, as RFC 7234 §5.5 and client-go want it.
fn quoted(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("299 - \"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted_and_cut() {
        let mut response = Response::new(Body::empty());
        let long = "x".repeat(5000);
        finish(&mut response, "id", &["unknown field \"spec.foo\"".to_owned(), long]);
        let warnings: Vec<_> = response
            .headers()
            .get_all(WARNING)
            .iter()
            .map(|w| w.to_str().unwrap())
            .collect();
        assert_eq!(warnings[0], r#"299 - "unknown field \"spec.foo\"""#);
        assert_eq!(warnings[1].len(), SHORT + 8);
        assert_eq!(response.headers()[CACHE_CONTROL], "no-cache, private");
    }
}
