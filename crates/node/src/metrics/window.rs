//! Two samples of a counter and the rate between them. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::{SHORTEST, YOUTH};
use crate::runtime::Usage;

/// The last two samples of one container. Its start is the first: all counters were zero then.
#[derive(Clone, Debug)]
pub(super) struct Window {
    started_at: Timestamp,
    before: (Timestamp, u64),
    last: Option<(Timestamp, Usage)>,
}

/// What was used over a window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// The end of the window.
    pub(super) at: Timestamp,
    pub(super) window: Duration,
    /// CPU, in billionths of a core.
    pub(super) nanocores: u64,
    /// Working set at the end of the window.
    pub(super) memory_bytes: u64,
}

impl Window {
    pub(super) fn since(started_at: Timestamp) -> Self {
        Self {
            started_at,
            before: (started_at, 0),
            last: None,
        }
    }

    /// How long until the next sample is due; zero when it is.
    pub(super) fn due_in(&self, now: Timestamp, resolution: Duration) -> Duration {
        let (latest, _) = self.latest();
        let interval = if between(self.started_at, latest) < YOUTH {
            SHORTEST
        } else {
            resolution
        };
        interval.saturating_sub(between(latest, now))
    }

    pub(super) fn is_due(&self, now: Timestamp, resolution: Duration) -> bool {
        self.due_in(now, resolution).is_zero()
    }

    pub(super) fn add(&mut self, now: Timestamp, usage: Usage) {
        if let Some((at, last)) = self.last {
            self.before = (at, last.cpu_nanoseconds);
        } else if between(self.started_at, now) > YOUTH {
            // Adopted from an earlier daemon: an average over its whole life would say nothing about now.
            self.before = (now, usage.cpu_nanoseconds);
        }
        self.last = Some((now, usage));
    }

    /// `None` until there are two samples.
    pub(super) fn rate(&self) -> Option<Rate> {
        let (at, usage) = self.last?;
        let window = between(self.before.0, at);
        let seconds = window.as_secs_f64();
        // A container's counters can only grow; a smaller one means another container, and no rate.
        let burnt = usage.cpu_nanoseconds.checked_sub(self.before.1)?;
        (seconds > 0.0).then(|| Rate {
            at,
            window,
            nanocores: (burnt as f64 / seconds) as u64,
            memory_bytes: usage.working_set_bytes,
        })
    }

    fn latest(&self) -> (Timestamp, u64) {
        self.last.map_or(self.before, |(at, usage)| (at, usage.cpu_nanoseconds))
    }
}

/// Zero where the clock went backwards.
pub(super) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_millis(1_000_000_000 + milliseconds)
    }

    fn cpu(milliseconds: u64) -> Usage {
        Usage {
            cpu_nanoseconds: milliseconds * 1_000_000,
            working_set_bytes: 7,
            ..Usage::default()
        }
    }

    #[test]
    fn the_first_rate_is_the_average_since_the_start() {
        let mut window = Window::since(at(0));
        assert_eq!(window.rate(), None);
        window.add(at(1000), cpu(100));
        let expected = Rate {
            at: at(1000),
            window: Duration::from_secs(1),
            nanocores: 100_000_000,
            memory_bytes: 7,
        };
        assert_eq!(window.rate(), Some(expected));
        window.add(at(2000), cpu(300));
        assert_eq!(window.rate().map(|rate| rate.nanocores), Some(200_000_000));
    }

    #[test]
    fn an_adopted_container_has_no_rate_before_its_second_sample() {
        let mut window = Window::since(at(0));
        window.add(at(3_600_000), cpu(5000));
        assert_eq!(window.rate(), None);
        window.add(at(3_601_000), cpu(5200));
        assert_eq!(window.rate().map(|rate| rate.nanocores), Some(200_000_000));
    }

    #[test]
    fn a_clock_that_goes_backwards_gives_no_rate() {
        let mut window = Window::since(at(0));
        window.add(at(1000), cpu(100));
        window.add(at(500), cpu(200));
        assert_eq!(window.rate(), None);
    }
}
