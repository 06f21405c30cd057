//! A client joined to a container's streams: frames in both directions over the shim's socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use super::container::Container;
use crate::runtime::protocol::Frame;

/// A client that reads slower than the container writes is let go at this many bytes: the container must not wait.
const MOST: usize = 1 << 20;
/// With this much input waiting, no more is read from the client.
const MOST_INPUT: usize = 256 * 1024;

/// The state of one such client.
pub(super) struct Attached {
    name: String,
    attempt: u32,
    out: Vec<u8>,
    inbox: Vec<u8>,
    lost: bool,
}

impl Attached {
    /// Joined to this instance.
    pub(super) fn new(name: String, attempt: u32) -> Self {
        Self {
            name,
            attempt,
            out: vec![],
            inbox: vec![],
            lost: false,
        }
    }

    /// To which instance.
    pub(super) fn container(&self) -> (String, u32) {
        (self.name.clone(), self.attempt)
    }

    /// Is it this one?
    pub(super) fn is(&self, name: &str, attempt: u32) -> bool {
        self.name == name && self.attempt == attempt
    }

    /// What to poll for, with so much of its input not yet taken by the container.
    pub(super) fn events(&self, pending: usize) -> i16 {
        let read = if pending > MOST_INPUT { 0 } else { libc::POLLIN };
        let write = if self.out.is_empty() { 0 } else { libc::POLLOUT };
        read | write | libc::POLLRDHUP
    }

    /// Output of the container, for the client.
    pub(super) fn push(&mut self, stderr: bool, bytes: &[u8], socket: &mut UnixStream) {
        if bytes.is_empty() || self.lost {
            return;
        }
        let frame = if stderr { Frame::Stderr } else { Frame::Stdout };
        self.out.extend_from_slice(&frame.header(bytes.len()));
        self.out.extend_from_slice(bytes);
        self.flush(socket);
        self.lost |= self.out.len() > MOST;
    }

    fn flush(&mut self, socket: &mut UnixStream) {
        while !self.out.is_empty() {
            match socket.write(&self.out) {
                Ok(length) => drop(self.out.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.lost = true;
                    return;
                }
            }
        }
    }

    /// The socket is ready. False when the client is gone.
    pub(super) fn serve(&mut self, socket: &mut UnixStream, container: Option<&mut Container>) -> bool {
        self.flush(socket);
        let mut buffer = [0; 16 * 1024];
        let mut gone = self.lost;
        if container.as_ref().is_none_or(|c| c.pending_input() <= MOST_INPUT) {
            match socket.read(&mut buffer) {
                Ok(0) => gone = true,
                Ok(length) => self.inbox.extend_from_slice(&buffer[..length]),
                Err(error) => gone |= error.kind() != io::ErrorKind::WouldBlock,
            }
        }
        let Some(container) = container else {
            return !gone && !self.out.is_empty();
        };
        while let Some(frame) = Frame::parse(&self.inbox) {
            let Ok((frame, length)) = frame else {
                gone = true;
                break;
            };
            let Some(body) = self.inbox.get(Frame::HEADER..Frame::HEADER + length) else {
                break;
            };
            match (frame, body) {
                (Frame::Stdin, body) => container.give_input(body, body.is_empty()),
                (Frame::Resize, &[w1, w2, h1, h2]) => {
                    container.resize(u16::from_be_bytes([w1, w2]), u16::from_be_bytes([h1, h2]));
                }
                _ => {}
            }
            self.inbox.drain(..Frame::HEADER + length);
        }
        gone |= container.has_ended() && self.out.is_empty();
        if gone {
            container.detached();
        }
        !gone
    }

    /// The container has ended: true while output is left for the client.
    pub(super) fn close_when_flushed(&mut self, socket: &mut UnixStream) -> bool {
        self.flush(socket);
        !self.out.is_empty() && !self.lost
    }
}
