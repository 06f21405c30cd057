//! The verbs, each once, for every resource of the table.
//!
//! Owns what the API promises of create, get, list, watch, update, patch and delete. What is special about a kind is
//! asked of its strategy; a handler never names a kind, but for the few subresources that exist for one.

mod create;
mod delete;
mod delete_collection;
mod get;
mod list;
pub(crate) mod metadata;
mod patch;
mod rules;
mod selection;
mod subresource;
mod update;
mod watch;
mod write;

use std::sync::Arc;

use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use http::Method;

use crate::api::Api;
use crate::call::{Answer, Call};
use crate::request::ResourcePath;
use crate::resources::{Resource, Verb};
use crate::store::{Key, Object};

pub(crate) use write::to_stored;

/// What a request is about.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    /// `None` of cluster-scoped resources and of lists over all namespaces.
    pub(crate) namespace: Option<String>,
    /// Empty of lists.
    pub(crate) name: String,
    /// Empty of the object itself.
    pub(crate) subresource: String,
}

impl Target {
    /// `None` where the path names a namespace for a resource that has none, or none for one that needs it.
    fn new(resource: &Arc<Resource>, path: &ResourcePath, verb: Verb) -> Option<Self> {
        let own_namespace = resource.plural == "namespaces" && resource.group.is_empty();
        let namespace = path.namespace.clone().filter(|_| !own_namespace);
        let across = path.name.is_none() && matches!(verb, Verb::List | Verb::Watch);
        if namespace.is_some() != resource.namespaced && !(across && resource.namespaced) {
            return None;
        }
        Some(Self {
            resource: resource.clone(),
            namespace,
            name: path.name.clone().unwrap_or_default(),
            subresource: path.subresource.clone().unwrap_or_default(),
        })
    }

    /// Where the object is stored.
    pub(crate) fn key(&self) -> Key {
        Key::new(self.namespace.as_deref(), &self.name)
    }

    pub(crate) fn group_resource(&self) -> GroupResource {
        self.resource.group_resource()
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(&self.group_resource(), &self.name)
    }

    pub(crate) fn modified(&self) -> Status {
        Status::modified(&self.group_resource(), &self.name)
    }

    /// The object as it is stored now.
    pub(crate) fn current(&self, api: &Api) -> Result<Object, Status> {
        api.store
            .object(&self.resource.stored_as, &self.key())
            .ok_or_else(|| self.not_found())
    }
}

/// The verb of a request, as RBAC and discovery name it. `None` of methods that no resource has.
pub(crate) fn verb(call: &Call, path: &ResourcePath) -> Option<Verb> {
    let named = path.name.is_some();
    Some(match call.method {
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE if named => Verb::Delete,
        Method::DELETE => Verb::DeleteCollection,
        Method::GET | Method::HEAD if path.watch => Verb::Watch,
        Method::GET | Method::HEAD if path.subresource.is_some() => Verb::Get,
        Method::GET | Method::HEAD if call.query.flag("watch") => Verb::Watch,
        Method::GET | Method::HEAD if named => Verb::Get,
        Method::GET | Method::HEAD => Verb::List,
        _ => return None,
    })
}

/// The name RBAC compares: the path's, or that of a list or watch of one object by field selector.
pub(crate) fn name_of(call: &Call, path: &ResourcePath) -> Option<String> {
    if path.name.is_some() {
        return path.name.clone();
    }
    let selector = apimachinery::fields::Selector::parse(call.query.text("fieldSelector")?).ok()?;
    let mut names = selector
        .requirements()
        .iter()
        .filter(|requirement| requirement.field == "metadata.name");
    names.next().map(|requirement| requirement.value.clone())
}

/// Answers a request about a resource.
pub(crate) async fn handle(call: Arc<Call>, path: ResourcePath) -> Answer {
    let table = call.api.table();
    let Some(resource) = table.find(&path.group, &path.version, &path.resource) else {
        return Err(Status::path_not_found());
    };
    let unsupported = |verb: &str| Err(Status::method_not_supported(&resource.group_resource(), verb));
    let Some(verb) = verb(&call, &path) else {
        return unsupported(call.method.as_str());
    };
    let Some(target) = Target::new(resource, &path, verb) else {
        return Err(Status::path_not_found());
    };
    if path.subresource.is_some() {
        return subresource::handle(call, target, verb, &path).await;
    }
    let misplaced = match verb {
        Verb::Create => path.name.is_some(),
        Verb::Update | Verb::Patch => path.name.is_none(),
        _ => false,
    };
    if misplaced || !resource.verbs.contains(verb) {
        return unsupported(verb.as_str());
    }
    if !resource.is_stored() {
        return subresource::review::create(&call, &target).await;
    }
    match verb {
        Verb::Create => create::create(&call, target).await,
        Verb::Get => get::get(&call, &target),
        Verb::List => list::list(&call, &target),
        Verb::Watch => watch::watch(&call, &target),
        Verb::Update => update::update(&call, &target).await,
        Verb::Patch => patch::patch(&call, &target).await,
        Verb::Delete => delete::delete(&call, &target).await,
        Verb::DeleteCollection => delete_collection::delete_collection(&call, &target).await,
    }
}
