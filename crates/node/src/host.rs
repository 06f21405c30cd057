//! The machine under the node: how much it has, how much of it is used.
//!
//! Owns the reading of `/proc` and `/etc` for that. Must not know Node objects or metrics.

use std::fs;

/// What the machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) cpus: usize,
    pub(crate) memory_bytes: u64,
}

/// What of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostUsage {
    /// Time that was not idle, of all processors together, since the machine was started.
    pub(crate) cpu_nanoseconds: u64,
    /// What could not be given to a new program without swapping.
    pub(crate) memory_bytes: u64,
    pub(crate) available_bytes: u64,
}

/// The machine's size. Zero memory where `/proc` does not say.
pub(crate) fn capacity() -> Capacity {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Capacity {
        cpus,
        memory_bytes: meminfo(&memory, "MemTotal").unwrap_or(0),
    }
}

/// The machine's use right now.
pub(crate) fn usage() -> Option<HostUsage> {
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    let (total, available) = (meminfo(&memory, "MemTotal")?, meminfo(&memory, "MemAvailable")?);
    let stat = fs::read_to_string("/proc/stat").ok()?;
    Some(HostUsage {
        cpu_nanoseconds: busy_ticks(&stat)?.saturating_mul(1_000_000_000 / TICKS_PER_SECOND),
        memory_bytes: total.saturating_sub(available),
        available_bytes: available,
    })
}

/// `USER_HZ`, 100 on every architecture that we run on.
const TICKS_PER_SECOND: u64 = 100;

fn meminfo(text: &str, field: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The first line of `/proc/stat`: user nice system idle iowait irq softirq steal; guest time is in user already.
fn busy_ticks(text: &str) -> Option<u64> {
    let fields = text
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map(str::parse::<u64>);
    let fields = fields.collect::<Result<Vec<_>, _>>().ok()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = fields.as_slice() else {
        return None;
    };
    Some(user + nice + system + irq + softirq + steal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_as_the_kernel_writes_it() {
        let memory = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(meminfo(memory, "MemAvailable"), Some(8 << 20));
        assert_eq!(meminfo(memory, "Mem"), None);
        assert_eq!(
            busy_ticks("cpu  10 20 30 400 50 6 7 8 0 0\ncpu0 1\n"),
            Some(10 + 20 + 30 + 6 + 7 + 8)
        );
        assert_eq!(busy_ticks(""), None);
    }
}
