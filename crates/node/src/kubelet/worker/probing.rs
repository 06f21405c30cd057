//! Which probes run: begun when their container is ready for them, ended when they have no business any more.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Message, Worker};
use crate::kubelet::PodEvents;
use crate::kubelet::lifecycle::{Now, ProbeKind, Report, Role, find_container};
use crate::kubelet::probe::{self, ContainerCheck, News};
use crate::runtime::ContainerId;

impl Worker {
    /// Begins the probes that are due and ends those that have no business any more.
    pub(super) fn update_probes(&mut self) {
        let ending = self.state.ending.is_some();
        let mut wanted = Vec::new();
        for (name, container) in &self.state.containers {
            let (Now::Running(running), Some(attempt)) = (&container.now, container.attempt) else {
                continue;
            };
            let Some((_, spec)) = find_container(&self.pod, name) else {
                continue;
            };
            for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
                let due = match kind {
                    ProbeKind::Startup => !running.started && !ending,
                    ProbeKind::Liveness => running.started && !ending && running.stop.is_none(),
                    // Goes on while the pod ends: its endpoints still serve.
                    ProbeKind::Readiness => running.started,
                };
                if let Some(probe) = probe::probe_of(&spec, kind).filter(|_| due) {
                    wanted.push((
                        (name.clone(), attempt, kind),
                        spec.clone(),
                        probe.clone(),
                        running.clone(),
                    ));
                }
            }
        }
        self.probes.retain(|key, task| {
            let keep = wanted.iter().any(|(wanted, ..)| wanted == key);
            if !keep {
                task.abort();
            }
            keep
        });
        for (key, spec, probe, running) in wanted {
            let Some(ip) = self.pod_ip().filter(|_| !self.probes.contains_key(&key)) else {
                continue;
            };
            let (name, attempt, kind) = key.clone();
            let check = Arc::new(ContainerCheck {
                runtime: self.context.runtime.clone(),
                network: self.context.network.clone(),
                id: ContainerId::new(&self.uid, &name, attempt),
                container: spec,
                pod_ip: IpAddr::V4(ip),
            });
            let healthy = match kind {
                ProbeKind::Startup => running.started,
                ProbeKind::Liveness => true,
                ProbeKind::Readiness => running.ready,
            };
            let started = self.instant(running.since).min(Instant::now());
            let (context, pod, mail) = (self.context.clone(), self.pod.clone(), self.mail.clone());
            let tell = move |news| match news {
                News::Healthy(healthy) => {
                    let name = name.clone();
                    let _ = mail.send(Message::Report(Report::Probe {
                        name,
                        attempt,
                        kind,
                        healthy,
                    }));
                }
                News::Event(reason, message) => {
                    let role = find_container(&pod, &name).map_or(Role::Main, |(role, _)| role);
                    PodEvents::of_container(&context, &pod, role, &name).warning(reason, message);
                }
            };
            let task = self.jobs.spawn(probe::run(kind, probe, check, started, healthy, tell));
            self.probes.insert(key, task);
        }
    }
}
