//! HorizontalPodAutoscaler, in the shape in which it is stored (v2), and Scale.

use jiff::Timestamp;
use serde_json::Value;

use super::column::{AGE, Column, NAME, int, shown};
use super::show;
use crate::strategy::walk::{self, at};

/// So many metrics are listed.
const LISTED: usize = 2;

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    Some(match kind {
        "HorizontalPodAutoscaler" => HORIZONTAL_POD_AUTOSCALER,
        "Scale" => SCALE,
        _ => return None,
    })
}

static HORIZONTAL_POD_AUTOSCALER: &[Column] = &[
    NAME,
    shown("Reference", "What is scaled", |hpa, _| {
        let target = |field| walk::text(hpa, &["spec", "scaleTargetRef", field]);
        format!("{}/{}", target("kind"), target("name")).into()
    }),
    shown("Targets", "What each metric is, and what it should be", targets),
    shown("MinPods", "Fewest pods", |hpa, _| {
        at(hpa, &["spec", "minReplicas"])
            .map_or_else(|| "<unset>".to_owned(), show::plain)
            .into()
    }),
    int("MaxPods", "Most pods", &["spec", "maxReplicas"]).of_type("string"),
    int("Replicas", "Pods at the last look", &["status", "currentReplicas"]).of_type("string"),
    AGE,
];

static SCALE: &[Column] = &[
    NAME.of_format(""),
    int("Desired", "Pods wanted", &["spec", "replicas"]),
    int("Available", "Pods there are", &["status", "replicas"]),
    AGE,
];

fn targets(hpa: &Value, _: Timestamp) -> Value {
    let specs = walk::list(hpa, &["spec", "metrics"]);
    let statuses = walk::list(hpa, &["status", "currentMetrics"]);
    if specs.is_empty() {
        return "<none>".into();
    }
    let all: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(i, spec)| metric(spec, statuses.get(i).unwrap_or(&Value::Null)))
        .collect();
    show::cut(&all, ", ", LISTED).into()
}

/// `cpu: 45%/50%`, `12/10 (avg)`, …: the status of a metric against its spec.
fn metric(spec: &Value, status: &Value) -> String {
    let source = match walk::text(spec, &["type"]) {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let target = |field: &str| at(spec, &[source, "target", field]);
    // The status may not be there yet, or be that of another metric.
    let known = at(status, &[source]).is_some();
    let current = |field: &str| at(status, &[source, "current", field]);
    let quantity = |field: &str| match known {
        true => show::quantity(current(field)),
        false => "<unknown>".to_owned(),
    };
    let percent = |value: Option<&Value>, none: &str| value.map_or(none.to_owned(), |value| format!("{value}%"));
    match source {
        "resource" | "containerResource" => {
            let name = walk::text(spec, &[source, "name"]);
            match target("averageValue") {
                Some(target) => format!("{name}: {}/{}", quantity("averageValue"), show::quantity(Some(target))),
                None => format!(
                    "{name}: {}/{}",
                    percent(current("averageUtilization"), "<unknown>"),
                    percent(target("averageUtilization"), "<auto>")
                ),
            }
        }
        "pods" => format!(
            "{}/{}",
            quantity("averageValue"),
            show::quantity(target("averageValue"))
        ),
        // Of an object, or of nothing in the cluster.
        _ => match target("averageValue") {
            Some(target) => {
                let current =
                    current("averageValue").map_or("<unknown>".to_owned(), |value| show::quantity(Some(value)));
                format!("{current}/{} (avg)", show::quantity(Some(target)))
            }
            None => format!("{}/{}", quantity("value"), show::quantity(target("value"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::{headings, row};

    fn targets_of(specs: &[Value], statuses: &[Value]) -> Value {
        let hpa = json!({"spec": {"metrics": specs}, "status": {"currentMetrics": statuses}});
        targets(&hpa, Timestamp::UNIX_EPOCH)
    }

    fn utilization(name: &str, target: i32) -> Value {
        json!({"type": "Resource", "resource": {"name": name, "target":
            {"type": "Utilization", "averageUtilization": target}}})
    }

    fn used(name: &str, percent: i32) -> Value {
        json!({"type": "Resource", "resource": {"name": name, "current":
            {"averageUtilization": percent, "averageValue": "90m"}}})
    }

    #[test]
    fn an_autoscaler_shows_what_it_scales_and_why() {
        let hpa = json!({
            "metadata": {"name": "cpu-burner", "creationTimestamp": "2026-01-02T11:54:00Z"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "cpu-burner"}, "minReplicas": 1, "maxReplicas": 5,
                "metrics": [utilization("cpu", 50)]},
            "status": {"currentReplicas": 3, "currentMetrics": [used("cpu", 45)]},
        });
        assert_eq!(
            headings("autoscaling/v2", "HorizontalPodAutoscaler"),
            "Name  Reference  Targets  MinPods  MaxPods  Replicas  Age"
        );
        assert_eq!(
            row("autoscaling/v2", "HorizontalPodAutoscaler", &hpa),
            "cpu-burner  Deployment/cpu-burner  cpu: 45%/50%  1  5  3  6m"
        );
    }

    #[test]
    fn under_its_old_version_it_shows_the_same() {
        let hpa = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 5,
                "targetCPUUtilizationPercentage": 50},
            "status": {"currentReplicas": 1, "desiredReplicas": 1, "currentCPUUtilizationPercentage": 12},
        });
        assert_eq!(
            row("autoscaling/v1", "HorizontalPodAutoscaler", &hpa),
            "h  Deployment/d  cpu: 12%/50%  <unset>  5  1  <unknown>"
        );
    }

    #[test]
    fn a_metric_not_measured_yet_is_unknown() {
        assert_eq!(targets_of(&[], &[]), "<none>");
        assert_eq!(targets_of(&[utilization("cpu", 50)], &[]), "cpu: <unknown>/50%");
        let average = |current: Value| {
            let spec = json!({"type": "Resource", "resource": {"name": "memory", "target": {"averageValue": "200Mi"}}});
            targets_of(&[spec], &[current])
        };
        assert_eq!(average(json!({"type": ""})), "memory: <unknown>/200Mi");
        assert_eq!(
            average(json!({"type": "Resource", "resource": {"name": "memory", "current": {"averageValue": "1024Ki"}}})),
            "memory: 1Mi/200Mi"
        );
    }

    #[test]
    fn two_metrics_are_listed_and_the_rest_counted() {
        let all = [
            utilization("cpu", 50),
            utilization("memory", 80),
            utilization("x", 1),
            json!({"type": "New"}),
        ];
        assert_eq!(
            targets_of(&all[..2], &[used("cpu", 7)]),
            "cpu: 7%/50%, memory: <unknown>/80%"
        );
        assert_eq!(
            targets_of(&all, &[used("cpu", 7), used("memory", 90)]),
            "cpu: 7%/50%, memory: 90%/80% + 2 more..."
        );
        assert_eq!(targets_of(&all[3..], &[]), "<unknown type>");
    }

    #[test]
    fn every_source_has_its_form() {
        for (source, target, current, expected) in [
            (
                "Pods",
                json!({"averageValue": "100m"}),
                json!({"averageValue": "120m"}),
                "120m/100m",
            ),
            ("Object", json!({"value": "10"}), json!({"value": "12"}), "12/10"),
            (
                "Object",
                json!({"averageValue": "10"}),
                json!({"averageValue": "12"}),
                "12/10 (avg)",
            ),
            ("External", json!({"value": "2k"}), json!({"value": "1500"}), "1500/2k"),
            (
                "External",
                json!({"averageValue": "5"}),
                json!({"value": "0"}),
                "<unknown>/5 (avg)",
            ),
            (
                "ContainerResource",
                json!({"averageUtilization": 60}),
                json!({"averageUtilization": 61}),
                "cpu: 61%/60%",
            ),
            (
                "ContainerResource",
                json!({"averageValue": "1"}),
                json!({"averageValue": "100m"}),
                "cpu: 100m/1",
            ),
        ] {
            let field = source[..1].to_lowercase() + &source[1..];
            let spec = json!({"type": source, &field: {"name": "cpu", "target": target}});
            let status = json!({"type": source, &field: {"name": "cpu", "current": current}});
            assert_eq!(targets_of(&[spec], &[status]), expected);
        }
    }

    #[test]
    fn a_scale_shows_wanted_and_there() {
        let scale = json!({"metadata": {"name": "web"}, "spec": {"replicas": 3}, "status": {"replicas": 2}});
        assert_eq!(row("autoscaling/v1", "Scale", &scale), "web  3  2  <unknown>");
    }
}
