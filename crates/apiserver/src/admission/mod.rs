//! What a write must agree with besides itself: the namespace, the ServiceAccount, priority and default classes.
//!
//! Plugins in the order of upstream's (k/k 1.36 `pkg/kubeapiserver/options/plugins.go`), each a pure function over the
//! object and a [`View`]. They run after defaulting and before validation; what they add must be complete, defaults are
//! not run again. LimitRanger, ResourceQuota, PodSecurity and webhooks will stand at the marks in [`admit`].

mod certificates;
mod classes;
mod namespace;
mod node;
mod priority;
mod service_account;
mod storage_protection;
mod tolerations;

use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use serde_json::Value;

use crate::auth::Identity;
use crate::store::View;

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// Another state of an object: PUT, PATCH, apply.
    Update,
    /// The end of an object.
    Delete,
}

/// A write, as far as admission is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What it wants to do.
    pub operation: Operation,
    /// On which resource.
    pub resource: &'a GroupResource,
    /// `status`, …; empty for the resource itself.
    pub subresource: &'a str,
    /// `None` for cluster-scoped resources.
    pub namespace: Option<&'a str>,
    /// Name of the object; may be empty in a create that lets the server choose.
    pub name: &'a str,
    /// The stored object, in an update or a delete.
    pub old: Option<&'a Value>,
    /// Who asks.
    pub identity: &'a Identity,
    /// Nothing will be stored.
    pub dry_run: bool,
}

impl Request<'_> {
    /// Whether it is about this resource itself, not a subresource.
    fn is_for(&self, group: &str, resource: &str) -> bool {
        self.resource.group == group && self.resource.resource == resource && self.subresource.is_empty()
    }

    /// 403 for this object.
    fn forbid(&self, detail: impl std::fmt::Display) -> Status {
        Status::forbidden(self.resource, self.name, detail)
    }
}

/// Admits a create or an update, which may change the object, or refuses it.
pub fn admit(request: &Request<'_>, object: &mut Value, view: &dyn View) -> Result<(), Status> {
    namespace::check(request, view)?;
    // LimitRanger
    service_account::admit(request, object, view)?;
    node::admit(request, object);
    // PodSecurity
    priority::admit(request, object, view)?;
    tolerations::admit(request, object);
    certificates::admit(request, object);
    storage_protection::admit(request, object);
    classes::admit(request, object, view);
    // mutating webhooks; validating webhooks
    // ResourceQuota
    Ok(())
}

/// Admits a delete or refuses it.
pub fn admit_delete(request: &Request<'_>, view: &dyn View) -> Result<(), Status> {
    namespace::check(request, view)
}

#[cfg(test)]
mod testing {
    use std::sync::Arc;

    use apimachinery::gvk::GroupResource;
    use serde_json::Value;

    use super::{Operation, Request};
    use crate::auth::Identity;
    use crate::store::View;

    /// Objects by resource, as a view.
    #[derive(Default)]
    pub(super) struct Objects(Vec<(GroupResource, Arc<Value>)>);

    impl Objects {
        pub(super) fn with(mut self, group: &str, resource: &str, object: Value) -> Self {
            self.0.push((GroupResource::new(group, resource), Arc::new(object)));
            self
        }
    }

    impl View for Objects {
        fn get(&self, resource: &GroupResource, namespace: Option<&str>, name: &str) -> Option<Arc<Value>> {
            self.list(resource, namespace)
                .into_iter()
                .find(|object| object["metadata"]["name"] == name)
        }

        fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Value>> {
            let in_namespace =
                |object: &Value| namespace.is_none_or(|namespace| object["metadata"]["namespace"] == namespace);
            self.0
                .iter()
                .filter(|(known, object)| known == resource && in_namespace(object))
                .map(|(_, object)| object.clone())
                .collect()
        }
    }

    /// Runs `f` with a create of `name` in namespace `default`.
    pub(super) fn creating<T>(group: &str, resource: &str, name: &str, f: impl FnOnce(&Request<'_>) -> T) -> T {
        let identity = Identity::new("jane", ["dev"]);
        let resource = GroupResource::new(group, resource);
        f(&Request {
            operation: Operation::Create,
            resource: &resource,
            subresource: "",
            namespace: Some("default"),
            name,
            old: None,
            identity: &identity,
            dry_run: false,
        })
    }
}
