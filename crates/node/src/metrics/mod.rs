//! Resource metrics: samples what containers and the machine use, and serves it as `metrics.k8s.io/v1beta1`.
//!
//! Owns sampling times, rates and the API. Which containers run, and how their counters are read, it is told by
//! [`Containers`]. Must not know Pods' lifecycle.
//!
//! A difference to upstream's metrics-server, for a quick start: a container is sampled every second in its first 15
//! seconds, then every 15 seconds of lab time (never more often than every second).

mod api;
mod machine;
mod window;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use apimachinery::clock::Clock;
use apimachinery::pace::Pace;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::runtime::{ContainerId, Usage};
use machine::Machine;
use window::Window;

/// Time between two samples of a container that is not young any more.
const RESOLUTION: Duration = Duration::from_secs(15);
/// Time between two samples of a young container, and the shortest of all.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long a container is young.
const YOUTH: Duration = Duration::from_secs(15);

/// A container that runs.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    /// The pod's labels.
    pub(crate) labels: Arc<BTreeMap<String, String>>,
    pub(crate) id: ContainerId,
    /// When its counters were zero.
    pub(crate) started_at: Timestamp,
}

/// The kubelet, as far as metrics are concerned.
pub(crate) trait Containers: Send + Sync + 'static {
    /// Every running container of every pod.
    fn running(&self) -> Vec<Running>;
    /// Rings when that changes.
    fn changed(&self) -> watch::Receiver<u64>;
    /// Its counters since its start; `None` when it has ended meanwhile.
    fn usage(&self, id: &ContainerId) -> Option<Usage>;
    /// Whether there is such a pod, running or not.
    fn pod_exists(&self, namespace: &str, name: &str) -> bool;
}

/// Samples, and the API over them.
pub(crate) struct Metrics {
    node: String,
    containers: Arc<dyn Containers>,
    clock: Arc<dyn Clock>,
    resolution: Duration,
    windows: Mutex<HashMap<ContainerId, Window>>,
    machine: Mutex<Machine>,
}

impl Metrics {
    pub(crate) fn new(node: &str, containers: Arc<dyn Containers>, clock: Arc<dyn Clock>, pace: Pace) -> Self {
        Self {
            node: node.to_owned(),
            containers,
            clock,
            resolution: pace.scale_at_least(RESOLUTION, SHORTEST),
            windows: Mutex::default(),
            machine: Mutex::default(),
        }
    }

    /// Takes samples for ever, each container's when it is due.
    pub(crate) async fn run(&self) {
        let mut changed = self.containers.changed();
        loop {
            changed.mark_unchanged();
            let next = self.sample_what_is_due();
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                rung = changed.changed() => if rung.is_err() { return },
            }
        }
    }

    /// Samples and answers how long nothing more is due.
    fn sample_what_is_due(&self) -> Duration {
        let now = self.clock.now();
        // The clock and tokio's timer may differ by a hair: never spin.
        self.sample_machine(now)
            .min(self.sample_containers(now))
            .max(Duration::from_millis(5))
    }

    fn sample_containers(&self, now: Timestamp) -> Duration {
        let running = self.containers.running();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.retain(|id, _| running.iter().any(|container| container.id == *id));
        let mut next = self.resolution;
        for container in running {
            let window = windows
                .entry(container.id.clone())
                .or_insert_with(|| Window::since(container.started_at));
            if window.is_due(now, self.resolution)
                && let Some(usage) = self.containers.usage(&container.id)
            {
                window.add(now, usage);
            }
            next = next.min(window.due_in(now, self.resolution));
        }
        next
    }

    fn sample_machine(&self, now: Timestamp) -> Duration {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        machine.sample_if_due(now, self.resolution)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::clock::ManualClock;
    use jiff::SignedDuration;

    struct OneBurner {
        running: Mutex<Vec<Running>>,
        bell: watch::Sender<u64>,
        cpu: Mutex<u64>,
    }

    impl Containers for OneBurner {
        fn running(&self) -> Vec<Running> {
            self.running.lock().unwrap().clone()
        }

        fn changed(&self) -> watch::Receiver<u64> {
            self.bell.subscribe()
        }

        fn usage(&self, _: &ContainerId) -> Option<Usage> {
            Some(Usage {
                cpu_nanoseconds: *self.cpu.lock().unwrap(),
                working_set_bytes: 10 << 20,
                ..Usage::default()
            })
        }

        fn pod_exists(&self, _: &str, name: &str) -> bool {
            name == "burner"
        }
    }

    #[test]
    fn a_young_container_is_sampled_every_second_and_an_old_one_at_the_resolution() {
        let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let clock = ManualClock::at(start);
        let burner = Arc::new(OneBurner {
            running: Mutex::new(vec![Running {
                namespace: "lab".into(),
                pod: "burner".into(),
                labels: Arc::default(),
                id: ContainerId::new("u", "main", 0),
                started_at: start,
            }]),
            bell: watch::Sender::new(0),
            cpu: Mutex::new(0),
        });
        let metrics = Metrics::new("node", burner.clone(), Arc::new(clock.clone()), Pace::REAL);
        assert_eq!(metrics.sample_containers(clock.now()), Duration::from_secs(1));
        for _ in 0..15 {
            clock.advance(SignedDuration::from_secs(1));
            *burner.cpu.lock().unwrap() += 200_000_000;
            metrics.sample_what_is_due();
        }
        clock.advance(SignedDuration::from_secs(1));
        assert_eq!(metrics.sample_containers(clock.now()), Duration::from_secs(14));
        let rate = metrics.windows.lock().unwrap()[&ContainerId::new("u", "main", 0)]
            .rate()
            .unwrap();
        assert_eq!((rate.nanocores, rate.window), (200_000_000, Duration::from_secs(1)));

        burner.running.lock().unwrap().clear();
        metrics.sample_what_is_due();
        assert!(
            metrics.windows.lock().unwrap().is_empty(),
            "a container that is gone is forgotten"
        );
    }
}
