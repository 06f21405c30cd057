//! What a StatefulSet does next.
//!
//! Pure. (k/k `pkg/controller/statefulset/{stateful_set_control,stateful_set_utils}.go`, v1.36.)

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::history::REVISION_LABEL;
use crate::pods;

/// A step towards what the set wants. Pods are meant by their ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make the claims and the pod.
    Create(i32),
    Delete(i32),
    /// Make claims that are missing: the pod waits for them.
    MakeClaims(i32),
    /// See to it that the claims' owners are as the retention policy says.
    OwnClaims {
        ordinal: i32,
        condemned: bool,
    },
    /// Give an adopted pod its labels.
    Label(i32),
}

/// The set and its pods, by ordinal.
pub(super) struct View<'a> {
    pub(super) set: &'a StatefulSet,
    pub(super) spec: &'a StatefulSetSpec,
    pub(super) pods: &'a BTreeMap<i32, Arc<Pod>>,
    /// Names of the revisions.
    pub(super) current: &'a str,
    pub(super) update: &'a str,
    pub(super) now: Timestamp,
}

/// The ordinal of a pod that is called as one of the set's.
pub(super) fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let digits = name.strip_prefix(set)?.strip_prefix('-')?;
    let canonical = digits == "0" || !digits.starts_with('0');
    digits
        .parse()
        .ok()
        .filter(|_| canonical && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

pub(super) fn start_ordinal(spec: &StatefulSetSpec) -> i32 {
    spec.ordinals
        .as_ref()
        .and_then(|ordinals| ordinals.start)
        .unwrap_or_default()
}

pub(super) fn replicas(spec: &StatefulSetSpec) -> i32 {
    spec.replicas.unwrap_or(1)
}

pub(super) fn revision_of(pod: &Pod) -> Option<&str> {
    pod.labels().get(REVISION_LABEL).map(String::as_str)
}

impl View<'_> {
    fn rolling(&self) -> bool {
        let strategy = self
            .spec
            .update_strategy
            .as_ref()
            .and_then(|strategy| strategy.type_.as_deref());
        strategy != Some("OnDelete")
    }

    fn partition(&self) -> i32 {
        let rolling = self
            .spec
            .update_strategy
            .as_ref()
            .and_then(|strategy| strategy.rolling_update.as_ref());
        rolling.and_then(|rolling| rolling.partition).unwrap_or_default()
    }

    fn max_unavailable(&self) -> i32 {
        let rolling = self
            .spec
            .update_strategy
            .as_ref()
            .and_then(|strategy| strategy.rolling_update.as_ref());
        let wanted = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let number = wanted.map_or(1, |wanted| {
            crate::deployment::scaled(wanted, replicas(self.spec), false)
        });
        number.max(1)
    }

    /// Which revision a new pod of this ordinal is made from.
    pub(super) fn revision_for(&self, ordinal: i32) -> &str {
        match self.rolling() && ordinal < start_ordinal(self.spec) + self.partition() {
            true => self.current,
            false => self.update,
        }
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let min_ready = self.spec.min_ready_seconds.unwrap_or_default();
        pods::phase(pod) == "Running" && pods::is_available(pod, min_ready, self.now)
    }

    fn is_unavailable(&self, pod: Option<&Arc<Pod>>) -> bool {
        pod.is_none_or(|pod| pods::is_terminating(pod) || !self.is_available(pod))
    }

    /// What to do now. Whatever comes of it brings the set here again.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.set.metadata.deletion_timestamp.is_some() {
            return steps;
        }
        let ordered = self.spec.pod_management_policy.as_deref() != Some("Parallel");
        let start = start_ordinal(self.spec);
        let wanted = start..start + replicas(self.spec);
        for ordinal in wanted.clone() {
            if !self.keep(ordinal, ordered, &mut steps) && ordered {
                return steps;
            }
        }
        let condemned: Vec<i32> = self
            .pods
            .keys()
            .rev()
            .copied()
            .filter(|it| !wanted.contains(it))
            .collect();
        steps.extend(condemned.iter().map(|&ordinal| Step::OwnClaims {
            ordinal,
            condemned: true,
        }));
        let first_unavailable = wanted
            .clone()
            .find(|ordinal| self.is_unavailable(self.pods.get(ordinal)))
            .or_else(|| {
                condemned
                    .iter()
                    .rev()
                    .copied()
                    .find(|ordinal| self.is_unavailable(self.pods.get(ordinal)))
            });
        for ordinal in condemned {
            let pod = &self.pods[&ordinal];
            if pods::is_terminating(pod) {
                if ordered {
                    return steps;
                }
                continue;
            }
            if ordered && !self.is_available(pod) && first_unavailable != Some(ordinal) {
                return steps;
            }
            steps.push(Step::Delete(ordinal));
            if ordered {
                return steps;
            }
        }
        // Parallel sets roll only once nothing is to be made or taken away any more.
        let settled = !steps
            .iter()
            .any(|step| matches!(step, Step::Create(_) | Step::Delete(_)));
        if settled && self.rolling() {
            self.roll(wanted, &mut steps);
        }
        steps
    }

    /// Whether the replica is there and well, so that the next one may be looked at.
    fn keep(&self, ordinal: i32, ordered: bool, steps: &mut Vec<Step>) -> bool {
        let Some(pod) = self.pods.get(&ordinal) else {
            steps.push(Step::Create(ordinal));
            return false;
        };
        if pods::is_terminal(pod) {
            if !pods::is_terminating(pod) {
                steps.push(Step::Delete(ordinal));
            }
            return false;
        }
        if pods::phase(pod) == "Pending" {
            steps.push(Step::MakeClaims(ordinal));
        }
        if ordered && self.is_unavailable(Some(pod)) {
            return false;
        }
        if !pod.labels().contains_key(POD_NAME_LABEL) {
            steps.push(Step::Label(ordinal));
        }
        steps.push(Step::OwnClaims {
            ordinal,
            condemned: false,
        });
        true
    }

    /// Takes away pods of another revision, highest ordinal first, as many as may be unavailable. Those that are
    /// unavailable already cost nothing.
    fn roll(&self, wanted: std::ops::Range<i32>, steps: &mut Vec<Step>) {
        let unavailable = wanted
            .clone()
            .filter(|ordinal| self.is_unavailable(self.pods.get(ordinal)))
            .count();
        let mut budget = self.max_unavailable() - i32::try_from(unavailable).unwrap_or(i32::MAX);
        for ordinal in (wanted.start + self.partition()..wanted.end).rev() {
            let Some(pod) = self.pods.get(&ordinal) else { continue };
            if pods::is_terminating(pod) || revision_of(pod) == Some(self.update) {
                continue;
            }
            if self.is_available(pod) {
                if budget <= 0 {
                    return;
                }
                budget -= 1;
            }
            steps.push(Step::Delete(ordinal));
        }
    }
}

pub(super) const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(ordinal: i32, revision: &str, ready: bool) -> (i32, Arc<Pod>) {
        let name = format!("web-{ordinal}");
        let ready = if ready { "True" } else { "False" };
        let pod = json!({"metadata": {"name": name, "labels": {REVISION_LABEL: revision, POD_NAME_LABEL: name}},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        (ordinal, Arc::new(serde_json::from_value(pod).unwrap()))
    }

    /// The steps that make or take away pods.
    fn steps(spec: Value, pods: Vec<(i32, Arc<Pod>)>) -> Vec<Step> {
        let mut all = json!({"serviceName": "web", "selector": {}, "template": {}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let set: StatefulSet = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": all})).unwrap();
        let view = View {
            set: &set,
            spec: set.spec.as_ref().unwrap(),
            pods: &pods.into_iter().collect(),
            current: "old",
            update: "new",
            now: "2026-01-01T01:00:00Z".parse().unwrap(),
        };
        let acts = |step: &Step| matches!(step, Step::Create(_) | Step::Delete(_));
        view.steps().into_iter().filter(acts).collect()
    }

    #[test]
    fn ordered_sets_grow_one_ready_pod_at_a_time_and_parallel_ones_at_once() {
        let spec = |policy: &str| json!({"replicas": 3, "podManagementPolicy": policy});
        let ready = || vec![pod(0, "new", true)];
        assert_eq!(steps(spec("OrderedReady"), vec![]), [Step::Create(0)]);
        assert_eq!(steps(spec("OrderedReady"), ready()), [Step::Create(1)]);
        assert_eq!(steps(spec("OrderedReady"), vec![pod(0, "new", false)]), []);
        assert_eq!(steps(spec("Parallel"), ready()), [Step::Create(1), Step::Create(2)]);
        let offset = json!({"replicas": 2, "ordinals": {"start": 5}, "podManagementPolicy": "Parallel"});
        assert_eq!(steps(offset, vec![]), [Step::Create(5), Step::Create(6)]);
    }

    #[test]
    fn sets_shrink_from_the_highest_ordinal() {
        let pods = || (0..4).map(|ordinal| pod(ordinal, "new", true)).collect::<Vec<_>>();
        let spec = |policy: &str| json!({"replicas": 1, "podManagementPolicy": policy});
        assert_eq!(steps(spec("OrderedReady"), pods()), [Step::Delete(3)]);
        assert_eq!(steps(spec("Parallel"), pods()), [3, 2, 1].map(Step::Delete));
        let mut hurt = pods();
        hurt[2] = pod(2, "new", false);
        assert_eq!(steps(spec("OrderedReady"), hurt.clone()), [Step::Delete(3)]);
        hurt[3] = pod(3, "new", false);
        assert_eq!(
            steps(spec("OrderedReady"), hurt),
            [],
            "an unhealthy predecessor is waited for"
        );
    }

    #[test]
    fn an_update_goes_down_to_the_partition_within_what_may_be_unavailable() {
        let pods = || (0..4).map(|ordinal| pod(ordinal, "old", true)).collect::<Vec<_>>();
        let spec = |rolling: Value| json!({"replicas": 4, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}});
        assert_eq!(steps(spec(json!({})), pods()), [Step::Delete(3)]);
        assert_eq!(steps(spec(json!({"partition": 4})), pods()), []);
        let two = spec(json!({"partition": 1, "maxUnavailable": "50%"}));
        assert_eq!(steps(two, pods()), [Step::Delete(3), Step::Delete(2)]);
        let mut rolled = pods();
        rolled[3] = pod(3, "new", true);
        assert_eq!(steps(spec(json!({})), rolled), [Step::Delete(2)]);
        let on_delete = json!({"replicas": 4, "updateStrategy": {"type": "OnDelete"}});
        assert_eq!(steps(on_delete, pods()), []);
    }

    #[test]
    fn only_canonical_names_are_members() {
        let named = |name: &str| {
            let mut pod = Pod::default();
            pod.metadata.name = Some(name.into());
            ordinal("web", &pod)
        };
        assert_eq!((named("web-0"), named("web-12")), (Some(0), Some(12)));
        assert_eq!(
            (named("web-01"), named("web-x"), named("web-+1"), named("website-1")),
            (None, None, None, None)
        );
    }
}
