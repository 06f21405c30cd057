//! The shim: one small single-threaded process a pod. It is the pod's sandbox, the parent and reaper of its
//! containers, and the writer of their logs. It outlives the daemon.
//!
//! One `poll` loop, no runtime, no second thread: it forks. Must not know the API, the network or who the daemon is.

mod attach;
mod container;
mod log;
mod sandbox;
mod start;

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use apimachinery::clock::{Clock, SystemClock};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use self::attach::Attached;
use self::container::{Container, Source};
pub use self::sandbox::NODE_NETNS_FD;
use super::folder::{PodFolder, PodRecord};
use super::protocol::{Failure, Reply, Request};
use crate::cgroup::PinnedCgroup;

/// The role `shim <pod folder>`, started by the daemon with a socket as stdin. Returns the process' exit code.
/// Must be called before any thread exists.
pub fn main(args: &[String]) -> i32 {
    let [folder] = args else { return 2 };
    let folder = PodFolder::new(folder);
    crate::fd::close_strangers();
    match sandbox::receive_hello().and_then(|()| sandbox::enter(&folder)) {
        Ok(sandbox) => {
            let ready = say("ready\n").and_then(|()| sandbox::detach_stdio());
            match ready.and_then(|()| Shim::new(folder, sandbox)?.serve()) {
                Ok(()) => 0,
                Err(error) => complain(&error),
            }
        }
        Err(error) => {
            let _ = say(&format!("{error}\n"));
            complain(&error)
        }
    }
}

/// To the daemon that waits for the first word.
fn say(text: &str) -> io::Result<()> {
    let mut stdin = std::mem::ManuallyDrop::new(fs::File::from(crate::fd::own(0)));
    stdin.write_all(text.as_bytes())
}

fn complain(error: &io::Error) -> i32 {
    let _ = writeln!(io::stderr(), "{} shim: {error}", SystemClock.now());
    1
}

struct Shim {
    folder: PodFolder,
    record: PodRecord,
    cgroup: Option<PinnedCgroup>,
    listener: UnixListener,
    signals: SignalFd,
    containers: Vec<Container>,
    connections: Vec<Connection>,
    next_connection: u64,
    /// Ended before their start was heard of: pid → wait status.
    early: HashMap<i32, (i32, Option<i32>)>,
    /// Who asked to stop.
    stopping: Option<u64>,
}

struct Connection {
    id: u64,
    socket: UnixStream,
    /// The request as far as it has come.
    request: Vec<u8>,
    state: ConnectionState,
}

enum ConnectionState {
    /// The request is not complete.
    Asking,
    /// The reply comes later.
    Waiting,
    /// Joined to a container's streams.
    Attached(Attached),
}

/// What a descriptor in the poll set belongs to.
#[derive(Clone, Copy)]
enum Token {
    Listener,
    Signals,
    Connection(u64),
    Container(usize, Source),
}

impl Shim {
    fn new(folder: PodFolder, sandbox: sandbox::Sandbox) -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let sandbox::Sandbox {
            listener,
            record,
            cgroup,
        } = sandbox;
        Ok(Self {
            folder,
            record,
            cgroup,
            listener,
            signals,
            containers: vec![],
            connections: vec![],
            next_connection: 0,
            early: HashMap::new(),
            stopping: None,
        })
    }

    /// Until the daemon asks to stop and everything has ended.
    fn serve(mut self) -> io::Result<()> {
        loop {
            for token in self.poll()? {
                match token {
                    Token::Listener => self.accept(),
                    Token::Signals => {
                        while let Ok(Some(_)) = self.signals.read_signal() {}
                        self.reap();
                    }
                    Token::Connection(id) => self.read_connection(id),
                    Token::Container(index, source) => self.container_event(index, source),
                }
            }
            self.finish();
            if self.containers.iter().any(Container::is_stuck) {
                let known: Vec<i32> = self.containers.iter().flat_map(Container::pids).collect();
                kill_children(&known);
            }
            if let Some(asker) = self.stopping {
                if self.containers.iter().all(Container::has_ended) {
                    self.reply(asker, &Reply::Done);
                    return Ok(());
                }
                kill_children(&[]);
            }
        }
    }

    /// Waits until something can be done, and tells what. Containers' output comes before the news of their end.
    fn poll(&self) -> io::Result<Vec<Token>> {
        let mut tokens = vec![];
        let mut fds = vec![];
        let mut add = |fd: RawFd, events: i16, token: Token| {
            fds.push(libc::pollfd { fd, events, revents: 0 });
            tokens.push(token);
        };
        for (index, container) in self.containers.iter().enumerate() {
            container.sources(&mut |fd, events, source| add(fd, events, Token::Container(index, source)));
        }
        add(self.signals.as_raw_fd(), libc::POLLIN, Token::Signals);
        add(self.listener.as_raw_fd(), libc::POLLIN, Token::Listener);
        for connection in &self.connections {
            let events = match &connection.state {
                // A daemon that goes away while it waits: POLLHUP comes unasked.
                ConnectionState::Asking => libc::POLLIN,
                ConnectionState::Waiting => libc::POLLRDHUP,
                ConnectionState::Attached(attached) => {
                    let (name, attempt) = attached.container();
                    let container = self.containers.iter().find(|c| c.is(&name, attempt));
                    attached.events(container.map_or(0, Container::pending_input))
                }
            };
            add(connection.socket.as_raw_fd(), events, Token::Connection(connection.id));
        }
        loop {
            let count = libc::nfds_t::try_from(fds.len()).unwrap_or(0);
            #[expect(
                unsafe_code,
                reason = "the set is built of raw numbers, since what they belong to changes meanwhile"
            )]
            // SAFETY: `fds` is a valid array of that many entries; the descriptors are owned by `self`.
            let ready = unsafe { libc::poll(fds.as_mut_ptr(), count, -1) };
            if ready >= 0 {
                break;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(tokens
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| fd.revents != 0)
            .map(|(token, _)| token)
            .collect())
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if socket.set_nonblocking(true).is_ok() {
                let (id, state) = (self.next_connection, ConnectionState::Asking);
                self.next_connection += 1;
                self.connections.push(Connection {
                    id,
                    socket,
                    request: vec![],
                    state,
                });
            }
        }
    }

    fn read_connection(&mut self, id: u64) {
        let Some(index) = self.connections.iter().position(|c| c.id == id) else {
            return;
        };
        let connection = &mut self.connections[index];
        let gone = match &mut connection.state {
            ConnectionState::Waiting => true,
            ConnectionState::Attached(attached) => {
                let (name, attempt) = attached.container();
                let container = self.containers.iter_mut().find(|c| c.is(&name, attempt));
                !attached.serve(&mut connection.socket, container)
            }
            ConnectionState::Asking => {
                let mut buffer = [0; 4096];
                match connection.socket.read(&mut buffer) {
                    Ok(0) => true,
                    Ok(length) => {
                        connection.request.extend_from_slice(&buffer[..length]);
                        false
                    }
                    Err(error) => error.kind() != io::ErrorKind::WouldBlock,
                }
            }
        };
        if gone {
            self.connections.swap_remove(index);
            return;
        }
        if matches!(connection.state, ConnectionState::Asking) && connection.request.last() == Some(&b'\n') {
            connection.state = ConnectionState::Waiting;
            let request = std::mem::take(&mut connection.request);
            match serde_json::from_slice(&request) {
                Ok(request) => self.handle(id, request),
                Err(error) => {
                    let cause = format!("a request that this shim does not understand: {error}");
                    self.reply(id, &Reply::Failed(Failure { starting: false, cause }));
                }
            }
        }
    }

    fn handle(&mut self, id: u64, request: Request) {
        match request {
            Request::Start(config) => {
                let refused = self.stopping.is_some().then(|| "the pod is being removed".to_string());
                let cause = refused.or_else(|| {
                    let duplicate = self.containers.iter().any(|c| c.is(&config.name, config.attempt));
                    duplicate.then(|| format!("attempt {} was started before", config.attempt))
                });
                let started = match cause {
                    Some(cause) => Err(io::Error::other(cause)),
                    None => Container::start(&self.folder, &self.record, self.cgroup.as_deref(), *config, id),
                };
                match started {
                    Ok(container) => self.containers.push(container),
                    Err(error) => {
                        self.reply(
                            id,
                            &Reply::Failed(Failure {
                                starting: false,
                                cause: error.to_string(),
                            }),
                        );
                    }
                }
            }
            Request::Wait { name, attempt } => match self.containers.iter_mut().find(|c| c.is(&name, attempt)) {
                Some(container) if container.has_ended() => {
                    let reply = self.folder.exit(&name, attempt).map_or(Reply::Unknown, Reply::Exited);
                    self.reply(id, &reply);
                }
                Some(container) => container.waiters.push(id),
                None => self.reply(id, &Reply::Unknown),
            },
            Request::Signal { name, attempt, signal } => {
                let found = self.containers.iter().find(|c| c.is(&name, attempt));
                let reply = found.map_or(Reply::Unknown, |container| {
                    container.signal(signal);
                    Reply::Done
                });
                self.reply(id, &reply);
            }
            Request::Attach { name, attempt } => {
                let running = self
                    .containers
                    .iter_mut()
                    .find(|c| c.is(&name, attempt) && !c.has_ended());
                let Some(container) = running else {
                    return self.reply(id, &Reply::Unknown);
                };
                container.attached += 1;
                if let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) {
                    send(&mut connection.socket, &Reply::Done);
                    connection.state = ConnectionState::Attached(Attached::new(name, attempt));
                }
            }
            Request::Stop => {
                self.stopping = Some(id); // the loop kills
            }
        }
    }

    fn reply(&mut self, id: u64, reply: &Reply) {
        if let Some(index) = self.connections.iter().position(|c| c.id == id) {
            send(&mut self.connections.swap_remove(index).socket, reply);
        }
    }

    fn container_event(&mut self, index: usize, source: Source) {
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        let (name, attempt) = (container.config.name.clone(), container.config.attempt);
        let connections = &mut self.connections;
        container.ready(source, &mut |stderr, bytes| {
            for connection in connections.iter_mut() {
                if let ConnectionState::Attached(attached) = &mut connection.state
                    && attached.is(&name, attempt)
                {
                    attached.push(stderr, bytes, &mut connection.socket);
                }
            }
        });
        if let Some((starter, result)) = container.take_start_result(&self.folder) {
            let reply = match result {
                Ok(started) => {
                    if let Some(status) = self.early.remove(&started.process.pid) {
                        container.ended(status);
                    }
                    Reply::Started(started)
                }
                Err(failure) => Reply::Failed(failure),
            };
            self.reply(starter, &reply);
        }
    }

    fn reap(&mut self) {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), (code, None)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), (128 + signal as i32, Some(signal as i32))),
                Err(nix::errno::Errno::EINTR) => continue,
                _ => return,
            };
            for container in &mut self.containers {
                container.helper_ended(pid);
            }
            match self.containers.iter_mut().find(|c| c.pid() == Some(pid)) {
                Some(container) => container.ended(status),
                // A container that ended before we heard of it, or a finished fork.
                None => drop(self.early.insert(pid, status)),
            }
        }
    }

    /// Publishes the end of those that have ended and said everything.
    fn finish(&mut self) {
        for index in 0..self.containers.len() {
            let Some((exit, waiters)) = self.containers[index].finish(&self.folder) else {
                continue;
            };
            for waiter in waiters {
                self.reply(waiter, &Reply::Exited(exit.clone()));
            }
            let config = &self.containers[index].config;
            let (name, attempt) = (config.name.clone(), config.attempt);
            self.connections.retain_mut(|connection| match &mut connection.state {
                ConnectionState::Attached(attached) => {
                    !attached.is(&name, attempt) || attached.close_when_flushed(&mut connection.socket)
                }
                _ => true,
            });
        }
        // What failed to start or was removed needs no memory here; its files tell.
        let folder = &self.folder;
        self.containers
            .retain(|c| !c.has_ended() || folder.attempt_file(&c.config.name, c.config.attempt, "json").exists());
        if !self.containers.iter().any(Container::is_starting) {
            self.early.clear();
        }
    }
}

/// Kills every child of this process but those spared: first processes of containers, and forks that make some.
fn kill_children(spared: &[i32]) {
    let me = std::process::id();
    let children = fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap_or_default();
    for pid in children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid| !spared.contains(pid))
    {
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
}

/// A reply is one small line; a daemon that does not read it has gone.
fn send(socket: &mut UnixStream, reply: &Reply) {
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        let _ = socket.write_all(&line);
    }
}
