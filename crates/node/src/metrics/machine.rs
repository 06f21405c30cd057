//! What the whole machine uses: the node's figures, as upstream's kubelet takes them from the root cgroup.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;

use super::window::{Rate, between};

/// One sample of `/proc/stat` and `/proc/meminfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    at: Timestamp,
    busy_nanoseconds: u64,
    memory_bytes: u64,
}

/// The last two samples.
#[derive(Debug, Default)]
pub(super) struct Machine {
    before: Option<Sample>,
    last: Option<Sample>,
}

impl Machine {
    /// Samples when it is due; how long until it is again. Quickly at first, so that there is a rate soon.
    pub(super) fn sample_if_due(&mut self, now: Timestamp, resolution: Duration) -> Duration {
        let interval = if self.before.is_none() {
            Duration::from_millis(500)
        } else {
            resolution
        };
        let left = self
            .last
            .map_or(Duration::ZERO, |last| interval.saturating_sub(between(last.at, now)));
        if !left.is_zero() {
            return left;
        }
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        if let (Some(busy_nanoseconds), Some(memory_bytes)) = (busy(&stat), used(&meminfo)) {
            self.before = self.last;
            self.last = Some(Sample {
                at: now,
                busy_nanoseconds,
                memory_bytes,
            });
        }
        if self.before.is_none() {
            Duration::from_millis(500)
        } else {
            resolution
        }
    }

    pub(super) fn rate(&self) -> Option<Rate> {
        let (before, last) = (self.before?, self.last?);
        let window = between(before.at, last.at);
        let burnt = last.busy_nanoseconds.saturating_sub(before.busy_nanoseconds);
        (!window.is_zero()).then(|| Rate {
            at: last.at,
            window,
            nanocores: (burnt as f64 / window.as_secs_f64()) as u64,
            memory_bytes: last.memory_bytes,
        })
    }
}

/// User, nice, system, irq, softirq and steal time of all processors; in proc(5)'s hundredths of a second.
fn busy(stat: &str) -> Option<u64> {
    let fields: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map_while(|f| f.parse().ok())
        .collect();
    let ticks: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|n| fields.get(*n)).sum();
    Some(ticks * 10_000_000)
}

fn used(meminfo: &str) -> Option<u64> {
    let kib = |key: &str| {
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(kib("MemTotal")?.saturating_sub(kib("MemAvailable")?) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_leaves_out_idling_and_waiting() {
        assert_eq!(busy("cpu  10 1 5 1000 50 2 3 4 0 0\ncpu0 …"), Some(25 * 10_000_000));
        assert_eq!(busy("intr 1"), None);
    }

    #[test]
    fn memory_in_use_is_what_is_not_available() {
        assert_eq!(
            used("MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    400 kB\n"),
            Some(600 * 1024)
        );
    }
}
