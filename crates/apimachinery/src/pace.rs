//! How fast lab time runs: the divisor behind `--speed N`.
//!
//! Divides HPA sync, stabilization windows, policy periods, HPA start-up delays, the metrics window and crash and pull
//! back-off. Never what a Pod spec says (probes, grace periods, deadlines), leases, tokens or timestamps.

use std::time::Duration;

/// A divisor from 1 (Kubernetes' own constants) to 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace(u32);

impl Pace {
    /// Kubernetes' own constants.
    pub const REAL: Self = Self(1);

    /// `None` outside 1..=10.
    pub fn new(speed: u32) -> Option<Self> {
        (1..=10).contains(&speed).then_some(Self(speed))
    }

    /// The divisor.
    pub fn speed(self) -> u32 {
        self.0
    }

    /// A Kubernetes duration in lab time.
    pub fn scale(self, real: Duration) -> Duration {
        real / self.0
    }

    /// A Kubernetes duration in lab time, but never shorter than `floor`.
    pub fn scale_at_least(self, real: Duration, floor: Duration) -> Duration {
        self.scale(real).max(floor)
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::REAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_ten_turns_fifteen_seconds_into_one_and_a_half() {
        let pace = Pace::new(10).unwrap();
        assert_eq!(pace.scale(Duration::from_secs(15)), Duration::from_millis(1500));
        assert_eq!(
            pace.scale_at_least(Duration::from_secs(5), Duration::from_secs(1)),
            Duration::from_secs(1)
        );
        assert!(Pace::new(0).is_none() && Pace::new(11).is_none());
    }
}
