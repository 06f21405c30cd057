//! Sets of completion indexes as a Job's status writes them: `0,2-4`.
//!
//! Pure. (k/k `pkg/controller/job/indexed_job_utils.go`, v1.36.)

use std::collections::BTreeSet;

pub(super) type Indexes = BTreeSet<i32>;

/// Reads a set; what is no number, or not below `completions`, is left out.
pub(super) fn parse(text: &str, completions: i32) -> Indexes {
    let mut indexes = Indexes::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            indexes.extend(first.max(0)..=last.min(completions.saturating_sub(1)));
        }
    }
    indexes
}

/// Writes a set. Two neighbours are written apart, three or more as a range, as upstream does.
pub(super) fn format(indexes: &Indexes) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for &index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => ranges.push((index, index)),
        }
    }
    let texts = ranges.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_ranges_and_read_back() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7,8"] {
            assert_eq!(format(&parse(text, 100)), text);
        }
        assert_eq!(format(&parse("0-9,x,12", 5)), "0-4");
    }
}
