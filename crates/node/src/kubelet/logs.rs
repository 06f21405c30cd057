//! Reads container logs: CRI lines on disk, plain text for people.
//!
//! Owns parsing, tailing and following. Writing and rotating them is the shim's. Source of the rules:
//! `cri-client/pkg/logs/logs.go` of kubernetes 1.36.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::fd::watched;

/// Upstream's limits for `FallbackToLogsOnError`.
const LAST_WORDS_BYTES: usize = 2048;
const LAST_WORDS_LINES: u64 = 80;
/// How much is gathered before it is sent.
const CHUNK: usize = 16 << 10;
const BLOCK: u64 = 4 << 10;

/// What part of a log is wanted, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    pub(crate) follow: bool,
    pub(crate) timestamps: bool,
    pub(crate) since: Option<Timestamp>,
    pub(crate) tail: Option<u64>,
    pub(crate) limit_bytes: Option<u64>,
    /// Only `stdout` or only `stderr`.
    pub(crate) stream: Option<&'static str>,
}

/// One line of a log file.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a str,
    stream: &'a str,
    /// The container did not end it here.
    partial: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(parts.next()?).ok();
    let (time, stream, tags) = (word()?, word()?, word()?);
    Some(Line {
        time,
        stream,
        partial: tags.split(':').next() == Some("P"),
        text: parts.next().unwrap_or_default(),
    })
}

/// Turns lines of the file into what was asked for.
struct Renderer {
    options: LogOptions,
    /// The next text begins a line.
    at_start: bool,
    left: u64,
    out: BytesMut,
}

impl Renderer {
    fn new(options: LogOptions) -> Self {
        let left = options.limit_bytes.unwrap_or(u64::MAX);
        Self {
            options,
            at_start: true,
            left,
            out: BytesMut::new(),
        }
    }

    /// Adds a line of the file. False once the byte limit is reached.
    fn add(&mut self, line: &[u8]) -> bool {
        let Some(line) = parse(line) else { return true };
        if self.options.stream.is_some_and(|wanted| wanted != line.stream) {
            return true;
        }
        if let Some(since) = self.options.since
            && line.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return true;
        }
        if self.options.timestamps && self.at_start {
            self.put(line.time.as_bytes());
            self.put(b" ");
        }
        self.put(line.text);
        if !line.partial {
            self.put(b"\n");
        }
        self.at_start = !line.partial;
        self.left > 0
    }

    fn put(&mut self, bytes: &[u8]) {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.out.extend_from_slice(&bytes[..most]);
        self.left -= most as u64;
    }

    fn take(&mut self) -> Option<Bytes> {
        (!self.out.is_empty()).then(|| self.out.split().freeze())
    }
}

/// Where the last `lines` lines begin.
fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let size = file.metadata()?.len();
    if lines == 0 {
        return Ok(size);
    }
    let (mut end, mut found) = (size, 0);
    let mut block = vec![0; BLOCK as usize];
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        for (index, byte) in part.iter().enumerate().rev() {
            let at = start + index as u64;
            // The end of the last line is not the end of one before it.
            if *byte == b'\n' && at + 1 < size {
                found += 1;
                if found == lines {
                    return Ok(at + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

/// What a container said last, for its termination message.
pub(crate) async fn last_words(path: &Path) -> String {
    let path = path.to_owned();
    let read = move || -> io::Result<String> {
        let mut file = File::open(path)?;
        let offset = tail_offset(&mut file, LAST_WORDS_LINES)?;
        file.seek(SeekFrom::Start(offset))?;
        let (mut renderer, mut reader, mut line) = (Renderer::new(LogOptions::default()), BufReader::new(file), vec![]);
        while reader.read_until(b'\n', &mut line)? > 0 {
            renderer.add(&line);
            line.clear();
        }
        let text = String::from_utf8_lossy(&renderer.out).into_owned();
        let mut from = text.len().saturating_sub(LAST_WORDS_BYTES);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        Ok(text[from..].to_owned())
    };
    tokio::task::spawn_blocking(read)
        .await
        .ok()
        .and_then(Result::ok)
        .unwrap_or_default()
}

/// Sends a log in pieces. With `follow` it goes on until `ended` resolves or nobody listens any more.
pub(crate) async fn send(
    path: PathBuf,
    options: LogOptions,
    ended: impl Future<Output = ()> + Send,
    to: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    // Before the first read, or a change between the two would be missed.
    let bell = if options.follow {
        Some(Bell::on(path.parent().unwrap_or(Path::new("/")))?)
    } else {
        None
    };
    let mut follower = Follower {
        path,
        file: None,
        pending: Vec::new(),
        renderer: Renderer::new(options),
    };
    if !follower.begin(&to).await? {
        return Ok(());
    }
    let Some(bell) = bell else { return Ok(()) };
    let mut ended = std::pin::pin!(ended);
    loop {
        let over = tokio::select! {
            rang = bell.ring() => { rang?; false }
            () = &mut ended => true,
            () = to.closed() => return Ok(()),
        };
        if !follower.read_on(&to).await? || over {
            return Ok(());
        }
    }
}

struct Follower {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end is not written yet.
    pending: Vec<u8>,
    renderer: Renderer,
}

impl Follower {
    async fn begin(&mut self, to: &mpsc::Sender<Bytes>) -> io::Result<bool> {
        if let Some(mut file) = open(&self.path)? {
            if let Some(lines) = self.renderer.options.tail {
                let offset = tail_offset(&mut file, lines)?;
                file.seek(SeekFrom::Start(offset))?;
            }
            self.file = Some(file);
        }
        self.read_on(to).await
    }

    /// Reads to the end of the file, and of the one that took its place after a rotation. False when enough is sent.
    async fn read_on(&mut self, to: &mpsc::Sender<Bytes>) -> io::Result<bool> {
        loop {
            if !self.drain(to).await? {
                return Ok(false);
            }
            let Some(next) = open(&self.path)? else { return Ok(true) };
            let same = match &self.file {
                Some(file) => file.metadata()?.ino() == next.metadata()?.ino(),
                None => false,
            };
            if same {
                return Ok(true);
            }
            self.file = Some(next);
        }
    }

    async fn drain(&mut self, to: &mpsc::Sender<Bytes>) -> io::Result<bool> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let Some(file) = &mut self.file else { return Ok(true) };
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(true);
            }
            let mut enough = false;
            for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
                if !piece.ends_with(b"\n") {
                    self.pending.extend_from_slice(piece);
                } else if self.pending.is_empty() {
                    enough |= !self.renderer.add(piece);
                } else {
                    self.pending.extend_from_slice(piece);
                    let line = std::mem::take(&mut self.pending);
                    enough |= !self.renderer.add(&line);
                }
                if enough {
                    break;
                }
            }
            if let Some(bytes) = self.renderer.take()
                && to.send(bytes).await.is_err()
            {
                return Ok(false);
            }
            if enough {
                return Ok(false);
            }
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Rings when something in a folder changes.
struct Bell(AsyncFd<File>);

impl Bell {
    fn on(folder: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(folder, changes)?;
        Ok(Self(watched(inotify.as_fd().try_clone_to_owned()?)?))
    }

    async fn ring(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        // What happened does not matter, only that it did.
        let mut events = [0; 1024];
        while self.0.get_ref().read(&mut events).is_ok_and(|read| read > 0) {}
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LOG: &str = "2026-01-02T03:04:05.000000001Z stdout F one\n\
        2026-01-02T03:04:06.000000000Z stderr F two\n\
        2026-01-02T03:04:07.000000000Z stdout P thr\n\
        2026-01-02T03:04:07.000000001Z stdout F ee\n\
        2026-01-02T03:04:08.000000000Z stdout F \n";

    async fn read(options: LogOptions) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let (sender, mut receiver) = mpsc::channel(8);
        send(path, options, std::future::pending(), sender).await.unwrap();
        let mut text = String::new();
        while let Some(bytes) = receiver.recv().await {
            text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        text
    }

    #[tokio::test]
    async fn partial_lines_are_put_together() {
        assert_eq!(read(LogOptions::default()).await, "one\ntwo\nthree\n\n");
    }

    #[tokio::test]
    async fn lines_are_chosen_by_number_time_stream_and_size() {
        let options = LogOptions::default;
        assert_eq!(
            read(LogOptions {
                tail: Some(2),
                ..options()
            })
            .await,
            "ee\n\n"
        );
        assert_eq!(
            read(LogOptions {
                tail: Some(0),
                ..options()
            })
            .await,
            ""
        );
        assert_eq!(
            read(LogOptions {
                tail: Some(99),
                ..options()
            })
            .await,
            "one\ntwo\nthree\n\n"
        );
        let since = Some("2026-01-02T03:04:07Z".parse().unwrap());
        assert_eq!(read(LogOptions { since, ..options() }).await, "three\n\n");
        assert_eq!(
            read(LogOptions {
                stream: Some("stderr"),
                ..options()
            })
            .await,
            "two\n"
        );
        assert_eq!(
            read(LogOptions {
                limit_bytes: Some(6),
                ..options()
            })
            .await,
            "one\ntw"
        );
        let stamped = read(LogOptions {
            timestamps: true,
            tail: Some(3),
            ..options()
        })
        .await;
        assert_eq!(
            stamped,
            "2026-01-02T03:04:07.000000000Z three\n2026-01-02T03:04:08.000000000Z \n"
        );
    }

    #[tokio::test]
    async fn following_sees_new_lines_a_rotation_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "2026-01-02T03:04:05Z stdout F one\n").unwrap();
        let (sender, mut receiver) = mpsc::channel(8);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let options = LogOptions {
            follow: true,
            ..Default::default()
        };
        let follow = tokio::spawn(send(path.clone(), options, async { drop(ended.await) }, sender));
        assert_eq!(receiver.recv().await.unwrap(), "one\n");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"2026-01-02T03:04:06Z stdout F tw").unwrap();
        file.write_all(b"o\n").unwrap();
        assert_eq!(receiver.recv().await.unwrap(), "two\n");
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        std::fs::write(&path, "2026-01-02T03:04:07Z stdout F three\n").unwrap();
        assert_eq!(receiver.recv().await.unwrap(), "three\n");
        end.send(()).unwrap();
        follow.await.unwrap().unwrap();
        assert_eq!(receiver.recv().await, None);
    }

    #[tokio::test]
    async fn last_words_are_the_end_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let lines: String = (0..200)
            .map(|n| format!("2026-01-02T03:04:05Z stderr F line {n}\n"))
            .collect();
        std::fs::write(&path, lines).unwrap();
        let words = last_words(&path).await;
        assert!(
            words.starts_with("line 120\n") && words.ends_with("line 199\n"),
            "{words}"
        );
        assert_eq!(last_words(&dir.path().join("none")).await, "");
    }
}
