//! What can go wrong while reconciling, and the questions controllers ask about it.

use kube::core::Status;

/// A step of a reconciliation that did not work. The key is retried with back-off.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub(crate) struct Error {
    doing: String,
    #[source]
    source: Option<kube::Error>,
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that no request caused.
    pub(crate) fn new(doing: impl Into<String>) -> Self {
        Self {
            doing: doing.into(),
            source: None,
        }
    }

    /// True where the object changed since it was read: retried at once and not worth a line in the log.
    pub(crate) fn is_conflict(&self) -> bool {
        self.source.as_ref().is_some_and(is_conflict)
    }

    /// The API server's words alone, as conditions and events carry them.
    pub(crate) fn cause(&self) -> String {
        self.source.as_ref().map_or_else(|| self.doing.clone(), message)
    }

    /// The whole story on one line.
    pub(crate) fn chain(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {}", self.doing, message(source)),
            None => self.doing.clone(),
        }
    }
}

/// Says what was being done when a request failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for kube::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error {
            doing: what(),
            source: Some(source),
        })
    }
}

/// The `Status` the API server answered, if it did.
pub(crate) fn status(error: &kube::Error) -> Option<&Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

/// What Kubernetes' components print for an error: the message of the Status alone.
pub(crate) fn message(error: &kube::Error) -> String {
    match status(error) {
        Some(status) if !status.message.is_empty() => status.message.clone(),
        _ => error.to_string(),
    }
}

pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    status(error).is_some_and(Status::is_not_found)
}

pub(crate) fn is_already_exists(error: &kube::Error) -> bool {
    status(error).is_some_and(Status::is_already_exists)
}

/// An update met a newer version, or a precondition did not hold.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    status(error).is_some_and(|status| status.code == 409 && !status.is_already_exists())
}

/// Creation was refused because the namespace is going away: nothing to report, nothing to retry.
pub(crate) fn is_namespace_terminating(error: &kube::Error) -> bool {
    let cause = |status: &Status| {
        let causes = status
            .details
            .as_ref()
            .map(|details| details.causes.as_slice())
            .unwrap_or_default();
        causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
    };
    status(error).is_some_and(cause)
}
