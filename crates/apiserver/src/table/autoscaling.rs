//! HorizontalPodAutoscaler, in either of its versions, and Scale.

use serde_json::Value;

use super::cell::{NONE, UNKNOWN, UNSET, age, count, first, name, plain, quantity};
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::{at, int, list, text};

pub(super) static HORIZONTAL_POD_AUTOSCALER: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Reference", "What is scaled."),
        Column::text("Targets", "Measured and wanted value of each metric."),
        Column::text("MinPods", "Fewest replicas."),
        Column::text("MaxPods", "Most replicas."),
        Column::text("Replicas", "Replicas when it last looked."),
        AGE,
    ],
    cells: |hpa, now| {
        let reference = &["spec", "scaleTargetRef"];
        let reference = at(hpa, reference).unwrap_or(&Value::Null);
        vec![
            name(hpa),
            format!("{}/{}", text(reference, &["kind"]), text(reference, &["name"])).into(),
            targets(hpa).into(),
            int(hpa, &["spec", "minReplicas"])
                .map_or_else(|| UNSET.to_owned(), |number| number.to_string())
                .into(),
            count(hpa, &["spec", "maxReplicas"]).into(),
            count(hpa, &["status", "currentReplicas"]).into(),
            age(hpa, now),
        ]
    },
};

pub(super) static SCALE: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Desired", "Replicas that are wanted."),
        Column::integer("Available", "Replicas that are there."),
        AGE,
    ],
    cells: |scale, now| {
        let number = |path: &[&str]| count(scale, path).into();
        vec![
            name(scale),
            number(&["spec", "replicas"]),
            number(&["status", "replicas"]),
            age(scale, now),
        ]
    },
};

/// How many metrics are shown.
const SHOWN: usize = 2;

fn targets(hpa: &Value) -> String {
    let metrics = list(hpa, &["spec", "metrics"]);
    let current = list(hpa, &["status", "currentMetrics"]);
    if metrics.is_empty() {
        // autoscaling/v1 knows only one metric.
        let percent = |path: &[&str]| int(hpa, path).map(|number| format!("{number}%"));
        return match percent(&["spec", "targetCPUUtilizationPercentage"]) {
            Some(target) => {
                let measured = percent(&["status", "currentCPUUtilizationPercentage"]);
                format!("cpu: {}/{target}", measured.unwrap_or_else(|| UNKNOWN.to_owned()))
            }
            None => NONE.to_owned(),
        };
    }
    let texts: Vec<String> = metrics
        .iter()
        .enumerate()
        .map(|(index, metric)| target(metric, current.get(index)))
        .collect();
    first(&texts, SHOWN, ", ")
}

fn target(metric: &Value, status: Option<&Value>) -> String {
    let (source, resource) = match text(metric, &["type"]) {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let status = status.and_then(|status| status.get(source));
    let measured = |key: &str| status.and_then(|status| at(status, &["current", key]));
    let wanted = |key: &str| at(metric, &[source, "target", key]);
    let measured_text = |key: &str| {
        // What is measured at all has a value, were it nothing.
        status.map_or_else(|| UNKNOWN.to_owned(), |status| quantity(status, &["current", key]))
    };
    if resource {
        let name = text(metric, &[source, "name"]);
        if let Some(average) = wanted("averageValue") {
            return format!("{name}: {}/{}", measured_text("averageValue"), plain(average));
        }
        let percent = |value: Option<&Value>, otherwise: &str| {
            value.map_or_else(|| otherwise.to_owned(), |value| format!("{}%", plain(value)))
        };
        let measured = percent(measured("averageUtilization"), UNKNOWN);
        return format!("{name}: {measured}/{}", percent(wanted("averageUtilization"), "<auto>"));
    }
    match (source, wanted("averageValue")) {
        ("pods", average) => {
            format!(
                "{}/{}",
                measured_text("averageValue"),
                average.map_or_else(|| "0".to_owned(), plain)
            )
        }
        (_, Some(average)) => {
            let measured = measured("averageValue").map_or_else(|| UNKNOWN.to_owned(), plain);
            format!("{measured}/{} (avg)", plain(average))
        }
        (_, None) => format!(
            "{}/{}",
            measured_text("value"),
            quantity(metric, &[source, "target", "value"])
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    #[test]
    fn an_autoscaler_shows_what_it_measures_and_wants() {
        let mut hpa = json!({"metadata": {"name": "cpu-burner", "creationTimestamp": "2026-01-01T00:59:00Z"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "cpu-burner"}, "minReplicas": 1, "maxReplicas": 5,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {
                    "type": "Utilization", "averageUtilization": 50}}}]},
            "status": {"currentReplicas": 1, "desiredReplicas": 0, "currentMetrics": null}});
        assert_eq!(
            row(&HORIZONTAL_POD_AUTOSCALER, &hpa),
            [
                "cpu-burner",
                "Deployment/cpu-burner",
                "cpu: <unknown>/50%",
                "1",
                "5",
                "1",
                "60s"
            ]
        );
        hpa["status"]["currentMetrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "current": {
            "averageUtilization": 45, "averageValue": "45m"}}}]);
        assert_eq!(row(&HORIZONTAL_POD_AUTOSCALER, &hpa)[2], "cpu: 45%/50%");
    }

    #[test]
    fn other_metrics_and_how_many_more() {
        let pods = json!({"type": "Pods", "pods": {"target": {"averageValue": "100m"}}});
        let external = json!({"type": "External", "external": {"target": {"averageValue": "30"}}});
        let object = json!({"type": "Object", "object": {"target": {"value": "5"}}});
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"averageValue": "64Mi"}}});
        let hpa = json!({"spec": {"metrics": [pods, external, object, memory]}, "status": {"currentMetrics": [
            {"pods": {"current": {"averageValue": "120m"}}}, {"external": {"current": {"averageValue": "10"}}}]}});
        assert_eq!(targets(&hpa), "120m/100m, 10/30 (avg) + 2 more...");
        let hpa = json!({"spec": {"metrics": [object, memory]}, "status": {"currentMetrics": [
            {"object": {"current": {"value": "4"}}}]}});
        assert_eq!(targets(&hpa), "4/5, memory: <unknown>/64Mi");
    }

    #[test]
    fn the_old_version_shows_the_same() {
        let hpa =
            json!({"spec": {"targetCPUUtilizationPercentage": 80}, "status": {"currentCPUUtilizationPercentage": 3}});
        assert_eq!(targets(&hpa), "cpu: 3%/80%");
    }
}
