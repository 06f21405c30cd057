//! A queue of keys to reconcile, with client-go's semantics: a key is processed by one worker at a time, what arrives
//! meanwhile is processed once more afterwards, and failures back off per key.
//!
//! Owns order, duplicates, delays and back-off. Must not know what a key means or who works on it. It waits on tokio's
//! time, so a test can pause it. (client-go `util/workqueue`: `queue.go`, `delaying_queue.go`,
//! `default_rate_limiters.go`.)

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// First pause after a failure (client-go's default controller rate limiter).
const BASE_DELAY: Duration = Duration::from_millis(5);
/// Longest pause after failures.
const MAX_DELAY: Duration = Duration::from_secs(1000);

/// Keys that want work.
pub(crate) struct WorkQueue<K> {
    state: Mutex<State<K>>,
    /// Woken when there may be something new for [`WorkQueue::get`].
    wake: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// In `ready`, or to be put there when the worker that has it is done.
    dirty: HashSet<K>,
    processing: HashSet<K>,
    /// Sorted by when; the number keeps the order of equal instants.
    waiting: BTreeMap<(Instant, u64), K>,
    waiting_since: HashMap<K, (Instant, u64)>,
    sequence: u64,
    failures: HashMap<K, u32>,
}

impl<K> Default for State<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            waiting: BTreeMap::new(),
            waiting_since: HashMap::new(),
            sequence: 0,
            failures: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K) {
        if !self.dirty.insert(key.clone()) {
            return;
        }
        if !self.processing.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn release_due(&mut self, now: Instant) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.waiting_since.remove(&key);
            self.add(key);
        }
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::default()),
            wake: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants `key` processed as soon as a worker is free.
    pub(crate) fn add(&self, key: K) {
        self.state().add(key);
        self.wake.notify_one();
    }

    /// Wants `key` processed in `delay`. A key that already waits keeps the earlier of the two instants.
    pub(crate) fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        {
            let state = &mut *self.state();
            if let Some(&since) = state.waiting_since.get(&key) {
                if since.0 <= at {
                    return;
                }
                state.waiting.remove(&since);
            }
            state.sequence += 1;
            let slot = (at, state.sequence);
            state.waiting_since.insert(key.clone(), slot);
            state.waiting.insert(slot, key);
        }
        self.wake.notify_one();
    }

    /// Wants `key` processed after a pause that doubles with each call until [`WorkQueue::forget`].
    pub(crate) fn add_rate_limited(&self, key: K) {
        let failures = {
            let state = &mut *self.state();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            *failures
        };
        self.add_after(key, back_off(failures));
    }

    /// The key was processed without failure: its next pause starts small again.
    pub(crate) fn forget(&self, key: &K) {
        self.state().failures.remove(key);
    }

    /// The next key. Every key got must be given back with [`WorkQueue::done`]. Safe to cancel. One caller at a time.
    pub(crate) async fn get(&self) -> K {
        loop {
            let next = {
                let state = &mut *self.state();
                state.release_due(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.processing.insert(key.clone());
                    return key;
                }
                state.waiting.first_key_value().map(|(&(at, _), _)| at)
            };
            // A permit left by `notify_one` between the check above and this line is kept: nothing is missed.
            match next {
                Some(at) => {
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// Gives `key` back; if it was added meanwhile, it is ready again.
    pub(crate) fn done(&self, key: &K) {
        {
            let state = &mut *self.state();
            state.processing.remove(key);
            if !state.dirty.contains(key) {
                return;
            }
            state.ready.push_back(key.clone());
        }
        self.wake.notify_one();
    }
}

/// 5 ms, 10 ms, … 1000 s.
fn back_off(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(18);
    (BASE_DELAY * 2u32.pow(doublings)).min(MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_added_twice_is_processed_once() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("b");
        queue.add("a");
        assert_eq!((queue.get().await, queue.get().await), ("a", "b"));
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.get()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_it_is_processed_comes_once_more_afterwards() {
        let queue = WorkQueue::new();
        queue.add("a");
        let got = queue.get().await;
        queue.add("a");
        queue.add("a");
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.get()).await.is_err());
        queue.done(&got);
        assert_eq!(queue.get().await, "a");
        queue.done(&"a");
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.get()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_delays_wins() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(9));
        assert_eq!(queue.get().await, "a");
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.done(&"a");
        assert!(
            tokio::time::timeout(Duration::from_secs(60), queue.get())
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_pause_until_forgotten() {
        let queue = WorkQueue::new();
        for expected in [5, 10, 20, 40] {
            let start = Instant::now();
            queue.add_rate_limited("a");
            queue.get().await;
            queue.done(&"a");
            assert_eq!(start.elapsed().as_millis(), expected);
        }
        queue.forget(&"a");
        let start = Instant::now();
        queue.add_rate_limited("a");
        queue.get().await;
        assert_eq!(start.elapsed().as_millis(), 5);
        assert_eq!(back_off(u32::MAX), MAX_DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_get_is_woken_by_an_add() {
        let queue = WorkQueue::new();
        let getter = tokio::spawn({
            let queue = queue.clone();
            async move { queue.get().await }
        });
        tokio::task::yield_now().await;
        queue.add("late");
        assert_eq!(getter.await.unwrap(), "late");
    }
}
