//! How the daemon's allocator is set up, so that an idle cluster is a small process.
//!
//! glibc keeps what is freed: an arena a thread, and in it everything below the highest block still in use. A cluster's
//! start and every burst of requests leave that at several times of what is needed (25 MB kept for 7 MB used).

use std::time::Duration;

/// Between two rounds. A round costs about a millisecond and gives back what the requests since the last one left.
const EVERY: Duration = Duration::from_secs(60);
/// The first comes early: most garbage is that of the start.
const FIRST: Duration = Duration::from_secs(5);

/// Two arenas, and a heap's free end returned at once. Must be called while the process has one thread.
pub(crate) fn bound() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the allocator's settings have no wrapper")]
    // SAFETY: numbers only, and nobody else allocates now.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
    }
}

/// Returns free memory to the system from time to time, for as long as it is polled.
pub(crate) async fn give_back() -> std::convert::Infallible {
    let mut next = FIRST;
    loop {
        tokio::time::sleep(next).await;
        next = EVERY;
        #[cfg(target_env = "gnu")]
        #[expect(unsafe_code, reason = "the allocator's trim has no wrapper")]
        // SAFETY: takes the allocator's own locks.
        tokio::task::spawn_blocking(|| unsafe { libc::malloc_trim(0) })
            .await
            .ok();
    }
}
