//! The images a kubelet can start containers from.
//!
//! Owns the trait only: on a node it is the image store, in a test a list.

use crate::image::{Image, ImageError, Store};

/// Finds images by reference.
pub(crate) trait Images: Send + Sync + 'static {
    /// The image, or `None` where this node does not have it.
    fn find(&self, reference: &str) -> Result<Option<Image>, ImageError>;

    /// Names and size in bytes of every image, for the Node's status.
    fn list(&self) -> Vec<(Vec<String>, u64)>;
}

impl Images for Store {
    fn find(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        self.resolve(reference)
    }

    fn list(&self) -> Vec<(Vec<String>, u64)> {
        match Self::list(self) {
            Ok(images) => images.into_iter().map(|image| (image.references, image.size)).collect(),
            Err(error) => {
                tracing::warn!("listing images: {error}");
                vec![]
            }
        }
    }
}
