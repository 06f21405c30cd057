//! What a worker has done beside its loop: sandbox, volumes, starts, waits, hooks, signals. Each job ends in a report.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Message, Worker};
use crate::kubelet::hooks::{Done, Hook};
use crate::kubelet::lifecycle::{Report, Role, Signal, Terminated, find_container};
use crate::kubelet::logs::last_words;
use crate::kubelet::objects::{Kind, Lease};
use crate::kubelet::sandbox::sandbox_config;
use crate::kubelet::start::{Outcome, Start, inputs, with_cause};
use crate::kubelet::volumes::{self, Contents, Tokens};
use crate::kubelet::{Context, PodEvents};
use crate::runtime::{ContainerId, Error};

impl Worker {
    fn send_report<F>(&mut self, report: F) -> AbortHandle
    where
        F: Future<Output = Option<Report>> + Send + 'static,
    {
        let mail = self.mail.clone();
        self.jobs.spawn(async move {
            if let Some(report) = report.await {
                let _ = mail.send(Message::Report(report));
            }
        })
    }

    pub(super) fn create_sandbox(&mut self) {
        let (context, pod, uid) = (self.context.clone(), self.pod.clone(), self.uid.clone());
        self.send_report(async move {
            let made = async {
                let dir = context.runtime.pod_dir(&uid);
                let memory =
                    volumes::memory_volumes(&pod, &dir).map_err(|error| format!("making memory volumes: {error}"))?;
                let config = sandbox_config(&pod, &context.dns, memory)?;
                let sandbox = context.runtime.create_sandbox(config).await;
                sandbox.map(|sandbox| sandbox.ip).map_err(|error| with_cause(&error))
            };
            let made = made.await;
            if let Err(error) = &made {
                let events = PodEvents::of_pod(&context, &pod);
                events.warning(
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {error}"),
                );
            }
            Some(Report::Sandbox(made))
        });
    }

    /// Fills the volumes, or brings them up to date.
    pub(super) fn prepare_volumes(&mut self) {
        self.refreshing = true;
        self.watch_inputs();
        let (context, pod, leases, tokens) = (
            self.context.clone(),
            self.pod.clone(),
            self.leases.clone(),
            self.tokens.clone(),
        );
        let ip = self.pod_ip();
        let mail = self.mail.clone();
        self.send_report(async move {
            let mut tokens = tokens.lock().await;
            let prepared = fill(&context, &pod, &leases, &mut tokens, ip).await;
            if let Err(error) = &prepared {
                PodEvents::of_pod(&context, &pod).warning("FailedMount", error.clone());
            }
            if let Some(at) = volumes::refresh_at(&tokens) {
                let after = at.duration_since(context.clock.now());
                let after = Duration::try_from(after).unwrap_or(Duration::from_secs(1));
                drop(tokens);
                tokio::spawn(async move {
                    tokio::select! {
                        () = tokio::time::sleep(after) => drop(mail.send(Message::InputsChanged)),
                        () = mail.closed() => {}
                    }
                });
            }
            Some(Report::Volumes(prepared))
        });
    }

    /// Tells the worker whenever a ConfigMap or Secret changes.
    fn watch_inputs(&mut self) {
        if std::mem::replace(&mut self.watches_inputs, true) {
            return;
        }
        for (_, _, lease) in self.leases.clone().iter() {
            let (mut bell, mail) = (lease.bell(), self.mail.clone());
            self.jobs.spawn(async move {
                loop {
                    bell.ring().await;
                    if mail.send(Message::InputsChanged).is_err() {
                        return;
                    }
                }
            });
        }
    }

    pub(super) fn start(&mut self, name: &str, attempt: u32, may_pull: bool) {
        let (Some((role, container)), Some(pod_ip)) = (find_container(&self.pod, name), self.pod_ip()) else {
            return;
        };
        let start = Start {
            context: self.context.clone(),
            pod: self.pod.clone(),
            role,
            container,
            attempt,
            pod_ip,
            leases: self.leases.clone(),
            may_pull,
        };
        let name = name.to_owned();
        self.send_report(async move {
            Some(match start.run().await {
                Outcome::Started(started, image) => Report::Started {
                    name,
                    attempt,
                    since: started.started_at,
                    image,
                },
                Outcome::Failed(failure) => Report::StartFailed { name, attempt, failure },
                Outcome::SandboxGone => Report::SandboxGone { name },
            })
        });
    }

    /// Waits for its end, runs its postStart hook, and forgets the instance before the last.
    pub(super) fn container_started(&mut self, name: &str, attempt: u32) {
        self.wait_for(name, attempt);
        let id = ContainerId::new(&self.uid, name, attempt);
        if let Some(old) = attempt.checked_sub(2) {
            let (runtime, old) = (
                self.context.runtime.clone(),
                ContainerId {
                    attempt: old,
                    ..id.clone()
                },
            );
            self.jobs.spawn(async move {
                if let Err(error) = runtime.remove_container(&old).await {
                    tracing::debug!("removing container `{old}`: {error}");
                }
            });
        }
        let Some((role, container)) = find_container(&self.pod, name) else {
            return;
        };
        let handler = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.clone());
        let (Some(handler), Some(ip)) = (handler, self.pod_ip()) else {
            return;
        };
        let (context, pod, name) = (self.context.clone(), self.pod.clone(), name.to_owned());
        self.send_report(async move {
            let hook = Hook {
                runtime: &*context.runtime,
                network: &*context.network,
                id: &id,
                container: &container,
                pod_ip: IpAddr::V4(ip),
            };
            // A hook that never ends holds its container back for ever, as upstream.
            let done = hook.run(&handler, Duration::MAX).await;
            report_fallback(&context, &pod, role, &name, &done);
            if let Err(error) = &done {
                tracing::debug!("postStart hook of container `{name}`: {error}");
            }
            Some(Report::PostStart {
                name,
                attempt,
                succeeded: done.is_ok(),
            })
        });
    }

    pub(super) fn wait_for(&mut self, name: &str, attempt: u32) {
        let (context, pod, name) = (self.context.clone(), self.pod.clone(), name.to_owned());
        let id = ContainerId::new(&self.uid, &name, attempt);
        self.send_report(async move {
            let how = match context.runtime.wait(&id).await {
                Ok(exit) => {
                    let mut ended = Terminated::from_exit(&exit);
                    let policy = find_container(&pod, &name).and_then(|(_, spec)| spec.termination_message_policy);
                    if ended.message.is_empty() && exit.code != 0 && policy.as_deref() == Some("FallbackToLogsOnError")
                    {
                        ended.message = last_words(&context.runtime.log_path(&id)).await;
                    }
                    Some(ended)
                }
                Err(Error::SandboxGone(_)) => return Some(Report::SandboxGone { name }),
                Err(error) => {
                    tracing::warn!("waiting for container `{id}`: {}", with_cause(&error));
                    None
                }
            };
            Some(Report::Exited { name, attempt, how })
        });
    }

    pub(super) fn pre_stop(&mut self, name: &str, attempt: u32, deadline: Timestamp) {
        let (Some((role, container)), Some(ip)) = (find_container(&self.pod, name), self.pod_ip()) else {
            return;
        };
        let handler = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.pre_stop.clone());
        let limit = self.instant(deadline).saturating_duration_since(Instant::now());
        let (context, pod, name) = (self.context.clone(), self.pod.clone(), name.to_owned());
        let id = ContainerId::new(&self.uid, &name, attempt);
        self.send_report(async move {
            let hook = Hook {
                runtime: &*context.runtime,
                network: &*context.network,
                id: &id,
                container: &container,
                pod_ip: IpAddr::V4(ip),
            };
            let handler = handler.unwrap_or_default();
            let run = hook.run(&handler, Duration::MAX);
            // A hook that outlives the grace period is left behind without a word.
            if let Ok(done) = tokio::time::timeout(limit, run).await {
                report_fallback(&context, &pod, role, &name, &done);
                if let Err(error) = &done {
                    tracing::debug!("preStop hook of container `{name}`: {error}");
                    let events = PodEvents::of_container(&context, &pod, role, &name);
                    events.warning("FailedPreStopHook", "PreStopHook failed".into());
                }
            }
            Some(Report::PreStop { name, attempt })
        });
    }

    pub(super) fn signal(&mut self, name: String, attempt: u32, signal: Signal) {
        let number = match signal {
            Signal::Kill => libc::SIGKILL,
            Signal::Stop => self.stop_signal(&name),
        };
        let runtime = self.context.runtime.clone();
        let id = ContainerId::new(&self.uid, name, attempt);
        self.jobs.spawn(async move {
            if let Err(error) = runtime.signal(&id, number).await {
                tracing::debug!("sending signal {number} to container `{id}`: {error}");
            }
        });
    }

    /// `lifecycle.stopSignal`, else SIGTERM.
    fn stop_signal(&self, name: &str) -> i32 {
        let lifecycle = find_container(&self.pod, name).and_then(|(_, spec)| spec.lifecycle);
        let named = lifecycle.and_then(|lifecycle| lifecycle.stop_signal);
        let known = named.and_then(|name| name.parse::<nix::sys::signal::Signal>().ok());
        known.map_or(libc::SIGTERM, |signal| signal as i32)
    }
}

async fn fill(
    context: &Context,
    pod: &Pod,
    leases: &[(Kind, String, std::sync::Arc<Lease>)],
    tokens: &mut Tokens,
    ip: Option<Ipv4Addr>,
) -> Result<(), String> {
    let now = context.clock.now();
    let due = volumes::wanted_tokens(pod)
        .into_iter()
        .filter(|wanted| tokens.get(wanted).is_none_or(|t| t.refresh_at() <= now));
    let requests = due.map(|wanted| async move {
        let token = wanted.request(context.client.clone(), pod, now).await;
        (wanted, token)
    });
    let (inputs, fresh) = tokio::join!(inputs(leases), futures::future::join_all(requests));
    for (wanted, token) in fresh {
        match token {
            Ok(token) => drop(tokens.insert(wanted, token)),
            // The old one is still good for a while.
            Err(error) if tokens.contains_key(&wanted) => {
                tracing::warn!("renewing a token of pod `{}`: {error}", pod.name_any())
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    let dir = context.runtime.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    let claims = volumes::find_claims(&context.client, pod, &dir).await?;
    let around = context.surroundings(ip.map(IpAddr::V4));
    let contents = Contents {
        pod,
        inputs: &inputs?,
        tokens,
        claims: &claims,
        around: &around,
    };
    let allowed = volumes::HostPaths {
        any: context.allow_host_path,
        below: &context.volumes,
    };
    volumes::prepare(&contents, &dir, &allowed)
        .map(drop)
        .map_err(|failure| failure.to_string())
}

fn report_fallback(context: &Context, pod: &Pod, role: Role, name: &str, done: &Result<Done, String>) {
    if *done == Ok(Done::FellBackToHttp) {
        let events = PodEvents::of_container(context, pod, role, name);
        events.warning(
            "LifecycleHTTPFallback",
            "request to HTTPS lifecycle hook got HTTP response, retrying with HTTP succeeded".into(),
        );
    }
}
