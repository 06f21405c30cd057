//! The patch languages of the API: JSON patch, merge patch, strategic merge patch and server-side apply.
//!
//! Each takes an object and a patch, both JSON, and changes the object. Must not know of HTTP, versions or stores: who
//! may patch what, and what is immutable, is the API server's business.

pub mod apply;
pub mod json;
pub mod merge;
pub mod strategic;

use crate::status::{Reason, Status};

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Whose fault it is, as the API's status codes tell.
    pub kind: ErrorKind,
    /// What is wrong.
    pub message: String,
}

/// Which status a patch error becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// 400: this is no patch.
    Malformed,
    /// 413: too many operations.
    TooLarge,
    /// 422: a patch, but not for this object. Kubernetes does not tell the client more.
    Unprocessable,
    /// 500: a strategic merge that contradicts itself or the kind's rules; upstream has no better code for it.
    Contradiction,
}

impl Error {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error.kind {
            ErrorKind::Malformed => Self::bad_request(error.message),
            ErrorKind::TooLarge => Self::too_large_because(error.message),
            ErrorKind::Unprocessable => Self::unprocessable_patch(),
            ErrorKind::Contradiction => Self {
                code: 500,
                reason: Some(Reason::Unknown),
                details: None,
                ..Self::bad_request(error.message)
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_the_status_kubernetes_answers() {
        let status = |kind| Status::from(Error::new(kind, "why"));
        assert_eq!(
            (
                status(ErrorKind::Malformed).code,
                &*status(ErrorKind::Malformed).message
            ),
            (400, "why")
        );
        assert_eq!(status(ErrorKind::TooLarge).code, 413);
        let unprocessable = status(ErrorKind::Unprocessable);
        assert_eq!(unprocessable.code, 422);
        assert_eq!(
            unprocessable.message,
            "the server rejected our request due to an error in our request"
        );
        assert_eq!(status(ErrorKind::Contradiction).code, 500);
    }
}
