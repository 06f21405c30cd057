//! What the process answers: one enum, and each number means the same for ever.

/// The exit code, part of k8slab's interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Everything asked for is so.
    #[default]
    Fine = 0,
    /// A step failed.
    Failed = 1,
    /// The command line or a scenario file is wrong, or a format is from a newer version.
    Usage = 2,
    /// Something that k8slab needs is not there.
    Prerequisite = 3,
    /// Not ready in time.
    NotReady = 4,
    /// A check of `test` failed.
    CheckFailed = 5,
    /// `down` left something behind.
    Leftovers = 6,
    /// Another k8slab holds this lab.
    Held = 7,
    /// Stopped by a signal.
    Interrupted = 130,
}

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}
