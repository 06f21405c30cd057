//! Durations as people write them: `90s`, `2m`, `1h30m`, `500ms`.

use std::time::Duration;

/// Reads a duration; every number needs its unit (`ms`, `s`, `m`, `h`).
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit_millis: u64 = match rest.get(..letters)? {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(unit_millis)?))?;
        rest = rest.get(letters..)?;
    }
    (!text.is_empty()).then_some(total)
}

/// Writes a duration the way `parse` reads it, in whole seconds once there are any.
pub fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 {
        return format!("{}ms", duration.as_millis());
    }
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, seconds) in [("90s", 90), ("2m", 120), ("1h30m", 5400), ("1m5s", 65)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("500ms"), Some(Duration::from_millis(500)));
        for text in [
            "",
            "90",
            "s",
            "1 m",
            "-1s",
            "1d",
            "1.5s",
            "99999999999999999999h",
            "9999999999999999h",
            "1é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(shown(Duration::from_secs(5405)), "1h30m5s");
        assert_eq!(shown(Duration::from_secs(120)), "2m");
    }
}
