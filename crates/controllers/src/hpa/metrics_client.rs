//! Reads the metrics APIs: `metrics.k8s.io`, `custom.metrics.k8s.io`, `external.metrics.k8s.io`.
//!
//! Owns paths, wire shapes and the words of their errors. Must not know what the samples are used for.
//! (k/k `pkg/controller/podautoscaler/metrics/client.go`, v1.36.)

use std::collections::BTreeMap;

use apimachinery::labels::Selector;
use apimachinery::quantity::Quantity;
use apimachinery::time;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup;
use kube::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::calculator::{Resource, Sample, Samples};
use crate::error;

/// Window of a custom metric that does not say.
const DEFAULT_WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// Versions of the custom metrics API, the better one first.
const CUSTOM_VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];

/// The client's errors are texts for a condition.
pub(super) type Result<T> = std::result::Result<T, String>;

pub(super) struct MetricsClient(Client);

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Name,
    timestamp: String,
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct Name {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, String>,
}

/// Of both versions of the custom metrics API; v1beta1 calls the seconds `window`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    described_object: Name,
    timestamp: String,
    #[serde(default, alias = "window")]
    window_seconds: Option<i64>,
    value: String,
}

#[derive(Deserialize)]
struct ExternalValue {
    value: String,
}

impl MetricsClient {
    pub(super) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Usage of `resource` by the pods that `selector` matches.
    pub(super) async fn resource(
        &self,
        namespace: &str,
        resource: Resource<'_>,
        selector: &Selector,
    ) -> Result<Samples> {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
        let list: List<PodMetrics> = self
            .get(&path, &[("labelSelector", &selector.to_string())])
            .await
            .map_err(|error| format!("unable to fetch metrics from resource metrics API: {error}"))?;
        if list.items.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        let mut samples = Samples::new();
        for pod in list.items {
            let value = match resource.container {
                None => pod.total(resource.name),
                Some(container) => pod.of_container(container, resource.name).map_err(|missing| {
                    format!(
                        "failed to get container metrics: container {missing} not present in metrics for pod \
                             {namespace}/{}",
                        pod.metadata.name
                    )
                })?,
            };
            if let Some(value) = value {
                let sample = Sample {
                    timestamp: time::parse(&pod.timestamp).unwrap_or(Timestamp::UNIX_EPOCH),
                    window: go_duration(&pod.window).unwrap_or_default(),
                    value,
                };
                samples.insert(pod.metadata.name, sample);
            }
        }
        Ok(samples)
    }

    /// A custom metric of the pods that `selector` matches.
    pub(super) async fn pods(
        &self,
        namespace: &str,
        metric: &str,
        selector: &Selector,
        metric_selector: &Selector,
    ) -> Result<Samples> {
        let list = self
            .custom(
                &format!("namespaces/{namespace}/pods/*/{metric}"),
                Some(selector),
                metric_selector,
            )
            .await?;
        if list.is_empty() {
            return Err("no metrics returned from custom metrics API".to_owned());
        }
        let sample = |value: &MetricValue| Sample {
            timestamp: time::parse(&value.timestamp).unwrap_or(Timestamp::UNIX_EPOCH),
            window: value.window_seconds.map_or(DEFAULT_WINDOW, SignedDuration::from_secs),
            value: milli(&value.value).unwrap_or_default(),
        };
        Ok(list
            .iter()
            .map(|value| (value.described_object.name.clone(), sample(value)))
            .collect())
    }

    /// A custom metric of one object; `resource` is its `plural.group`.
    pub(super) async fn object(
        &self,
        namespace: &str,
        resource: &str,
        object: &CrossVersionObjectReference,
        metric: &str,
        metric_selector: &Selector,
    ) -> Result<i64> {
        let path = if object.kind == "Namespace" {
            format!("namespaces/{}/metrics/{metric}", object.name)
        } else {
            format!("namespaces/{namespace}/{resource}/{}/{metric}", object.name)
        };
        let list = self.custom(&path, None, metric_selector).await?;
        let value = list.first().ok_or("no metrics returned from custom metrics API")?;
        milli(&value.value).ok_or_else(|| format!("unable to read the value `{}` of metric {metric}", value.value))
    }

    async fn custom(
        &self,
        path: &str,
        selector: Option<&Selector>,
        metric_selector: &Selector,
    ) -> Result<Vec<MetricValue>> {
        let failed = |error| format!("unable to fetch metrics from custom metrics API: {error}");
        let group: APIGroup = self.get("/apis/custom.metrics.k8s.io", &[]).await.map_err(failed)?;
        let offers = |version: &&&str| group.versions.iter().any(|offered| offered.version == **version);
        let Some(version) = CUSTOM_VERSIONS.iter().find(offers) else {
            return Err(failed("no known available metric versions found".to_owned()));
        };
        let (selector, metric_selector) = (selector.map(ToString::to_string), metric_selector.to_string());
        let mut query = Vec::new();
        query.extend(selector.as_deref().map(|selector| ("labelSelector", selector)));
        if !metric_selector.is_empty() {
            query.push(("metricLabelSelector", &metric_selector));
        }
        let list: List<MetricValue> = self
            .get(&format!("/apis/custom.metrics.k8s.io/{version}/{path}"), &query)
            .await
            .map_err(failed)?;
        Ok(list.items)
    }

    /// The sum of an external metric.
    pub(super) async fn external(&self, namespace: &str, metric: &str, selector: &Selector) -> Result<i64> {
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}");
        let list: List<ExternalValue> = self
            .get(&path, &[("labelSelector", &selector.to_string())])
            .await
            .map_err(|error| format!("unable to fetch metrics from external metrics API: {error}"))?;
        if list.items.is_empty() {
            return Err("no metrics returned from external metrics API".to_owned());
        }
        Ok(list
            .items
            .iter()
            .filter_map(|item| milli(&item.value))
            .fold(0, i64::saturating_add))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T> {
        let query = query.iter().filter(|(_, value)| !value.is_empty());
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(query)
            .finish();
        let uri = if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{query}")
        };
        let request = http::Request::get(uri)
            .body(Vec::new())
            .map_err(|error| error.to_string())?;
        self.0.request(request).await.map_err(|error| error::message(&error))
    }
}

impl PodMetrics {
    /// Nothing unless every container has a figure.
    fn total(&self, resource: &str) -> Option<i64> {
        if self.containers.is_empty() {
            return None;
        }
        self.containers
            .iter()
            .map(|container| milli(container.usage.get(resource)?))
            .sum()
    }

    /// `Err` names a container that is not there.
    fn of_container<'a>(&self, name: &'a str, resource: &str) -> std::result::Result<Option<i64>, &'a str> {
        let container = self
            .containers
            .iter()
            .find(|container| container.name == name)
            .ok_or(name)?;
        Ok(container.usage.get(resource).and_then(|usage| milli(usage)))
    }
}

fn milli(quantity: &str) -> Option<i64> {
    quantity.parse::<Quantity>().ok().map(|quantity| quantity.milli())
}

/// A duration as Go prints it: `15.123s`, `1m0s`, `500ms`.
fn go_duration(text: &str) -> Option<SignedDuration> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("h", 3600.0),
        ("m", 60.0),
        ("s", 1.0),
    ];
    let (mut rest, mut seconds) = (text, 0.0);
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, factor) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        seconds += number * factor;
        rest = &rest[unit.len()..];
    }
    SignedDuration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_prints_them() {
        let millis = |text| go_duration(text).map(|duration| duration.as_millis());
        assert_eq!(millis("15.123s"), Some(15_123));
        assert_eq!(millis("1m0s"), Some(60_000));
        assert_eq!(millis("1h2m3.5s"), Some(3_723_500));
        assert_eq!(millis("500ms"), Some(500));
        assert_eq!(millis("0"), Some(0));
        assert_eq!(millis("15"), None);
        assert_eq!(millis("x"), None);
    }

    #[test]
    fn a_pod_counts_only_when_all_its_containers_do() {
        let pod = |usage: &str| -> PodMetrics {
            serde_json::from_str(&format!(
                r#"{{"metadata":{{"name":"a"}},"timestamp":"2026-01-01T00:00:00Z","window":"15s","containers":[
                    {{"name":"app","usage":{{"cpu":"1500000n","memory":"1Ki"}}}},{{"name":"side","usage":{usage}}}]}}"#
            ))
            .unwrap()
        };
        assert_eq!(
            pod(r#"{"cpu":"3m"}"#).total("cpu"),
            Some(5),
            "every container is rounded up"
        );
        assert_eq!(pod("{}").total("cpu"), None);
        assert_eq!(pod("{}").of_container("app", "memory"), Ok(Some(1_024_000)));
        assert_eq!(pod("{}").of_container("side", "cpu"), Ok(None));
        assert_eq!(pod("{}").of_container("none", "cpu"), Err("none"));
    }
}
