//! Measured times and how they are printed.

use std::path::Path;
use std::time::Duration;

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The median and the 99th of a hundred, in milliseconds.
pub(crate) fn quantiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    (ms(at(50)), ms(at(99)))
}

/// A file beside the store, to learn what this disk takes for one commit at the least.
pub(crate) struct Disk(std::fs::File);

impl Disk {
    pub(crate) fn beside(directory: &Path) -> Self {
        Self(std::fs::File::create(directory.join("fsync")).unwrap())
    }

    /// Appends 2 kB and waits until they are on the disk.
    pub(crate) fn commit(&self) -> Duration {
        use std::io::Write;
        let start = now();
        (&self.0).write_all(&[0; 2 << 10]).unwrap();
        self.0.sync_data().unwrap();
        start.elapsed()
    }
}
