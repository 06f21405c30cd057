//! Burns CPU and holds memory to a target that may change at any moment.
//!
//! Owns the threads and the blocks. CPU is paid out of a `Budget` by the thread's own CPU clock, so that a full target
//! uses a limit fully and never more, with or without a cgroup that enforces it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use memmap2::MmapMut;

use super::budget::{Budget, Next};
use super::clock;
use super::usage::resident_bytes;

/// Memory is taken and given back in blocks, so that a change is seen within a second and can be interrupted.
const BLOCK: usize = 1 << 20;
/// Never more than this share of the limit, the program itself included: the lesson is scaling, not the OOM killer.
const SAFE_SHARE: f64 = 0.9;

/// What the container may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) millicores: u32,
    pub(super) memory: u64,
}

impl Limits {
    /// From `CPU_LIMIT` (millicores) and `MEMORY_LIMIT` (bytes); one core and 128 MiB where they are not set.
    pub(super) fn from_environment() -> Result<Self, String> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a container's configuration is its environment"
        )]
        let read = |name| std::env::var(name).ok();
        Self::parse(read("CPU_LIMIT").as_deref(), read("MEMORY_LIMIT").as_deref())
    }

    fn parse(cpu: Option<&str>, memory: Option<&str>) -> Result<Self, String> {
        let positive = |name: &str, unit: &str, text: &str| {
            let number = text.parse().ok().filter(|number: &u64| *number > 0);
            number.ok_or_else(|| format!("{name}: expected a number of {unit}, got `{text}`"))
        };
        let millicores = cpu.map_or(Ok(1000), |text| positive("CPU_LIMIT", "millicores", text))?;
        let memory = memory.map_or(Ok(128 << 20), |text| positive("MEMORY_LIMIT", "bytes", text))?;
        Ok(Self {
            millicores: u32::try_from(millicores).unwrap_or(u32::MAX),
            memory,
        })
    }
}

/// Running burners and the memory keeper.
pub(super) struct Load {
    limits: Limits,
    target: Arc<Target>,
}

#[derive(Default)]
struct Target {
    /// Nanoseconds of CPU a second, for each thread.
    rate: AtomicU64,
    memory: Mutex<usize>,
    memory_changed: Condvar,
}

impl Load {
    /// Starts quiet: 1 % of the CPU limit, as the original program did, and no memory.
    pub(super) fn start(limits: Limits) -> Self {
        let load = Self {
            limits,
            target: Arc::default(),
        };
        load.set(1, 0.0);
        for n in 0..load.threads() {
            let target = load.target.clone();
            spawn(&format!("burn-{n}"), move || burn(&target.rate));
        }
        let target = load.target.clone();
        spawn("memory", move || hold(&target));
        load
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// One thread a core of the limit: a thread cannot burn more than one core.
    fn threads(&self) -> u32 {
        self.limits.millicores.div_ceil(1000)
    }

    /// From now on `percent` of the CPU limit and `share` percent of the memory limit, which is cut to a safe share;
    /// the bytes that this comes to.
    pub(super) fn set(&self, percent: u32, share: f64) -> usize {
        let millicores = f64::from(self.limits.millicores) * f64::from(percent) / 100.0;
        let nanoseconds = millicores * 1e6 / f64::from(self.threads());
        self.target.rate.store(nanoseconds as u64, Ordering::Relaxed);
        let bytes = memory_target(self.limits.memory, share);
        *self.target.memory.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
        self.target.memory_changed.notify_all();
        bytes
    }
}

/// Bytes to be resident in all, the program included.
fn memory_target(limit: u64, share: f64) -> usize {
    (limit as f64 * (share / 100.0).min(SAFE_SHARE)) as usize
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) {
    // A container that may not have a second thread is of no use here; its log says so.
    if let Err(error) = std::thread::Builder::new()
        .name(name.into())
        .stack_size(64 * 1024)
        .spawn(body)
    {
        crate::complain(&format!("starting thread `{name}`: {error}"));
    }
}

fn burn(rate: &AtomicU64) {
    let mut budget = Budget::default();
    let (mut seen, mut paid) = (clock::monotonic(), clock::thread_cpu());
    loop {
        let (now, cpu) = (clock::monotonic(), clock::thread_cpu());
        let rate = rate.load(Ordering::Relaxed) as f64;
        let next = budget.settle(rate, now.saturating_sub(seen), cpu.saturating_sub(paid));
        (seen, paid) = (now, cpu);
        match next {
            Next::Burn => work(),
            Next::Rest(rest) => std::thread::sleep(rest),
        }
    }
}

/// Some tens of microseconds of arithmetic that the compiler cannot leave out.
fn work() {
    let mut value = 1_u64;
    for n in 0..50_000_u64 {
        value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n));
    }
}

fn hold(target: &Target) {
    let mut blocks: Vec<MmapMut> = Vec::new();
    loop {
        let wanted = *target.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let own = resident_bytes().saturating_sub((blocks.len() * BLOCK) as u64) as usize;
        let count = wanted.saturating_sub(own) / BLOCK;
        if blocks.len() > count {
            blocks.truncate(count);
        } else if blocks.len() < count {
            match take_block() {
                Ok(block) => blocks.push(block),
                Err(error) => {
                    crate::complain(&format!("holding {} MiB: {error}", blocks.len()));
                    wait_for_change(target, wanted);
                }
            }
        } else {
            wait_for_change(target, wanted);
        }
    }
}

/// A block of memory that is really there: every page is written to.
fn take_block() -> std::io::Result<MmapMut> {
    let mut block = MmapMut::map_anon(BLOCK)?;
    for page in block.chunks_mut(4096) {
        page[0] = 1;
    }
    Ok(block)
}

fn wait_for_change(target: &Target, known: usize) {
    let mut wanted = target.memory.lock().unwrap_or_else(PoisonError::into_inner);
    while *wanted == known {
        wanted = target
            .memory_changed
            .wait(wanted)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_from_the_downward_api_or_have_defaults() {
        let limits = Limits::parse(Some("200"), Some("134217728")).unwrap();
        assert_eq!(
            limits,
            Limits {
                millicores: 200,
                memory: 128 << 20
            }
        );
        assert_eq!(
            Limits::parse(None, None).unwrap(),
            Limits {
                millicores: 1000,
                memory: 128 << 20
            }
        );
        let error = Limits::parse(Some("200m"), None).unwrap_err();
        assert_eq!(error, "CPU_LIMIT: expected a number of millicores, got `200m`");
    }

    #[test]
    fn memory_never_exceeds_a_safe_share_of_the_limit() {
        assert_eq!(memory_target(100 << 20, 33.0), 33 << 20);
        assert_eq!(memory_target(100 << 20, 100.0), 90 << 20);
    }

    #[test]
    fn a_block_is_resident() {
        let before = resident_bytes();
        let _blocks: Vec<_> = (0..16).map(|_| take_block().unwrap()).collect();
        assert!(resident_bytes() >= before + 15 * BLOCK as u64);
    }
}
