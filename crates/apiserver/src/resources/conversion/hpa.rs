//! HorizontalPodAutoscaler: what v1 cannot say travels in annotations, as JSON in v1's shape of v2beta fields.

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// v1 → v2: the CPU target becomes a metric, the annotations become fields again.
pub(super) fn v1_to_v2(hpa: &mut Value) {
    let metrics = take_annotation(hpa, METRICS);
    let behavior = take_annotation(hpa, BEHAVIOR);
    let current = take_annotation(hpa, CURRENT_METRICS);
    let conditions = take_annotation(hpa, CONDITIONS);
    if let Some(spec) = hpa.get_mut("spec").and_then(Value::as_object_mut) {
        let mut list = Vec::new();
        if let Some(target) = spec
            .shift_remove("targetCPUUtilizationPercentage")
            .filter(|target| !target.is_null())
        {
            list.push(json!({"type": "Resource", "resource":
                {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}}));
        }
        list.extend(
            metrics
                .as_ref()
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .map(metric_to_v2),
        );
        if !list.is_empty() {
            spec.insert("metrics".to_owned(), Value::Array(list));
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = hpa.get_mut("status").and_then(Value::as_object_mut) {
        let mut list = Vec::new();
        if let Some(value) = status
            .shift_remove("currentCPUUtilizationPercentage")
            .filter(|value| !value.is_null())
        {
            // v1 keeps the raw average only in the annotation.
            list.push(
                json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": value}}}),
            );
        }
        for metric in current.as_ref().and_then(Value::as_array).into_iter().flatten() {
            let metric = current_to_v2(metric);
            if metric.pointer("/resource/name") == Some(&json!("cpu")) {
                list.clear();
            }
            list.push(metric);
        }
        if !list.is_empty() {
            status.insert("currentMetrics".to_owned(), Value::Array(list));
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".to_owned(), conditions);
        }
    }
}

/// v2 → v1: the first CPU utilisation target becomes the field, everything else goes into annotations.
pub(super) fn v2_to_v1(hpa: &mut Value) {
    let mut annotations: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = hpa.get_mut("spec").and_then(Value::as_object_mut) {
        let mut others = Vec::new();
        for metric in array(spec.shift_remove("metrics")) {
            match metric
                .pointer("/resource/target/averageUtilization")
                .filter(|_| is_cpu(&metric))
            {
                Some(target) if !spec.contains_key("targetCPUUtilizationPercentage") => {
                    spec.insert("targetCPUUtilizationPercentage".to_owned(), target.clone());
                }
                _ => others.push(metric_to_v1(&metric)),
            }
        }
        if !others.is_empty() {
            annotations.push((METRICS, Value::Array(others)));
        }
        if let Some(behavior) = spec.shift_remove("behavior").filter(|behavior| !behavior.is_null()) {
            annotations.push((BEHAVIOR, behavior));
        }
    }
    if let Some(status) = hpa.get_mut("status").and_then(Value::as_object_mut) {
        let current = array(status.shift_remove("currentMetrics"));
        if let Some(value) = current
            .iter()
            .filter(|metric| is_cpu(metric))
            .find_map(|metric| metric.pointer("/resource/current/averageUtilization"))
        {
            status.insert("currentCPUUtilizationPercentage".to_owned(), value.clone());
        }
        if !current.is_empty() {
            annotations.push((CURRENT_METRICS, current.iter().map(current_to_v1).collect()));
        }
        if let Some(conditions) = status
            .shift_remove("conditions")
            .filter(|conditions| !array_is_empty(conditions))
        {
            annotations.push((CONDITIONS, conditions));
        }
    }
    if annotations.is_empty() {
        return;
    }
    let Some(metadata) = hpa.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    let map = metadata
        .entry("annotations")
        .or_insert_with(|| Value::Object(Map::new()));
    for (name, value) in annotations {
        map[name] = Value::String(value.to_string());
    }
}

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

/// `(kind, [(field in v1's annotation, path below the kind in v2)])`.
type Fields = &'static [(&'static str, &'static [&'static str])];

/// Field names of v1's annotation beside v2's, a row a metric type; from `autoscaling/v1/conversion.go`.
const TARGETS: [(&str, Fields); 5] = [
    (
        "resource",
        &[
            ("name", &["name"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("averageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
];

const CURRENTS: [(&str, Fields); 5] = [
    (
        "resource",
        &[
            ("name", &["name"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("averageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
];

fn metric_to_v2(metric: &Value) -> Value {
    let mut metric = nested(metric, &TARGETS);
    for (kind, _) in TARGETS {
        if let Some(target) = metric.get_mut(kind).and_then(|source| source.get_mut("target")) {
            let of_type = if target.get("averageUtilization").is_some() {
                "Utilization"
            } else if target.get("averageValue").is_some() {
                "AverageValue"
            } else {
                "Value"
            };
            target["type"] = of_type.into();
        }
    }
    metric
}

fn current_to_v2(metric: &Value) -> Value {
    nested(metric, &CURRENTS)
}

fn metric_to_v1(metric: &Value) -> Value {
    flat(metric, &TARGETS)
}

fn current_to_v1(metric: &Value) -> Value {
    flat(metric, &CURRENTS)
}

fn nested(metric: &Value, table: &[(&str, Fields)]) -> Value {
    let mut made = json!({"type": metric["type"]});
    for (kind, fields) in table {
        let Some(source) = metric.get(kind) else { continue };
        for (name, path) in *fields {
            let Some(value) = source.get(name).filter(|value| !value.is_null()) else {
                continue;
            };
            let mut place = &mut made[*kind];
            for step in *path {
                place = &mut place[*step];
            }
            *place = value.clone();
        }
    }
    made
}

fn flat(metric: &Value, table: &[(&str, Fields)]) -> Value {
    let mut made = json!({"type": metric["type"]});
    for (kind, fields) in table {
        let Some(source) = metric.get(kind) else { continue };
        for (name, path) in *fields {
            let value = path.iter().try_fold(source, |place, step| place.get(step));
            if let Some(value) = value.filter(|value| !value.is_null()) {
                made[*kind][*name] = value.clone();
            }
        }
    }
    made
}

fn take_annotation(hpa: &mut Value, name: &str) -> Option<Value> {
    let metadata = hpa.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.get(name)?.as_str()?;
    // What cannot be read stays where it is, as upstream does.
    let value = serde_json::from_str(text).ok()?;
    annotations.shift_remove(name);
    if annotations.is_empty() {
        metadata.shift_remove("annotations");
    }
    Some(value)
}

fn array(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn array_is_empty(value: &Value) -> bool {
    value.as_array().is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v2_autoscaler_survives_the_way_through_v1() {
        let original = json!({
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a"},
            "spec": {
                "minReplicas": 1, "maxReplicas": 5,
                "scaleTargetRef": {"kind": "Deployment", "name": "a"},
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 50, "type": "Utilization"}}},
                    {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"averageValue": "100m", "type": "AverageValue"}}},
                    {"type": "External", "external": {"metric": {"name": "q", "selector": {"matchLabels": {"a": "b"}}}, "target": {"value": "3", "type": "Value"}}},
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
            },
            "status": {
                "desiredReplicas": 1,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 10, "averageValue": "10m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        });
        let mut hpa = original.clone();
        v2_to_v1(&mut hpa);
        assert_eq!(hpa["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(hpa["status"]["currentCPUUtilizationPercentage"], 10);
        v1_to_v2(&mut hpa);
        assert_eq!(hpa, original);
    }
}
