//! How the rules of a kind are applied to a write: the same steps for every kind.

use apimachinery::field;
use serde_json::Value;

use super::walk::{keep_old, same};
use super::{Generation, Status, Strategy, Subresource, meta, walk};

impl Strategy {
    /// Readies a new object: the client's status goes, generation starts at 1, then what the kind wants.
    ///
    /// `metadata` (uid, name, timestamps) is the caller's and must be complete: a Job's selector is its uid.
    pub fn ready_create(&self, object: &mut Value) {
        if let Status::Fresh(fresh) = self.status
            && let Some(map) = object.as_object_mut()
        {
            match fresh() {
                Value::Null => walk::drop_key(map, "status"),
                status => {
                    map.insert("status".to_owned(), status);
                }
            }
        }
        if let Some(metadata) = walk::ensure_at(object, &["metadata"]) {
            if self.has_generation() {
                metadata.insert("generation".to_owned(), 1.into());
            } else {
                walk::drop_key(metadata, "generation");
            }
        }
        (self.prepare_create)(object);
    }

    /// Readies a change at `subresource` (empty: the object itself): what is not to be written there stays as stored, and
    /// generation moves if it has to. `/scale` is a change of the object.
    pub fn ready_change(&self, subresource: &str, new: &mut Value, old: &Value) {
        match (subresource, self.subresource(subresource)) {
            ("status", part) => {
                keep_all_but_status(new, old);
                if let Some(part) = part {
                    (part.ready)(new, old);
                }
                return;
            }
            (_, Some(part)) => (part.ready)(new, old),
            (_, None) => {
                if self.has_status() {
                    keep_old(new, old, "status");
                }
                (self.prepare_update)(new, old);
            }
        }
        self.move_generation(new, old);
    }

    /// Sets `metadata.generation` of an update from the stored object's: one more if the change counts.
    fn move_generation(&self, new: &mut Value, old: &Value) {
        let counts = match self.generation {
            Generation::Untracked => false,
            Generation::Spec => body_changed(new, old, self.has_status()),
            Generation::SpecAndAnnotations => {
                body_changed(new, old, self.has_status()) || metadata_changed(new, old, "annotations")
            }
            Generation::SpecAndLabels => {
                body_changed(new, old, self.has_status()) || metadata_changed(new, old, "labels")
            }
        };
        let stored = walk::int(old, &["metadata", "generation"]);
        let Some(metadata) = walk::ensure_at(new, &["metadata"]) else {
            return;
        };
        match (self.has_generation(), stored) {
            (true, stored) => {
                let generation = stored.unwrap_or(0) + i64::from(counts);
                metadata.insert("generation".to_owned(), generation.max(1).into());
            }
            // E.g. deletion has bumped it; nobody else may.
            (false, Some(stored)) => {
                metadata.insert("generation".to_owned(), stored.into());
            }
            (false, None) => walk::drop_key(metadata, "generation"),
        }
    }

    /// Everything that is wrong with a new object, metadata included.
    pub fn validate_create(&self, namespaced: bool, object: &Value) -> Vec<field::Error> {
        let mut errors = Vec::new();
        meta::validate_create(object, namespaced, self.name, &mut errors);
        (self.validate)(object, &mut errors);
        (self.validate_new)(object, &mut errors);
        errors
    }

    /// Everything that is wrong with a change at `subresource` (empty: the object itself), metadata included.
    ///
    /// Of `/status` that is metadata alone for most kinds: controllers are trusted with the rest.
    pub fn validate_change(&self, subresource: &str, namespaced: bool, new: &Value, old: &Value) -> Vec<field::Error> {
        let mut errors = Vec::new();
        meta::validate_update(new, old, namespaced, &mut errors);
        match (subresource, self.subresource(subresource)) {
            (_, Some(part)) => (part.validate)(new, old, &mut errors),
            ("status", None) => {}
            (_, None) => {
                (self.validate)(new, &mut errors);
                (self.validate_update)(new, old, &mut errors);
            }
        }
        errors
    }

    fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|part| part.name == name)
    }
}

/// Everything but status stays as stored (of metadata: labels, annotations and finalizers may change, as upstream has it
/// for most kinds).
fn keep_all_but_status(new: &mut Value, old: &Value) {
    let keys: Vec<String> = [&*new, old]
        .iter()
        .filter_map(|value| value.as_object())
        .flat_map(|map| map.keys().cloned())
        .filter(|key| !matches!(key.as_str(), "status" | "metadata" | "kind" | "apiVersion"))
        .collect();
    for key in keys {
        keep_old(new, old, &key);
    }
    if let (Some(metadata), Some(stored)) = (new.get_mut("metadata"), old.get("metadata")) {
        for key in [
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "ownerReferences",
        ] {
            keep_old(metadata, stored, key);
        }
    }
}

/// Whether anything but metadata, status and type changed. Without a status subresource status counts.
fn body_changed(new: &Value, old: &Value, has_status: bool) -> bool {
    let left_out = |key: &str| matches!(key, "metadata" | "kind" | "apiVersion") || has_status && key == "status";
    new.as_object()
        .into_iter()
        .chain(old.as_object())
        .flat_map(|map| map.keys())
        .any(|key| !left_out(key) && !same(new.get(key), old.get(key)))
}

fn metadata_changed(new: &Value, old: &Value, key: &str) -> bool {
    !same(walk::at(new, &["metadata", key]), walk::at(old, &["metadata", key]))
}
