//! Runs a controller: takes keys off its queue, a bounded number at a time, and brings back those that failed.
//!
//! Owns concurrency, retries and their log lines. Must not know what reconciling a key means.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::informers::Informers;
use crate::workqueue::WorkQueue;

/// Brings what a key stands for closer to what it should be.
pub(crate) trait Reconcile: Send + Sync + 'static {
    /// The controller's name, which is its identity too.
    const NAME: &'static str;
    /// How many keys are worked on at the same time (kube-controller-manager's `--concurrent-…-syncs`).
    const WORKERS: usize;
    type Key: Clone + Eq + Hash + Send + Sync + std::fmt::Display + 'static;

    fn queue(&self) -> &Arc<WorkQueue<Self::Key>>;

    /// One pass over `key`. It may run twice, be cut off anywhere and find the object gone.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<()>> + Send;
}

/// Works on `controller`'s queue until shutdown, once the caches are filled. Each key in work is a task of its own, so
/// an idle controller holds no stack but this one's.
pub(crate) async fn run<C: Reconcile>(controller: Arc<C>, informers: Informers, shutdown: CancellationToken) {
    if shutdown.run_until_cancelled(informers.synced()).await.is_none() {
        return;
    }
    let queue = controller.queue().clone();
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = running.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(controller = C::NAME, %error, "a reconciliation panicked");
                }
            }
            key = queue.get(), if running.len() < C::WORKERS => {
                let taken = Taken { queue: queue.clone(), key };
                let controller = controller.clone();
                running.spawn(async move { work(&*controller, &taken).await });
            }
        }
    }
    // What is under way is cut off: every reconciliation may be.
    running.shutdown().await;
}

async fn work<C: Reconcile>(controller: &C, taken: &Taken<C::Key>) {
    match controller.reconcile(&taken.key).await {
        Ok(()) => taken.queue.forget(&taken.key),
        Err(error) => {
            if error.is_conflict() {
                tracing::debug!(controller = C::NAME, key = %taken.key, error = error.chain(), "again");
            } else {
                tracing::warn!(controller = C::NAME, key = %taken.key, error = error.chain(), "reconciling");
            }
            taken.queue.add_rate_limited(taken.key.clone());
        }
    }
}

/// A key in work; given back even if the work panics.
struct Taken<K: Clone + Eq + Hash> {
    queue: Arc<WorkQueue<K>>,
    key: K,
}

impl<K: Clone + Eq + Hash> Drop for Taken<K> {
    fn drop(&mut self) {
        self.queue.done(&self.key);
    }
}
