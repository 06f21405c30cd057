//! Starts one container instance: image, environment, configuration, runtime; with the events on the way.
//!
//! Must not know what comes after (`lifecycle`). Source of the texts: `pkg/kubelet/images/image_manager.go`,
//! `pkg/kubelet/kuberuntime/kuberuntime_container.go` of kubernetes 1.36.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::api::Api;

use super::container_config::container_config;
use super::env::{Inputs, environment, service_variables};
use super::lifecycle::{ImageInUse, Role, StartFailure, Terminated};
use super::objects::{Kind, Lease};
use super::{Context, PodEvents};
use crate::image::{Image, ImageError, Logins};
use crate::privileges::NOT_ENFORCED_REASON;
use crate::runtime::{Error, Limits, Started};

/// One start of one container.
pub(crate) struct Start {
    pub(crate) context: Arc<Context>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) role: Role,
    pub(crate) container: Container,
    pub(crate) attempt: u32,
    pub(crate) pod_ip: Ipv4Addr,
    pub(crate) leases: Arc<[(Kind, String, Arc<Lease>)]>,
    pub(crate) may_pull: bool,
}

/// How it went.
pub(crate) enum Outcome {
    Started(Started, ImageInUse),
    Failed(StartFailure),
    SandboxGone,
}

impl Start {
    pub(crate) async fn run(self) -> Outcome {
        match self.try_run().await {
            Ok((started, image)) => Outcome::Started(started, image),
            Err(outcome) => outcome,
        }
    }

    async fn try_run(&self) -> Result<(Started, ImageInUse), Outcome> {
        let events = PodEvents::of_container(&self.context, &self.pod, self.role, &self.container.name);
        let failed = |reason: &'static str, message: String| {
            events.warning("Failed", format!("Error: {message}"));
            Outcome::Failed(StartFailure::new(reason, message))
        };
        let reference = self.container.image.as_deref().unwrap_or_default();
        let image = self
            .image(reference, &events)
            .await
            .map_err(|failure| Outcome::Failed(*failure))?;
        let inputs = inputs(&self.leases)
            .await
            .map_err(|error| failed("CreateContainerConfigError", error))?;
        let config = self
            .config(&image, &inputs)
            .map_err(|error| failed("CreateContainerConfigError", error))?;
        if let Limits::NotEnforced(why) = self.context.runtime.limits()
            && (config.resources.cpu_limit_milli.is_some() || config.resources.memory_limit_bytes.is_some())
        {
            events.warning(NOT_ENFORCED_REASON, why);
        }
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        match self.context.runtime.start_container(uid, config).await {
            Ok(started) => {
                events.normal("Created", "Container created".into());
                events.normal("Started", "Container started".into());
                Ok((
                    started,
                    ImageInUse {
                        name: reference.to_owned(),
                        id: image.repository_digest(reference).unwrap_or(&image.id).to_owned(),
                    },
                ))
            }
            Err(Error::SandboxGone(_)) => Err(Outcome::SandboxGone),
            Err(error @ Error::Refused(_)) => Err(failed("CreateContainerConfigError", error.to_string())),
            Err(error @ Error::Start { .. }) => {
                let message = error.to_string();
                events.normal("Created", "Container created".into());
                events.warning("Failed", format!("Error: {message}"));
                let now = self.context.clock.now();
                let ended = Terminated {
                    code: 128,
                    signal: None,
                    reason: "StartError".into(),
                    message: message.clone(),
                    // As containerd says it of what never ran.
                    started_at: Some(jiff::Timestamp::UNIX_EPOCH),
                    finished_at: now,
                };
                Err(Outcome::Failed(StartFailure {
                    reason: "RunContainerError",
                    message,
                    ended: Some(ended),
                }))
            }
            Err(error) => Err(failed("CreateContainerError", with_cause(&error))),
        }
    }

    async fn image(&self, reference: &str, events: &PodEvents<'_>) -> Result<Image, Box<StartFailure>> {
        let failed = |reason: &'static str, message: String| {
            events.warning("Failed", format!("Error: {reason}"));
            Box::new(StartFailure::new(reason, message))
        };
        let always = self.container.image_pull_policy.as_deref() == Some("Always");
        match self.context.images.find(reference) {
            // `Always` too where no registry could know better: what was made or imported here came from none.
            Ok(Some(image)) if !always || image.repository_digest(reference).is_none() => {
                events.normal(
                    "Pulled",
                    format!(
                        "Container image \"{reference}\" already present on machine and can be accessed by the pod"
                    ),
                );
                return Ok(image);
            }
            Ok(_) => {}
            Err(ImageError::Reference(why)) => {
                let message = format!("Failed to apply default image tag \"{reference}\": {why}");
                events.warning("InspectFailed", message.clone());
                return Err(failed("InvalidImageName", message));
            }
            Err(error) => {
                let message = format!("Failed to inspect image \"{reference}\": {}", with_cause(&error));
                events.warning("InspectFailed", message.clone());
                return Err(failed("ImageInspectError", message));
            }
        }
        if self.container.image_pull_policy.as_deref() == Some("Never") {
            let message = format!("Container image \"{reference}\" is not present with pull policy of Never");
            events.warning("ErrImageNeverPull", message.clone());
            return Err(failed("ErrImageNeverPull", message));
        }
        if !self.may_pull {
            let message = format!("Back-off pulling image \"{reference}\"");
            events.normal("BackOff", message.clone());
            let message = match self.context.images.last_failure(reference) {
                Some(why) => format!("{message}: ErrImagePull: {why}"),
                None => message,
            };
            return Err(failed("ImagePullBackOff", message));
        }
        events.normal("Pulling", format!("Pulling image \"{reference}\""));
        let secrets = pull_secrets(&self.context, &self.pod).await;
        match self.context.images.pull(reference, &secrets).await {
            Ok(pulled) => {
                let message = format!(
                    "Successfully pulled image \"{reference}\" in {} ({} including waiting). Image size: {} bytes.",
                    go_duration(pulled.took),
                    go_duration(pulled.altogether),
                    pulled.size
                );
                events.normal("Pulled", message);
                Ok(pulled.image)
            }
            Err(error) => {
                let why = error.to_string();
                events.warning("Failed", format!("Failed to pull image \"{reference}\": {why}"));
                Err(failed("ErrImagePull", why))
            }
        }
    }

    fn config(&self, image: &Image, inputs: &Inputs) -> Result<crate::runtime::ContainerConfig, String> {
        let (context, pod) = (&self.context, &*self.pod);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let links = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.enable_service_links)
            .unwrap_or(true);
        let services = context.services.all();
        let services = service_variables(services.iter().map(|service| &**service), namespace, links);
        let around = self.context.surroundings(Some(IpAddr::V4(self.pod_ip)));
        let env = environment(pod, &self.container, &services, inputs, &around)?;
        let pod_dir = context.runtime.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
        let memory = context.allocatable.get("memory");
        container_config(pod, &self.container, self.attempt, image, &env, &pod_dir, memory)
    }
}

/// The logins in a pod's `imagePullSecrets`. A Secret that is not there, or holds none, is passed over as upstream does.
async fn pull_secrets(context: &Context, pod: &Pod) -> Vec<Logins> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let named = pod
        .spec
        .iter()
        .flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    let api = Api::<Secret>::namespaced(context.client.clone(), namespace);
    let mut logins = vec![];
    for name in named.map(|reference| &reference.name) {
        let found = api.get(name).await.map(|secret| secret.data.unwrap_or_default());
        match found {
            Ok(data) => {
                let text = [".dockerconfigjson", ".dockercfg"]
                    .iter()
                    .find_map(|key| data.get(*key));
                logins.extend(text.and_then(|text| Logins::parse(&text.0).ok()));
            }
            Err(error) => tracing::warn!("image pull secret `{namespace}/{name}`: {error}"),
        }
    }
    logins
}

/// As Go prints a duration of whole milliseconds: `345ms`, `1.2s`, `1m5.001s`.
fn go_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (minutes, seconds, rest) = (ms / 60_000, ms / 1000 % 60, ms % 1000);
    let fraction = format!(".{rest:03}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, minutes) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

/// The objects a pod refers to, as they are now.
pub(crate) async fn inputs(leases: &[(Kind, String, Arc<Lease>)]) -> Result<Inputs, String> {
    let asked = leases.iter().map(|(kind, name, lease)| async move {
        lease.get(*kind).await.map(|payload| ((*kind, name.clone()), payload))
    });
    futures::future::try_join_all(asked)
        .await
        .map(|found| found.into_iter().collect())
}

/// An error and its causes on one line.
pub(crate) fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        let ms = [0, 7, 345, 1000, 1200, 61_050, 3_600_000];
        let text = ms.map(|ms| go_duration(Duration::from_millis(ms)));
        assert_eq!(text, ["0s", "7ms", "345ms", "1s", "1.2s", "1m1.05s", "1h0m0s"]);
    }
}
