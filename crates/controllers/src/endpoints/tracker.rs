//! What was written about a Service's slices and may not be in the cache yet.
//!
//! A slice has no name of its own choosing, so a second pass over a cache that is behind would make it twice. The pass
//! waits instead: the change itself wakes it. (k/k `staging/…/endpointslice/util/endpointslice_tracker.go`, v1.36.)

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use tokio::time::Instant;

use crate::key::Key;

/// A change that does not show for so long was overtaken by another.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Writes by Service and slice.
#[derive(Default)]
pub(super) struct Tracker(Mutex<HashMap<Key, BTreeMap<String, Written>>>);

#[derive(Clone, Copy)]
struct Written {
    /// None for a slice that was deleted.
    version: Option<u64>,
    at: Instant,
}

/// Resource versions of one kind can be compared since Kubernetes 1.35.
fn version(slice: &EndpointSlice) -> u64 {
    slice
        .resource_version()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

impl Tracker {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, BTreeMap<String, Written>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, service: &Key, slice: String, version: Option<u64>) {
        let written = Written {
            version,
            at: Instant::now(),
        };
        self.lock().entry(service.clone()).or_default().insert(slice, written);
    }

    /// The server has the slice in this state.
    pub(super) fn wrote(&self, service: &Key, slice: &EndpointSlice) {
        self.note(service, slice.name_any(), Some(version(slice)));
    }

    /// The server no longer has the slice.
    pub(super) fn deleted(&self, service: &Key, slice: &str) {
        self.note(service, slice.to_owned(), None);
    }

    /// True while `cached` lacks something that was written.
    pub(super) fn is_ahead_of(&self, service: &Key, cached: &[Arc<EndpointSlice>]) -> bool {
        let all = &mut *self.lock();
        let Some(written) = all.get_mut(service) else {
            return false;
        };
        written.retain(|name, written| {
            let found = cached.iter().find(|slice| slice.name_any() == *name);
            let is_in = match (written.version, found) {
                (Some(version), Some(slice)) => self::version(slice) >= version,
                (None, found) => found.is_none(),
                (Some(_), None) => false,
            };
            !is_in && written.at.elapsed() < PATIENCE
        });
        let is_ahead = !written.is_empty();
        if !is_ahead {
            all.remove(service);
        }
        is_ahead
    }

    /// The Service is gone.
    pub(super) fn forget(&self, service: &Key) {
        self.lock().remove(service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, version: &str) -> EndpointSlice {
        let mut slice = EndpointSlice::default();
        slice.metadata.name = Some(name.into());
        slice.metadata.resource_version = Some(version.into());
        slice
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_waits_until_the_cache_has_what_was_written() {
        let (tracker, service) = (Tracker::default(), Key::new("default", "web"));
        let ahead_of = |cached: &[EndpointSlice]| {
            tracker.is_ahead_of(&service, &cached.iter().cloned().map(Arc::new).collect::<Vec<_>>())
        };
        assert!(!ahead_of(&[]));
        tracker.wrote(&service, &slice("a", "10"));
        tracker.deleted(&service, "b");
        assert!(ahead_of(&[slice("b", "3")]));
        assert!(ahead_of(&[slice("a", "9"), slice("b", "3")]));
        assert!(ahead_of(&[slice("a", "10"), slice("b", "3")]));
        assert!(!ahead_of(&[slice("a", "12")]));
        tracker.wrote(&service, &slice("c", "20"));
        tokio::time::advance(PATIENCE).await;
        assert!(!ahead_of(&[]), "somebody else deleted it meanwhile");
    }
}
