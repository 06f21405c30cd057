//! What containers use: from their cgroup, or from `/proc` where there is none.

use std::fs;

use crate::cgroup::Cgroup;
use crate::runtime::Usage;

/// The figures of a cgroup. The working set is the kubelet's: usage without inactive file cache.
pub(crate) fn of_cgroup(group: &Cgroup) -> Usage {
    if group.is_v2() {
        let current = group.number("memory", "memory.current");
        return Usage {
            cpu_nanoseconds: group.key("cpu", "cpu.stat", "usage_usec") * 1000,
            working_set_bytes: current.saturating_sub(group.key("memory", "memory.stat", "inactive_file")),
            rss_bytes: group.key("memory", "memory.stat", "anon"),
            throttled_periods: group.key("cpu", "cpu.stat", "nr_throttled"),
        };
    }
    let usage = group.number("memory", "memory.usage_in_bytes");
    Usage {
        cpu_nanoseconds: group.number("cpuacct", "cpuacct.usage"),
        working_set_bytes: usage.saturating_sub(group.key("memory", "memory.stat", "total_inactive_file")),
        rss_bytes: group.key("memory", "memory.stat", "total_rss"),
        throttled_periods: group.key("cpu", "cpu.stat", "nr_throttled"),
    }
}

/// The figures of every process in the pid namespace of `init`, a container's first process. CPU time of processes
/// that have ended counts where their parent has waited for them.
pub(crate) fn of_processes(init: i32) -> Option<Usage> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(&init.to_string())?;
    let tick = ticks_per_second();
    let mut usage = Usage::default();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name
            .to_str()
            .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
        else {
            continue;
        };
        if namespace(pid).as_ref() != Some(&wanted) {
            continue;
        }
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        usage.cpu_nanoseconds += cpu_ticks(&stat) * (1_000_000_000 / tick);
        let memory = fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
        // Shared pages count in part: several processes of one binary are not several binaries.
        let field = |name: &str| kibibytes(&memory, name) * 1024;
        usage.rss_bytes += field("Pss_Anon:");
        usage.working_set_bytes += field("Pss_Anon:") + field("Pss_Shmem:");
    }
    Some(usage)
}

/// utime, stime, cutime, cstime: fields 14 to 17 of `/proc/<pid>/stat`.
fn cpu_ticks(stat: &str) -> u64 {
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    fields
        .skip(11)
        .take(4)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum()
}

fn kibibytes(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn ticks_per_second() -> u64 {
    let tick = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    tick.and_then(|tick| u64::try_from(tick).ok())
        .filter(|tick| *tick > 0)
        .unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 11 22 33 44 20 0 1 0 100 1000 10";
        assert_eq!(cpu_ticks(stat), 11 + 22 + 33 + 44);
    }
}
