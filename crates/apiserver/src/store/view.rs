//! `View`: reading the current objects, for those who must decide by them (RBAC, admission, allocation).

use std::sync::Arc;

use apimachinery::gvk::GroupResource;
use serde_json::Value;

/// The current objects, in the version in which they are stored.
pub trait View: Send + Sync {
    /// One object; `namespace` is `None` for cluster-scoped resources.
    fn get(&self, resource: &GroupResource, namespace: Option<&str>, name: &str) -> Option<Arc<Value>>;

    /// All objects of a namespace, or of the cluster, ordered by namespace and name.
    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Value>>;

    /// A number that changes whenever an object of `resource` is written or deleted, for those who keep what they
    /// derived from a list. `None`: the view does not count.
    fn generation(&self, resource: &GroupResource) -> Option<u64> {
        let _ = resource;
        None
    }
}
