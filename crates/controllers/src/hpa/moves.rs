//! What each autoscaler will do next, for people who wait for it: `k8slab status` shows it.
//!
//! Owns a board that the HPA controller writes after every sync. Nothing is decided from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::key::Key;

/// The next move of one HorizontalPodAutoscaler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextMove {
    /// The autoscaler's namespace.
    pub namespace: String,
    /// The autoscaler's name.
    pub name: String,
    /// When its metrics are looked at again.
    pub next_sync: Option<Timestamp>,
    /// Replicas the target had (`spec.replicas`) after the last sync.
    pub current_replicas: i32,
    /// Replicas the metrics alone asked for at the last sync; none if they said nothing.
    pub recommended_replicas: Option<i32>,
    /// A higher recommendation of the stabilization window that keeps the target from shrinking.
    pub scale_down_held: Option<Held>,
    /// How far the target may grow before the rate limit lets go.
    pub scale_up_limit: Option<Limit>,
}

/// "Not below `replicas` before `until`."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The recommendation that holds.
    pub replicas: i32,
    /// When it leaves the stabilization window.
    pub until: Timestamp,
}

/// "Not above `replicas` until `until`."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The most replicas allowed now.
    pub replicas: i32,
    /// When more are allowed: the next sync, or the end of the policy's period.
    pub until: Option<Timestamp>,
}

/// The board.
#[derive(Clone, Default)]
pub(crate) struct Moves(Arc<Mutex<BTreeMap<Key, NextMove>>>);

impl Moves {
    pub(crate) fn list(&self) -> Vec<NextMove> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(crate) fn set(&self, key: Key, next: NextMove) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, next);
    }

    pub(crate) fn remove(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
