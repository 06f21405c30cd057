//! Whether a text is a Cron schedule, in the words of robfig/cron v3 (`parser.go`), which upstream uses.

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

const DESCRIPTORS: [&str; 7] = [
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];

/// What is wrong with a schedule.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    let schedule = match schedule.split_once(' ') {
        Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => rest.trim(),
        _ => schedule,
    };
    if let Some(every) = schedule.strip_prefix("@every ") {
        return match apimachinery::duration::parse_go(every) {
            Some(_) => Ok(()),
            None => Err(format!(
                "failed to parse duration {schedule}: time: invalid duration {every:?}"
            )),
        };
    }
    if schedule.starts_with('@') {
        return if DESCRIPTORS.contains(&schedule) {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {schedule}"))
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
    for (text, field) in fields.into_iter().zip(&FIELDS) {
        text.split(',')
            .filter(|range| !range.is_empty())
            .try_for_each(|range| check_range(range, field))?;
    }
    Ok(())
}

fn check_range(text: &str, field: &Field) -> Result<(), String> {
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
    if let Some(step) = step
        && number(step, &[], 0)? == 0
    {
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
    Ok(())
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
            assert_eq!(check(schedule), Ok(()), "{schedule}");
        }
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
            assert_eq!(check(schedule).unwrap_err(), problem, "{schedule}");
        }
    }
}
