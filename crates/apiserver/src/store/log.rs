//! `Log`: the last changes of one resource, from which watches and older snapshots are served.
//!
//! Bounded by number and by bytes. A watch is a cursor over it, so a slow watcher costs no memory: when its place has
//! been dropped, it is told so and has to list again.

use std::collections::VecDeque;

use super::{Key, Object};

/// At most this many changes are kept a resource.
const MAX_EVENTS: usize = 2048;
/// Beyond [`MIN_EVENTS`], at most this many bytes of objects are kept a resource.
const MAX_BYTES: usize = 1 << 20;
/// This many changes are kept whatever their size.
const MIN_EVENTS: usize = 128;

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Event {
    /// The revision the change made.
    pub revision: u64,
    /// Which object.
    pub key: Key,
    /// What became of it.
    pub change: Change,
}

/// What became of an object. States share their bytes with the index and with their neighbours in the log.
#[derive(Clone, Debug)]
pub enum Change {
    /// It is new.
    Added(Object),
    /// It has another state.
    Modified {
        /// What it was.
        old: Object,
        /// What it is.
        new: Object,
    },
    /// It is gone.
    Deleted {
        /// What it was.
        old: Object,
        /// Its last state, under the revision of the deletion.
        last: Object,
    },
}

impl Change {
    /// The state the change led to; of a deletion, the last one.
    pub fn object(&self) -> &Object {
        match self {
            Self::Added(object) | Self::Modified { new: object, .. } | Self::Deleted { last: object, .. } => object,
        }
    }

    /// The state before, `None` of a new object.
    pub fn old(&self) -> Option<&Object> {
        match self {
            Self::Added(_) => None,
            Self::Modified { old, .. } | Self::Deleted { old, .. } => Some(old),
        }
    }
}

/// The last changes of one resource.
#[derive(Debug)]
pub(crate) struct Log {
    events: VecDeque<Event>,
    bytes: usize,
    /// Changes up to and including this revision are not known any more.
    forgotten: u64,
}

impl Log {
    /// Knows nothing of what happened up to and including `revision`.
    pub(crate) fn starting_after(revision: u64) -> Self {
        Self {
            events: VecDeque::new(),
            bytes: 0,
            forgotten: revision,
        }
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.bytes += event.change.object().bytes.len();
        self.events.push_back(event);
        while self.events.len() > MAX_EVENTS || (self.bytes > MAX_BYTES && self.events.len() > MIN_EVENTS) {
            if let Some(dropped) = self.events.pop_front() {
                self.bytes -= dropped.change.object().bytes.len();
                self.forgotten = dropped.revision;
            }
        }
        if self.events.capacity() > 4 * self.events.len().max(16) {
            self.events.shrink_to(2 * self.events.len());
        }
    }

    /// The newest revision from which a watch can no longer start.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The changes after `revision`, oldest first; `None` if some of them are forgotten.
    pub(crate) fn since(&self, revision: u64) -> Option<impl DoubleEndedIterator<Item = &Event>> {
        if revision < self.forgotten {
            return None;
        }
        let start = self.events.partition_point(|event| event.revision <= revision);
        Some(self.events.range(start..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn event(revision: u64, size: usize) -> Event {
        let object = Object {
            revision,
            bytes: Bytes::from(vec![b'x'; size]),
        };
        Event {
            revision,
            key: Key::new(None, "a"),
            change: Change::Added(object),
        }
    }

    #[test]
    fn what_was_dropped_cannot_be_watched() {
        let mut log = Log::starting_after(10);
        for revision in 11..=10 + MAX_EVENTS as u64 + 5 {
            log.push(event(revision, 1));
        }
        assert_eq!(log.forgotten(), 15);
        assert!(log.since(14).is_none());
        assert_eq!(log.since(15).unwrap().next().unwrap().revision, 16);
        assert_eq!(log.since(u64::MAX).unwrap().count(), 0);
    }

    #[test]
    fn large_objects_leave_the_log_sooner() {
        let mut log = Log::starting_after(0);
        for revision in 1..=1000 {
            log.push(event(revision, 64 << 10));
        }
        assert_eq!(log.since(log.forgotten()).unwrap().count(), MIN_EVENTS);
    }
}
