//! Times and durations as people read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How long something took: `0.2 s`, `12.4 s`, `2m05s`.
pub fn took(millis: u64) -> String {
    if millis < 100_000 {
        return format!("{}.{} s", millis / 1000, millis % 1000 / 100);
    }
    let seconds = millis / 1000;
    format!("{}m{:02}s", seconds / 60, seconds % 60)
}

/// A time of day in the user's time zone.
pub fn of_day(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// How far away a time is: `in 9 s`, `now`.
pub fn from_now(at: Timestamp, now: Timestamp) -> String {
    match at.as_second() - now.as_second() {
        ..=0 => "now".to_owned(),
        seconds @ 1..=99 => format!("in {seconds} s"),
        seconds => format!("in {}m{:02}s", seconds / 60, seconds % 60),
    }
}

/// How long ago, as `kubectl get` writes ages.
pub fn age(since: &str, now: Timestamp) -> String {
    let Ok(since) = since.parse::<Timestamp>() else {
        return "?".to_owned();
    };
    apimachinery::duration::human(now.duration_since(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!(
            [took(0), took(190), took(1_940), took(99_999), took(125_000)],
            ["0.0 s", "0.1 s", "1.9 s", "99.9 s", "2m05s"]
        );
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(
            [from_now(at(9), at(0)), from_now(at(0), at(5)), from_now(at(130), at(0))],
            ["in 9 s", "now", "in 2m10s"]
        );
    }
}
