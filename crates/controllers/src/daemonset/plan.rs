//! Which pods a DaemonSet makes and takes away.
//!
//! Pure. (k/k `pkg/controller/daemon/{daemon_controller,update}.go`, v1.36.)

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSetSpec;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::placement::Verdict;
use crate::deployment::scaled;
use crate::history::REVISION_LABEL;
use crate::pods;

/// Pods by the node they stand for, and what is thought of each node.
pub(super) struct View<'a> {
    pub(super) spec: &'a DaemonSetSpec,
    pub(super) nodes: &'a BTreeMap<String, Verdict>,
    pub(super) pods: &'a BTreeMap<String, Vec<Arc<Pod>>>,
    /// Hash of the newest revision.
    pub(super) hash: &'a str,
    pub(super) now: Timestamp,
}

/// What to do.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    /// Nodes that get a pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Pods among those to delete that ended by themselves: node and pod.
    pub(super) ended: Vec<(String, Arc<Pod>)>,
}

impl View<'_> {
    fn on(&self, node: &str) -> &[Arc<Pod>] {
        self.pods.get(node).map_or(&[], Vec::as_slice)
    }

    pub(super) fn is_new(&self, pod: &Pod) -> bool {
        pod.labels().get(REVISION_LABEL).map(String::as_str) == Some(self.hash)
    }

    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.spec.min_ready_seconds.unwrap_or_default(), self.now)
    }

    fn desired(&self) -> impl Iterator<Item = &String> {
        self.nodes
            .iter()
            .filter(|(_, verdict)| verdict.should_run)
            .map(|(node, _)| node)
    }

    /// How many nodes may have two pods, and how many none, while rolling.
    fn bounds(&self) -> (i32, i32) {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let desired = i32::try_from(self.desired().count()).unwrap_or(i32::MAX);
        let resolve = |value| scaled(value, desired, true);
        let surge = rolling
            .and_then(|rolling| rolling.max_surge.as_ref())
            .map_or(0, resolve);
        let unavailable = rolling
            .and_then(|rolling| rolling.max_unavailable.as_ref())
            .map_or(1, resolve);
        match (surge, unavailable) {
            // Both zero would never move.
            (0, 0) => (0, 1),
            bounds => bounds,
        }
    }

    /// A pod on every node that should have one, and none elsewhere.
    pub(super) fn manage(&self) -> Changes {
        let mut changes = Changes::default();
        let surges = self.bounds().0 > 0;
        for (node, verdict) in self.nodes {
            let here = self.on(node);
            if !verdict.may_stay {
                changes
                    .delete
                    .extend(here.iter().filter(|pod| !pods::is_terminating(pod)).cloned());
                continue;
            }
            if !verdict.should_run {
                continue;
            }
            let mut running: Vec<&Arc<Pod>> = Vec::new();
            for pod in here.iter().filter(|pod| !pods::is_terminating(pod)) {
                if pods::is_terminal(pod) {
                    changes.ended.push((node.clone(), pod.clone()));
                    changes.delete.push(pod.clone());
                } else {
                    running.push(pod);
                }
            }
            let ended_here = changes.ended.iter().any(|(ended, _)| ended == node);
            // One that goes is waited for, unless a second is allowed anyway.
            let leaving = here.iter().any(|pod| pods::is_terminating(pod)) && !surges;
            if running.is_empty() {
                if !leaving && !ended_here {
                    changes.create.push(node.clone());
                }
                continue;
            }
            self.thin_out(running, surges, &mut changes);
        }
        // Nodes that are gone: the pod collector takes care of theirs.
        changes
    }

    /// Of several pods the oldest stays; while surging one old and one new.
    fn thin_out(&self, mut running: Vec<&Arc<Pod>>, surges: bool, changes: &mut Changes) {
        running.sort_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()));
        if !surges {
            changes.delete.extend(running.into_iter().skip(1).cloned());
            return;
        }
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| self.is_new(pod));
        let replaced = new.first().is_some_and(|pod| self.is_available(pod));
        let keep_old = usize::from(!replaced);
        changes.delete.extend(old.into_iter().skip(keep_old).cloned());
        changes.delete.extend(new.into_iter().skip(1).cloned());
    }

    /// Replaces pods of other revisions, within the bounds.
    pub(super) fn roll(&self) -> Changes {
        let mut changes = Changes::default();
        let strategy = self
            .spec
            .update_strategy
            .as_ref()
            .and_then(|strategy| strategy.type_.as_deref());
        if strategy == Some("OnDelete") {
            return changes;
        }
        let (surge, unavailable) = self.bounds();
        match surge > 0 {
            true => self.roll_over(surge, &mut changes),
            false => self.roll_down(unavailable, &mut changes),
        }
        changes
    }

    /// The old pod goes first. One that is not available costs nothing.
    fn roll_down(&self, limit: i32, changes: &mut Changes) {
        let (mut missing, mut candidates) = (0, Vec::new());
        for node in self.desired() {
            let mut staying = self.on(node).iter().filter(|pod| !pods::is_terminating(pod));
            match staying.next() {
                Some(pod) if self.is_new(pod) => missing += i32::from(!self.is_available(pod)),
                Some(pod) if self.is_available(pod) => candidates.push(pod.clone()),
                Some(pod) => {
                    missing += 1;
                    changes.delete.push(pod.clone());
                }
                None => missing += 1,
            }
        }
        let room = usize::try_from(limit - missing).unwrap_or_default();
        changes.delete.extend(candidates.into_iter().take(room));
    }

    /// The new pod comes first; the old one goes when that is available.
    fn roll_over(&self, surge: i32, changes: &mut Changes) {
        let (mut surging, mut candidates) = (0, Vec::new());
        for node in self.desired() {
            let staying = self.on(node).iter().filter(|pod| !pods::is_terminating(pod));
            let (new, old): (Vec<_>, Vec<_>) = staying.partition(|pod| self.is_new(pod));
            match (old.first(), new.first()) {
                (Some(old), None) if self.is_available(old) => candidates.push(node.clone()),
                // Not available anyway: the new one need not wait for its turn.
                (Some(_), None) => changes.create.push(node.clone()),
                (Some(old), Some(new)) => {
                    if self.is_available(new) {
                        changes.delete.push((*old).clone());
                    } else {
                        surging += 1;
                    }
                }
                (None, _) => {}
            }
        }
        let room = usize::try_from(surge - surging).unwrap_or_default();
        changes.create.extend(candidates.into_iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, hash: &str, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        let pod = json!({"metadata": {"name": name, "labels": {REVISION_LABEL: hash}}, "status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    /// Names of what is made (nodes) and deleted (pods).
    fn plan(rolling: Value, pods: &[(&str, Vec<Arc<Pod>>)], roll: bool) -> (Vec<String>, Vec<String>) {
        let spec = json!({"selector": {}, "template": {}, "updateStrategy": {"type": "RollingUpdate",
            "rollingUpdate": rolling}});
        let here = Verdict {
            should_run: true,
            may_stay: true,
        };
        let view = View {
            spec: &serde_json::from_value(spec).unwrap(),
            nodes: &["a", "b", "c"].map(|node| (node.to_owned(), here)).into(),
            pods: &pods
                .iter()
                .map(|(node, pods)| ((*node).to_owned(), pods.clone()))
                .collect(),
            hash: "new",
            now: "2026-01-01T01:00:00Z".parse().unwrap(),
        };
        let changes = if roll { view.roll() } else { view.manage() };
        (
            changes.create,
            changes.delete.iter().map(|pod| pod.name_any()).collect(),
        )
    }

    #[test]
    fn every_node_has_one_pod() {
        let there = [
            ("a", vec![pod("a1", "new", true)]),
            ("b", vec![pod("b1", "new", true), pod("b2", "new", true)]),
        ];
        assert_eq!(plan(json!({}), &there, false), (vec!["c".into()], vec!["b2".into()]));
    }

    #[test]
    fn an_update_stays_within_what_may_be_unavailable() {
        let old = |ready_b| {
            let all = [("a", true), ("b", ready_b), ("c", true)];
            all.map(|(node, ready)| (node, vec![pod(&format!("{node}1"), "old", ready)]))
        };
        let deleted = |rolling: Value, pods: &[(&str, Vec<Arc<Pod>>)]| plan(rolling, pods, true).1;
        assert_eq!(deleted(json!({"maxUnavailable": 1}), &old(true)), ["a1"]);
        assert_eq!(deleted(json!({"maxUnavailable": "50%"}), &old(true)), ["a1", "b1"]);
        assert_eq!(
            deleted(json!({"maxUnavailable": 1}), &old(false)),
            ["b1"],
            "what is broken goes first"
        );
    }

    #[test]
    fn a_surge_brings_the_new_pod_first() {
        let surge = || json!({"maxSurge": 1, "maxUnavailable": 0});
        let old = |node: &str| pod(&format!("{node}1"), "old", true);
        let all = [("a", vec![old("a")]), ("b", vec![old("b")]), ("c", vec![old("c")])];
        assert_eq!(plan(surge(), &all, true), (vec!["a".into()], vec![]));
        let arrived = [
            ("a", vec![old("a"), pod("a2", "new", true)]),
            ("b", vec![old("b")]),
            ("c", vec![old("c")]),
        ];
        assert_eq!(plan(surge(), &arrived, true), (vec!["b".into()], vec!["a1".into()]));
        let coming = [
            ("a", vec![old("a"), pod("a2", "new", false)]),
            ("b", vec![old("b")]),
            ("c", vec![old("c")]),
        ];
        assert_eq!(plan(surge(), &coming, true), (vec![], vec![]));
    }
}
