//! The life of a pod as a pure state machine.
//!
//! [`PodState`] is everything the kubelet remembers of a pod; [`PodState::apply`] takes in what happened, [`PodState::step`]
//! says what to do next, [`status::of`] what to tell the API server. Nothing here waits, reads a clock or touches a
//! container: `now` is a parameter and every act is an [`Action`] that the worker carries out.

mod apply;
mod backoff;
mod container;
mod phase;
mod restore;
mod spec;
pub(crate) mod status;
mod step;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use apimachinery::pace::Pace;
use jiff::{SignedDuration, Timestamp};

pub(crate) use backoff::Backoff;
pub(crate) use container::{Container, ImageInUse, Now, Terminated};
pub(crate) use restore::restore;
pub(crate) use spec::{Role, containers, ephemeral_containers, find_container};

use crate::events::Severity;

/// Namespaces and network of the pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SandboxState {
    Absent,
    Creating,
    Ready { ip: Ipv4Addr },
    Failed { message: String, retry_at: Timestamp },
}

/// The pod's volumes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum VolumesState {
    Absent,
    Preparing,
    Ready,
    Failed { message: String, retry_at: Timestamp },
}

/// Why the whole pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Every container came to its end, or the spec says that nothing can come of it any more.
    Finished,
    /// `activeDeadlineSeconds` are over.
    DeadlineExceeded,
    /// `metadata.deletionTimestamp` is set, with this grace period.
    Deleted { grace_seconds: i64 },
    /// The object is gone from the API; nobody is left to report to.
    Vanished { grace_seconds: i64 },
    /// The node ends its containers; the object stays.
    NodeStops,
}

/// Everything the kubelet remembers of a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodState {
    /// `status.startTime`.
    pub(crate) started_at: Timestamp,
    pub(crate) sandbox: SandboxState,
    pub(crate) volumes: VolumesState,
    /// Every container by name: init, plain and ephemeral.
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) ending: Option<Ending>,
    /// For which ending [`Action::Finish`] was given out.
    finished: Option<Ending>,
    pub(crate) pace: Pace,
}

/// What has happened.
#[derive(Debug)]
pub(crate) enum Report {
    Sandbox(Result<Ipv4Addr, String>),
    Volumes(Result<(), String>),
    Started {
        name: String,
        attempt: u32,
        since: Timestamp,
        image: ImageInUse,
    },
    StartFailed {
        name: String,
        attempt: u32,
        failure: StartFailure,
    },
    PostStart {
        name: String,
        attempt: u32,
        succeeded: bool,
    },
    PreStop {
        name: String,
        attempt: u32,
    },
    /// `None`: nobody saw how.
    Exited {
        name: String,
        attempt: u32,
        how: Option<Terminated>,
    },
    /// The sandbox of this live container died, and every container in it.
    SandboxGone {
        name: String,
    },
    Probe {
        name: String,
        attempt: u32,
        kind: ProbeKind,
        healthy: bool,
    },
}

/// Why a container was not started.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StartFailure {
    /// `ErrImagePull`, `CreateContainerConfigError`, …
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// The instance existed and ended at once (`StartError`): its number is used up.
    pub(crate) ended: Option<Terminated>,
}

impl StartFailure {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            ended: None,
        }
    }
}

/// The three probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

/// What the worker has to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    CreateSandbox,
    PrepareVolumes,
    /// `may_pull`: an image that is not there may be pulled now.
    Start {
        name: String,
        attempt: u32,
        may_pull: bool,
    },
    RunPreStop {
        name: String,
        attempt: u32,
        deadline: Timestamp,
    },
    Signal {
        name: String,
        attempt: u32,
        signal: Signal,
    },
    Event {
        container: Option<String>,
        severity: Severity,
        reason: &'static str,
        message: String,
    },
    /// All containers have ended and none will start again: report, clean up, and delete the object if it wants to go.
    Finish,
}

/// Which signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM, or what the container's `stopSignal` says.
    Stop,
    Kill,
}

impl PodState {
    /// A pod that was just accepted.
    pub(crate) fn new(now: Timestamp, pace: Pace) -> Self {
        Self {
            started_at: now,
            sandbox: SandboxState::Absent,
            volumes: VolumesState::Absent,
            containers: BTreeMap::new(),
            ending: None,
            finished: None,
            pace,
        }
    }

    /// Whether everything that ever ran has ended and nothing will start again.
    pub(crate) fn is_over(&self) -> bool {
        self.ending.is_some()
            && !self.containers.values().any(Container::is_live)
            && !matches!(self.sandbox, SandboxState::Creating)
            && !matches!(self.volumes, VolumesState::Preparing)
    }
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}
