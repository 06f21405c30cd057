//! The kernel's clocks: wall time that never goes back, and CPU time of a thread or of the process.

use std::time::Duration;

pub(super) fn monotonic() -> Duration {
    read(libc::CLOCK_MONOTONIC)
}

pub(super) fn thread_cpu() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

pub(super) fn process_cpu() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

#[expect(unsafe_code, reason = "no safe wrapper of the CPU-time clocks is in the tree")]
fn read(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the kernel to write to; the clocks used here always exist.
    unsafe { libc::clock_gettime(id, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
