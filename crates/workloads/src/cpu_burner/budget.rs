//! When to burn and when to rest, so that a thread's CPU time follows a rate.
//!
//! Pure: it is told what time went by and what was spent. A thread earns `rate` and pays for everything its CPU clock
//! shows, waking up included; it burns while it has something left. At the full rate of a limit it always has, so the
//! limit's quota is used up and no more is asked for than that.

use std::time::Duration;

/// The shortest rest: a few wakings a hundred milliseconds, the CFS period, so that every period gets its share.
const SHORTEST_REST: Duration = Duration::from_millis(5);
/// The longest rest: a new rate is noticed within it.
const LONGEST_REST: Duration = Duration::from_millis(50);
/// Credit and debt of more than this at the present rate are forgotten: a thread that was throttled, or burnt at a
/// higher rate before, must not make up for it for minutes.
const MEMORY: f64 = 0.2;

/// What a thread has earned and not yet burnt.
#[derive(Debug, Default)]
pub(super) struct Budget {
    nanoseconds: f64,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A bit of work.
    Burn,
    /// Nothing for so long.
    Rest(Duration),
}

impl Budget {
    /// After `elapsed`, of which the thread had the CPU for `spent`, at `rate` nanoseconds of CPU a second.
    pub(super) fn settle(&mut self, rate: f64, elapsed: Duration, spent: Duration) -> Next {
        let balance = self.nanoseconds + rate * elapsed.as_secs_f64() - spent.as_nanos() as f64;
        self.nanoseconds = balance.clamp(-rate * MEMORY, rate * MEMORY);
        if self.nanoseconds > 0.0 {
            return Next::Burn;
        }
        let until_even = Duration::try_from_secs_f64(-self.nanoseconds / rate).unwrap_or(LONGEST_REST);
        Next::Rest(until_even.clamp(SHORTEST_REST, LONGEST_REST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: Duration = Duration::from_micros(250);
    /// What going to sleep and waking up cost.
    const WAKING: Duration = Duration::from_micros(10);

    /// The share of a core that a thread uses in `seconds` at `rate`; with a `quota` for each 100 ms it is throttled.
    fn share(rate: f64, quota: Option<Duration>, seconds: u64) -> f64 {
        let period = Duration::from_millis(100);
        let (mut now, mut total, mut in_period) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let (mut elapsed, mut spent) = (Duration::ZERO, Duration::ZERO);
        let mut budget = Budget::default();
        while now < Duration::from_secs(seconds) {
            let before = now;
            spent = match budget.settle(rate * 1e9, elapsed, spent) {
                Next::Burn => CHUNK,
                Next::Rest(rest) => {
                    now += rest;
                    WAKING
                }
            };
            if before.as_millis() / 100 != now.as_millis() / 100 {
                in_period = Duration::ZERO;
            }
            in_period += spent;
            now += spent;
            if quota.is_some_and(|quota| in_period >= quota) {
                let next = now.as_millis() / 100 + 1;
                now = period * u32::try_from(next).unwrap();
                in_period = Duration::ZERO;
            }
            total += spent;
            elapsed = now - before;
        }
        total.as_secs_f64() / now.as_secs_f64()
    }

    #[test]
    fn a_thread_uses_its_rate() {
        for rate in [0.01, 0.02, 0.1, 0.2, 0.5, 0.9] {
            let got = share(rate, None, 60);
            assert!((got / rate - 1.0).abs() < 0.02, "expected {rate}, got {got}");
        }
        assert!(share(1.0, None, 60) > 0.99);
    }

    #[test]
    fn at_the_full_rate_the_quota_is_used_up() {
        let got = share(0.2, Some(Duration::from_millis(20)), 60);
        assert!((got / 0.2 - 1.0).abs() < 0.02, "got {got}");
    }

    #[test]
    fn a_rate_below_what_waking_costs_ends_in_long_rests_and_not_in_debt() {
        let mut budget = Budget::default();
        for _ in 0..1000 {
            let next = budget.settle(1e3, LONGEST_REST, WAKING);
            assert_eq!(next, Next::Rest(LONGEST_REST));
        }
        // A higher rate takes over at once.
        assert_eq!(budget.settle(0.2e9, LONGEST_REST, WAKING), Next::Burn);
    }

    #[test]
    fn a_thread_that_was_stopped_for_a_minute_does_not_make_up_for_it() {
        let mut budget = Budget::default();
        budget.settle(0.1e9, Duration::from_secs(60), Duration::ZERO);
        let mut burnt = Duration::ZERO;
        while budget.settle(0.1e9, CHUNK, CHUNK) == Next::Burn {
            burnt += CHUNK;
        }
        assert!(burnt < Duration::from_millis(25), "{burnt:?}");
    }
}
