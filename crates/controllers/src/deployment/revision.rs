//! The annotations that tell a Deployment's history: revision, its past, and the sizes of the last scaling.
//!
//! Pure. (k/k `pkg/controller/deployment/util/deployment_util.go`, v1.36.)

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::desired;
use super::rolling::Bounds;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a Deployment that its ReplicaSets do not get.
const OWN: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// Characters of history an annotation may hold.
const HISTORY_LENGTH: usize = 2000;

type Annotations = BTreeMap<String, String>;

fn annotation<'a>(annotations: Option<&'a Annotations>, name: &str) -> Option<&'a str> {
    annotations?.get(name).map(String::as_str)
}

/// The revision of a ReplicaSet or Deployment; zero if it has none.
pub(super) fn of(annotations: Option<&Annotations>) -> i64 {
    annotation(annotations, REVISION)
        .and_then(|revision| revision.parse().ok())
        .unwrap_or_default()
}

/// The revision that follows those of the old sets.
pub(super) fn next(old: &[ReplicaSet]) -> i64 {
    old.iter()
        .map(|set| of(set.metadata.annotations.as_ref()))
        .max()
        .unwrap_or_default()
        + 1
}

/// What the Deployment wanted when the set was last scaled.
pub(super) fn desired_before(set: &ReplicaSet) -> Option<i32> {
    annotation(set.metadata.annotations.as_ref(), DESIRED_REPLICAS)?
        .parse()
        .ok()
}

/// How many pods the Deployment could have when the set was last scaled.
pub(super) fn most_before(set: &ReplicaSet) -> Option<i32> {
    annotation(set.metadata.annotations.as_ref(), MAX_REPLICAS)?
        .parse()
        .ok()
}

/// Notes the Deployment's revision on itself. True if that changed something.
pub(super) fn note_on_deployment(deployment: &mut Deployment, revision: i64) -> bool {
    set(
        deployment.metadata.annotations.get_or_insert_default(),
        REVISION,
        revision.to_string(),
    )
}

/// Notes on a set how big the Deployment is to be. True if that changed something.
pub(super) fn note_sizes(set_: &mut ReplicaSet, deployment: &Deployment) -> bool {
    let annotations = set_.metadata.annotations.get_or_insert_default();
    let most = desired(deployment) + Bounds::of(deployment).surge;
    let desired_changed = set(annotations, DESIRED_REPLICAS, desired(deployment).to_string());
    set(annotations, MAX_REPLICAS, most.to_string()) | desired_changed
}

/// Makes `new` the set of `revision`: the Deployment's annotations, the number, and the number it had before (a rollback
/// brings an old set back). True if that changed something.
pub(super) fn note_on_new_set(new: &mut ReplicaSet, deployment: &Deployment, revision: i64) -> bool {
    let annotations = new.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (name, value) in deployment.metadata.annotations.iter().flatten() {
        if !OWN.contains(&name.as_str()) {
            changed |= set(annotations, name, value.clone());
        }
    }
    let before = annotations.get(REVISION).cloned();
    let number = match before.as_deref().unwrap_or("0").parse::<i64>() {
        Ok(number) => number,
        // Somebody wrote something else there; it is theirs.
        Err(_) => return changed,
    };
    // Smaller only: if old sets were deleted, the number of this one may be greater than what follows theirs.
    if number < revision {
        changed |= set(annotations, REVISION, revision.to_string());
        if let Some(before) = before {
            let history = remember(annotations.get(REVISION_HISTORY).map_or("", String::as_str), &before);
            set(annotations, REVISION_HISTORY, history);
        }
    }
    changed
}

/// Appends `revision`, dropping the oldest ones if the annotation would become too long.
fn remember(history: &str, revision: &str) -> String {
    let mut past: Vec<&str> = history.split(',').filter(|past| !past.is_empty()).collect();
    let mut length = past.iter().map(|past| past.len() + 1).sum::<usize>() + revision.len();
    while length > HISTORY_LENGTH && !past.is_empty() {
        length -= past.remove(0).len() + 1;
    }
    past.push(revision);
    past.join(",")
}

fn set(annotations: &mut Annotations, name: &str, value: String) -> bool {
    if annotations.get(name) == Some(&value) {
        return false;
    }
    annotations.insert(name.to_owned(), value);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(pairs: &[(&str, &str)]) -> Option<Annotations> {
        Some(
            pairs
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    #[test]
    fn a_set_that_comes_back_keeps_its_old_numbers_as_history() {
        let mut deployment = Deployment::default();
        deployment.metadata.annotations = annotated(&[
            ("team", "cart"),
            (REVISION, "3"),
            ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
        ]);
        let mut set = ReplicaSet::default();
        assert!(note_on_new_set(&mut set, &deployment, 1));
        assert_eq!(
            set.metadata.annotations,
            annotated(&[("team", "cart"), (REVISION, "1")])
        );
        assert!(note_on_new_set(&mut set, &deployment, 4));
        assert!(note_on_new_set(&mut set, &deployment, 7));
        assert!(!note_on_new_set(&mut set, &deployment, 7));
        assert!(!note_on_new_set(&mut set, &deployment, 2), "a number never goes down");
        let expected = annotated(&[("team", "cart"), (REVISION, "7"), (REVISION_HISTORY, "1,4")]);
        assert_eq!(set.metadata.annotations, expected);
    }

    #[test]
    fn a_long_history_forgets_its_beginning() {
        let mut history = String::new();
        for revision in 0..2000 {
            history = remember(&history, &revision.to_string());
        }
        assert!(
            history.len() <= HISTORY_LENGTH && history.ends_with(",1999"),
            "{history}"
        );
    }

    #[test]
    fn the_next_revision_follows_the_greatest() {
        let set = |revision: &str| {
            let mut set = ReplicaSet::default();
            set.metadata.annotations = annotated(&[(REVISION, revision)]);
            set
        };
        assert_eq!(next(&[]), 1);
        assert_eq!(next(&[set("2"), set("10"), set("nonsense")]), 11);
    }
}
