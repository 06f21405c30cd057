//! What can go wrong at the API, in words for someone in trouble.

use std::time::Duration;

use super::resource::ObjectName;
use crate::scenario::duration;

/// Why something could not be done at the API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused.
    #[error("{doing}: {}", refusal(status))]
    Refused {
        /// What was being done.
        doing: String,
        /// Its answer.
        status: Box<kube::core::Status>,
    },
    /// No answer, or one that makes no sense.
    #[error("{doing}")]
    Client {
        /// What was being done.
        doing: String,
        /// Why.
        source: kube::Error,
    },
    /// No such kind is served.
    #[error("the cluster knows no `{kind}` of `{api_version}`")]
    UnknownKind {
        /// As in the manifest.
        api_version: String,
        /// As in the manifest.
        kind: String,
    },
    /// The object is somebody else's.
    #[error("{object} is already there and not of this lab{}", owner.as_ref().map(|lab| format!(": it belongs to `{lab}`")).unwrap_or_default())]
    Foreign {
        /// Which object.
        object: ObjectName,
        /// The lab on its label, if it has one.
        owner: Option<String>,
    },
    /// Others set fields that the manifest sets too.
    #[error("applying {object}: others own fields of it: {}", conflicts.join("; "))]
    Conflict {
        /// Which object.
        object: ObjectName,
        /// Who and which field, one a line.
        conflicts: Vec<String>,
    },
    /// A namespaced object that wants to be elsewhere.
    #[error("{object} names another namespace than the lab's, `{namespace}`")]
    Elsewhere {
        /// Which object.
        object: ObjectName,
        /// The lab's namespace.
        namespace: String,
    },
    /// A wait that ended without what it waited for.
    #[error("waiting for {what}: gave up after {}", duration::shown(*after))]
    NotReady {
        /// What was waited for.
        what: String,
        /// The limit.
        after: Duration,
        /// What was last seen, one line each.
        seen: Vec<String>,
    },
    /// A wait that was told to stop.
    #[error("waiting for {what}: stopped")]
    Stopped {
        /// What was waited for.
        what: String,
    },
    /// Talking to a pod did not work.
    #[error("{doing}: {why}")]
    Pod {
        /// What was being done.
        doing: String,
        /// What came back.
        why: String,
    },
}

fn refusal(status: &kube::core::Status) -> String {
    if status.message.is_empty() {
        format!("the API server answered {} {}", status.code, status.reason)
    } else {
        status.message.clone()
    }
}

impl Error {
    /// An error of the client while `doing`.
    pub fn of(doing: impl Into<String>, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused {
                doing: doing.into(),
                status,
            },
            source => Self::Client {
                doing: doing.into(),
                source,
            },
        }
    }

    /// The HTTP status of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(status.code),
            _ => None,
        }
    }

    /// What to try.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Refused { status, .. } if status.code == 403 => {
                "the user of this context lacks that permission (RBAC)".into()
            }
            Self::Refused { status, .. } if status.code == 401 => "the context's credentials are no longer good".into(),
            Self::Client {
                source: kube::Error::HyperError(_) | kube::Error::Service(_),
                ..
            } => "is the cluster running? `k8slab cluster status` tells".into(),
            Self::UnknownKind { .. } => "is its CRD applied before it?".into(),
            Self::Foreign { .. } => "delete it, or run the lab with `--namespace NAME` elsewhere".into(),
            Self::Conflict { .. } => "undo the other change, or `k8slab down` and `up` again".into(),
            Self::Elsewhere { .. } => "leave `metadata.namespace` out: a lab stays in its own".into(),
            _ => return None,
        })
    }
}
