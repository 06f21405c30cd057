//! Timestamps as the API writes them: `Time` in whole seconds, `MicroTime` in microseconds, both RFC 3339 with `Z`.

use jiff::Timestamp;

/// `2026-01-02T15:04:05Z`; the fraction is dropped, as `metav1.Time` does.
pub fn format(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-01-02T15:04:05.000000Z`, always six digits, as `metav1.MicroTime`.
pub fn format_micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// `2026-01-02T15:04:05.123456789Z` without trailing zeros (Go's RFC3339Nano): log lines.
pub fn format_nano(at: Timestamp) -> String {
    at.to_string()
}

/// Reads RFC 3339 with any offset and fraction.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_their_digits() {
        let at: Timestamp = "2026-01-02T15:04:05.987654321Z".parse().unwrap();
        assert_eq!(format(at), "2026-01-02T15:04:05Z");
        assert_eq!(format_micro(at), "2026-01-02T15:04:05.987654Z");
        assert_eq!(format_nano(at), "2026-01-02T15:04:05.987654321Z");
        let whole: Timestamp = "2026-01-02T15:04:05Z".parse().unwrap();
        assert_eq!(format_micro(whole), "2026-01-02T15:04:05.000000Z");
    }

    #[test]
    fn offsets_are_read() {
        assert_eq!(
            format(parse("2026-01-02T17:04:05+02:00").unwrap()),
            "2026-01-02T15:04:05Z"
        );
        assert_eq!(parse("yesterday"), None);
    }
}
