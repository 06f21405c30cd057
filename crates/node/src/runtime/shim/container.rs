//! One container instance as its shim sees it: from the fork that creates it to the record of its exit.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

use apimachinery::clock::{Clock, SystemClock};
use jiff::Timestamp;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use super::log::{Log, Stream};
use super::start::Start;
use crate::cgroup::Cgroup;
use crate::fd::nonblocking;
use crate::runtime::config::ContainerConfig;
use crate::runtime::folder::{PodFolder, PodRecord, ProcessRecord, StartedRecord, write_json};
use crate::runtime::protocol::Failure;
use crate::runtime::{Exit, rootfs};

/// As much of the termination message file as Kubernetes reports.
const MESSAGE_LIMIT: u64 = 4096;

/// An instance.
pub(super) struct Container {
    /// As asked for.
    pub config: ContainerConfig,
    /// Where in its life it is.
    pub phase: Phase,
    /// Connections to tell of its end.
    pub waiters: Vec<u64>,
    /// How many have attached.
    pub attached: usize,
    streams: Vec<Stream>,
    log: Log,
    cgroup: Option<Cgroup>,
    /// Receives the terminal's master.
    terminal: Option<UnixDatagram>,
    /// The write end of its stdin, or its terminal.
    stdin: Option<File>,
    /// What is still to be written there.
    input: Vec<u8>,
    close_stdin: bool,
}

/// See [`Container::phase`].
pub(super) enum Phase {
    /// A fork of ours creates it.
    Starting(Starting),
    /// Its program runs.
    Running(StartedRecord),
    /// Its first process has ended (code, signal); output may still come.
    Dead(StartedRecord, (i32, Option<i32>), Timestamp),
    /// Over: the exit is on disk, or it never ran.
    Ended,
}

/// See [`Phase::Starting`].
pub(super) struct Starting {
    helper: Pid,
    report: File,
    text: String,
    /// Who asked.
    connection: u64,
    /// End of file on the pipe.
    done: bool,
    helper_ended: bool,
}

/// A descriptor of a container that may be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The report pipe of the fork.
    Report,
    /// Output stream n.
    Stream(usize),
    /// The terminal comes.
    Terminal,
    /// stdin takes more.
    Stdin,
}

impl Container {
    /// Makes files, pipes and cgroup, and forks.
    pub(super) fn start(
        folder: &PodFolder,
        pod: &PodRecord,
        pod_group: Option<&Cgroup>,
        config: ContainerConfig,
        connection: u64,
    ) -> io::Result<Self> {
        let file = |suffix: &str| folder.attempt_file(&config.name, config.attempt, suffix);
        fs::create_dir_all(folder.container(&config.name))?;
        if config.termination_message_path.is_some() {
            use std::os::unix::fs::PermissionsExt;
            File::create(file("message"))?.set_permissions(fs::Permissions::from_mode(0o666))?;
        }
        let log = Log::open(file("log"), pod.config.log_rotation)?;
        write_json(&file("json"), &config)?;
        let cgroup = pod_group.map(|group| group.child(&format!("{}-{}", config.name, config.attempt)));
        if let Some(group) = &cgroup {
            let made = group.create_container(&config.resources);
            made.map_err(|error| io::Error::other(format!("cgroup: {error}")))?;
        }
        let (report, report_end) = pipe2(OFlag::O_CLOEXEC)?;
        let (mut streams, mut stdio, mut stdin, mut terminal, mut terminal_end) = (vec![], None, None, None, None);
        if config.tty {
            let (ours, theirs) = UnixDatagram::pair()?;
            ours.set_nonblocking(true)?;
            (terminal, terminal_end) = (Some(ours), Some(OwnedFd::from(theirs)));
        } else {
            let (out, out_end) = pipe2(OFlag::O_CLOEXEC)?;
            let (err, err_end) = pipe2(OFlag::O_CLOEXEC)?;
            streams = vec![
                Stream::new("stdout", nonblocking(out)?.into()),
                Stream::new("stderr", nonblocking(err)?.into()),
            ];
            let input = if config.stdin {
                let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
                stdin = Some(nonblocking(write)?.into());
                read
            } else {
                File::open("/dev/null")?.into()
            };
            stdio = Some([input, out_end, err_end]);
        }
        let start = Start {
            folder,
            config: &config,
            stdio,
            terminal: terminal_end,
            report: report_end,
        };
        let Some(helper) = Cgroup::fork_into(cgroup.as_ref())? else {
            start.run()
        };
        drop(start);
        let report = nonblocking(report)?.into();
        let starting = Starting {
            helper,
            report,
            text: String::new(),
            connection,
            done: false,
            helper_ended: false,
        };
        Ok(Self {
            config,
            phase: Phase::Starting(starting),
            waiters: vec![],
            attached: 0,
            streams,
            log,
            cgroup,
            terminal,
            stdin,
            input: vec![],
            close_stdin: false,
        })
    }

    /// Is it this instance?
    pub(super) fn is(&self, name: &str, attempt: u32) -> bool {
        self.config.name == name && self.config.attempt == attempt
    }

    /// Its first process, once it runs.
    pub(super) fn pid(&self) -> Option<i32> {
        match &self.phase {
            Phase::Running(started) => Some(started.process.pid),
            _ => None,
        }
    }

    /// Its processes that are children of the shim.
    pub(super) fn pids(&self) -> Vec<i32> {
        match &self.phase {
            Phase::Starting(starting) => {
                let first = starting
                    .text
                    .lines()
                    .find_map(|line| line.strip_prefix("pid ")?.parse().ok());
                first.into_iter().chain([starting.helper.as_raw()]).collect()
            }
            _ => self.pid().into_iter().collect(),
        }
    }

    /// Is it over?
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Is it being made?
    pub(super) fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting(_))
    }

    /// The fork that makes it has ended?
    pub(super) fn helper_ended(&mut self, pid: i32) {
        if let Phase::Starting(starting) = &mut self.phase
            && starting.helper.as_raw() == pid
        {
            starting.helper_ended = true;
            // Everything it has written is in the pipe by now.
            self.ready(Source::Report, &mut |_, _| ());
        }
    }

    /// The fork was killed in the middle (out of memory): what it has begun waits for it, and holds the pipe open.
    pub(super) fn is_stuck(&self) -> bool {
        let Phase::Starting(starting) = &self.phase else {
            return false;
        };
        let told = |key: &str| starting.text.lines().any(|line| line.starts_with(key));
        starting.helper_ended && !starting.done && !told("pid ") && !told("create ")
    }

    /// What to poll for.
    pub(super) fn sources(&self, add: &mut dyn FnMut(RawFd, i16, Source)) {
        if let Phase::Starting(starting) = &self.phase {
            add(starting.report.as_raw_fd(), libc::POLLIN, Source::Report);
        }
        if let Some(terminal) = &self.terminal {
            add(terminal.as_raw_fd(), libc::POLLIN, Source::Terminal);
        }
        for (index, stream) in self.streams.iter().enumerate() {
            add(stream.source.as_raw_fd(), libc::POLLIN, Source::Stream(index));
        }
        if let Some(stdin) = self
            .stdin
            .as_ref()
            .filter(|_| !self.input.is_empty() || self.close_stdin)
        {
            add(stdin.as_raw_fd(), libc::POLLOUT, Source::Stdin);
        }
    }

    /// Takes what a source has. `output` sees the container's output: from stderr?, bytes.
    pub(super) fn ready(&mut self, source: Source, output: &mut dyn FnMut(bool, &[u8])) {
        match source {
            Source::Report => {
                if let Phase::Starting(starting) = &mut self.phase {
                    let mut buffer = [0; 4096];
                    match starting.report.read(&mut buffer) {
                        Ok(0) => starting.done = true,
                        Ok(length) => starting.text += &String::from_utf8_lossy(&buffer[..length]),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => starting.done = true,
                    }
                }
            }
            Source::Terminal => self.take_terminal(),
            Source::Stream(index) => {
                let Some(stream) = self.streams.get_mut(index) else {
                    return;
                };
                let stderr = stream.is_stderr();
                let now = SystemClock.now();
                // At its end it is not removed here: other events of this round carry indices.
                stream.copy(&mut self.log, now, &mut |bytes| output(stderr, bytes));
            }
            Source::Stdin => self.write_stdin(),
        }
    }

    fn take_terminal(&mut self) {
        let Some(socket) = &self.terminal else { return };
        let received = crate::runtime::protocol::receive_fd(socket);
        if matches!(&received, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return;
        }
        self.terminal = None;
        if let Ok(Some(master)) = received
            && let Ok(master) = nonblocking(master).map(File::from)
        {
            self.stdin = master.try_clone().ok().filter(|_| self.config.stdin);
            self.streams = vec![Stream::new("stdout", master)];
        }
    }

    /// For its stdin; at `end` it is closed after that.
    pub(super) fn give_input(&mut self, bytes: &[u8], end: bool) {
        self.input.extend_from_slice(bytes);
        self.close_stdin |= end;
        if self.close_stdin && self.config.tty {
            self.input.push(4); // a terminal is never closed: ^D is its end of file
            self.close_stdin = false;
        }
        self.write_stdin();
    }

    fn write_stdin(&mut self) {
        let Some(stdin) = &mut self.stdin else {
            return self.input.clear();
        };
        while !self.input.is_empty() {
            match stdin.write(&self.input) {
                Ok(length) => drop(self.input.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.input.clear();
                    self.close_stdin = true;
                }
            }
        }
        if self.close_stdin {
            self.stdin = None;
        }
    }

    /// How much input waits: whoever sends more should wait too.
    pub(super) fn pending_input(&self) -> usize {
        self.input.len()
    }

    /// A new window size, if it has a terminal.
    pub(super) fn resize(&self, width: u16, height: u16) {
        if self.config.tty
            && let Some(stream) = self.streams.first()
        {
            crate::runtime::terminal::set_size(&stream.source, width, height).ok();
        }
    }

    /// The first attached client that leaves closes stdin, where the pod says so.
    pub(super) fn detached(&mut self) {
        self.attached = self.attached.saturating_sub(1);
        if self.config.stdin && self.config.stdin_once {
            self.give_input(&[], true);
        }
    }

    /// Sends a signal to its first process.
    pub(super) fn signal(&self, signal: i32) {
        let Ok(signal) = Signal::try_from(signal) else { return };
        if let Phase::Running(started) = &self.phase {
            // By number, but we are its parent: the number cannot be another's before we reap it.
            kill(Pid::from_raw(started.process.pid), signal).ok();
        }
    }

    /// Its first process has ended.
    pub(super) fn ended(&mut self, status: (i32, Option<i32>)) {
        if let Phase::Running(started) = &self.phase {
            self.phase = Phase::Dead(started.clone(), status, SystemClock.now());
        }
    }

    /// Once the fork has said everything: who asked, and what came of it.
    pub(super) fn take_start_result(&mut self, folder: &PodFolder) -> Option<(u64, Result<StartedRecord, Failure>)> {
        let Phase::Starting(starting) = &mut self.phase else {
            return None;
        };
        if !starting.done {
            return None;
        }
        let connection = starting.connection;
        let result = read_report(&starting.text).map(|pid| {
            let process = ProcessRecord::of(pid).unwrap_or(ProcessRecord { pid, start_ticks: 0 });
            StartedRecord {
                process,
                started_at: SystemClock.now(),
            }
        });
        match &result {
            Ok(started) => {
                write_json(
                    &folder.attempt_file(&self.config.name, self.config.attempt, "started.json"),
                    started,
                )
                .ok();
                self.phase = Phase::Running(started.clone());
            }
            Err(_) => {
                self.phase = Phase::Ended;
                self.clean(folder);
                folder.remove_attempt(&self.config.name, self.config.attempt).ok();
            }
        }
        Some((connection, result))
    }

    /// Ended and both pipes at their end: nothing of the log can be missing now. Writes the exit down, and returns it
    /// with those who wait for it.
    pub(super) fn finish(&mut self, folder: &PodFolder) -> Option<(Exit, Vec<u64>)> {
        self.streams.retain(|stream| !stream.is_at_end());
        let Phase::Dead(started, (code, signal), finished_at) = &self.phase else {
            return None;
        };
        if !self.streams.is_empty() {
            return None;
        }
        let killed_for_memory = self.cgroup.as_ref().is_some_and(|group| group.oom_kills() > 0);
        let mut message = String::new();
        if let Ok(file) = File::open(folder.attempt_file(&self.config.name, self.config.attempt, "message")) {
            let mut bytes = vec![];
            file.take(MESSAGE_LIMIT).read_to_end(&mut bytes).ok();
            message = String::from_utf8_lossy(&bytes).into_owned();
        }
        let exit = Exit {
            code: *code,
            signal: *signal,
            oom_killed: killed_for_memory && *code != 0,
            started_at: started.started_at,
            finished_at: *finished_at,
            message,
        };
        self.clean(folder);
        write_json(
            &folder.attempt_file(&self.config.name, self.config.attempt, "exit.json"),
            &exit,
        )
        .ok();
        self.phase = Phase::Ended;
        Some((exit, std::mem::take(&mut self.waiters)))
    }

    /// Takes its cgroup and its mounts away.
    fn clean(&mut self, folder: &PodFolder) {
        self.stdin = None;
        self.terminal = None;
        self.streams.clear();
        if let Some(group) = &self.cgroup {
            group.kill();
            group.try_remove(); // a killed exec may linger; the pod's group is removed as a tree
        }
        let id = format!("{}-{}", self.config.name, self.config.attempt);
        rootfs::unmount(
            &folder
                .attempt_dir(&self.config.name, self.config.attempt)
                .join("rootfs"),
        );
        let run = folder.join("run");
        let bundle = run.join("bundle").join(&id);
        for pin in fs::read_dir(&bundle).into_iter().flatten().flatten() {
            rootfs::unmount(&pin.path());
        }
        fs::remove_dir_all(bundle).ok();
        fs::remove_dir_all(run.join("oci").join(&id)).ok();
        fs::remove_dir_all(
            run.join("rw")
                .join(&self.config.name)
                .join(self.config.attempt.to_string()),
        )
        .ok();
    }
}

/// The lines of `start`'s pipe: the pid, or why there is none.
fn read_report(text: &str) -> Result<i32, Failure> {
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    if let Some(cause) = line("exec") {
        return Err(Failure {
            starting: true,
            cause: cause.into(),
        });
    }
    let details: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("log ")).collect();
    if let Some(cause) = line("create") {
        // The first detail is the innermost.
        let detail = details.first().map(|detail| format!(" ({detail})")).unwrap_or_default();
        return Err(Failure {
            starting: false,
            cause: format!("{cause}{detail}"),
        });
    }
    let pid = line("pid").and_then(|pid| pid.parse().ok());
    pid.ok_or_else(|| Failure {
        starting: false,
        cause: "the process that sets the container up ended without a word: killed, or its memory limit is too small"
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_the_pid_or_the_innermost_cause() {
        assert_eq!(read_report("pid 12\n"), Ok(12));
        let failed =
            read_report("log failed to mount err=ENOENT\nlog outer\ncreate failed to prepare rootfs\n").unwrap_err();
        assert_eq!(failed.cause, "failed to prepare rootfs (failed to mount err=ENOENT)");
        assert!(
            read_report("pid 12\nexec exec: \"/x\": permission denied\n")
                .unwrap_err()
                .starting
        );
        assert!(read_report("").unwrap_err().cause.contains("memory limit"));
    }
}
