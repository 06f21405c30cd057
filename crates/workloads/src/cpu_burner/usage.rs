//! What the container uses: from its cgroup where the container can see it, else of this process, which is all that
//! runs in it.
//!
//! Owns the file formats of cgroup v1 and v2. Must not know what is done with the figures.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::clock;

/// No container has that much memory: the value of `memory.limit_in_bytes` for "no limit" is above it.
const UNLIMITED: u64 = 1 << 60;

/// Where figures come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The one directory of cgroup v2.
    V2(PathBuf),
    /// The directories of `cpuacct` and `memory` of cgroup v1.
    V1 { cpuacct: PathBuf, memory: PathBuf },
    /// This process.
    Process,
}

/// Figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time since the start.
    pub(super) cpu: Duration,
    /// Memory in bytes, file caches that can be dropped not counted.
    pub(super) memory: u64,
}

impl Source {
    /// Finds the container's own cgroup below `/sys/fs/cgroup`. The host's, which shows when there is no cgroup
    /// namespace, has no memory limit and is not taken.
    pub(super) fn find() -> Self {
        Self::below(Path::new("/sys/fs/cgroup"))
    }

    fn below(root: &Path) -> Self {
        // The root of a host's v2 tree has neither file; that of a container without a memory limit says `max`.
        if root.join("cpu.stat").is_file() && number(&root.join("memory.max")).is_some() {
            return Self::V2(root.to_owned());
        }
        let cpuacct = ["cpuacct", "cpu,cpuacct"].map(|controller| root.join(controller));
        let cpuacct = cpuacct.into_iter().find(|dir| dir.join("cpuacct.usage").is_file());
        let memory = root.join("memory");
        let limited = number(&memory.join("memory.limit_in_bytes")).is_some_and(|limit| limit < UNLIMITED);
        match cpuacct {
            Some(cpuacct) if limited => Self::V1 { cpuacct, memory },
            _ => Self::Process,
        }
    }

    /// The figures of now; those that cannot be read are 0.
    pub(super) fn read(&self) -> Usage {
        match self {
            Self::V2(dir) => Usage {
                cpu: Duration::from_micros(keyed(&dir.join("cpu.stat"), "usage_usec").unwrap_or(0)),
                memory: working_set(&dir.join("memory.current"), &dir.join("memory.stat"), "inactive_file"),
            },
            Self::V1 { cpuacct, memory } => Usage {
                cpu: Duration::from_nanos(number(&cpuacct.join("cpuacct.usage")).unwrap_or(0)),
                memory: working_set(
                    &memory.join("memory.usage_in_bytes"),
                    &memory.join("memory.stat"),
                    "total_inactive_file",
                ),
            },
            Self::Process => Usage {
                cpu: clock::process_cpu(),
                memory: resident_bytes(),
            },
        }
    }
}

fn working_set(usage: &Path, stat: &Path, inactive: &str) -> u64 {
    number(usage)
        .unwrap_or(0)
        .saturating_sub(keyed(stat, inactive).unwrap_or(0))
}

/// Resident memory of this process that is its own; 0 where /proc is not mounted. The program's file is not counted: its
/// pages are shared by all containers that run it, can be dropped, and are charged to whoever read them first.
pub(super) fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes: u64 = status
        .lines()
        .filter_map(|line| line.strip_prefix("RssAnon:").or_else(|| line.strip_prefix("RssShmem:")))
        .filter_map(|value| value.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .sum();
    kibibytes * 1024
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn keyed(file: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_container_on_cgroup_v2_is_read_from_its_own_group() {
        let root = tree(&[
            ("cpu.stat", "usage_usec 2500000\nuser_usec 2000000\n"),
            ("memory.max", "134217728\n"),
            ("memory.current", "50000000\n"),
            ("memory.stat", "anon 30000000\ninactive_file 8000000\n"),
        ]);
        let source = Source::below(root.path());
        assert_eq!(source, Source::V2(root.path().to_owned()));
        assert_eq!(
            source.read(),
            Usage {
                cpu: Duration::from_millis(2500),
                memory: 42_000_000
            }
        );
    }

    #[test]
    fn a_container_on_cgroup_v1_is_read_from_two_controllers() {
        let root = tree(&[
            ("cpu,cpuacct/cpuacct.usage", "2500000000\n"),
            ("memory/memory.limit_in_bytes", "134217728\n"),
            ("memory/memory.usage_in_bytes", "50000000\n"),
            ("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 8000000\n"),
        ]);
        let source = Source::below(root.path());
        assert_eq!(
            source.read(),
            Usage {
                cpu: Duration::from_millis(2500),
                memory: 42_000_000
            }
        );
    }

    #[test]
    fn the_hosts_groups_are_not_the_containers() {
        let v2 = tree(&[("cpu.stat", "usage_usec 1\n")]);
        let v1 = tree(&[
            ("cpuacct/cpuacct.usage", "1\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let none = tree(&[]);
        for root in [v2, v1, none] {
            assert_eq!(Source::below(root.path()), Source::Process);
        }
    }

    #[test]
    fn a_process_knows_its_own_figures() {
        let usage = Source::Process.read();
        assert!(usage.memory > 100_000 && usage.cpu > Duration::ZERO, "{usage:?}");
    }
}
