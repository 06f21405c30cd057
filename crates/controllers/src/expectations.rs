//! What a controller has asked for and not yet seen, so that a slow cache never makes it ask twice.
//!
//! Owns counting and the time limit. Must not know what is created or deleted. (k/k `pkg/controller/controller_utils.go`,
//! `UIDTrackingControllerExpectations`, v1.36.)

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::key::Key;

/// After this long without the awaited changes the controller looks again anyway.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Creations and deletions under way, by owner.
#[derive(Default)]
pub(crate) struct Expectations(Mutex<HashMap<Key, Expected>>);

struct Expected {
    creations: usize,
    /// UIDs: a pod's deletion shows as a `deletionTimestamp` first and as its absence later, and counts once.
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Expected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when everything asked for `owner` was seen, or waited for long enough.
    pub(crate) fn satisfied(&self, owner: &Key) -> bool {
        self.lock().get(owner).is_none_or(|expected| {
            (expected.creations == 0 && expected.deletions.is_empty()) || expected.since.elapsed() > TIMEOUT
        })
    }

    /// `count` creations are about to be asked for. Forgets what was expected before.
    pub(crate) fn expect_creations(&self, owner: &Key, count: usize) {
        let expected = Expected {
            creations: count,
            deletions: HashSet::new(),
            since: Instant::now(),
        };
        self.lock().insert(owner.clone(), expected);
    }

    /// Deletions of these UIDs are about to be asked for. Forgets what was expected before.
    pub(crate) fn expect_deletions(&self, owner: &Key, uids: impl IntoIterator<Item = String>) {
        let deletions = uids.into_iter().collect();
        let expected = Expected {
            creations: 0,
            deletions,
            since: Instant::now(),
        };
        self.lock().insert(owner.clone(), expected);
    }

    /// A created object was seen, or its creation was not asked for after all (or failed).
    pub(crate) fn creation_observed(&self, owner: &Key) {
        if let Some(expected) = self.lock().get_mut(owner) {
            expected.creations = expected.creations.saturating_sub(1);
        }
    }

    /// The deletion of `uid` was seen, or failed.
    pub(crate) fn deletion_observed(&self, owner: &Key, uid: &str) {
        if let Some(expected) = self.lock().get_mut(owner) {
            expected.deletions.remove(uid);
        }
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, owner: &Key) {
        self.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_controller_waits_until_all_it_asked_for_was_seen() {
        let (expectations, owner) = (Expectations::default(), Key::new("default", "web"));
        assert!(expectations.satisfied(&owner));
        expectations.expect_creations(&owner, 2);
        expectations.creation_observed(&owner);
        assert!(!expectations.satisfied(&owner));
        expectations.creation_observed(&owner);
        assert!(expectations.satisfied(&owner));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_that_is_seen_twice_counts_once() {
        let (expectations, owner) = (Expectations::default(), Key::new("default", "web"));
        expectations.expect_deletions(&owner, ["a".to_owned(), "b".to_owned()]);
        expectations.deletion_observed(&owner, "a");
        expectations.deletion_observed(&owner, "a");
        assert!(!expectations.satisfied(&owner));
        expectations.deletion_observed(&owner, "b");
        assert!(expectations.satisfied(&owner));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_never_comes_is_given_up_after_five_minutes() {
        let (expectations, owner) = (Expectations::default(), Key::new("default", "web"));
        expectations.expect_creations(&owner, 1);
        tokio::time::advance(TIMEOUT).await;
        assert!(!expectations.satisfied(&owner));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(expectations.satisfied(&owner));
    }
}
