//! What is remembered of one container: what it does now, how its instances ended.
//!
//! Plain data.

use jiff::{SignedDuration, Timestamp};

use super::{Backoff, ProbeKind};
use crate::runtime::Exit;

/// How one container instance ended, in the API's words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Terminated {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Timestamp,
}

impl Terminated {
    /// `Completed`, `Error` or `OOMKilled`.
    pub(crate) fn from_exit(exit: &Exit) -> Self {
        let reason = match exit {
            Exit { oom_killed: true, .. } => "OOMKilled",
            Exit { code: 0, .. } => "Completed",
            _ => "Error",
        };
        Self {
            code: exit.code,
            signal: exit.signal,
            reason: reason.into(),
            message: exit.message.clone(),
            started_at: Some(exit.started_at),
            finished_at: exit.finished_at,
        }
    }

    /// Nobody saw how it ended.
    pub(crate) fn unknown(started_at: Option<Timestamp>, now: Timestamp) -> Self {
        Self {
            code: 137,
            signal: None,
            reason: "ContainerStatusUnknown".into(),
            message: "The container could not be located when the pod was deleted.  The container used to be Running"
                .into(),
            started_at,
            finished_at: now,
        }
    }
}

/// What a container does right now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Now {
    /// Nothing: not started yet, or ended.
    Idle,
    /// A job prepares and starts it.
    Starting,
    /// The start did not come off; tried again at `retry_at`.
    Failed {
        reason: &'static str,
        message: String,
        retry_at: Timestamp,
    },
    /// `CrashLoopBackOff`.
    BackingOff { delay: SignedDuration, until: Timestamp },
    /// Its program runs.
    Running(Running),
}

/// A running instance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Running {
    pub(crate) since: Timestamp,
    /// Its postStart hook has not come back yet.
    pub(crate) in_post_start: bool,
    /// The startup probe has succeeded, or there is none.
    pub(crate) started: bool,
    /// The readiness probe says so, or there is none.
    pub(crate) ready: bool,
    /// It is being stopped.
    pub(crate) stop: Option<Stop>,
}

/// A stop under way: preStop hook, SIGTERM, SIGKILL.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stop {
    /// Taken out when it has been said in an event.
    pub(crate) why: Option<StopReason>,
    /// When the grace period ends.
    pub(crate) deadline: Timestamp,
    pub(crate) hook: Hook,
    /// When SIGTERM was followed, or will be, by SIGKILL; `None` before SIGTERM.
    pub(crate) kill_at: Option<Timestamp>,
    pub(crate) killed: bool,
}

/// Why one container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The pod ends.
    Ending,
    /// A startup or liveness probe failed too often.
    Probe(ProbeKind),
    /// The postStart hook failed.
    PostStart,
    /// The spec names another image now.
    Changed,
}

/// Where the preStop hook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Due,
    Runs,
    Over,
}

/// One container of the spec.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Container {
    /// The number of the newest instance; `None` before the first.
    pub(crate) attempt: Option<u32>,
    /// How the newest instance ended; `None` while it runs.
    pub(crate) ended: Option<Terminated>,
    /// How the instance before that one ended.
    pub(crate) before: Option<Terminated>,
    pub(crate) now: Now,
    /// The image as it was resolved for the newest instance.
    pub(crate) image: Option<ImageInUse>,
    pub(crate) crash_backoff: Backoff,
    pub(crate) pull_backoff: Backoff,
    /// It belongs to a sandbox that is gone: an init container has to run again in the new one.
    pub(crate) rerun: bool,
}

impl Default for Container {
    fn default() -> Self {
        Self {
            attempt: None,
            ended: None,
            before: None,
            now: Now::Idle,
            image: None,
            crash_backoff: Backoff::default(),
            pull_backoff: Backoff::default(),
            rerun: false,
        }
    }
}

/// `status.containerStatuses[].image` and `.imageID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageInUse {
    pub(crate) name: String,
    pub(crate) id: String,
}

impl Container {
    pub(crate) fn running(&self) -> Option<&Running> {
        match &self.now {
            Now::Running(running) => Some(running),
            _ => None,
        }
    }

    pub(super) fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.now {
            Now::Running(running) => Some(running),
            _ => None,
        }
    }

    /// The number the next instance gets.
    pub(super) fn next_attempt(&self) -> u32 {
        self.attempt.map_or(0, |attempt| attempt + 1)
    }

    /// It runs or is about to.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.now, Now::Running(_) | Now::Starting)
    }

    pub(super) fn succeeded(&self) -> bool {
        !self.rerun && !self.is_live() && self.ended.as_ref().is_some_and(|ended| ended.code == 0)
    }

    pub(super) fn end(&mut self, terminated: Terminated) {
        self.ended = Some(terminated);
        self.now = Now::Idle;
    }
}

impl Stop {
    pub(super) fn new(why: StopReason, deadline: Timestamp) -> Self {
        Self {
            why: Some(why),
            deadline,
            hook: Hook::Due,
            kill_at: None,
            killed: false,
        }
    }
}
