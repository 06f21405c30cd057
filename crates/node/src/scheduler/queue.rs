//! Pods that wait for a node, and when each is tried (again).
//!
//! Pure: `now` is a parameter. Constants from `pkg/scheduler/backend/queue` (kubernetes 1.36).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A pod that nothing has moved is tried again after this long.
const FLUSH: Duration = Duration::from_secs(300);

struct Waiting {
    pod: Arc<Pod>,
    attempts: u32,
    arrival: u64,
    /// Not tried before.
    not_before: Instant,
    /// The earliest time after something changed that might help it.
    backoff_until: Instant,
    /// Taken out, being bound.
    binding: bool,
}

/// The scheduling queue.
#[derive(Default)]
pub(super) struct Queue {
    pods: HashMap<String, Waiting>,
    arrivals: u64,
}

impl Queue {
    /// A pod that needs a node has appeared, or its object changed: a changed one is tried once its back-off is over.
    pub(super) fn put(&mut self, uid: &str, pod: Arc<Pod>, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            let same_wish = waiting.pod.spec == pod.spec && waiting.pod.metadata.labels == pod.metadata.labels;
            waiting.pod = pod;
            if !same_wish {
                waiting.not_before = waiting.backoff_until;
            }
            return;
        }
        self.arrivals += 1;
        let waiting = Waiting {
            pod,
            attempts: 0,
            arrival: self.arrivals,
            not_before: now,
            backoff_until: now,
            binding: false,
        };
        self.pods.insert(uid.to_owned(), waiting);
    }

    /// The pod is bound or gone.
    pub(super) fn remove(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    /// Whether a pod waits or is being bound.
    pub(super) fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The next pod to try: highest priority first, then first come.
    pub(super) fn take(&mut self, now: Instant) -> Option<(String, Arc<Pod>)> {
        let due = self
            .pods
            .iter()
            .filter(|(_, waiting)| !waiting.binding && waiting.not_before <= now);
        let order = |(_, waiting): &(&String, &Waiting)| {
            let priority = waiting.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
            (std::cmp::Reverse(priority), waiting.arrival)
        };
        let uid = due.min_by_key(order)?.0.clone();
        let waiting = self.pods.get_mut(&uid)?;
        waiting.binding = true;
        waiting.attempts += 1;
        Some((uid, waiting.pod.clone()))
    }

    /// No node took it: it waits for a change, at least for its back-off.
    pub(super) fn refused(&mut self, uid: &str, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.binding = false;
            waiting.backoff_until = now + backoff(waiting.attempts);
            waiting.not_before = now + FLUSH;
        }
    }

    /// Something went wrong on the way: tried again after the back-off.
    pub(super) fn failed(&mut self, uid: &str, now: Instant) {
        self.refused(uid, now);
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.not_before = waiting.backoff_until;
        }
    }

    /// Something changed that may help: a node, or room on one.
    pub(super) fn move_all(&mut self) {
        for waiting in self.pods.values_mut() {
            waiting.not_before = waiting.not_before.min(waiting.backoff_until);
        }
    }

    /// When [`take`](Self::take) will have something.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.pods
            .values()
            .filter(|waiting| !waiting.binding)
            .map(|waiting| waiting.not_before)
            .min()
    }
}

fn backoff(attempts: u32) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(10));
    doubled.min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(priority: i32) -> Arc<Pod> {
        let pod = serde_json::json!({"spec": {"containers": [], "priority": priority}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[tokio::test]
    async fn the_more_important_pod_goes_first_and_equals_in_order() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (uid, priority) in [("a", 0), ("b", 0), ("c", 5)] {
            queue.put(uid, pod(priority), now);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.take(now)).map(|(uid, _)| uid).collect();
        assert_eq!(order, ["c", "a", "b"]);
    }

    #[tokio::test]
    async fn a_refused_pod_is_tried_when_something_changed_but_not_before_its_backoff() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        queue.put("a", pod(0), start);
        queue.take(start).unwrap();
        queue.refused("a", start);
        assert!(queue.take(after(299)).is_none());
        queue.move_all();
        assert_eq!(queue.next_due(), Some(after(1)));
        assert!(queue.take(start).is_none());
        assert!(queue.take(after(1)).is_some());
        queue.refused("a", after(1));
        queue.move_all();
        assert_eq!(queue.next_due(), Some(after(3)));
    }

    #[test]
    fn backoff_doubles_from_one_to_ten_seconds() {
        assert_eq!(
            [1, 2, 3, 4, 5, 60].map(|attempts| backoff(attempts).as_secs()),
            [1, 2, 4, 8, 10, 10]
        );
    }
}
