//! Who owns whom: a graph of UIDs, fed by watches, that says which objects are worth a look.
//!
//! Pure. It knows only objects that own or are owned (everything else has no garbage to leave behind), so it stays small
//! next to a cache of all objects. It may be behind: whoever acts on it looks at the real object first.
//! (k/k `pkg/controller/garbagecollector/{graph,graph_builder}.go`, v1.36, without its copies of all metadata.)

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Finalizer of an object that waits for its dependents' end.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents are to stay.
pub(super) const ORPHAN: &str = "orphan";

pub(crate) type Uid = Arc<str>;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) api_version: Arc<str>,
    pub(super) kind: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// May have to be deleted, or (being deleted in the foreground) may be done waiting.
    Collect(Uid),
    /// Asked for its dependents to be let go.
    Orphan(Uid),
    /// Somebody says that it owns them; nobody has seen it.
    Verify(Uid),
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Collect(uid) => write!(f, "collect {uid}"),
            Self::Orphan(uid) => write!(f, "orphan {uid}"),
            Self::Verify(uid) => write!(f, "verify {uid}"),
        }
    }
}

#[derive(Debug)]
struct Node {
    place: Place,
    owners: Vec<Owner>,
    dependents: HashSet<Uid>,
    /// Seen by a watch, or looked up.
    known: bool,
    being_deleted: bool,
    foreground: bool,
    orphaning: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    uid: Uid,
    blocks: bool,
}

/// The graph.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<Uid, Node>,
}

/// What is known of one object; a copy.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) place: Place,
    pub(super) being_deleted: bool,
    pub(super) foreground: bool,
    pub(super) has_dependents: bool,
}

impl Graph {
    /// A watch saw the object in this state. `place` is asked for only if there is something to remember.
    pub(super) fn observe(&mut self, place: impl FnOnce() -> Place, meta: &ObjectMeta) -> Vec<Work> {
        let mut work = Vec::new();
        let Some(uid) = meta.uid.as_deref() else { return work };
        let references = meta.owner_references.as_deref().unwrap_or_default();
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|have| have == finalizer);
        let being_deleted = meta.deletion_timestamp.is_some();
        let (foreground, orphaning) = (being_deleted && has(FOREGROUND), being_deleted && has(ORPHAN));
        let before = self.nodes.get(uid);
        if before.is_none() && references.is_empty() && !foreground && !orphaning {
            return work;
        }
        let place = place();
        let before_owners = before.map(|node| node.owners.clone()).unwrap_or_default();
        let uid = self
            .nodes
            .get_key_value(uid)
            .map_or_else(|| Uid::from(uid), |(uid, _)| uid.clone());
        let owners: Vec<Owner> = references.iter().map(|reference| self.owner(reference)).collect();
        let node = self
            .nodes
            .entry(uid.clone())
            .or_insert_with(|| Node::new(place.clone()));
        let was = (node.foreground, node.orphaning);
        // Whoever named it as an owner may have been wrong about where it is.
        let was_misplaced = !node.known && node.place != place;
        node.place = place;
        node.known = true;
        (node.being_deleted, node.foreground, node.orphaning) = (being_deleted, foreground, orphaning);
        node.owners.clone_from(&owners);
        let dependents: Vec<Uid> = node.dependents.iter().cloned().collect();
        if foreground && !was.0 {
            work.extend(dependents.iter().cloned().map(Work::Collect));
            work.push(Work::Collect(uid.clone()));
        } else if was_misplaced {
            work.extend(dependents.iter().cloned().map(Work::Collect));
        }
        if orphaning && !was.1 {
            work.push(Work::Orphan(uid.clone()));
        }
        self.move_owners(&uid, &before_owners, &owners, references, &mut work);
        self.forget_if_irrelevant(&uid);
        work
    }

    /// Links the object to its owners and unlinks it from those it no longer has.
    fn move_owners(
        &mut self,
        uid: &Uid,
        before: &[Owner],
        now: &[Owner],
        references: &[OwnerReference],
        work: &mut Vec<Work>,
    ) {
        let namespace = self
            .nodes
            .get(uid)
            .map(|node| node.place.namespace.clone())
            .unwrap_or_default();
        for (owner, reference) in now.iter().zip(references) {
            let is_new = !before.iter().any(|old| old.uid == owner.uid);
            let node = self.nodes.entry(owner.uid.clone()).or_insert_with(|| {
                Node::new(Place {
                    api_version: reference.api_version.as_str().into(),
                    kind: reference.kind.as_str().into(),
                    namespace: namespace.clone(),
                    name: reference.name.as_str().into(),
                })
            });
            node.dependents.insert(uid.clone());
            if is_new && !node.known {
                work.push(Work::Verify(owner.uid.clone()));
            }
            if is_new && node.foreground {
                // It joined an owner that is on its way out.
                work.push(Work::Collect(uid.clone()));
            }
        }
        for old in before {
            let same = now.iter().find(|owner| owner.uid == old.uid);
            let Some(node) = self.nodes.get_mut(&old.uid) else {
                continue;
            };
            if same.is_none() {
                node.dependents.remove(uid);
            }
            let unblocked = old.blocks && !same.is_some_and(|owner| owner.blocks);
            if unblocked && node.foreground {
                work.push(Work::Collect(old.uid.clone()));
            }
            if same.is_none() {
                // Fewer owners: what is left of them may all be gone.
                work.push(Work::Collect(uid.clone()));
                self.forget_if_irrelevant(&old.uid);
            }
        }
    }

    /// The object is gone: a watch said so, or a look-up did.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some((uid, node)) = self.nodes.remove_entry(uid) else {
            return Vec::new();
        };
        let mut work: Vec<Work> = node.dependents.iter().cloned().map(Work::Collect).collect();
        for owner in &node.owners {
            if let Some(node) = self.nodes.get_mut(&owner.uid) {
                node.dependents.remove(&uid);
                if node.foreground {
                    work.push(Work::Collect(owner.uid.clone()));
                }
                self.forget_if_irrelevant(&owner.uid);
            }
        }
        work
    }

    /// A look-up found the object where its dependents say it is.
    pub(super) fn verified(&mut self, uid: &str) {
        if let Some(node) = self.nodes.get_mut(uid) {
            node.known = true;
        }
    }

    /// A look-up did not find an owner there: each dependent has to look for itself.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Uid> {
        self.nodes
            .get(uid)
            .map(|node| node.dependents.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Dependents whose end the owner waits for, with whether they wait themselves.
    pub(super) fn blocking(&self, uid: &str) -> Vec<(Uid, bool)> {
        let Some(node) = self.nodes.get(uid) else {
            return Vec::new();
        };
        let blocks = |dependent: &&Uid| {
            let owners = self
                .nodes
                .get(*dependent)
                .map(|node| node.owners.as_slice())
                .unwrap_or_default();
            owners.iter().any(|owner| &*owner.uid == uid && owner.blocks)
        };
        let foreground = |dependent: &Uid| self.nodes.get(dependent).is_some_and(|node| node.foreground);
        node.dependents
            .iter()
            .filter(blocks)
            .map(|dependent| (dependent.clone(), foreground(dependent)))
            .collect()
    }

    pub(super) fn get(&self, uid: &str) -> Option<Known> {
        let node = self.nodes.get(uid)?;
        Some(Known {
            place: node.place.clone(),
            being_deleted: node.being_deleted,
            foreground: node.foreground,
            has_dependents: !node.dependents.is_empty(),
        })
    }

    /// UIDs of what was seen of a kind; for a relist, and for a kind that is no longer served.
    pub(super) fn of_kind(&self, api_version: &str, kind: &str) -> Vec<Uid> {
        let is_it = |node: &Node| node.known && &*node.place.api_version == api_version && &*node.place.kind == kind;
        self.nodes
            .iter()
            .filter(|(_, node)| is_it(node))
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    fn owner(&self, reference: &OwnerReference) -> Owner {
        let known = self.nodes.get_key_value(reference.uid.as_str());
        let uid = known.map_or_else(|| Uid::from(reference.uid.as_str()), |(uid, _)| uid.clone());
        Owner {
            uid,
            blocks: reference.block_owner_deletion.unwrap_or_default(),
        }
    }

    /// An object without owners, dependents or a wait of its own has nothing to do with garbage.
    fn forget_if_irrelevant(&mut self, uid: &str) {
        let irrelevant =
            |node: &Node| node.owners.is_empty() && node.dependents.is_empty() && !node.foreground && !node.orphaning;
        if self.nodes.get(uid).is_some_and(irrelevant) {
            self.nodes.remove(uid);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

impl Node {
    fn new(place: Place) -> Self {
        Self {
            place,
            owners: Vec::new(),
            dependents: HashSet::new(),
            known: false,
            being_deleted: false,
            foreground: false,
            orphaning: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn place(name: &str) -> Place {
        Place {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: "default".into(),
            name: name.into(),
        }
    }

    fn meta(uid: &str, owners: &[(&str, bool)], more: Value) -> ObjectMeta {
        let owners: Vec<Value> = owners
            .iter()
            .map(|(uid, blocks)| {
                json!({"apiVersion": "v1", "kind": "Pod", "name": uid, "uid": uid, "blockOwnerDeletion": blocks})
            })
            .collect();
        let mut meta = json!({"uid": uid, "name": uid, "ownerReferences": owners});
        meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(meta).unwrap()
    }

    fn see(graph: &mut Graph, uid: &str, owners: &[(&str, bool)], more: Value) -> Vec<String> {
        let mut work: Vec<_> = graph
            .observe(|| place(uid), &meta(uid, owners, more))
            .iter()
            .map(ToString::to_string)
            .collect();
        work.sort();
        work
    }

    fn gone(graph: &mut Graph, uid: &str) -> Vec<String> {
        let mut work: Vec<_> = graph.remove(uid).iter().map(ToString::to_string).collect();
        work.sort();
        work
    }

    const FOREGROUND_DELETION: &str =
        r#"{"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}"#;

    fn foreground() -> Value {
        serde_json::from_str(FOREGROUND_DELETION).unwrap()
    }

    #[test]
    fn objects_that_neither_own_nor_are_owned_take_no_room() {
        let mut graph = Graph::default();
        assert!(see(&mut graph, "loner", &[], json!({})).is_empty());
        assert!(see(&mut graph, "loner", &[], json!({"finalizers": ["mine"]})).is_empty());
        assert_eq!(graph.len(), 0);
        see(&mut graph, "child", &[("parent", true)], json!({}));
        assert_eq!(graph.len(), 2);
        see(&mut graph, "child", &[], json!({}));
        assert_eq!(graph.len(), 0);
    }

    #[test]
    fn an_owner_nobody_has_seen_is_looked_up_once_for_all_its_dependents() {
        let mut graph = Graph::default();
        assert_eq!(see(&mut graph, "a", &[("owner", true)], json!({})), ["verify owner"]);
        graph.verified("owner");
        assert!(see(&mut graph, "b", &[("owner", true)], json!({})).is_empty());
        assert_eq!(gone(&mut graph, "owner"), ["collect a", "collect b"]);
    }

    #[test]
    fn a_foreground_deletion_waits_for_those_that_block_it() {
        let mut graph = Graph::default();
        see(&mut graph, "a", &[("owner", true)], json!({}));
        see(&mut graph, "b", &[("owner", false)], json!({}));
        see(&mut graph, "owner", &[], json!({}));
        let work = see(&mut graph, "owner", &[], foreground());
        assert_eq!(work, ["collect a", "collect b", "collect owner"]);
        assert!(see(&mut graph, "owner", &[], foreground()).is_empty(), "told once");
        let blocking = |graph: &Graph| {
            graph
                .blocking("owner")
                .iter()
                .map(|(uid, _)| uid.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(blocking(&graph), ["a"]);
        assert_eq!(gone(&mut graph, "a"), ["collect owner"]);
        assert!(blocking(&graph).is_empty());
        assert_eq!(
            see(&mut graph, "c", &[("owner", true)], json!({})),
            ["collect c"],
            "a latecomer"
        );
    }

    #[test]
    fn an_owner_that_no_longer_blocks_is_looked_at_again() {
        let mut graph = Graph::default();
        see(&mut graph, "a", &[("owner", true)], json!({}));
        see(&mut graph, "owner", &[], foreground());
        assert_eq!(see(&mut graph, "a", &[("owner", false)], json!({})), ["collect owner"]);
        see(&mut graph, "a", &[("owner", true)], json!({}));
        assert_eq!(see(&mut graph, "a", &[], json!({})), ["collect a", "collect owner"]);
    }

    #[test]
    fn an_owner_that_wants_to_leave_its_dependents_alone_says_so() {
        let mut graph = Graph::default();
        see(&mut graph, "a", &[("owner", true)], json!({}));
        let orphaning = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["orphan"]});
        assert_eq!(see(&mut graph, "owner", &[], orphaning), ["orphan owner"]);
        assert_eq!(graph.dependents("owner").len(), 1);
    }
}
