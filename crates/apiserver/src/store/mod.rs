//! The store: every object as serialised JSON in memory, one revision over all of them, a log of changes a resource,
//! and a backend that makes commits durable.
//!
//! Owns revisions, optimistic concurrency and the order of changes. Knows objects as bytes with a
//! `metadata.resourceVersion`; must not know HTTP, kinds or who may do what.
//!
//! Writes are grouped: the first writer leads, whoever comes while a commit is on its way to the disk waits in the
//! queue and goes with the next one. A change is seen by readers and watchers only after its commit is durable, so
//! nobody ever acts on something that a power cut could take back.

mod backend;
mod file;
mod key;
mod log;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use apimachinery::gvk::GroupResource;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{oneshot, watch};

pub use backend::{Backend, BackendError, Contents, Record, Volatile};
pub use file::File;
pub use key::Key;
pub use log::{Change, Event};
pub use view::View;

use log::Log;

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

/// What must be true of the object for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is none of that name.
    Absent,
    /// It is as that revision made it.
    Revision(u64),
}

/// What to write. The store sets `metadata.resourceVersion`.
#[derive(Clone, Debug)]
pub enum Action {
    /// The new state.
    Put(Value),
    /// Delete; the last state, which the watchers see.
    Delete(Value),
}

/// One change that somebody wants.
#[derive(Clone, Debug)]
pub struct Write {
    /// The resource under which the object is stored.
    pub resource: GroupResource,
    /// Which object.
    pub key: Key,
    /// The condition.
    pub expect: Expect,
    /// The change.
    pub action: Action,
}

/// Why nothing was written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// There is one of that name already.
    #[error("an object of that name exists")]
    Exists,
    /// It has another revision.
    #[error("the object has been modified")]
    Modified(Object),
    /// It is gone.
    #[error("the object is gone")]
    Gone,
    /// The backend said no. Whether the change is on disk is not known until the next write.
    #[error("{0}")]
    Backend(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
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

struct Visible {
    revision: u64,
    /// The revision at start: logs know nothing of before.
    born: u64,
    collections: HashMap<GroupResource, Collection>,
}

struct Collection {
    objects: BTreeMap<Key, Entry>,
    log: Log,
    changed: watch::Sender<u64>,
}

struct Entry {
    object: Object,
    /// Only of objects that are read with every request (RBAC).
    parsed: OnceLock<Arc<Value>>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Pending>,
    led: bool,
    closed: bool,
}

struct Pending {
    write: Write,
    reply: oneshot::Sender<Result<Object, WriteError>>,
}

struct Writer {
    backend: Option<Box<dyn Backend>>,
    /// The commit that failed, if the last one did.
    broken: Option<Batch>,
    scratch: Vec<u8>,
}

#[derive(Default)]
struct Batch {
    revision: u64,
    records: Vec<Record>,
    events: Vec<(GroupResource, Event)>,
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
            writer: Mutex::new(Writer {
                backend: Some(backend),
                broken: None,
                scratch: Vec::new(),
            }),
        })
    }

    /// The last durable revision.
    pub fn revision(&self) -> u64 {
        self.read().revision
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

    /// Writes one object and waits until that is durable. Answers with the state written, of a deletion the last one.
    pub async fn write(self: &Arc<Self>, write: Write) -> Result<Object, WriteError> {
        let (reply, done) = oneshot::channel();
        let leads = {
            let mut queue = self.queue();
            if queue.closed {
                return Err(WriteError::Closed);
            }
            queue.waiting.push(Pending { write, reply });
            !std::mem::replace(&mut queue.led, true)
        };
        if leads {
            let store = self.clone();
            if self.blocks {
                tokio::task::spawn_blocking(move || store.drain());
            } else {
                store.drain();
            }
        }
        done.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Waits for the writes on their way and closes the backend; later writes are refused.
    pub async fn close(self: &Arc<Self>) {
        self.queue().closed = true;
        let store = self.clone();
        let close = move || {
            store.drain();
            store.writer().backend = None;
        };
        if self.blocks {
            let _ = tokio::task::spawn_blocking(close).await;
        } else {
            close();
        }
    }

    /// Leads: commits what waits, again and again, until nothing does.
    fn drain(&self) {
        let mut writer = self.writer();
        loop {
            let waiting = {
                let mut queue = self.queue();
                if queue.waiting.is_empty() {
                    queue.led = false;
                    return;
                }
                std::mem::take(&mut queue.waiting)
            };
            self.commit(&mut writer, waiting);
        }
    }

    fn commit(&self, writer: &mut Writer, waiting: Vec<Pending>) {
        if let Err(error) = self.recover(writer) {
            for pending in waiting {
                let _ = pending.reply.send(Err(error.clone()));
            }
            return;
        }
        let mut replies = Vec::with_capacity(waiting.len());
        let mut batch = Batch::default();
        {
            let visible = self.read();
            batch.revision = visible.revision;
            // States that this batch made, not visible yet.
            let mut ahead: HashMap<(GroupResource, Key), Option<Object>> = HashMap::new();
            for Pending { write, reply } in waiting {
                let place = (write.resource.clone(), write.key.clone());
                let current = match ahead.get(&place) {
                    Some(object) => object.clone(),
                    None => visible.find(&write.resource, &write.key).cloned(),
                };
                let result = batch.add(write, current, &mut writer.scratch);
                if let Ok((object, remains)) = &result {
                    ahead.insert(place, remains.then(|| object.clone()));
                }
                replies.push((reply, result.map(|(object, _)| object)));
            }
        }
        if !batch.records.is_empty() {
            let committed = match &mut writer.backend {
                Some(backend) => backend.commit(&batch.records, batch.revision),
                None => {
                    for (reply, _) in replies {
                        let _ = reply.send(Err(WriteError::Closed));
                    }
                    return;
                }
            };
            match committed {
                Ok(()) => self.apply(batch),
                Err(error) => {
                    tracing::error!(%error, "store: commit refused");
                    writer.broken = Some(batch);
                    for (reply, result) in replies {
                        let _ = reply.send(result.and_then(|_| Err(WriteError::Backend(error.to_string()))));
                    }
                    return;
                }
            }
        }
        for (reply, result) in replies {
            let _ = reply.send(result);
        }
    }

    /// After a failed commit: finds out whether it is on disk after all, and if so makes it visible.
    fn recover(&self, writer: &mut Writer) -> Result<(), WriteError> {
        let Some(batch) = writer.broken.take() else {
            return Ok(());
        };
        let Some(backend) = &mut writer.backend else {
            return Err(WriteError::Closed);
        };
        match backend.recover() {
            Ok(revision) if revision == batch.revision => self.apply(batch),
            Ok(_) => {}
            Err(error) => {
                writer.broken = Some(batch);
                return Err(WriteError::Backend(error.to_string()));
            }
        }
        Ok(())
    }

    /// Makes a durable batch visible and wakes the watchers.
    fn apply(&self, batch: Batch) {
        let mut visible = self.write_lock();
        visible.revision = batch.revision;
        let mut touched: Vec<GroupResource> = Vec::new();
        for (resource, event) in batch.events {
            let collection = visible.collection(&resource);
            match &event.change {
                Change::Deleted { .. } => collection.objects.remove(&event.key),
                change => collection
                    .objects
                    .insert(event.key.clone(), Entry::new(change.object().clone())),
            };
            collection.log.push(event);
            if !touched.contains(&resource) {
                touched.push(resource);
            }
        }
        for resource in touched {
            visible.collection(&resource).changed.send_replace(batch.revision);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Visible> {
        self.visible.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lock(&self) -> RwLockWriteGuard<'_, Visible> {
        self.visible.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    /// Adds a write if its condition holds. Answers with the object and whether it remains.
    fn add(
        &mut self,
        write: Write,
        current: Option<Object>,
        scratch: &mut Vec<u8>,
    ) -> Result<(Object, bool), WriteError> {
        match (write.expect, &current) {
            (Expect::Absent, Some(_)) => return Err(WriteError::Exists),
            (Expect::Revision(_), None) => return Err(WriteError::Gone),
            (Expect::Revision(wanted), Some(object)) if object.revision != wanted => {
                return Err(WriteError::Modified(object.clone()));
            }
            _ => {}
        }
        let revision = self.revision + 1;
        let (mut value, remains) = match write.action {
            Action::Put(value) => (value, true),
            Action::Delete(value) => (value, false),
        };
        value["metadata"]["resourceVersion"] = Value::String(revision.to_string());
        scratch.clear();
        serde_json::to_writer(&mut *scratch, &value)
            .map_err(|error| WriteError::Backend(format!("serialising `{}`: {error}", write.key)))?;
        let object = Object {
            revision,
            bytes: Bytes::copy_from_slice(scratch),
        };
        let change = match (current, remains) {
            (None, true) => Change::Added(object.clone()),
            (Some(old), true) => Change::Modified {
                old,
                new: object.clone(),
            },
            (Some(old), false) => Change::Deleted {
                old,
                last: object.clone(),
            },
            (None, false) => return Err(WriteError::Gone),
        };
        self.revision = revision;
        self.records.push(Record {
            resource: write.resource.to_string(),
            key: write.key.clone(),
            bytes: remains.then(|| object.bytes.clone()),
            revision,
        });
        self.events.push((
            write.resource,
            Event {
                revision,
                key: write.key,
                change,
            },
        ));
        Ok((object, remains))
    }
}

impl Visible {
    fn collection(&mut self, resource: &GroupResource) -> &mut Collection {
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

    fn find(&self, resource: &GroupResource, key: &Key) -> Option<&Object> {
        self.collections
            .get(resource)?
            .objects
            .get(key)
            .map(|entry| &entry.object)
    }
}

impl Collection {
    fn range(&self, namespace: Option<&str>) -> Vec<(Key, Object)> {
        self.entries(namespace)
            .map(|(key, entry)| (key.clone(), entry.object.clone()))
            .collect()
    }

    fn entries(&self, namespace: Option<&str>) -> impl Iterator<Item = (&Key, &Entry)> {
        let prefix = namespace.map(|namespace| format!("{namespace}/"));
        let start = prefix.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let entries = self.objects.range::<str, _>((start, Bound::Unbounded));
        entries.take_while(move |(key, _)| prefix.as_deref().is_none_or(|prefix| key.as_str().starts_with(prefix)))
    }
}

impl Entry {
    fn new(object: Object) -> Self {
        Self {
            object,
            parsed: OnceLock::new(),
        }
    }

    fn value(&self, keep: bool) -> Arc<Value> {
        match keep {
            true => self.parsed.get_or_init(|| Arc::new(self.object.value())).clone(),
            false => Arc::new(self.object.value()),
        }
    }
}

/// Whether parsed objects are kept: those of RBAC are read with every request.
fn keeps_parsed(resource: &GroupResource) -> bool {
    resource.group == "rbac.authorization.k8s.io"
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
