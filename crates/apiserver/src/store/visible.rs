//! `Visible`: the durable objects in memory, by resource, each resource with its log of changes.
//!
//! Owns the index that readers see. Must not know how a change became durable.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use apimachinery::gvk::GroupResource;
use serde_json::Value;
use tokio::sync::watch;

use super::log::Log;
use super::{Key, Object};

pub(super) struct Visible {
    pub(super) revision: u64,
    /// The revision at start: logs know nothing of before.
    pub(super) born: u64,
    pub(super) collections: HashMap<GroupResource, Collection>,
}

pub(super) struct Collection {
    pub(super) objects: BTreeMap<Key, Entry>,
    pub(super) log: Log,
    pub(super) changed: watch::Sender<u64>,
}

pub(super) struct Entry {
    pub(super) object: Object,
    /// Only of objects that are read with every request (RBAC).
    parsed: OnceLock<Arc<Value>>,
}

impl Visible {
    pub(super) fn collection(&mut self, resource: &GroupResource) -> &mut Collection {
        // No `entry`: the key is rarely new, and `entry` wants it by value.
        if !self.collections.contains_key(resource) {
            let collection = Collection {
                objects: BTreeMap::new(),
                log: Log::starting_after(self.born),
                changed: watch::Sender::new(self.born),
            };
            self.collections.insert(resource.clone(), collection);
        }
        self.collections.get_mut(resource).expect("inserted above")
    }

    pub(super) fn find(&self, resource: &GroupResource, key: &Key) -> Option<&Object> {
        self.collections
            .get(resource)?
            .objects
            .get(key)
            .map(|entry| &entry.object)
    }
}

impl Collection {
    pub(super) fn range(&self, namespace: Option<&str>) -> Vec<(Key, Object)> {
        self.entries(namespace)
            .map(|(key, entry)| (key.clone(), entry.object.clone()))
            .collect()
    }

    pub(super) fn entries(&self, namespace: Option<&str>) -> impl Iterator<Item = (&Key, &Entry)> {
        let prefix = namespace.map(|namespace| format!("{namespace}/"));
        let start = prefix.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let entries = self.objects.range::<str, _>((start, Bound::Unbounded));
        entries.take_while(move |(key, _)| prefix.as_deref().is_none_or(|prefix| key.as_str().starts_with(prefix)))
    }
}

impl Entry {
    pub(super) fn new(object: Object) -> Self {
        Self {
            object,
            parsed: OnceLock::new(),
        }
    }

    pub(super) fn value(&self, keep: bool) -> Arc<Value> {
        match keep {
            true => self.parsed.get_or_init(|| Arc::new(self.object.value())).clone(),
            false => Arc::new(self.object.value()),
        }
    }
}

/// Whether parsed objects are kept: those of RBAC are read with every request.
pub(super) fn keeps_parsed(resource: &GroupResource) -> bool {
    resource.group == "rbac.authorization.k8s.io"
}
