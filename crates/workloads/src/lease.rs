//! One leader among the replicas of an operator, elected by a Lease as Kubernetes' own controllers do
//! (the rules of client-go, tools/leaderelection/leaderelection.go, 1.36).
//!
//! Owns the Lease and nothing that the leader does. Clocks of different machines are never compared: a Lease has
//! expired when this process has not seen it change for its duration.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, timeout};

use crate::operator;

/// A leader that is silent for so long is none any more.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for so long gives up, before the others may start.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks.
const RETRY: Duration = Duration::from_secs(2);

/// One who wants to lead.
pub(crate) struct Candidate {
    leases: Api<Lease>,
    name: String,
    identity: String,
    /// The Lease as it was when it last changed, and when that was seen.
    seen: Option<(LeaseSpec, Instant)>,
}

/// Another one leads now.
#[derive(Debug, thiserror::Error)]
#[error("the lease `{0}` could not be renewed: another replica may lead now")]
pub(crate) struct Lost(String);

impl Candidate {
    /// For the Lease `name`; `identity` is unique among the replicas, the pod's name.
    pub(crate) fn new(leases: Api<Lease>, name: &str, identity: &str) -> Self {
        Self {
            leases,
            name: name.to_owned(),
            identity: identity.to_owned(),
            seen: None,
        }
    }

    /// Waits until this one leads.
    pub(crate) async fn win(&mut self) {
        let mut told = String::new();
        loop {
            match self.try_take().await {
                Ok(true) => return crate::say(&format!("`{}` leads", self.identity)),
                Ok(false) => {
                    let holder = self.seen.as_ref().and_then(|(spec, _)| spec.holder_identity.clone());
                    let holder = holder.unwrap_or_default();
                    if holder != told {
                        crate::say(&format!("waiting: `{holder}` leads"));
                        told = holder;
                    }
                }
                Err(error) => crate::complain(&format!("asking for lease `{}`: {error}", self.name)),
            }
            sleep(RETRY).await;
        }
    }

    /// Renews until that fails for too long, which ends it.
    pub(crate) async fn hold(&mut self) -> Lost {
        loop {
            sleep(RETRY).await;
            let renewed = timeout(RENEW_DEADLINE, async {
                loop {
                    match self.try_take().await {
                        Ok(mine) => return mine,
                        Err(error) => crate::complain(&format!("renewing lease `{}`: {error}", self.name)),
                    }
                    sleep(RETRY).await;
                }
            });
            if !renewed.await.unwrap_or(false) {
                return Lost(self.name.clone());
            }
        }
    }

    /// Gives the Lease back, so that the next one need not wait for it to expire.
    pub(crate) async fn release(&mut self) -> kube::Result<()> {
        let mut lease = self.leases.get(&self.name).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    /// Takes or renews the Lease; `false` while another one holds it, or was faster.
    async fn try_take(&mut self) -> kube::Result<bool> {
        let now = MicroTime(operator::now());
        let mut wanted = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(0),
            ..LeaseSpec::default()
        };
        let written = match self.leases.get_opt(&self.name).await? {
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(wanted),
                };
                self.leases.create(&PostParams::default(), &lease).await
            }
            Some(mut lease) => {
                let held = lease.spec.unwrap_or_default();
                let since = match &self.seen {
                    Some((spec, since)) if *spec == held => *since,
                    _ => Instant::now(),
                };
                self.seen = Some((held.clone(), since));
                let holder = held.holder_identity.as_deref().unwrap_or_default();
                let mine = holder == self.identity;
                let limit = held
                    .lease_duration_seconds
                    .and_then(|seconds| u64::try_from(seconds).ok());
                let expired = since.elapsed() >= limit.map_or(DURATION, Duration::from_secs);
                if !mine && !holder.is_empty() && !expired {
                    return Ok(false);
                }
                let transitions = held.lease_transitions.unwrap_or(0);
                if mine {
                    wanted.acquire_time = held.acquire_time;
                }
                wanted.lease_transitions = Some(if mine { transitions } else { transitions + 1 });
                lease.spec = Some(wanted);
                // The resourceVersion goes along: of two who are equally fast one gets a 409.
                self.leases.replace(&self.name, &PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(lease) => {
                self.seen = lease.spec.map(|spec| (spec, Instant::now()));
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }
}
