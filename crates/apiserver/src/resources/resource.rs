//! One row of the table: what the API server knows about a resource.

use std::sync::Arc;

use apimachinery::gvk::{GroupKind, GroupResource, GroupVersionKind};

use super::conversion::Conversion;
use crate::custom;

/// A verb of the API on a resource, as discovery lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Verb {
    /// POST.
    Create = 1,
    /// DELETE of one object.
    Delete = 2,
    /// DELETE of a list.
    DeleteCollection = 4,
    /// GET of one object.
    Get = 8,
    /// GET of a list.
    List = 16,
    /// PATCH.
    Patch = 32,
    /// PUT.
    Update = 64,
    /// GET of a list with `watch=true`.
    Watch = 128,
}

impl Verb {
    /// All of them, in the order of discovery.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];

    /// As in discovery and RBAC rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }

    /// The verb of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == name)
    }
}

/// A set of [`Verb`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verbs(u16);

impl Verbs {
    /// Whether `verb` is in the set.
    pub fn contains(self, verb: Verb) -> bool {
        self.0 & verb as u16 != 0
    }

    /// In the order of discovery.
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().filter(move |verb| self.contains(*verb))
    }
}

impl FromIterator<Verb> for Verbs {
    fn from_iter<I: IntoIterator<Item = Verb>>(verbs: I) -> Self {
        Self(verbs.into_iter().fold(0, |set, verb| set | verb as u16))
    }
}

/// `pods/log`, `deployments/scale`, …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// The part after the slash.
    pub name: String,
    /// Group of `kind`, empty where it is the resource's own.
    pub group: String,
    /// Version of `kind`, empty where it is the resource's own.
    pub version: String,
    /// What is read and written there.
    pub kind: String,
    /// What may be done.
    pub verbs: Verbs,
}

/// What the API server knows about a resource in one version.
#[derive(Clone, Debug)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Name in paths.
    pub plural: String,
    /// Lower-case singular.
    pub singular: String,
    /// Kind of one object.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What may be done.
    pub verbs: Verbs,
    /// `po`, `deploy`, …
    pub short_names: Vec<String>,
    /// `all`, …
    pub categories: Vec<String>,
    /// In the order of discovery.
    pub subresources: Vec<Subresource>,
    /// As the real server gives it, empty where it gives none.
    pub storage_version_hash: String,
    /// Where objects are kept under another resource or version: how to get from one to the other.
    pub(crate) conversion: Option<&'static Conversion>,
    /// The resource under which objects are stored.
    pub(crate) stored_as: GroupResource,
    /// What each stored object starts with: `{"kind":"Pod","apiVersion":"v1",`.
    pub(crate) stored_head: String,
    /// What a CustomResourceDefinition says of it; `None` of built-in resources.
    pub(crate) custom: Option<Arc<custom::Version>>,
}

impl Resource {
    /// `GROUP/VERSION`, or the version alone in the core group.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// Kind of a list.
    pub fn list_kind(&self) -> String {
        match &self.custom {
            Some(custom) => custom.list_kind().to_owned(),
            None => format!("{}List", self.kind),
        }
    }

    /// Group and plural.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.plural)
    }

    /// Group and kind.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(&self.group, &self.kind)
    }

    /// Group, version and kind.
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(&self.group, &self.version, &self.kind)
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether there is a status that only `/status` may write.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether objects are kept at all (reviews are not).
    pub fn is_stored(&self) -> bool {
        self.verbs.contains(Verb::Get)
    }
}

/// `GROUP/VERSION`, or the version alone in the core group.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}
