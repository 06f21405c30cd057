//! How many replicas a metric asks for.
//!
//! Pure arithmetic over samples and pods: no client, no clock, no limits. Integer divisions and roundings are upstream's
//! (k/k `pkg/controller/podautoscaler/replica_calculator.go`, `metrics/utilization.go`, v1.36). All values are in
//! thousandths.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

use crate::pods;

/// One pod's sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// End of the window.
    pub(super) timestamp: Timestamp,
    pub(super) window: SignedDuration,
    pub(super) value: i64,
}

/// Samples by pod name.
pub(super) type Samples = BTreeMap<String, Sample>;

/// How far the ratio may be from one without any consequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerances {
    pub(super) up: f64,
    pub(super) down: f64,
}

impl Default for Tolerances {
    fn default() -> Self {
        Self { up: 0.1, down: 0.1 }
    }
}

impl Tolerances {
    fn allow(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// When a young pod's CPU says nothing yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Youth {
    pub(super) now: Timestamp,
    /// `--horizontal-pod-autoscaler-cpu-initialization-period`
    pub(super) cpu_initialization: SignedDuration,
    /// `--horizontal-pod-autoscaler-initial-readiness-delay`
    pub(super) initial_readiness: SignedDuration,
}

/// Why nothing can be computed; the words are Kubernetes'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unable {
    #[error("no pods returned by selector while calculating replica count")]
    NothingSelected,
    #[error("did not receive metrics for targeted pods (pods might be unready)")]
    MissingSamples,
    #[error("no metrics returned matched known pods")]
    UnknownPods,
    #[error("missing request for {resource} in container {container} of Pod {pod}")]
    MissingRequest {
        resource: String,
        container: String,
        pod: String,
    },
}

/// What a resource metric with a utilization target asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Utilization {
    pub(super) replicas: i32,
    /// Percent of the requests.
    pub(super) utilization: i32,
    /// Mean usage of a pod.
    pub(super) average: i64,
}

/// What the metric is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resource<'a> {
    pub(super) name: &'a str,
    /// One container of each pod, or the whole pod.
    pub(super) container: Option<&'a str>,
}

/// The target's pods, with what is known of them.
pub(super) struct Target<'a> {
    /// `scale.spec.replicas`
    pub(super) current: i32,
    /// Pods that the selector matches.
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) tolerances: Tolerances,
    pub(super) youth: Youth,
}

impl Target<'_> {
    /// Replicas for a mean utilization of `target` percent of the requests.
    pub(super) fn for_utilization(
        &self,
        resource: Resource<'_>,
        mut samples: Samples,
        target: i32,
    ) -> Result<Utilization, Unable> {
        let groups = self.group(&mut samples, Some(resource.name))?;
        let requests = requests(self.pods, resource)?;
        let (ratio, utilization, average) = utilization_ratio(&samples, &requests, target)?;
        let proposal = |replicas| Utilization {
            replicas,
            utilization,
            average,
        };
        let for_missing = |pod: &str| {
            // On the way down, a pod that says nothing is taken to use its whole request, or the target if that is more.
            requests.get(pod).copied().unwrap_or_default() * i64::from(target.max(100)) / 100
        };
        let Some(filled) = self.fill(&groups, &mut samples, ratio, for_missing) else {
            return Ok(proposal(self.plain(ratio, groups.ready)));
        };
        let (new_ratio, ..) = utilization_ratio(filled, &requests, target)?;
        Ok(proposal(self.considered(ratio, new_ratio, filled.len())))
    }

    /// Replicas for a mean of `target` a pod; with the mean found. `resource` is none for custom metrics.
    pub(super) fn for_average(
        &self,
        resource: Option<&str>,
        mut samples: Samples,
        target: i64,
    ) -> Result<(i32, i64), Unable> {
        let groups = self.group(&mut samples, resource)?;
        let (ratio, average) = mean_ratio(&samples, target);
        let Some(filled) = self.fill(&groups, &mut samples, ratio, |_| target) else {
            return Ok((self.plain(ratio, groups.ready), average));
        };
        let (new_ratio, _) = mean_ratio(filled, target);
        Ok((self.considered(ratio, new_ratio, filled.len()), average))
    }

    /// Replicas for a metric of something else, in proportion to the pods that are ready.
    pub(super) fn for_value(&self, value: i64, target: i64) -> Result<i32, Unable> {
        let ratio = value as f64 / target as f64;
        if self.current == 0 {
            return Ok(ceil(ratio));
        }
        if self.tolerances.allow(ratio) {
            return Ok(self.current);
        }
        if self.pods.is_empty() {
            return Err(Unable::NothingSelected);
        }
        let ready = self
            .pods
            .iter()
            .filter(|pod| pods::phase(pod) == "Running" && pods::is_ready(pod))
            .count();
        Ok(ceil(ratio * ready as f64))
    }

    fn plain(&self, ratio: f64, ready: usize) -> i32 {
        if self.tolerances.allow(ratio) {
            self.current
        } else {
            ceil(ratio * ready as f64)
        }
    }

    /// The result after guesses were filled in for `count` pods in all; they may soften a move, never turn it round.
    fn considered(&self, ratio: f64, new_ratio: f64, count: usize) -> i32 {
        let turned = (ratio < 1.0 && new_ratio > 1.0) || (ratio > 1.0 && new_ratio < 1.0);
        if self.tolerances.allow(new_ratio) || turned {
            return self.current;
        }
        let replicas = ceil(new_ratio * count as f64);
        let contradicts = (new_ratio < 1.0 && replicas > self.current) || (new_ratio > 1.0 && replicas < self.current);
        if contradicts { self.current } else { replicas }
    }

    /// Puts guesses in for pods that say nothing; none where there is nothing to guess.
    fn fill<'s>(
        &self,
        groups: &Groups<'_>,
        samples: &'s mut Samples,
        ratio: f64,
        for_missing: impl Fn(&str) -> i64,
    ) -> Option<&'s Samples> {
        let counts_unready = !groups.unready.is_empty() && ratio > 1.0;
        if groups.missing.is_empty() && !counts_unready {
            return None;
        }
        let guess = |value| Sample {
            timestamp: self.youth.now,
            window: SignedDuration::ZERO,
            value,
        };
        if ratio < 1.0 {
            samples.extend(
                groups
                    .missing
                    .iter()
                    .map(|&pod| (pod.to_owned(), guess(for_missing(pod)))),
            );
        } else if ratio > 1.0 {
            samples.extend(groups.missing.iter().map(|&pod| (pod.to_owned(), guess(0))));
        }
        if counts_unready {
            samples.extend(groups.unready.iter().map(|&pod| (pod.to_owned(), guess(0))));
        }
        Some(samples)
    }

    /// Sorts the pods by what may be concluded from them, and drops samples that say nothing.
    fn group(&self, samples: &mut Samples, resource: Option<&str>) -> Result<Groups<'_>, Unable> {
        if self.pods.is_empty() {
            return Err(Unable::NothingSelected);
        }
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            if pods::is_terminating(pod) || pods::phase(pod) == "Failed" {
                samples.remove(name);
            } else if pods::phase(pod) == "Pending" {
                samples.remove(name);
                groups.unready.insert(name);
            } else if let Some(sample) = samples.get(name) {
                if resource == Some("cpu") && self.youth.disqualifies(pod, sample) {
                    samples.remove(name);
                    groups.unready.insert(name);
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.insert(name);
            }
        }
        if samples.is_empty() {
            Err(Unable::MissingSamples)
        } else {
            Ok(groups)
        }
    }
}

#[derive(Default)]
struct Groups<'a> {
    ready: usize,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
}

impl Youth {
    /// True if the sample measures starting up, not serving.
    fn disqualifies(&self, pod: &Pod, sample: &Sample) -> bool {
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let (Some(ready), Some(started)) = (pods::condition(pod, "Ready"), started) else {
            return true;
        };
        let is_unready = ready.status == "False";
        let turned = ready
            .last_transition_time
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let later = |time: Timestamp, by| time.saturating_add(by).unwrap_or(Timestamp::MAX);
        if later(started.0, self.cpu_initialization) > self.now {
            // Young: a whole window must lie after the pod became ready.
            is_unready || sample.timestamp < later(turned, sample.window)
        } else {
            // Old, and it never became ready.
            is_unready && later(started.0, self.initial_readiness) > turned
        }
    }
}

/// Replicas for a total of `target` a replica over what `status.replicas` says; with the mean found, rounded up.
pub(super) fn per_replica(value: i64, target: i64, status_replicas: i32, tolerances: Tolerances) -> (i32, i64) {
    let ratio = value as f64 / (target as f64 * f64::from(status_replicas));
    let replicas = if tolerances.allow(ratio) {
        status_replicas
    } else {
        ceil(value as f64 / target as f64)
    };
    (replicas, (value as f64 / f64::from(status_replicas)).ceil() as i64)
}

/// Saturates, as the cast does; the number of replicas is checked against the limits later.
fn ceil(replicas: f64) -> i32 {
    replicas.ceil() as i32
}

fn utilization_ratio(
    samples: &Samples,
    requests: &BTreeMap<String, i64>,
    target: i32,
) -> Result<(f64, i32, i64), Unable> {
    let known = samples
        .iter()
        .filter_map(|(pod, sample)| Some((sample.value, requests.get(pod)?)));
    let (used, requested, count) = known.fold((0_i64, 0_i64, 0_i64), |(used, requested, count), (value, request)| {
        (
            used.saturating_add(value),
            requested.saturating_add(*request),
            count + 1,
        )
    });
    if requested == 0 {
        return Err(Unable::UnknownPods);
    }
    let utilization = i32::try_from(used.saturating_mul(100) / requested).unwrap_or(i32::MAX);
    Ok((f64::from(utilization) / f64::from(target), utilization, used / count))
}

fn mean_ratio(samples: &Samples, target: i64) -> (f64, i64) {
    let count = i64::try_from(samples.len()).unwrap_or(i64::MAX).max(1);
    let mean = samples
        .values()
        .map(|sample| sample.value)
        .fold(0_i64, i64::saturating_add)
        / count;
    (mean as f64 / target as f64, mean)
}

/// What each pod asks for of a resource: its containers and sidecars, or the pod as a whole if it says so itself.
fn requests(pods: &[Arc<Pod>], resource: Resource<'_>) -> Result<BTreeMap<String, i64>, Unable> {
    pods.iter()
        .map(|pod| {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let request = pod_request(pod, resource).map_err(|container| Unable::MissingRequest {
                resource: resource.name.to_owned(),
                container,
                pod: name.clone(),
            })?;
            Ok((name, request))
        })
        .collect()
}

/// `Err` names the container without a request.
fn pod_request(pod: &Pod, resource: Resource<'_>) -> Result<i64, String> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    if resource.container.is_none()
        && let Some(whole) = request(spec.resources.as_ref(), resource.name)
    {
        return Ok(whole);
    }
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let chosen = |container: &&Container| resource.container.is_none_or(|name| name == container.name);
    spec.containers
        .iter()
        .chain(sidecars)
        .filter(chosen)
        .map(|container| request(container.resources.as_ref(), resource.name).ok_or_else(|| container.name.clone()))
        .sum()
}

fn request(resources: Option<&ResourceRequirements>, name: &str) -> Option<i64> {
    let WireQuantity(text) = resources?.requests.as_ref()?.get(name)?;
    text.parse::<apimachinery::quantity::Quantity>()
        .ok()
        .map(|quantity| quantity.milli())
}

#[cfg(test)]
mod tests;
