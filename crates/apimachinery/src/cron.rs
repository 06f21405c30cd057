//! Cron schedules: what is one, and when it comes round next. Pure.
//!
//! After robfig/cron v3 (`parser.go`, `spec.go`), which upstream uses; its error texts are what users see.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// A field: its name's bounds and the names its values have.
struct Field {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field {
        low: 0,
        high: 59,
        names: &[],
    },
    Field {
        low: 0,
        high: 23,
        names: &[],
    },
    Field {
        low: 1,
        high: 31,
        names: &[],
    },
    Field {
        low: 1,
        high: 12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    Field {
        low: 0,
        high: 6,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];

/// Names for common schedules.
const DESCRIPTORS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A schedule that does not come round within this many years never does.
const YEARS: i16 = 5;

/// When something is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// At every minute whose parts are all among these.
    Minutes([Values; 5]),
    /// Again after this long.
    Every(Duration),
}

/// The values a field accepts, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Values {
    bits: u64,
    /// Written as `*`: a day of the month and a day of the week are then not alternatives.
    star: bool,
}

impl Values {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits >> value & 1 == 1)
    }
}

impl Schedule {
    /// Reads a schedule; the error says what is wrong in robfig/cron's words. A leading `TZ=` is skipped.
    pub fn parse(schedule: &str) -> Result<Self, String> {
        parse(schedule).map(Self)
    }

    /// The first time after `after`, by the clocks of `zone`. Local times that a change of clocks skips do not come.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let [minutes, hours, days, months, weekdays] = match &self.0 {
            Kind::Minutes(fields) => fields,
            Kind::Every(pause) => {
                // Whole seconds, as robfig/cron rounds.
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                return whole.checked_add(Duration::from_secs(pause.as_secs().max(1))).ok();
            }
        };
        let now = zone.to_datetime(after);
        let last_year = now.year().saturating_add(YEARS);
        let mut at = now
            .with()
            .second(0)
            .subsec_nanosecond(0)
            .build()
            .ok()?
            .checked_add(1.minute())
            .ok()?;
        while at.year() <= last_year {
            let weekday = at.weekday().to_sunday_zero_offset();
            let (by_day, by_weekday) = (days.has(at.day()), weekdays.has(weekday));
            let day = match days.star || weekdays.star {
                true => by_day && by_weekday,
                false => by_day || by_weekday,
            };
            at = if !months.has(at.month()) {
                midnight(at.first_of_month().checked_add(1.month()).ok()?)?
            } else if !day {
                midnight(at.checked_add(1.day()).ok()?)?
            } else if !hours.has(at.hour()) {
                at.with().minute(0).build().ok()?.checked_add(1.hour()).ok()?
            } else if let (true, Some(found)) = (minutes.has(at.minute()), instant(at, zone).filter(|it| *it > after)) {
                return Some(found);
            } else {
                at.checked_add(1.minute()).ok()?
            };
        }
        None
    }
}

fn midnight(at: DateTime) -> Option<DateTime> {
    at.with().hour(0).minute(0).build().ok()
}

/// The instant of a local time, if there is one.
fn instant(at: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(at);
    match ambiguous.offset() {
        jiff::tz::AmbiguousOffset::Gap { .. } => None,
        _ => ambiguous.compatible().ok(),
    }
}

fn parse(schedule: &str) -> Result<Kind, String> {
    let schedule = match schedule.split_once(' ') {
        Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => rest.trim(),
        _ => schedule,
    };
    if let Some(every) = schedule.strip_prefix("@every ") {
        return match crate::duration::parse_go(every) {
            Some(pause) => Ok(Kind::Every(pause.try_into().unwrap_or_default())),
            None => Err(format!(
                "failed to parse duration {schedule}: time: invalid duration {every:?}"
            )),
        };
    }
    if schedule.starts_with('@') {
        return match DESCRIPTORS.iter().find(|(name, _)| *name == schedule) {
            Some((_, fields)) => parse(fields),
            None => Err(format!("unrecognized descriptor: {schedule}")),
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    }
    let mut values = [Values::default(); FIELDS.len()];
    for ((text, field), values) in fields.into_iter().zip(&FIELDS).zip(&mut values) {
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let more = parse_range(range, field)?;
            values.bits |= more.bits;
            values.star |= more.star;
        }
    }
    Ok(Kind::Minutes(values))
}

fn parse_range(text: &str, field: &Field) -> Result<Values, String> {
    let (range, step) = match text.split('/').collect::<Vec<_>>()[..] {
        [range] => (range, None),
        [range, step] => (range, Some(step)),
        _ => return Err(format!("too many slashes: {text}")),
    };
    let (start, end) = match range.split('-').collect::<Vec<_>>()[..] {
        ["*" | "?"] => (field.low, field.high),
        [one] => {
            let number = number(one, field.names, field.low)?;
            (number, if step.is_some() { field.high } else { number })
        }
        // `*-5` means from the start.
        ["*" | "?", _] => (field.low, field.high),
        [from, to] => (
            number(from, field.names, field.low)?,
            number(to, field.names, field.low)?,
        ),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let stride = match step {
        Some(step) => number(step, &[], 0)?,
        None => 1,
    };
    if stride == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    if start < field.low {
        return Err(format!(
            "beginning of range ({start}) below minimum ({}): {text}",
            field.low
        ));
    }
    if end > field.high {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", field.high));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ));
    }
    let stride = usize::try_from(stride).unwrap_or(usize::MAX);
    Ok(Values {
        bits: (start..=end).step_by(stride).fold(0, |bits, value| bits | 1 << value),
        star: range.starts_with(['*', '?']) && stride == 1,
    })
}

fn number(text: &str, names: &[&str], low: u32) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(index) = names.iter().position(|name| *name == lower) {
        return Ok(low + u32::try_from(index).unwrap_or(0));
    }
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        Err(_) => Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_that_cron_knows() {
        for schedule in [
            "* * * * *",
            "*/5 0-23/2 1,15 jan-mar mon",
            "0 0 ? * SUN",
            "@hourly",
            "@every 1h30m",
            "5/15 * * * *",
        ] {
            assert!(Schedule::parse(schedule).is_ok(), "{schedule}");
        }
    }

    fn next(schedule: &str, after: &str) -> Option<String> {
        let after: Timestamp = after.parse().unwrap();
        let next = Schedule::parse(schedule).unwrap().next(after, &TimeZone::UTC);
        next.map(|next| next.to_string())
    }

    #[test]
    fn the_next_time_is_after_now_and_fits_every_field() {
        for (schedule, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            ("* * * * *", "2026-01-01T00:00:59.9Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:46:00Z", "2026-01-01T01:00:00Z"),
            ("30 3 * * mon-fri", "2026-01-02T04:00:00Z", "2026-01-05T03:30:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            // Two restricted days are alternatives, a star is not.
            ("0 0 13 * fri", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 */1 * fri", "2026-01-03T00:00:00Z", "2026-01-09T00:00:00Z"),
            ("@monthly", "2026-12-31T23:59:00Z", "2027-01-01T00:00:00Z"),
            ("@every 90s", "2026-01-01T00:00:00.5Z", "2026-01-01T00:01:30Z"),
        ] {
            assert_eq!(
                next(schedule, after).as_deref(),
                Some(expected),
                "{schedule} after {after}"
            );
        }
        assert_eq!(next("0 0 31 2 *", "2026-01-01T00:00:00Z"), None);
    }

    #[test]
    fn what_is_wrong_is_said_as_upstream_says_it() {
        for (schedule, problem) in [
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("@often", "unrecognized descriptor: @often"),
        ] {
            assert_eq!(Schedule::parse(schedule).unwrap_err(), problem, "{schedule}");
        }
    }
}
