//! The pods of a Job: how they are made, and which index each stands for.
//!
//! Pure. (k/k `pkg/controller/job/{job_controller,indexed_job_utils}.go`, v1.36.)

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::indexes::Indexes;
use crate::{ownership, pods};

/// On every pod until the Job has counted it.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
/// Room for the random part of a pod's name.
const LONGEST_PREFIX: usize = 58;

pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Which index the pod stands for.
pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok()
}

/// How often the pod's index had failed before it.
pub(super) fn failures_before(pod: &Pod) -> i32 {
    let count = pod.annotations().get(FAILURE_COUNT);
    count.and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// Whether the pod counts as failed: one that is being deleted does at once, unless only what has really ended is
/// replaced.
pub(super) fn has_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pods::is_terminating(pod) && spec.pod_replacement_policy.as_deref() != Some("Failed"),
    }
}

/// The lowest indexes that nothing stands for yet.
pub(super) fn free_indexes(completions: i32, taken: &Indexes, count: usize) -> Vec<i32> {
    (0..completions)
        .filter(|index| !taken.contains(index))
        .take(count)
        .collect()
}

/// A new pod; `index` and how often it failed, for an indexed Job.
pub(super) fn new(job: &Job, spec: &JobSpec, index: Option<(i32, Option<i32>)>) -> Pod {
    let name = job.name_any();
    let meta = spec.template.metadata.clone().unwrap_or_default();
    let mut pod_spec = spec.template.spec.clone().unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let mut prefix = format!("{name}-");
    if let Some((index, failures)) = index {
        prefix = format!("{name}-{index}-");
        labels.insert(INDEX.to_owned(), index.to_string());
        annotations.insert(INDEX.to_owned(), index.to_string());
        if let Some(failures) = failures {
            annotations.insert(FAILURE_COUNT.to_owned(), failures.to_string());
        }
        pod_spec.hostname = Some(format!("{name}-{index}"));
        let containers = pod_spec.containers.iter_mut();
        for container in containers.chain(pod_spec.init_containers.iter_mut().flatten()) {
            let env = container.env.get_or_insert_default();
            if !env.iter().any(|variable| variable.name == "JOB_COMPLETION_INDEX") {
                env.push(index_variable());
            }
        }
    }
    let cut = prefix.len().min(LONGEST_PREFIX);
    prefix.truncate(cut);
    let mut finalizers = meta.finalizers.unwrap_or_default();
    finalizers.push(FINALIZER.to_owned());
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(prefix),
            namespace: job.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            finalizers: Some(finalizers),
            owner_references: Some(vec![ownership::controller_ref(job)]),
            ..Default::default()
        },
        spec: Some(pod_spec),
        status: None,
    }
}

fn index_variable() -> EnvVar {
    EnvVar {
        name: "JOB_COMPLETION_INDEX".into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{INDEX}']"),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}
