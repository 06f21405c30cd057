//! Proofs that were verified before: a client shows the same certificate or token with every request, and a signature
//! takes a hundred times longer to verify than its bytes to recognise.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::digest::{SHA256, digest};

/// How many are kept. A busy lab has a few dozen; when there are more, all are forgotten and verified anew.
const CAPACITY: usize = 512;

/// What proofs say, by their digest.
#[derive(Debug)]
pub(super) struct Remembered<T>(Mutex<HashMap<[u8; 32], Arc<T>>>);

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Remembered<T> {
    /// What `proof` says; asks `verify` unless it did before. Errors are not remembered.
    pub(super) fn get_or_verify<E>(&self, proof: &[u8], verify: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, proof).as_ref());
        if let Some(known) = self.lock().get(&key) {
            return Ok(known.clone());
        }
        let verified = Arc::new(verify()?);
        let mut known = self.lock();
        if known.len() >= CAPACITY {
            known.clear();
        }
        known.insert(key, verified.clone());
        Ok(verified)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
