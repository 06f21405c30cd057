//! What the daemon says to a shim and to an exec process, and what comes back: one JSON line a message.
//!
//! A shim may be older than the daemon that talks to it: a change here that an older side would misread raises
//! [`FORMAT`](super::folder::FORMAT).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use super::config::{ContainerConfig, Security, User};
use super::folder::{ProcessRecord, StartedRecord};
use super::state::Exit;
use crate::cgroup::Cgroup;

/// To a shim, one a connection to `shim.sock`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Answered by `Started` or `Failed` once the program has been executed.
    Start(Box<ContainerConfig>),
    /// Answered by `Exited` once the container has ended and its log is complete.
    Wait {
        /// Container.
        name: String,
        /// Which instance.
        attempt: u32,
    },
    /// Answered by `Done`.
    Signal {
        /// Container.
        name: String,
        /// Which instance.
        attempt: u32,
        /// Signal number.
        signal: i32,
    },
    /// Answered by `Done`; from then on the connection carries [`Frame`]s.
    Attach {
        /// Container.
        name: String,
        /// Which instance.
        attempt: u32,
    },
    /// Kills everything, answers `Done` when it has ended, then the shim ends too.
    Stop,
}

/// From a shim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// The container runs.
    Started(StartedRecord),
    /// It does not.
    Failed(Failure),
    /// It has ended.
    Exited(Exit),
    /// What was asked is done.
    Done,
    /// There is no such container.
    Unknown,
}

/// Why a container does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// Everything was ready but the program was not.
    pub starting: bool,
    /// What came back.
    pub cause: String,
}

/// Bytes on an attach connection: a type, a length (big endian), the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// To the container; empty: end of file.
    Stdin = 0,
    /// From it.
    Stdout = 1,
    /// From it.
    Stderr = 2,
    /// To its terminal: columns and rows, two bytes each.
    Resize = 3,
}

impl Frame {
    /// Type, length.
    pub(super) const HEADER: usize = 5;

    /// The header of a frame.
    pub(super) fn header(self, length: usize) -> [u8; Self::HEADER] {
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        [self as u8, length[0], length[1], length[2], length[3]]
    }

    /// Type and length of a frame that begins here; `None` while the header is not complete.
    pub(super) fn parse(bytes: &[u8]) -> Option<io::Result<(Self, usize)>> {
        let header: [u8; Self::HEADER] = bytes.get(..Self::HEADER)?.try_into().ok()?;
        let [kind, length @ ..] = header;
        let frame = match kind {
            0 => Self::Stdin,
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::Resize,
            other => return Some(Err(io::Error::other(format!("attach frame of type {other}")))),
        };
        Some(Ok((frame, u32::from_be_bytes(length) as usize)))
    }
}

/// The first message to a shim, over its stdin, with the node's network namespace as descriptor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ShimHello {
    /// The folder's format.
    pub format: u32,
}

/// The only request to an exec process, over its stdin, with stdin, stdout and stderr of the command as descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ExecHello {
    /// The container's first process.
    pub process: ProcessRecord,
    /// The container's group.
    pub cgroup: Option<Cgroup>,
    /// The command line.
    pub command: Vec<String>,
    /// The container's environment.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// Who.
    pub user: User,
    /// With which rights.
    pub security: Security,
    /// In a terminal, whose master comes back with `Running`.
    pub tty: bool,
    /// As the container's.
    pub oom_score_adj: i32,
}

/// From an exec process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ExecReply {
    /// The command has been executed; with a terminal its master is attached as descriptor.
    Running,
    /// It could not be executed.
    Failed(String),
    /// Its exit code.
    Exited(i32),
}

/// To an exec process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ExecSignal {
    /// Signal number, for the command.
    pub signal: i32,
}

/// Sends one message with descriptors over a sequential-packet socket.
pub(super) fn send<T: Serialize>(socket: &impl AsFd, message: &T, fds: &[i32]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let socket = socket.as_fd().as_raw_fd();
    let sent = sendmsg::<()>(socket, &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Receives one message with its descriptors; `None` when the other side is gone.
pub(super) fn receive<T: for<'a> Deserialize<'a>>(socket: &impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    // An environment may be large: the kernel's own limit for a message is that of the socket's buffer.
    let mut bytes = vec![0; 256 * 1024];
    let mut space = nix::cmsg_space!([i32; 4]);
    let mut iov = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    let length = message.bytes;
    let mut fds = vec![];
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(rights) = control {
            fds.extend(rights.into_iter().map(crate::fd::own));
        }
    }
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((
        serde_json::from_slice(&bytes[..length]).map_err(io::Error::other)?,
        fds,
    )))
}

/// Receives one descriptor; `None` when the other side is gone or sent none.
pub(super) fn receive_fd(socket: &impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0; 1];
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut iov = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    let rights = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    Ok(rights.map(crate::fd::own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_are_written() {
        let header = Frame::Stderr.header(70_000);
        assert_eq!(Frame::parse(&header).unwrap().unwrap(), (Frame::Stderr, 70_000));
        assert!(Frame::parse(&header[..4]).is_none());
        assert!(Frame::parse(&[9, 0, 0, 0, 0]).unwrap().is_err());
    }
}
