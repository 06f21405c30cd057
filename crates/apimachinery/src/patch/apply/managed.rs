//! Who manages which fields: `metadata.managedFields`, read and written.
//!
//! Source: `apimachinery/pkg/util/managedfields/internal/{managedfields,capmanagers}.go`.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

use super::field_set::FieldSet;
use crate::{quote, time};

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// Tells managers apart. An applier is the same in every version, an updater is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// Its name.
    pub name: String,
    /// How it wrote.
    pub operation: Operation,
    /// Empty for appliers.
    pub api_version: String,
    /// Empty for the main resource.
    pub subresource: String,
}

impl Manager {
    pub(super) fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        Self {
            name: if name.is_empty() { "unknown" } else { name }.to_owned(),
            operation,
            api_version: if operation == Operation::Apply { "" } else { api_version }.to_owned(),
            subresource: subresource.to_owned(),
        }
    }
}

impl fmt::Display for Manager {
    /// As a conflict names it: `"kubectl" with subresource "scale" using apps/v1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote::quote(&self.name))?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {}", quote::quote(&self.subresource))?;
        }
        match self.operation {
            Operation::Apply => Ok(()),
            Operation::Update => write!(f, " using {}", self.api_version),
        }
    }
}

/// What one manager owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ownership {
    pub(super) fields: FieldSet,
    pub(super) api_version: String,
    /// As written; none until the manager changes something.
    pub(super) time: Option<String>,
}

/// Everybody's ownership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Managed(pub(super) BTreeMap<Manager, Ownership>);

impl Managed {
    /// Reads `metadata.managedFields`. `None` when an entry makes no sense.
    pub(super) fn read(object: &Value) -> Option<Self> {
        let mut managed = Self::default();
        let entries = object
            .get("metadata")
            .and_then(|metadata| metadata.get("managedFields"));
        for entry in entries.and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            if text("apiVersion").is_empty() || text("fieldsType") != "FieldsV1" {
                return None;
            }
            let ownership = Ownership {
                fields: FieldSet::from_fields_v1(entry.get("fieldsV1").unwrap_or(&Value::Null)).ok()?,
                api_version: text("apiVersion").to_owned(),
                time: entry.get("time").and_then(Value::as_str).map(str::to_owned),
            };
            let mut manager = Manager::new(text("manager"), operation, text("apiVersion"), text("subresource"));
            manager.name = text("manager").to_owned();
            managed.0.insert(manager, ownership);
        }
        Some(managed)
    }

    /// Writes `metadata.managedFields`, appliers first, then by time and name; removes it when nobody manages anything.
    pub(super) fn write(&self, object: &mut Value) {
        let Some(metadata) = metadata_mut(object) else { return };
        if self.0.is_empty() {
            metadata.shift_remove("managedFields");
            return;
        }
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by_key(|(manager, owned)| {
            (
                manager.operation,
                owned.seconds(),
                &manager.name,
                &owned.api_version,
                &manager.subresource,
            )
        });
        let entries = entries.into_iter().map(|(manager, owned)| {
            let mut entry = Map::new();
            entry.insert("manager".to_owned(), json!(manager.name));
            let operation = match manager.operation {
                Operation::Apply => "Apply",
                Operation::Update => "Update",
            };
            entry.insert("operation".to_owned(), json!(operation));
            entry.insert("apiVersion".to_owned(), json!(owned.api_version));
            if let Some(time) = &owned.time {
                entry.insert("time".to_owned(), json!(time));
            }
            entry.insert("fieldsType".to_owned(), json!("FieldsV1"));
            entry.insert("fieldsV1".to_owned(), owned.fields.to_fields_v1());
            if !manager.subresource.is_empty() {
                entry.insert("subresource".to_owned(), json!(manager.subresource));
            }
            Value::Object(entry)
        });
        metadata.insert("managedFields".to_owned(), entries.collect());
    }

    /// Whether both own the same, whenever it was.
    pub(super) fn same_but_for_times(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|((a, owned_a), (b, owned_b))| {
                a == b && owned_a.fields == owned_b.fields && owned_a.api_version == owned_b.api_version
            })
    }

    /// Merges the oldest updaters into `ancient-changes`, one entry a version, until at most `max` are left.
    pub(super) fn cap_updaters(&mut self, max: usize) {
        let mut updaters: Vec<Manager> = self
            .0
            .keys()
            .filter(|manager| manager.operation == Operation::Update)
            .cloned()
            .collect();
        let mut left = updaters.len();
        if left <= max {
            return;
        }
        updaters.sort_by_cached_key(|manager| (self.0[manager].seconds(), manager.clone()));
        let mut first_of_version: BTreeMap<String, Manager> = BTreeMap::new();
        for manager in updaters {
            if left <= max {
                return;
            }
            let version = manager.api_version.clone();
            let Some(first) = first_of_version.get(&version) else {
                first_of_version.insert(version, manager);
                continue;
            };
            let bucket = Manager::new("ancient-changes", Operation::Update, &version, "");
            // The bucket itself may be the younger of the two.
            let manager = if manager == bucket { first.clone() } else { manager };
            if !self.0.contains_key(&bucket)
                && let Some(owned) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), owned);
            }
            let Some(owned) = self.0.remove(&manager) else { continue };
            first_of_version.insert(version.clone(), bucket.clone());
            let merged = self.0.entry(bucket).or_default();
            merged.fields = std::mem::take(&mut merged.fields).union(&owned.fields);
            merged.api_version = version;
            merged.time = owned.time;
            left -= 1;
        }
    }
}

impl Ownership {
    fn seconds(&self) -> i64 {
        self.time
            .as_deref()
            .and_then(time::parse)
            .map_or(0, jiff::Timestamp::as_second)
    }
}

/// The object's metadata, made when it has none.
pub(super) fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object
        .as_object_mut()?
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
}

/// Removes and returns `metadata.managedFields`.
pub(super) fn take(object: &mut Value) -> Option<Value> {
    object
        .get_mut("metadata")?
        .as_object_mut()?
        .shift_remove("managedFields")
}
