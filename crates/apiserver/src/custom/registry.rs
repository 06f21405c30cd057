//! `Registry`: the definitions there are. Runs after each write of one, before the write is answered.
//!
//! It settles names and conditions, swaps the resource table, and deletes the instances of a definition that is being
//! deleted. No loop: the write of a definition, or the deletion of an instance that a deleted definition waits for, is
//! what starts it.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use apimachinery::gvk::GroupResource;
use apimachinery::time;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::definition::{Definition, priority};
use super::naming::{Taken, set_condition, settle};
use crate::api::Api;
use crate::resources::Table;
use crate::store::{Action, Expect, Key, Object, Write, WriteError};
use crate::strategy::walk::text;
use crate::verbs::metadata;

/// The finalizer under which a deleted definition waits for its instances.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

const KIND: &str = "CustomResourceDefinition";
const API_VERSION: &str = "apiextensions.k8s.io/v1";

/// `customresourcedefinitions.apiextensions.k8s.io`
pub(crate) fn definitions() -> &'static GroupResource {
    static RESOURCE: LazyLock<GroupResource> =
        LazyLock::new(|| GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions"));
    &RESOURCE
}

/// Whether this is the resource of the definitions themselves.
pub(crate) fn is_definitions(resource: &GroupResource) -> bool {
    resource == definitions()
}

/// See the module.
pub(crate) struct Registry {
    /// The built-in resources.
    base: Arc<Table>,
    known: tokio::sync::Mutex<BTreeMap<Key, Known>>,
    /// Resources whose definition waits for its instances to go.
    terminating: Mutex<HashSet<GroupResource>>,
}

/// A definition as it was when last looked at.
struct Known {
    revision: u64,
    /// Of what decides over the rows of the table.
    digest: [u8; 32],
    group: String,
    plural: String,
    accepted_names: Value,
    /// Whether all its names were free.
    settled: bool,
    waits: bool,
    compiled: Option<Arc<Definition>>,
}

impl Registry {
    pub(crate) fn new(base: Arc<Table>) -> Self {
        Self {
            base,
            known: tokio::sync::Mutex::default(),
            terminating: Mutex::default(),
        }
    }

    /// Whether the deletion of an instance may be what a deleted definition waits for.
    pub(crate) fn is_terminating(&self, resource: &GroupResource) -> bool {
        let terminating = self.terminating.lock().unwrap_or_else(PoisonError::into_inner);
        terminating.contains(resource)
    }
}

/// What a definition that is being deleted says; called once, when its deletion begins.
pub(crate) fn mark_terminating(definition: &mut Value, now: &str) {
    let mut finalizers = metadata::finalizers(definition);
    if !finalizers.iter().any(|name| name == CLEANUP) {
        finalizers.push(CLEANUP.to_owned());
        metadata::set_finalizers(definition, &finalizers);
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will be initiated soon";
    set_condition(
        definition,
        "Terminating",
        "True",
        "InstanceDeletionPending",
        message,
        now,
    );
}

/// Brings conditions, table and instances in line with the definitions that are stored.
pub(crate) async fn refresh(api: &Arc<Api>) {
    let mut known = api.custom.known.lock().await;
    // A round that wrote something is looked at again: accepted names decide over those of others.
    while round(api, &mut known).await {}
    let waiting = known.values().filter(|known| known.waits);
    let waiting = waiting
        .map(|known| GroupResource::new(&known.group, &known.plural))
        .collect();
    *api.custom.terminating.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
    api.set_table(table(&api.custom.base, &known));
}

/// Answers whether something was written.
async fn round(api: &Arc<Api>, known: &mut BTreeMap<Key, Known>) -> bool {
    let objects = api.store.snapshot(definitions(), None).objects;
    let there: HashSet<&Key> = objects.iter().map(|(key, _)| key).collect();
    let before = known.len();
    known.retain(|key, _| there.contains(key));
    // Names may have become free.
    let freed = known.len() < before;
    let mut wrote = false;
    for (key, object) in &objects {
        let last = known.get(key);
        let unchanged = last.is_some_and(|known| {
            known.revision == object.revision && !known.waits && (known.settled || !(freed || wrote))
        });
        if !unchanged {
            let taken = taken(known, key, object);
            wrote |= look(api, known, key, object, &taken).await;
        }
    }
    wrote
}

fn taken(known: &BTreeMap<Key, Known>, own: &Key, object: &Object) -> Taken {
    let mut taken = Taken::default();
    let group = text(&object.value(), &["spec", "group"]).to_owned();
    for (_, other) in known.iter().filter(|(key, other)| *key != own && other.group == group) {
        taken.add(&other.accepted_names);
    }
    taken
}

/// Looks at one definition: settles it, compiles it, goes on with its deletion. Answers whether it wrote.
async fn look(api: &Arc<Api>, known: &mut BTreeMap<Key, Known>, key: &Key, object: &Object, taken: &Taken) -> bool {
    let now = time::format(api.now());
    let mut definition = object.value();
    let before = definition.clone();
    settle(&mut definition, taken, &now);
    let waits =
        metadata::is_deleting(&definition) && metadata::finalizers(&definition).iter().any(|name| name == CLEANUP);
    let digest = digest(&definition);
    let last = known.remove(key).filter(|known| known.digest == digest);
    let compiled = match last.and_then(|known| known.compiled) {
        Some(compiled) => Some(compiled),
        None => Definition::compile(&definition, api.store.revision()).map(Arc::new),
    };
    if let Some(compiled) = &compiled {
        compiled.set_terminating(metadata::is_deleting(&definition));
    }
    let group = text(&definition, &["spec", "group"]).to_owned();
    let plural = text(&definition, &["spec", "names", "plural"]).to_owned();
    known.insert(
        key.clone(),
        Known {
            revision: object.revision,
            digest,
            accepted_names: definition["status"]["acceptedNames"].clone(),
            settled: super::naming::condition(&definition, "NamesAccepted") == Some("True"),
            waits,
            group: group.clone(),
            plural: plural.clone(),
            compiled,
        },
    );
    let mut gone = false;
    if waits {
        let left = delete_instances(api, &GroupResource::new(&group, &plural), &now).await;
        let (status, reason, message) = if left == 0 {
            ("False", "InstanceDeletionCompleted", "removed all instances".to_owned())
        } else {
            let message = format!("could not confirm zero CustomResources remaining: {left} left");
            ("True", "InstanceDeletionCheck", message)
        };
        set_condition(&mut definition, "Terminating", status, reason, &message, &now);
        if left == 0 {
            let finalizers: Vec<String> = metadata::finalizers(&definition)
                .into_iter()
                .filter(|name| name != CLEANUP)
                .collect();
            gone = finalizers.is_empty();
            metadata::set_finalizers(&mut definition, &finalizers);
        }
    }
    if definition == before {
        return false;
    }
    metadata::arrange(&mut definition, KIND, API_VERSION);
    let action = if gone {
        Action::Delete(definition)
    } else {
        Action::Put(definition)
    };
    let write = Write {
        resource: definitions().clone(),
        key: key.clone(),
        expect: Expect::Revision(object.revision),
        action,
    };
    match api.store.write(write).await {
        // Somebody else was faster: the next round sees what they wrote.
        Ok(_) | Err(WriteError::Modified(_) | WriteError::Gone | WriteError::Exists) => true,
        Err(error) => {
            tracing::warn!(definition = %key, ?error, "the conditions of a definition cannot be written");
            false
        }
    }
}

/// Starts the deletion of every instance; answers how many are left, waiting for their finalizers.
async fn delete_instances(api: &Arc<Api>, resource: &GroupResource, now: &str) -> usize {
    let mut left = 0;
    for (key, object) in api.store.snapshot(resource, None).objects {
        let mut value = object.value();
        let waits = !metadata::finalizers(&value).is_empty();
        left += usize::from(waits);
        if waits && metadata::is_deleting(&value) {
            continue;
        }
        if waits {
            metadata::set(&mut value, "deletionTimestamp", Some(now.into()));
            metadata::set(&mut value, "deletionGracePeriodSeconds", Some(0.into()));
            metadata::next_generation(&mut value);
            let kind = text(&value, &["kind"]).to_owned();
            let version = text(&value, &["apiVersion"]).to_owned();
            metadata::arrange(&mut value, &kind, &version);
        }
        let write = Write {
            resource: resource.clone(),
            key,
            expect: Expect::Revision(object.revision),
            action: if waits {
                Action::Put(value)
            } else {
                Action::Delete(value)
            },
        };
        // One that somebody changed meanwhile is still there, and looked at again when it goes.
        if api.store.write(write).await.is_err() && !waits {
            left += 1;
        }
    }
    left
}

fn digest(definition: &Value) -> [u8; 32] {
    let established = super::naming::condition(definition, "Established");
    let decides = json!([
        definition["metadata"]["uid"],
        definition["spec"],
        definition["status"]["acceptedNames"],
        established
    ]);
    Sha256::digest(decides.to_string()).into()
}

/// The built-in resources, then the custom ones, group by group.
fn table(base: &Table, known: &BTreeMap<Key, Known>) -> Table {
    let mut table = base.clone();
    let mut groups: BTreeMap<&str, Vec<&Arc<Definition>>> = BTreeMap::new();
    for compiled in known.values().filter_map(|known| known.compiled.as_ref()) {
        groups.entry(&compiled.group).or_default().push(compiled);
    }
    for (group, definitions) in groups {
        let mut versions: Vec<&str> = definitions
            .iter()
            .flat_map(|definition| &definition.versions)
            .map(|row| row.version.as_str())
            .collect();
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        versions.dedup();
        for version in versions {
            let rows = definitions.iter().flat_map(|definition| &definition.versions);
            let rows = rows.filter(|row| row.version == version).cloned().collect();
            table.add_version(group, version, rows);
        }
    }
    table
}
