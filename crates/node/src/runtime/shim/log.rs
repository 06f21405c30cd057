//! A container's log file: CRI lines, rotated by size.
//!
//! `2026-01-02T03:04:05.123456789Z stdout F text`; `P` instead of `F` for a piece of a line that goes on.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::runtime::config::LogRotation;

/// Longer lines are cut into pieces, as containerd does (`max_container_log_line_size`).
const MAX_LINE: usize = 16 * 1024;

/// The log of one container instance.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    rotation: LogRotation,
}

impl Log {
    /// Opens or goes on with a log.
    pub(super) fn open(path: PathBuf, rotation: LogRotation) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            size,
            rotation,
        })
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + lines.len() as u64 > self.rotation.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.size += lines.len() as u64;
        Ok(())
    }

    /// `0.log` → `0.log.1` → `0.log.2` …; the last one goes.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| numbered(&self.path, n);
        let old = self.rotation.max_files.saturating_sub(1);
        for n in (1..old).rev() {
            match fs::rename(numbered(n), numbered(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if old > 0 {
            fs::rename(&self.path, numbered(1))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        self.file = File::options().create(true).append(true).open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// One of a container's output streams, read without blocking.
pub(super) struct Stream {
    name: &'static str,
    /// What is read.
    pub source: File,
    /// Bytes after the last newline.
    partial: Vec<u8>,
    at_end: bool,
}

impl Stream {
    /// `name` is `stdout` or `stderr`. The descriptor must be non-blocking.
    pub(super) fn new(name: &'static str, source: File) -> Self {
        Self {
            name,
            source,
            partial: vec![],
            at_end: false,
        }
    }

    /// Is it stderr?
    pub(super) fn is_stderr(&self) -> bool {
        self.name == "stderr"
    }

    /// Has everything been read?
    pub(super) fn is_at_end(&self) -> bool {
        self.at_end
    }

    /// Moves what is there into the log; `raw` sees the bytes as they came.
    pub(super) fn copy(&mut self, log: &mut Log, now: Timestamp, raw: &mut dyn FnMut(&[u8])) {
        let mut buffer = [0; 32 * 1024];
        let length = match self.source.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
            Err(_) => 0, // EIO: a terminal that nobody has open any more
        };
        raw(&buffer[..length]);
        let mut lines = Vec::with_capacity(length + length / 2 + 64);
        self.partial.extend_from_slice(&buffer[..length]);
        let rest = format_lines(&self.partial, self.name, now, length == 0, &mut lines);
        self.partial.drain(..rest);
        // A full disk must not stop the container: what cannot be written is lost.
        log.append(&lines).ok();
        self.at_end = length == 0;
    }
}

/// Appends `bytes` as log lines and tells how many were used; at the end of the stream all of them.
fn format_lines(bytes: &[u8], stream: &str, now: Timestamp, end: bool, out: &mut Vec<u8>) -> usize {
    let mut used = 0;
    let mut emit = |tag: char, line: &[u8]| {
        // Nine digits always, as Go prints RFC3339NanoFixed.
        let _ = write!(out, "{now:.9} {stream} {tag} ");
        out.extend_from_slice(line);
        out.push(b'\n');
    };
    loop {
        let rest = &bytes[used..];
        match rest.iter().take(MAX_LINE + 1).position(|b| *b == b'\n') {
            Some(end) => {
                emit('F', &rest[..end]);
                used += end + 1;
            }
            None if rest.len() > MAX_LINE => {
                emit('P', &rest[..MAX_LINE]);
                used += MAX_LINE;
            }
            None if end && !rest.is_empty() => {
                emit('P', rest);
                return bytes.len();
            }
            None => return used,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn lines(bytes: &[u8], end: bool) -> (String, usize) {
        let mut out = vec![];
        let used = format_lines(bytes, "stdout", NOW, end, &mut out);
        (String::from_utf8(out).unwrap(), used)
    }

    #[test]
    fn whole_lines_are_written_and_the_rest_waits() {
        let (text, used) = lines(b"one\n\ntwo", false);
        assert_eq!(
            text,
            "1970-01-01T00:00:00.000000000Z stdout F one\n1970-01-01T00:00:00.000000000Z stdout F \n"
        );
        assert_eq!(used, 5);
        assert_eq!(lines(b"two", true).0, "1970-01-01T00:00:00.000000000Z stdout P two\n");
    }

    #[test]
    fn long_lines_come_in_pieces() {
        let long = [vec![b'x'; MAX_LINE + 10], b"\n".to_vec()].concat();
        let (text, used) = lines(&long, false);
        assert_eq!(used, long.len());
        let tags: Vec<_> = text.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
        assert_eq!(tags, ["P", "F"]);
        assert_eq!(lines(&long[..MAX_LINE], false).1, 0);
    }

    #[test]
    fn a_log_that_is_too_long_is_rotated_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Log::open(
            path.clone(),
            LogRotation {
                max_bytes: 10,
                max_files: 3,
            },
        )
        .unwrap();
        for text in ["first--\n", "second-\n", "third--\n", "fourth-\n"] {
            log.append(text.as_bytes()).unwrap();
        }
        let read = |n: &str| fs::read_to_string(dir.path().join(n)).ok();
        assert_eq!(read("0.log").as_deref(), Some("fourth-\n"));
        assert_eq!(read("0.log.1").as_deref(), Some("third--\n"));
        assert_eq!(read("0.log.2").as_deref(), Some("second-\n"));
        assert_eq!(read("0.log.3"), None);
    }
}
