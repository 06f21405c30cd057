//! The images a kubelet can start containers from.
//!
//! Owns the trait only: on a node it is the image store and the registries behind it, in a test a list.

use futures::future::BoxFuture;

use crate::image::{Image, ImageError, Logins, PullError, Pulled, Puller};

/// Finds images by reference, and fetches them.
pub(crate) trait Images: Send + Sync + 'static {
    /// The image, or `None` where this node does not have it.
    fn find(&self, reference: &str) -> Result<Option<Image>, ImageError>;

    /// Names and size in bytes of every image, for the Node's status.
    fn list(&self) -> Vec<(Vec<String>, u64)>;

    /// Fetches it from its registry with one of the pod's own logins, or with what this machine has.
    fn pull<'a>(&'a self, reference: &'a str, secrets: &'a [Logins]) -> BoxFuture<'a, Result<Pulled, PullError>>;

    /// Why the last [`pull`](Self::pull) failed.
    fn last_failure(&self, reference: &str) -> Option<String>;
}

impl Images for Puller {
    fn find(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        self.store().resolve(reference)
    }

    fn list(&self) -> Vec<(Vec<String>, u64)> {
        match self.store().list() {
            Ok(images) => images
                .into_iter()
                .map(|image| ([image.digests, image.references].concat(), image.size))
                .collect(),
            Err(error) => {
                tracing::warn!("listing images: {error}");
                vec![]
            }
        }
    }

    fn pull<'a>(&'a self, reference: &'a str, secrets: &'a [Logins]) -> BoxFuture<'a, Result<Pulled, PullError>> {
        Self::pull(self, reference, secrets)
    }

    fn last_failure(&self, reference: &str) -> Option<String> {
        Self::last_failure(self, reference)
    }
}
