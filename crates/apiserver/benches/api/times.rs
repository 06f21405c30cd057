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

/// The median of appending 2 kB to a file and waiting until they are on the disk: what one commit costs at least.
pub(crate) fn fsync(directory: &Path) -> f64 {
    use std::io::Write;
    let mut file = std::fs::File::create(directory.join("fsync")).unwrap();
    let block = [0; 2 << 10];
    let times = (0..300).map(|_| {
        let start = now();
        file.write_all(&block).unwrap();
        file.sync_data().unwrap();
        start.elapsed()
    });
    quantiles(times.collect()).0
}
