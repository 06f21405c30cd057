//! One metric of an autoscaler: reads it, computes its proposal, and words what went wrong.
//!
//! Owns the five metric source types, their names in reasons and conditions, and their status. Must not know how
//! proposals are combined or limited. (k/k `pkg/controller/podautoscaler/horizontal.go`, `computeStatusFor…`, v1.36.)

use std::sync::Arc;

use apimachinery::labels::Selector;
use apimachinery::quantity::{Format, Quantity};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricSource, ExternalMetricStatus, MetricIdentifier, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricSource, ObjectMetricStatus, PodsMetricSource,
    PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::calculator::{Resource, Target, Tolerances, Youth, per_replica};
use super::metrics_client::MetricsClient;
use super::scale::ScaleClient;
use crate::selector;

/// What one metric asks for.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// `cpu resource utilization (percentage of request)`, as reasons and conditions say.
    pub(super) name: String,
    pub(super) status: MetricStatus,
}

/// Why a metric says nothing.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// Reason of the event and of condition ScalingActive.
    pub(super) reason: &'static str,
    /// Their text.
    pub(super) message: String,
    /// The same with what it was for, as the error of the whole computation quotes it.
    pub(super) error: String,
}

/// The scaled object as the computation needs it.
pub(super) struct Subject<'a> {
    pub(super) namespace: &'a str,
    pub(super) current: i32,
    pub(super) status_replicas: i32,
    pub(super) selector: &'a Selector,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) tolerances: Tolerances,
    pub(super) youth: Youth,
}

/// Computes one metric.
pub(super) struct Metrics<'a> {
    pub(super) client: &'a MetricsClient,
    /// Knows the plural names of the objects that metrics describe.
    pub(super) scales: &'a ScaleClient,
    pub(super) subject: Subject<'a>,
}

type Outcome = Result<Proposal, Failure>;

impl Metrics<'_> {
    pub(super) async fn compute(&self, spec: &MetricSpec) -> Outcome {
        match (spec.type_.as_str(), spec) {
            (
                "Resource",
                MetricSpec {
                    resource: Some(source), ..
                },
            ) => {
                let resource = Resource {
                    name: &source.name,
                    container: None,
                };
                let found = self.resource(resource, &source.target).await;
                let (replicas, name, current) = found.map_err(|message| Failure {
                    reason: "FailedGetResourceMetric",
                    error: format!("failed to get {} resource metric value: {message}", source.name),
                    message,
                })?;
                let status = ResourceMetricStatus {
                    name: source.name.clone(),
                    current,
                };
                Ok(Proposal {
                    replicas,
                    name,
                    status: MetricStatus {
                        resource: Some(status),
                        ..of_type(spec)
                    },
                })
            }
            (
                "ContainerResource",
                MetricSpec {
                    container_resource: Some(source),
                    ..
                },
            ) => {
                let resource = Resource {
                    name: &source.name,
                    container: Some(&source.container),
                };
                let found = self.resource(resource, &source.target).await;
                let (replicas, name, current) = found.map_err(|message| Failure {
                    reason: "FailedGetContainerResourceMetric",
                    error: format!("failed to get {} container metric value: {message}", source.container),
                    message,
                })?;
                let (container, of) = (source.container.clone(), source.name.clone());
                let status = ContainerResourceMetricStatus {
                    container,
                    name: of,
                    current,
                };
                Ok(Proposal {
                    replicas,
                    name,
                    status: MetricStatus {
                        container_resource: Some(status),
                        ..of_type(spec)
                    },
                })
            }
            ("Pods", MetricSpec { pods: Some(source), .. }) => {
                self.pods(spec, source).await.map_err(|message| Failure {
                    reason: "FailedGetPodsMetric",
                    error: format!("failed to get pods metric value: {message}"),
                    message,
                })
            }
            (
                "Object",
                MetricSpec {
                    object: Some(source), ..
                },
            ) => self.object(spec, source).await.map_err(|message| Failure {
                reason: "FailedGetObjectMetric",
                error: format!("failed to get object metric value: {message}"),
                message,
            }),
            (
                "External",
                MetricSpec {
                    external: Some(source), ..
                },
            ) => self.external(spec, source).await.map_err(|message| Failure {
                reason: "FailedGetExternalMetric",
                error: format!(
                    "failed to get {0} external metric value: failed to get {0} external metric: {message}",
                    source.metric.name
                ),
                message,
            }),
            (type_, _) => {
                let message = format!("unknown metric source type {type_:?}");
                Err(Failure {
                    reason: "InvalidMetricSourceType",
                    error: message.clone(),
                    message,
                })
            }
        }
    }

    fn target(&self) -> Target<'_> {
        let Subject {
            current,
            pods,
            tolerances,
            youth,
            ..
        } = self.subject;
        Target {
            current,
            pods,
            tolerances,
            youth,
        }
    }

    /// Replicas, the metric's name, and its current value.
    async fn resource(
        &self,
        resource: Resource<'_>,
        target: &MetricTarget,
    ) -> Result<(i32, String, MetricValueStatus), String> {
        let name = resource.name;
        let samples = async {
            let samples = self
                .client
                .resource(self.subject.namespace, resource, self.subject.selector)
                .await;
            samples.map_err(|error| format!("unable to get metrics for resource {name}: {error}"))
        };
        let value = |milli| WireQuantity(Quantity::from_milli(milli, format_of(name)).to_string());
        if let Some(per_pod) = &target.average_value {
            let usage = |error: String| format!("failed to get {name} usage: {error}");
            let samples = samples.await.map_err(usage)?;
            let found = self.target().for_average(Some(name), samples, milli(per_pod));
            let (replicas, mean) = found.map_err(|error| usage(error.to_string()))?;
            let current = MetricValueStatus {
                average_value: Some(value(mean)),
                ..Default::default()
            };
            return Ok((replicas, format!("{name} resource"), current));
        }
        let Some(percent) = target.average_utilization else {
            return Err(
                "invalid resource metric source: neither an average utilization target nor an average value \
                        (usage) target was set"
                    .to_owned(),
            );
        };
        let utilization = |error: String| format!("failed to get {name} utilization: {error}");
        let samples = samples.await.map_err(utilization)?;
        let found = self.target().for_utilization(resource, samples, percent);
        let found = found.map_err(|error| utilization(error.to_string()))?;
        let current = MetricValueStatus {
            average_utilization: Some(found.utilization),
            average_value: Some(value(found.average)),
            value: None,
        };
        let of = if resource.container.is_some() {
            "container resource"
        } else {
            "resource"
        };
        Ok((
            found.replicas,
            format!("{name} {of} utilization (percentage of request)"),
            current,
        ))
    }

    async fn pods(&self, spec: &MetricSpec, source: &PodsMetricSource) -> Result<Proposal, String> {
        let metric = &source.metric.name;
        let wanted = metric_selector(&source.metric)?;
        let samples = self
            .client
            .pods(self.subject.namespace, metric, self.subject.selector, &wanted)
            .await;
        let samples = samples.map_err(|error| format!("unable to get metric {metric}: {error}"))?;
        let per_pod = source.target.average_value.as_ref().map(milli).unwrap_or_default();
        let (replicas, mean) = self
            .target()
            .for_average(None, samples, per_pod)
            .map_err(|error| error.to_string())?;
        let status = PodsMetricStatus {
            metric: source.metric.clone(),
            current: average(mean),
        };
        let status = MetricStatus {
            pods: Some(status),
            ..of_type(spec)
        };
        Ok(Proposal {
            replicas,
            name: format!("pods metric {metric}"),
            status,
        })
    }

    async fn object(&self, spec: &MetricSpec, source: &ObjectMetricSource) -> Result<Proposal, String> {
        let (metric, object) = (&source.metric.name, &source.described_object);
        let wanted = metric_selector(&source.metric)?;
        let namespace = self.subject.namespace;
        let value = async {
            let resource = self.scales.group_resource(object).await?;
            self.client.object(namespace, &resource, object, metric, &wanted).await
        };
        // Upstream's words, the misplaced parts included.
        let failed = |error| {
            format!(
                "unable to get metric {metric}: {} on {namespace} {}/{error}",
                object.kind, object.name
            )
        };
        let total = source.target.value.as_ref().filter(|_| source.target.type_ == "Value");
        let per_pod = source
            .target
            .average_value
            .as_ref()
            .filter(|_| source.target.type_ == "AverageValue");
        let (replicas, name, current) = match (total, per_pod) {
            (Some(target), _) => {
                let found = value.await.map_err(failed)?;
                let replicas = self.for_value(found, milli(target))?;
                (replicas, format!("{} metric {metric}", object.kind), whole(found))
            }
            (None, Some(target)) => {
                let found = value.await.map_err(failed)?;
                let (replicas, mean) = per_replica(
                    found,
                    milli(target),
                    self.subject.status_replicas,
                    self.subject.tolerances,
                );
                (replicas, external_name(&source.metric), average(mean))
            }
            (None, None) => {
                return Err(
                    "invalid object metric source: neither a value target nor an average value target was set"
                        .to_owned(),
                );
            }
        };
        let (described_object, metric) = (object.clone(), source.metric.clone());
        let status = ObjectMetricStatus {
            current,
            described_object,
            metric,
        };
        Ok(Proposal {
            replicas,
            name,
            status: MetricStatus {
                object: Some(status),
                ..of_type(spec)
            },
        })
    }

    async fn external(&self, spec: &MetricSpec, source: &ExternalMetricSource) -> Result<Proposal, String> {
        let metric = &source.metric;
        let namespace = self.subject.namespace;
        let wanted = metric_selector(metric)?;
        let value = async {
            self.client
                .external(namespace, &metric.name, &wanted)
                .await
                .map_err(|error| {
                    let printed = go_selector(metric.selector.as_ref());
                    format!(
                        "unable to get external metric {namespace}/{}/{printed}: {error}",
                        metric.name
                    )
                })
        };
        let (replicas, current) = if let Some(target) = &source.target.average_value {
            let found = value.await?;
            let (replicas, mean) = per_replica(
                found,
                milli(target),
                self.subject.status_replicas,
                self.subject.tolerances,
            );
            (replicas, average(mean))
        } else if let Some(target) = &source.target.value {
            let found = value.await?;
            (self.for_value(found, milli(target))?, whole(found))
        } else {
            return Err(
                "invalid external metric source: neither a value target nor an average value target was set".to_owned(),
            );
        };
        let status = ExternalMetricStatus {
            current,
            metric: metric.clone(),
        };
        let status = MetricStatus {
            external: Some(status),
            ..of_type(spec)
        };
        Ok(Proposal {
            replicas,
            name: external_name(metric),
            status,
        })
    }

    fn for_value(&self, value: i64, target: i64) -> Result<i32, String> {
        self.target()
            .for_value(value, target)
            .map_err(|error| format!("unable to calculate ready pods: {error}"))
    }
}

fn of_type(spec: &MetricSpec) -> MetricStatus {
    MetricStatus {
        type_: spec.type_.clone(),
        ..Default::default()
    }
}

fn average(milli: i64) -> MetricValueStatus {
    let value = WireQuantity(Quantity::from_milli(milli, Format::DecimalSi).to_string());
    MetricValueStatus {
        average_value: Some(value),
        ..Default::default()
    }
}

fn whole(milli: i64) -> MetricValueStatus {
    let value = WireQuantity(Quantity::from_milli(milli, Format::DecimalSi).to_string());
    MetricValueStatus {
        value: Some(value),
        ..Default::default()
    }
}

fn format_of(resource: &str) -> Format {
    if resource == "memory" {
        Format::BinarySi
    } else {
        Format::DecimalSi
    }
}

fn milli(quantity: &WireQuantity) -> i64 {
    quantity
        .0
        .parse::<Quantity>()
        .map(|quantity| quantity.milli())
        .unwrap_or_default()
}

/// An absent selector selects every series.
fn metric_selector(metric: &MetricIdentifier) -> Result<Selector, String> {
    match &metric.selector {
        None => Ok(Selector::everything()),
        Some(wanted) => selector::of(wanted).map_err(|error| error.to_string()),
    }
}

fn external_name(metric: &MetricIdentifier) -> String {
    format!(
        "external metric {}({})",
        metric.name,
        go_selector(metric.selector.as_ref())
    )
}

/// A selector as Go's `%+v` prints it, since it is part of reasons that people compare.
fn go_selector(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else {
        return "nil".to_owned();
    };
    let labels = selector.match_labels.iter().flatten();
    let labels: String = labels.map(|(key, value)| format!("{key}: {value},")).collect();
    let expressions: String = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|wanted| {
            let values = wanted.values.as_deref().unwrap_or_default().join(" ");
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},",
                wanted.key, wanted.operator
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_printed_as_go_prints_them() {
        let selector: LabelSelector = serde_json::from_str(r#"{"matchLabels":{"queue":"a"}}"#).unwrap();
        assert_eq!(
            go_selector(Some(&selector)),
            "&LabelSelector{MatchLabels:map[string]string{queue: a,},MatchExpressions:[]LabelSelectorRequirement{},}"
        );
        assert_eq!(go_selector(None), "nil");
    }

    #[test]
    fn values_are_printed_in_their_resources_format() {
        let value = |name, milli| Quantity::from_milli(milli, format_of(name)).to_string();
        assert_eq!(value("cpu", 12_500), "12500m");
        assert_eq!(value("memory", 100 * 1024 * 1024 * 1000), "100Mi");
    }
}
