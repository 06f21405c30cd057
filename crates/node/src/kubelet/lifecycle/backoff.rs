//! Back-off as the kubelet counts it: 10 s doubling to 300 s, forgotten after twice the longest.
//!
//! Pure. Source: client-go 0.36 `util/flowcontrol/backoff.go`; `--speed` divides both constants.

use std::time::Duration;

use apimachinery::pace::Pace;
use jiff::{SignedDuration, Timestamp};

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

/// The back-off of one thing that keeps failing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff(Option<Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    delay: SignedDuration,
    updated: Timestamp,
}

impl Backoff {
    /// What is left to wait after something failed at `event`: the delay and its end, or `None` if it may be tried.
    pub(crate) fn remaining(
        &self,
        event: Timestamp,
        now: Timestamp,
        pace: Pace,
    ) -> Option<(SignedDuration, Timestamp)> {
        let entry = self.0?;
        if expired(entry, event, pace) {
            return None;
        }
        let until = event.saturating_add(entry.delay).unwrap_or(Timestamp::MAX);
        (now < until).then_some((entry.delay, until))
    }

    /// Whether the time since the last [`next`](Self::next) is not over yet.
    pub(crate) fn holds(&self, now: Timestamp, pace: Pace) -> bool {
        self.0
            .is_some_and(|entry| !expired(entry, now, pace) && now.duration_since(entry.updated) < entry.delay)
    }

    /// It is tried (again) now, after a failure at `event`.
    pub(crate) fn next(&mut self, event: Timestamp, now: Timestamp, pace: Pace) {
        let first = signed(pace.scale(FIRST));
        let delay = match self.0 {
            Some(entry) if !expired(entry, event, pace) => (entry.delay * 2).min(signed(pace.scale(LONGEST))),
            _ => first,
        };
        self.0 = Some(Entry { delay, updated: now });
    }
}

fn expired(entry: Entry, event: Timestamp, pace: Pace) -> bool {
    event.duration_since(entry.updated) > signed(pace.scale(LONGEST)) * 2
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn ten_twenty_forty_up_to_five_minutes() {
        let (mut backoff, mut delays) = (Backoff::default(), vec![]);
        let mut now = 0;
        assert_eq!(backoff.remaining(at(0), at(0), Pace::REAL), None);
        for _ in 0..7 {
            backoff.next(at(now), at(now), Pace::REAL);
            let (delay, until) = backoff.remaining(at(now), at(now), Pace::REAL).unwrap();
            delays.push(delay.as_secs());
            now = until.as_second() - at(0).as_second();
            assert_eq!(backoff.remaining(at(now - delay.as_secs()), at(now), Pace::REAL), None);
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_quiet_minutes_forgive_everything() {
        let mut backoff = Backoff::default();
        for _ in 0..4 {
            backoff.next(at(0), at(0), Pace::REAL);
        }
        assert_eq!(backoff.remaining(at(601), at(601), Pace::REAL), None);
        backoff.next(at(601), at(601), Pace::REAL);
        assert_eq!(backoff.remaining(at(601), at(601), Pace::REAL).unwrap().0.as_secs(), 10);
    }

    #[test]
    fn speed_ten_starts_at_one_second() {
        let (mut backoff, pace) = (Backoff::default(), Pace::new(10).unwrap());
        backoff.next(at(0), at(0), pace);
        assert_eq!(backoff.remaining(at(0), at(0), pace).unwrap().0.as_secs(), 1);
    }
}
