//! What a failed pod means for its Job, and which indexes are success enough.
//!
//! Pure. (k/k `pkg/controller/job/{pod_failure_policy,success_policy}.go`, v1.36.)

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::indexes::{self, Indexes};

/// What is to be done about a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts towards the back-off limit.
    Count,
    /// As if it had never been.
    Ignore,
    /// Its index is given up.
    FailIndex,
    /// The whole Job is given up, with this message.
    FailJob(String),
}

/// The first rule that matches decides.
pub(super) fn judge(spec: &JobSpec, pod: &Pod) -> Verdict {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (index, rule) in rules.enumerate() {
        let Some(why) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{why} matching FailJob rule at index {index}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    if let Some(codes) = &rule.on_exit_codes {
        return exit_code(codes, pod);
    }
    pod_condition(rule.on_pod_conditions.as_deref().unwrap_or_default(), pod)
}

fn exit_code(wanted: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let statuses = status
        .container_statuses
        .iter()
        .flatten()
        .chain(status.init_container_statuses.iter().flatten());
    for container in statuses {
        if wanted
            .container_name
            .as_ref()
            .is_some_and(|name| *name != container.name)
        {
            continue;
        }
        let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
        let Some(code) = ended.map(|ended| ended.exit_code).filter(|code| *code != 0) else {
            continue;
        };
        let listed = wanted.values.contains(&code);
        if listed == (wanted.operator == "In") {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            return Some(format!(
                "Container {} for pod {namespace}/{name} failed with exit code {code}",
                container.name
            ));
        }
    }
    None
}

fn pod_condition(wanted: &[PodFailurePolicyOnPodConditionsPattern], pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| {
        wanted.iter().any(|pattern| {
            let status = pattern.status.as_deref().unwrap_or("True");
            pattern.type_ == condition.type_ && status == condition.status
        })
    })?;
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    Some(format!("Pod {namespace}/{name} has condition {}", found.type_))
}

/// The rule of the success policy that the succeeded indexes satisfy.
pub(super) fn success(spec: &JobSpec, succeeded: &Indexes) -> Option<usize> {
    let completions = spec.completions.unwrap_or_default();
    let rules = spec.success_policy.iter().flat_map(|policy| &policy.rules);
    rules.into_iter().position(|rule| {
        let among = rule
            .succeeded_indexes
            .as_ref()
            .map(|text| indexes::parse(text, completions));
        let done = match &among {
            Some(among) => among.intersection(succeeded).count(),
            None => succeeded.len(),
        };
        let needed = match (rule.succeeded_count, &among) {
            (Some(count), _) => usize::try_from(count).unwrap_or_default(),
            (None, Some(among)) => among.len(),
            (None, None) => usize::MAX,
        };
        done >= needed
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(more: Value) -> JobSpec {
        let mut spec = json!({"completions": 5, "template": {}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_a_failed_pod_decides() {
        let spec = spec(json!({"podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 42]}}]}}));
        let failed = |code: i32, condition: &str| {
            let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "status": {"phase": "Failed",
                "conditions": [{"type": condition, "status": "True"}],
                "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": code}}}]}});
            judge(&spec, &serde_json::from_value(pod).unwrap())
        };
        assert_eq!(failed(42, "DisruptionTarget"), Verdict::Ignore);
        let message = "Container main for pod d/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(failed(42, "x"), Verdict::FailJob(message.into()));
        assert_eq!((failed(7, "x"), failed(1, "x")), (Verdict::FailIndex, Verdict::Count));
    }

    #[test]
    fn a_success_policy_asks_for_indexes_or_for_how_many() {
        let spec = spec(json!({"successPolicy": {"rules": [{"succeededIndexes": "0,2"}, {"succeededCount": 3}]}}));
        let rule = |text: &str| success(&spec, &indexes::parse(text, 5));
        assert_eq!((rule("0"), rule("0,2"), rule("1,3,4")), (None, Some(0), Some(1)));
    }
}
