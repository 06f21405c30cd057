//! Writing: optimistic concurrency, group commit, and what happens after a commit that failed.
//!
//! Owns the queue of writes and the backend. The first writer leads, whoever comes while a commit is on its way to the
//! disk waits in the queue and goes with the next one.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use apimachinery::gvk::GroupResource;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot;

use super::visible::Entry;
use super::{Backend, Change, Event, Key, Object, Record, Store};

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

#[derive(Default)]
pub(super) struct Queue {
    waiting: Vec<Pending>,
    led: bool,
    closed: bool,
}

struct Pending {
    write: Write,
    reply: oneshot::Sender<Result<Object, WriteError>>,
}

pub(super) struct Writer {
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

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    pub(super) fn new(backend: Box<dyn Backend>) -> Self {
        Self {
            backend: Some(backend),
            broken: None,
            scratch: Vec::new(),
        }
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
