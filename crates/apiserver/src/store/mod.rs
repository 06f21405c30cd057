//! The store: every object as serialised JSON in memory, one revision over all of them, a log of changes a resource,
//! and a backend that makes commits durable.
//!
//! Owns revisions, optimistic concurrency and the order of changes. Knows objects as bytes with a
//! `metadata.resourceVersion`; must not know HTTP, kinds or who may do what.
//!
//! A change is seen by readers and watchers only after its commit is durable, so nobody ever acts on something that a
//! power cut could take back.
//!
//! Memory is bounded by the objects and a window of changes a resource ([`Expired`] beyond it), never by history.

mod backend;
mod dump;
#[cfg(test)]
mod faults;
mod file;
mod key;
mod log;
mod view;
mod visible;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use apimachinery::gvk::GroupResource;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

pub use backend::{Backend, BackendError, Contents, Record, Volatile};
pub use dump::{Dump, DumpError};
pub use file::File;
pub use key::Key;
pub use log::{Change, Event};
pub use view::View;
pub use write::{Action, Expect, Write, WriteError};

use visible::{Entry, Visible, keeps_parsed};
use write::{Queue, Writer};

/// One state of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The revision that made it: its `metadata.resourceVersion`.
    pub revision: u64,
    /// JSON without white space, `kind` and `apiVersion` first.
    pub bytes: Bytes,
}

impl Object {
    /// Parses the object.
    pub fn value(&self) -> Value {
        // Only what `serde_json` wrote gets in here; `Null` is what a reader of a missing field sees anyway.
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }
}

/// The log no longer reaches back to the wanted revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {wanted} is too old, the oldest known is {oldest}")]
pub struct Expired {
    /// What was asked for.
    pub wanted: u64,
    /// From where on all is known.
    pub oldest: u64,
}

/// A consistent list.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The revision at which it is true.
    pub revision: u64,
    /// By key.
    pub objects: Vec<(Key, Object)>,
}

/// A piece of the log.
#[derive(Debug)]
pub struct Changes {
    /// Oldest first.
    pub events: Vec<Event>,
    /// Where to go on.
    pub revision: u64,
}

/// See the module.
pub struct Store {
    visible: RwLock<Visible>,
    queue: Mutex<Queue>,
    writer: Mutex<Writer>,
    blocks: bool,
}

impl Store {
    /// A store that forgets everything with the process.
    pub fn in_memory() -> Arc<Self> {
        // Revision 0 means "any" in the API, so the first one is 1.
        Self::new(
            Box::new(Volatile),
            Contents {
                revision: 1,
                records: Vec::new(),
            },
        )
    }

    /// A store over what a backend holds.
    pub fn new(backend: Box<dyn Backend>, contents: Contents) -> Arc<Self> {
        let mut visible = Visible {
            revision: contents.revision.max(1),
            born: contents.revision.max(1),
            collections: HashMap::new(),
        };
        for record in contents.records {
            if let Some(bytes) = record.bytes {
                let object = Object {
                    revision: record.revision,
                    bytes,
                };
                visible
                    .collection(&parse_resource(&record.resource))
                    .objects
                    .insert(record.key, Entry::new(object));
            }
        }
        Arc::new(Self {
            visible: RwLock::new(visible),
            queue: Mutex::default(),
            blocks: backend.blocks(),
            writer: Mutex::new(Writer::new(backend)),
        })
    }

    /// The last durable revision.
    pub fn revision(&self) -> u64 {
        self.read().revision
    }

    /// Everything, as it is now. Objects share their bytes with the store.
    pub fn contents(&self) -> Contents {
        let visible = self.read();
        let records = visible.collections.iter().flat_map(|(resource, collection)| {
            let name = resource.to_string();
            collection.objects.iter().map(move |(key, entry)| Record {
                resource: name.clone(),
                key: key.clone(),
                bytes: Some(entry.object.bytes.clone()),
                revision: entry.object.revision,
            })
        });
        Contents {
            revision: visible.revision,
            records: records.collect(),
        }
    }

    /// One object.
    pub fn object(&self, resource: &GroupResource, key: &Key) -> Option<Object> {
        self.read()
            .collections
            .get(resource)?
            .objects
            .get(key)
            .map(|entry| entry.object.clone())
    }

    /// How many objects of a resource there are.
    pub fn count(&self, resource: &GroupResource) -> usize {
        self.read()
            .collections
            .get(resource)
            .map_or(0, |collection| collection.objects.len())
    }

    /// The resources of which there are objects, and how many.
    pub fn counts(&self) -> Vec<(GroupResource, usize)> {
        let visible = self.read();
        visible
            .collections
            .iter()
            .map(|(resource, collection)| (resource.clone(), collection.objects.len()))
            .collect()
    }

    /// The objects of a namespace (`None`: of the cluster) as they are now.
    pub fn snapshot(&self, resource: &GroupResource, namespace: Option<&str>) -> Snapshot {
        let visible = self.read();
        let objects = visible
            .collections
            .get(resource)
            .map_or_else(Vec::new, |collection| collection.range(namespace));
        Snapshot {
            revision: visible.revision,
            objects,
        }
    }

    /// The objects of a namespace as they were at `revision`, which must not be in the future.
    pub fn snapshot_at(
        &self,
        resource: &GroupResource,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<Snapshot, Expired> {
        let visible = self.read();
        let Some(collection) = visible.collections.get(resource) else {
            return match revision < visible.born {
                true => Err(Expired {
                    wanted: revision,
                    oldest: visible.born,
                }),
                false => Ok(Snapshot {
                    revision,
                    objects: Vec::new(),
                }),
            };
        };
        let expired = Expired {
            wanted: revision,
            oldest: collection.log.forgotten(),
        };
        let mut undo = collection.log.since(revision).ok_or(expired)?.rev().peekable();
        if undo.peek().is_none() {
            return Ok(Snapshot {
                revision,
                objects: collection.range(namespace),
            });
        }
        let mut objects: BTreeMap<Key, Object> = collection.range(namespace).into_iter().collect();
        for event in undo.filter(|event| event.key.is_in(namespace)) {
            match event.change.old() {
                Some(old) => objects.insert(event.key.clone(), old.clone()),
                None => objects.remove(&event.key),
            };
        }
        Ok(Snapshot {
            revision,
            objects: objects.into_iter().collect(),
        })
    }

    /// At most `limit` changes of a resource after `revision`.
    pub fn changes(&self, resource: &GroupResource, revision: u64, limit: usize) -> Result<Changes, Expired> {
        let visible = self.read();
        let Some(collection) = visible.collections.get(resource) else {
            return match revision < visible.born {
                true => Err(Expired {
                    wanted: revision,
                    oldest: visible.born,
                }),
                false => Ok(Changes {
                    events: Vec::new(),
                    revision: visible.revision,
                }),
            };
        };
        let expired = Expired {
            wanted: revision,
            oldest: collection.log.forgotten(),
        };
        let mut rest = collection.log.since(revision).ok_or(expired)?;
        let events: Vec<Event> = rest.by_ref().take(limit).cloned().collect();
        let revision = match (rest.next(), events.last()) {
            (Some(_), Some(last)) => last.revision,
            _ => visible.revision.max(revision),
        };
        Ok(Changes { events, revision })
    }

    /// Wakes up whenever the resource has changed; holds the revision of its last change.
    pub fn subscribe(&self, resource: &GroupResource) -> watch::Receiver<u64> {
        if let Some(collection) = self.read().collections.get(resource) {
            return collection.changed.subscribe();
        }
        self.write_lock().collection(resource).changed.subscribe()
    }

    fn read(&self) -> RwLockReadGuard<'_, Visible> {
        self.visible.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lock(&self) -> RwLockWriteGuard<'_, Visible> {
        self.visible.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View for Store {
    fn get(&self, resource: &GroupResource, namespace: Option<&str>, name: &str) -> Option<Arc<Value>> {
        let key = Key::new(namespace, name);
        let visible = self.read();
        let entry = visible.collections.get(resource)?.objects.get(&key)?;
        Some(entry.value(keeps_parsed(resource)))
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let visible = self.read();
        let Some(collection) = visible.collections.get(resource) else {
            return Vec::new();
        };
        let keep = keeps_parsed(resource);
        collection
            .entries(namespace)
            .map(|(_, entry)| entry.value(keep))
            .collect()
    }

    fn generation(&self, resource: &GroupResource) -> Option<u64> {
        let visible = self.read();
        Some(
            visible
                .collections
                .get(resource)
                .map_or(visible.born, |collection| *collection.changed.borrow()),
        )
    }
}

/// The inverse of `GroupResource`'s `Display` (`PLURAL.GROUP`).
fn parse_resource(text: &str) -> GroupResource {
    let (plural, group) = text.split_once('.').unwrap_or((text, ""));
    GroupResource::new(group, plural)
}

#[cfg(test)]
mod tests;
