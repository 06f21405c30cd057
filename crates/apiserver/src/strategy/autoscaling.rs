//! HorizontalPodAutoscaler in its stored form, autoscaling/v2. After k/k `pkg/apis/autoscaling/{v2/defaults.go,validation}`
//! at 1.36.

use serde_json::{Value, json};

use super::walk::{Object, ensure, ensure_at, fill, fill_zero, inner};
use super::{Status, Strategy};

/// Rules of HorizontalPodAutoscalers.
pub(super) static HORIZONTAL_POD_AUTOSCALER: Strategy = Strategy {
    default,
    status: Status::Fresh(|| json!({"desiredReplicas": 0, "currentMetrics": null})),
    ..Strategy::PLAIN
};

fn default(autoscaler: &mut Value) {
    let Some(spec) = ensure_at(autoscaler, &["spec"]) else {
        return;
    };
    fill(spec, "minReplicas", 1);
    fill_zero(
        spec,
        "metrics",
        json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]),
    );
    // Only somebody who says something of the behavior gets the rest of it; nobody else leaves the old limiter.
    if let Some(behavior) = inner(spec, "behavior") {
        if let Some(up) = ensure(behavior, "scaleUp") {
            fill(up, "stabilizationWindowSeconds", 0);
            default_rules(
                up,
                json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]),
            );
        }
        if let Some(down) = ensure(behavior, "scaleDown") {
            default_rules(down, json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
        }
    }
}

fn default_rules(rules: &mut Object, policies: Value) {
    fill(rules, "selectPolicy", "Max");
    fill(rules, "policies", policies);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_means_eighty_percent_of_cpu_and_no_behavior() {
        let mut hpa = json!({"spec": {"maxReplicas": 5}});
        default(&mut hpa);
        assert_eq!(hpa["spec"]["minReplicas"], 1);
        assert_eq!(
            hpa["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
            80
        );
        assert_eq!(hpa["spec"].get("behavior"), None);
    }

    #[test]
    fn one_rule_brings_the_defaults_of_the_others() {
        let mut hpa = json!({"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}}});
        default(&mut hpa);
        let behavior = &hpa["spec"]["behavior"];
        assert_eq!(behavior["scaleUp"]["policies"].as_array().unwrap().len(), 2);
        assert_eq!(behavior["scaleUp"]["stabilizationWindowSeconds"], 0);
        assert_eq!(behavior["scaleDown"]["selectPolicy"], "Max");
        assert_eq!(behavior["scaleDown"]["stabilizationWindowSeconds"], 5);
    }
}
