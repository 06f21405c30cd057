//! GET of a list with `watch=true`: an endless answer, one change a line.
//!
//! A watch is a cursor over the store's log. It holds no events of its own: one that is too slow finds its place
//! forgotten, says so with a 410 and ends.

use std::collections::VecDeque;
use std::time::Duration;

use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::Target;
use super::list::{check_resource_version, validate};
use super::selection::Selection;
use crate::body::Body;
use crate::call::{Answer, Call};
use crate::request::{ListOptions, Representation};
use crate::respond::{self, Columns, TableOptions};
use crate::store::{Change, Event, Expired, Object};
use std::sync::Arc;

use crate::api::Api;
use crate::resources::Resource;

/// Changes that are read from the log and sent at once.
const BURST: usize = 64;
/// Between two bookmarks of a quiet watch.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// The last bookmark comes this long before the end.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// The shortest life of a watch that asks for none, in seconds; the longest is twice that.
const MIN_TIMEOUT: u64 = 1800;

pub(super) fn watch(call: &Arc<Call>, target: &Target) -> Answer {
    let options = ListOptions::read(&call.query)?;
    validate(&options, true)?;
    let selection = Selection::of(target, &options)?;
    let form = Form::read(call)?;
    let api = call.api.clone();
    let stored = target.resource.stored_as.clone();
    // Subscribed before anything is read: no change falls between.
    let changed = api.store.subscribe(&stored);
    let start = check_resource_version(&options.resource_version, api.store.revision())?;
    let seconds = options
        .timeout_seconds
        .filter(|seconds| *seconds > 0)
        .unwrap_or_else(random_timeout);
    let mut watch = Watch {
        selection,
        form,
        resource: target.resource.clone(),
        namespace: target.namespace.clone(),
        changed,
        stored,
        cursor: 0,
        bookmarks: options.allow_watch_bookmarks,
        deadline: Instant::now() + Duration::from_secs(seconds),
        last_bookmark_sent: false,
        pending: VecDeque::new(),
        ended: false,
        api,
    };
    match (options.send_initial_events, start) {
        (Some(true), _) => watch.start_with_objects(true),
        (Some(false), None) => watch.cursor = watch.api.store.revision(),
        (None, None) => watch.start_with_objects(false),
        (_, Some(revision)) => watch.cursor = revision,
    }
    let body = Body::stream(stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((Ok(chunk), watch))
    }));
    Ok(respond::with_type(StatusCode::OK, "application/json", body))
}

fn random_timeout() -> u64 {
    let random = u64::from(u16::from_be_bytes([
        Uuid::new_v4().as_bytes()[0],
        Uuid::new_v4().as_bytes()[1],
    ]));
    MIN_TIMEOUT + random % MIN_TIMEOUT
}

struct Watch {
    api: Arc<Api>,
    resource: Arc<Resource>,
    stored: GroupResource,
    namespace: Option<String>,
    selection: Selection,
    form: Form,
    changed: watch::Receiver<u64>,
    /// Everything up to this revision has been sent.
    cursor: u64,
    bookmarks: bool,
    deadline: Instant,
    last_bookmark_sent: bool,
    /// Objects of the start that are still to be sent; the last entry may be the bookmark that ends them.
    pending: VecDeque<Initial>,
    ended: bool,
}

enum Initial {
    Object(Object),
    End,
}

impl Watch {
    /// Synthetic ADDED events for all that is there.
    fn start_with_objects(&mut self, end_bookmark: bool) {
        let snapshot = self.api.store.snapshot(&self.stored, self.namespace.as_deref());
        self.cursor = snapshot.revision;
        let selected = snapshot
            .objects
            .into_iter()
            .filter(|(key, object)| self.selection.matches(&self.resource, key, object));
        self.pending = selected.map(|(_, object)| Initial::Object(object)).collect();
        if end_bookmark {
            self.pending.push_back(Initial::End);
        }
    }

    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut lines = BytesMut::new();
        while lines.len() < 16 << 10
            && let Some(initial) = self.pending.pop_front()
        {
            match initial {
                Initial::Object(object) => self.form.line(&mut lines, &self.resource, &self.api, "ADDED", &object),
                Initial::End => self.bookmark(&mut lines, true),
            }
        }
        if !lines.is_empty() {
            return Some(lines.freeze());
        }
        loop {
            self.changed.mark_unchanged();
            match self.api.store.changes(&self.stored, self.cursor, BURST) {
                Ok(changes) => {
                    for event in &changes.events {
                        self.event(&mut lines, event);
                    }
                    self.cursor = changes.revision;
                    if !lines.is_empty() {
                        return Some(lines.freeze());
                    }
                    if changes.events.len() == BURST {
                        continue;
                    }
                }
                Err(expired) => {
                    self.ended = true;
                    return Some(expired_line(expired));
                }
            }
            let now = Instant::now();
            let mut wake = self.deadline;
            if self.bookmarks {
                wake = wake.min(now + BOOKMARKS);
                if !self.last_bookmark_sent && self.deadline > now + LAST_BOOKMARK {
                    wake = wake.min(self.deadline - LAST_BOOKMARK);
                }
            }
            tokio::select! {
                changed = self.changed.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                }
                () = self.api.closing.cancelled() => return None,
                () = gone(&self.resource) => return None,
                () = tokio::time::sleep_until(wake) => {
                    let now = Instant::now();
                    if now >= self.deadline {
                        return None;
                    }
                    if self.bookmarks {
                        self.last_bookmark_sent = now + LAST_BOOKMARK >= self.deadline;
                        self.cursor = self.cursor.max(self.quiet_until());
                        self.bookmark(&mut lines, false);
                        return Some(lines.freeze());
                    }
                }
            }
        }
    }

    /// The store's revision if nothing of this resource has happened since the cursor.
    fn quiet_until(&self) -> u64 {
        match self.api.store.changes(&self.stored, self.cursor, 1) {
            Ok(changes) if changes.events.is_empty() => changes.revision,
            _ => self.cursor,
        }
    }

    fn event(&mut self, lines: &mut BytesMut, event: &Event) {
        if !event.key.is_in(self.namespace.as_deref()) {
            return;
        }
        let selected = |object: &Object| self.selection.matches(&self.resource, &event.key, object);
        let (kind, object) = match &event.change {
            Change::Added(new) => match selected(new) {
                true => ("ADDED", new.clone()),
                false => return,
            },
            Change::Modified { old, new } => match (selected(old), selected(new)) {
                (true, true) => ("MODIFIED", new.clone()),
                (false, true) => ("ADDED", new.clone()),
                (true, false) => ("DELETED", under_revision(old, event.revision)),
                (false, false) => return,
            },
            Change::Deleted { old, last } => match selected(old) {
                true => ("DELETED", last.clone()),
                false => return,
            },
        };
        self.form.line(lines, &self.resource, &self.api, kind, &object);
    }

    fn bookmark(&mut self, lines: &mut BytesMut, initial_events_end: bool) {
        let mut metadata = json!({"resourceVersion": self.cursor.to_string()});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({
            "kind": self.resource.kind,
            "apiVersion": self.resource.api_version(),
            "metadata": metadata,
        });
        let line = match (&mut self.form.table, self.form.representation) {
            (Some(options), _) => {
                let table = respond::table(&Columns::of(&self.resource), &object, options, self.api.now());
                *options = options.without_headers();
                table
            }
            (None, Representation::Metadata(form)) => respond::to_bytes(&respond::Partial::of(&object, form)),
            (None, _) => respond::to_bytes(&object),
        };
        write_line(lines, "BOOKMARK", &line);
    }
}

/// In which form the objects of a watch are sent.
struct Form {
    representation: Representation,
    /// Only of tables: the columns are sent once.
    table: Option<TableOptions>,
}

impl Form {
    fn read(call: &Call) -> Result<Self, Status> {
        let representation = call.accept.representation()?;
        let table = match representation {
            Representation::Table(form) => Some(TableOptions::read(&call.query, form)?),
            _ => None,
        };
        Ok(Self { representation, table })
    }

    fn line(&mut self, lines: &mut BytesMut, resource: &Resource, api: &Api, kind: &str, object: &Object) {
        match (&mut self.table, self.representation) {
            (Some(options), _) => {
                let value = respond::served_value(resource, object);
                let table = respond::table(&Columns::of(resource), &value, options, api.now());
                *options = options.without_headers();
                write_line(lines, kind, &table);
            }
            (None, Representation::Metadata(form)) => {
                let value = respond::metadata_value(resource, object);
                write_line(lines, kind, &respond::to_bytes(&respond::Partial::of(&value, form)));
            }
            (None, _) => write_line(lines, kind, &respond::served(resource, object)),
        }
    }
}

/// When the resource's definition is gone or another.
async fn gone(resource: &Resource) {
    match &resource.custom {
        Some(custom) => custom.ended().cancelled().await,
        None => std::future::pending().await,
    }
}

fn write_line(lines: &mut BytesMut, kind: &str, object: &[u8]) {
    lines.reserve(object.len() + 40);
    lines.put_slice(b"{\"type\":\"");
    lines.put_slice(kind.as_bytes());
    lines.put_slice(b"\",\"object\":");
    lines.put_slice(object);
    lines.put_slice(b"}\n");
}

fn expired_line(expired: Expired) -> Bytes {
    let Expired { wanted, oldest } = expired;
    let status = Status::expired(format!("too old resource version: {wanted} ({oldest})"));
    let mut lines = BytesMut::new();
    write_line(&mut lines, "ERROR", status.to_value().to_string().as_bytes());
    lines.freeze()
}

/// An object that left the selection: its old state under the revision of the change.
fn under_revision(old: &Object, revision: u64) -> Object {
    let mut value = old.value();
    value["metadata"]["resourceVersion"] = Value::String(revision.to_string());
    Object {
        revision,
        bytes: respond::to_bytes(&value),
    }
}
