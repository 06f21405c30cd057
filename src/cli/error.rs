//! An error on its way to the user: text, hints, exit code.

use crate::engine::folder::LockError;
use crate::engine::graph::GraphError;
use crate::engine::journal::JournalError;
use crate::exit::Code;
use crate::k8s;
use crate::kubeconfig::ConfigError;
use crate::paths::PathsError;
use crate::scenario::LoadError;
use crate::scenario::parameter::ValueError;
use crate::steps::{FailureKind, StepError, chain};

/// What went wrong, what was last seen, what to try, and the exit code.
#[derive(Debug)]
pub(super) struct CliError {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) seen: Vec<String>,
    pub(super) hints: Vec<String>,
}

impl CliError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            seen: Vec::new(),
            hints: Vec::new(),
        }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    pub(super) fn failed(doing: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Code::Failed, format!("{doing}: {}", chain(error)))
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The whole of it, for standard error.
    pub(super) fn report(&self) -> String {
        let mut text = format!("error: {}", self.message);
        for line in &self.seen {
            text.push_str(&format!("\n  last seen: {line}"));
        }
        for hint in &self.hints {
            // What is to be pasted keeps its lines, under the hint's own.
            text.push_str(&format!("\n  hint: {}", hint.replace('\n', "\n        ")));
        }
        text
    }

    fn of(code: Code, error: &(dyn std::error::Error + 'static), hint: Option<String>) -> Self {
        Self {
            hints: hint.into_iter().collect(),
            ..Self::new(code, chain(error))
        }
    }
}

/// The exit code of a failure of this kind.
pub(super) fn code(kind: FailureKind) -> Code {
    match kind {
        FailureKind::Failed => Code::Failed,
        FailureKind::Prerequisite => Code::Prerequisite,
        FailureKind::NotReady => Code::NotReady,
        FailureKind::Leftovers => Code::Leftovers,
        FailureKind::Newer => Code::Usage,
        FailureKind::Stopped => Code::Interrupted,
    }
}

impl From<LoadError> for CliError {
    fn from(error: LoadError) -> Self {
        Self::of(Code::Usage, &error, error.hint())
    }
}

impl From<ValueError> for CliError {
    fn from(error: ValueError) -> Self {
        Self::of(Code::Usage, &error, error.hint.clone())
    }
}

impl From<PathsError> for CliError {
    fn from(error: PathsError) -> Self {
        Self::of(Code::Usage, &error, Some(error.hint()))
    }
}

impl From<GraphError> for CliError {
    fn from(error: GraphError) -> Self {
        Self::of(Code::Usage, &error, None)
    }
}

impl From<JournalError> for CliError {
    fn from(error: JournalError) -> Self {
        let code = if error.is_newer() { Code::Usage } else { Code::Failed };
        Self::of(code, &error, Some(error.hint()))
    }
}

impl From<LockError> for CliError {
    fn from(error: LockError) -> Self {
        match &error {
            LockError::Held { .. } => Self::of(
                Code::Held,
                &error,
                Some("wait for it, or stop it with Ctrl-C there".into()),
            ),
            LockError::Io { .. } => Self::of(
                Code::Failed,
                &error,
                Some("check that the state folder is yours to write".into()),
            ),
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::of(Code::Failed, &error, error.hint())
    }
}

impl From<StepError> for CliError {
    fn from(error: StepError) -> Self {
        Self {
            code: code(error.kind),
            message: error.message,
            seen: error.seen,
            hints: error.hints,
        }
    }
}

impl From<k8s::Error> for CliError {
    fn from(error: k8s::Error) -> Self {
        StepError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_seen_and_what_to_try() {
        let error = StepError::new(
            FailureKind::NotReady,
            "waiting for Deployment `shop/cart` to be ready: gave up after 2m",
        )
        .last_seen([
            "Deployment cart 1/3".to_owned(),
            "pod `cart-x`: ImagePullBackOff".to_owned(),
        ])
        .hint("look at the image's name")
        .hint("or run it as root:\nsudo k8slab up");
        let error = CliError::from(error);
        assert_eq!(error.code, Code::NotReady);
        assert_eq!(
            error.report(),
            "error: waiting for Deployment `shop/cart` to be ready: gave up after 2m\n  last seen: Deployment cart 1/3\n  \
             last seen: pod `cart-x`: ImagePullBackOff\n  hint: look at the image's name\n  hint: or run it as root:\n        sudo k8slab up"
        );
    }
}
