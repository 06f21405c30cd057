//! HorizontalPodAutoscaler in its stored form, autoscaling/v2. After k/k `pkg/apis/autoscaling/{v2/defaults.go,validation}`
//! at 1.36.

use apimachinery::field::{Error, Path};
use apimachinery::gvk::GroupVersion;
use apimachinery::names::dns1123_label;
use apimachinery::quantity::Quantity;
use serde_json::{Value, json};

use super::check::{self, is_set, non_negative_quantity, text_messages};
use super::names::path_segment;
use super::quantities::amount;
use super::walk::{Object, at, ensure, ensure_at, fill, fill_zero, has, inner, int, list, text};
use super::{Status, Strategy};

/// Rules of HorizontalPodAutoscalers.
pub(super) static HORIZONTAL_POD_AUTOSCALER: Strategy = Strategy {
    default,
    validate,
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

/// Longest period of a policy and longest stabilization, in seconds.
const PERIOD_MAX: i64 = 1800;
const STABILIZATION_MAX: i64 = 3600;

fn validate(autoscaler: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = autoscaler.get("spec").unwrap_or(&Value::Null);
    let (least, most) = (int(spec, &["minReplicas"]), int(spec, &["maxReplicas"]).unwrap_or(0));
    if let Some(least) = least.filter(|least| *least < 1) {
        errors.push(Error::invalid(
            &path.child("minReplicas"),
            least,
            "must be greater than or equal to 1",
        ));
    }
    if most == 0 {
        errors.push(Error::required(
            &path.child("maxReplicas"),
            "must be set and greater than 0",
        ));
    } else if most < 0 {
        errors.push(Error::invalid(
            &path.child("maxReplicas"),
            most,
            "must be greater than or equal to 1",
        ));
    }
    if least.is_some_and(|least| most < least) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(Error::invalid(&path.child("maxReplicas"), most, detail));
    }
    let target = spec.get("scaleTargetRef").unwrap_or(&Value::Null);
    reference(target, true, &path.child("scaleTargetRef"), errors);
    let metrics = list(spec, &["metrics"]);
    for (index, metric) in metrics.iter().enumerate() {
        validate_metric(metric, &path.child("metrics").index(index), errors);
    }
    let scales_from_zero = |metric: &Value| matches!(text(metric, &["type"]), "Object" | "External");
    if least == Some(0) && !metrics.iter().any(scales_from_zero) {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(Error::forbidden(&path.child("metrics"), detail));
    }
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = at(spec, &["behavior", direction]) {
            validate_rules(rules, &path.child("behavior").child(direction), errors);
        }
    }
}

/// A CrossVersionObjectReference.
fn reference(target: &Value, needs_group: bool, path: &Path, errors: &mut Vec<Error>) {
    for key in ["kind", "name"] {
        match text(target, &[key]) {
            "" => errors.push(Error::required(&path.child(key), "")),
            value => text_messages(path_segment(value), &path.child(key), value, errors),
        }
    }
    let version = text(target, &["apiVersion"]);
    match GroupVersion::parse(version) {
        None => {
            let detail = format!("unexpected GroupVersion string: {version}");
            errors.push(Error::invalid(&path.child("apiVersion"), version, detail));
        }
        Some(parsed) if needs_group && parsed.group.is_empty() => {
            errors.push(Error::invalid(
                &path.child("apiVersion"),
                version,
                "apiVersion must specify API group",
            ));
        }
        Some(_) => {}
    }
}

/// Types of metric and the fields that describe them, in upstream's order of looking.
const METRICS: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const METRIC_TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

fn validate_metric(metric: &Value, path: &Path, errors: &mut Vec<Error>) {
    let kind = text(metric, &["type"]);
    if kind.is_empty() {
        errors.push(Error::required(
            &path.child("type"),
            "must specify a metric source type",
        ));
    }
    if !METRIC_TYPES.contains(&kind) {
        errors.push(Error::not_supported(&path.child("type"), kind, &METRIC_TYPES));
    }
    let given: Vec<&str> = METRICS
        .iter()
        .map(|(_, key)| *key)
        .filter(|key| is_set(metric, key))
        .collect();
    if let Some(key) = given.first() {
        validate_source(key, &metric[*key], &path.child(key), errors);
    }
    let expected = METRICS.iter().find(|(name, _)| *name == kind).map(|(_, key)| *key);
    if let Some(expected) = expected.filter(|expected| !given.contains(expected)) {
        errors.push(Error::required(
            &path.child(expected),
            "must populate information for the given metric source",
        ));
    }
    if given.len() != 1 {
        for other in given.iter().filter(|key| Some(**key) != expected) {
            errors.push(Error::forbidden(
                &path.child(other),
                "must populate the given metric source only",
            ));
        }
    }
}

fn validate_source(kind: &str, source: &Value, path: &Path, errors: &mut Vec<Error>) {
    let by_resource = matches!(kind, "resource" | "containerResource");
    if by_resource {
        if !has(source, &["name"]) {
            errors.push(Error::required(&path.child("name"), "must specify a resource name"));
        }
        if kind == "containerResource" {
            match text(source, &["container"]) {
                "" => errors.push(Error::required(&path.child("container"), "must specify a container")),
                name => text_messages(dns1123_label(name), &path.child("container"), name, errors),
            }
        }
    } else {
        if kind == "object" {
            let described = source.get("describedObject").unwrap_or(&Value::Null);
            reference(described, false, &path.child("describedObject"), errors);
        }
        let place = path.child("metric").child("name");
        match text(source, &["metric", "name"]) {
            "" => errors.push(Error::required(&place, "must specify a metric name")),
            name => text_messages(path_segment(name), &place, name, errors),
        }
    }
    let target = source.get("target").unwrap_or(&Value::Null);
    let path = path.child("target");
    validate_target(target, &path, errors);
    let says = |key: &str| is_set(target, key);
    let (value, average, utilization) = (says("value"), says("averageValue"), says("averageUtilization"));
    match kind {
        "object" if !value && !average => {
            let detail = "must set either a target value or averageValue";
            errors.push(Error::required(&path.child("averageValue"), detail));
        }
        "external" if !value && !average => {
            let detail = "must set either a target value for metric or a per-pod target";
            errors.push(Error::required(&path.child("averageValue"), detail));
        }
        "external" if value && average => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.push(Error::forbidden(&path.child("value"), detail));
        }
        "pods" if !average => {
            let detail = "must specify a positive target averageValue";
            errors.push(Error::required(&path.child("averageValue"), detail));
        }
        _ if by_resource && !average && !utilization => {
            let detail = "must set either a target raw value or a target utilization";
            errors.push(Error::required(&path.child("averageUtilization"), detail));
        }
        _ if by_resource && average && utilization => {
            let detail = "may not set both a target raw value and a target utilization";
            errors.push(Error::forbidden(&path.child("averageValue"), detail));
        }
        _ => {}
    }
}

fn validate_target(target: &Value, path: &Path, errors: &mut Vec<Error>) {
    let kind = text(target, &["type"]);
    if kind.is_empty() {
        errors.push(Error::required(
            &path.child("type"),
            "must specify a metric target type",
        ));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(Error::invalid(&path.child("type"), kind, detail));
    }
    for key in ["value", "averageValue"] {
        if let Some(value) = at(target, &[key])
            && amount(value).is_some_and(|quantity| quantity <= Quantity::ZERO)
        {
            errors.push(Error::invalid(&path.child(key), value.clone(), "must be positive"));
        }
    }
    if let Some(percent) = int(target, &["averageUtilization"]).filter(|percent| *percent < 1) {
        errors.push(Error::invalid(
            &path.child("averageUtilization"),
            percent,
            "must be greater than 0",
        ));
    }
}

fn validate_rules(rules: &Value, path: &Path, errors: &mut Vec<Error>) {
    let window = path.child("stabilizationWindowSeconds");
    match int(rules, &["stabilizationWindowSeconds"]) {
        Some(seconds) if seconds < 0 => {
            errors.push(Error::invalid(
                &window,
                seconds,
                "must be greater than or equal to zero",
            ));
        }
        Some(seconds) if seconds > STABILIZATION_MAX => {
            errors.push(Error::invalid(
                &window,
                seconds,
                format!("must be less than or equal to {STABILIZATION_MAX}"),
            ));
        }
        _ => {}
    }
    check::one_of(rules, path, "selectPolicy", &["Disabled", "Max", "Min"], errors);
    let policies = list(rules, &["policies"]);
    if policies.is_empty() {
        errors.push(Error::required(
            &path.child("policies"),
            "must specify at least one Policy",
        ));
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = path.child("policies").index(index);
        let kind = text(policy, &["type"]);
        if !matches!(kind, "Pods" | "Percent") {
            errors.push(Error::not_supported(&path.child("type"), kind, &["Percent", "Pods"]));
        }
        for key in ["value", "periodSeconds"] {
            let number = int(policy, &[key]).unwrap_or(0);
            if number <= 0 {
                errors.push(Error::invalid(&path.child(key), number, "must be greater than zero"));
            }
        }
        if let Some(seconds) = int(policy, &["periodSeconds"]).filter(|seconds| *seconds > PERIOD_MAX) {
            let detail = format!("must be less than or equal to {PERIOD_MAX}");
            errors.push(Error::invalid(&path.child("periodSeconds"), seconds, detail));
        }
    }
    if let Some(tolerance) = at(rules, &["tolerance"]) {
        non_negative_quantity(tolerance, &path.child("tolerance"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(spec: Value) -> Vec<String> {
        let mut hpa = json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 5}});
        if let (Some(target), Value::Object(more)) = (hpa["spec"].as_object_mut(), spec) {
            target.extend(more);
        }
        default(&mut hpa);
        HORIZONTAL_POD_AUTOSCALER
            .validate_create(true, &hpa)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn the_smallest_autoscaler_is_fine() {
        assert_eq!(problems(json!({})), Vec::<String>::new());
    }

    #[test]
    fn replicas_have_bounds() {
        assert_eq!(
            problems(json!({"minReplicas": 0})),
            [
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
            ]
        );
        assert_eq!(
            problems(json!({"minReplicas": 6})),
            ["spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`",]
        );
        assert_eq!(
            problems(json!({"maxReplicas": 0})),
            [
                "spec.maxReplicas: Required value: must be set and greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
            ]
        );
    }

    #[test]
    fn a_target_is_in_some_group() {
        assert_eq!(
            problems(json!({"scaleTargetRef": {"apiVersion": "v1", "kind": "Pod", "name": ""}})),
            [
                "spec.scaleTargetRef.name: Required value",
                "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group",
            ]
        );
    }

    #[test]
    fn a_metric_says_what_and_how_much() {
        assert_eq!(
            problems(json!({"metrics": [{"type": "Resource"}]})),
            ["spec.metrics[0].resource: Required value: must populate information for the given metric source",]
        );
        let resource = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 0}});
        assert_eq!(
            problems(json!({"metrics": [{"type": "Resource", "resource": resource}]})),
            ["spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",]
        );
        let pods = json!({"metric": {"name": "a/b"}, "target": {"type": "AverageValue"}});
        assert_eq!(
            problems(json!({"metrics": [{"type": "Pods", "pods": pods}]})),
            [
                "spec.metrics[0].pods.metric.name: Invalid value: \"a/b\": may not contain '/'",
                "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
            ]
        );
    }

    #[test]
    fn policies_have_periods() {
        let policy = json!({"type": "Pods", "value": 1, "periodSeconds": 1801});
        assert_eq!(
            problems(json!({"behavior": {"scaleDown": {"policies": [policy], "stabilizationWindowSeconds": 3601}}})),
            [
                "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ]
        );
    }

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
