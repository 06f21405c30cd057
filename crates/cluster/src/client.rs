//! The CLI's side of an embedded cluster: find its daemon or start one, look at it, stop it, delete it.
//!
//! Owns locks, pids and the daemon's start. Everything about objects goes through the Kubernetes API instead.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use apimachinery::pace::Pace;
use kube::config::Kubeconfig;
use nix::sys::signal::Signal;
use node::runtime::LinuxRuntime;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::control;
use crate::home::{CLUSTER_FORMAT, ClusterDir, DaemonRecord, Description, FormatError, Home};
use crate::process::{self, Lock};

/// How long a daemon may take to become ready. It needs some 100 ms; a machine may be very busy.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a stopping daemon may take: pods get their grace periods.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// What is asked of a cluster that may not exist yet.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's name within its home.
    pub name: String,
    /// Lab time's divisor; `None` keeps what the cluster has, or real time for a new one.
    pub speed: Option<Pace>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "default".into(),
            speed: None,
        }
    }
}

/// A daemon that answers.
#[derive(Clone, Debug)]
pub struct Running {
    /// `https://127.0.0.1:PORT`.
    pub api_url: String,
    /// Cluster administrator's, one context.
    pub kubeconfig: Kubeconfig,
    /// Whether this call started it.
    pub started_by_us: bool,
    /// Lab time's divisor.
    pub speed: Pace,
    /// Why CPU and memory limits are not enforced; `None` where they are.
    pub limits_not_enforced: Option<String>,
    /// The daemon's process id.
    pub pid: i32,
}

/// What there is of a cluster.
#[derive(Clone, Debug)]
pub enum Status {
    /// No such cluster.
    Absent,
    /// Objects are kept, nothing runs.
    Stopped,
    /// The daemon is gone without having been stopped; its containers may still run.
    Crashed {
        /// Its process id.
        pid: i32,
    },
    /// The daemon lives.
    Running(Box<DaemonRecord>),
}

/// Why a cluster could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of a newer k8slab, or rubbish.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The cluster's folder cannot be used.
    #[error("using the cluster's folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon said why it cannot run.
    #[error("starting the embedded cluster: {}", .0.why)]
    Refused(Refusal),
    /// The daemon ended without a word.
    #[error("starting the embedded cluster: the daemon ended at once; the end of `{}`:\n{tail}", log.display())]
    Died {
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// Not ready in time.
    #[error("starting the embedded cluster: not ready after {} s; see `{}`", START_LIMIT.as_secs(), log.display())]
    NotReady {
        /// Its log.
        log: PathBuf,
    },
    /// The cluster runs at another speed.
    #[error("the cluster runs at --speed {running}, asked for {asked}; stop it first: k8slab cluster stop")]
    OtherSpeed {
        /// What it has.
        running: u32,
        /// What was asked for.
        asked: u32,
    },
    /// It does not go.
    #[error("stopping the embedded cluster (pid {pid})")]
    Stop {
        /// The daemon.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// What a crashed daemon left does not go.
    #[error("ending what the crashed cluster in `{}` left running", path.display())]
    Leftovers {
        /// The cluster's folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its kubeconfig cannot be read.
    #[error("reading `{}`", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },
}

/// Why a daemon does not run, and what can be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// One line.
    pub why: String,
    /// Ways out, the best first; each can be pasted.
    pub hints: Vec<String>,
    /// The machine lacks something; nothing is broken.
    pub prerequisite: bool,
    /// A file was written by a newer k8slab.
    #[serde(default)]
    pub newer: bool,
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { why, ..Self::default() }
    }
}

/// The daemon's first and only line on its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Handshake {
    Ready,
    Refused(Refusal),
}

/// Finds the cluster's daemon or starts one, and waits until it is ready. May be called by several processes at once.
///
/// `note` is told what a person would want to know: an older daemon replaced, containers adopted.
pub async fn ensure(home: &Home, settings: &Settings, note: impl Fn(String)) -> Result<Running, Error> {
    let dir = home.cluster(&settings.name);
    let folder = |source| Error::Folder {
        path: dir.path().into(),
        source,
    };
    dir.create().map_err(folder)?;
    if let Some(running) = running(&dir, settings).await? {
        return Ok(running);
    }
    let lock = dir.admin_lock();
    let _starting = tokio::task::spawn_blocking(move || Lock::take(&lock))
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(folder)?;
    // Somebody else may have started it while we waited for the lock, or died while it started.
    settle(&dir).await?;
    if let Some(running) = running(&dir, settings).await? {
        return Ok(running);
    }
    if let Some(older) = live(&dir)? {
        note(format!(
            "restarting the daemon of k8slab {} (its containers go on)",
            older.version
        ));
        end(&dir, &older, control::Request::Detach).await?;
    } else if let Some(record) = dir.daemon()? {
        note(format!(
            "the daemon (pid {}) is gone without having been stopped; starting it again",
            record.pid
        ));
    }
    let known = dir.description()?;
    let port = known.as_ref().map_or(0, |d| d.port);
    let speed = settings.speed.map(Pace::speed).or(known.map(|d| d.speed)).unwrap_or(1);
    let description = Description {
        format: CLUSTER_FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        speed,
        port,
    };
    dir.describe(&description).map_err(folder)?;
    start(home, &dir, &settings.name).await?;
    let record = dir.daemon()?.ok_or_else(|| died(&dir))?;
    Ok(Running {
        started_by_us: true,
        ..describe(&dir, record)?
    })
}

/// What there is of the cluster `name`.
pub fn status(home: &Home, name: &str) -> Result<Status, Error> {
    let dir = home.cluster(name);
    if dir.description()?.is_none() {
        return Ok(Status::Absent);
    }
    match (live(&dir)?, dir.daemon()?) {
        (Some(record), _) => Ok(Status::Running(Box::new(record))),
        (None, Some(record)) => Ok(Status::Crashed { pid: record.pid }),
        (None, None) => Ok(Status::Stopped),
    }
}

/// A daemon that runs already, without starting one.
pub async fn find(home: &Home, name: &str) -> Result<Option<Running>, Error> {
    let dir = home.cluster(name);
    match live(&dir)? {
        Some(record) => describe(&dir, record).map(Some),
        None => Ok(None),
    }
}

/// Ends every container and the daemon; objects stay. False when there was nothing to stop.
///
/// Containers that a crashed daemon left behind are ended too.
pub async fn stop(home: &Home, name: &str) -> Result<bool, Error> {
    let dir = home.cluster(name);
    let Some(description) = dir.description()? else {
        return Ok(false);
    };
    settle(&dir).await?;
    if let Some(record) = live(&dir)? {
        end(&dir, &record, control::Request::Stop).await?;
        return Ok(true);
    }
    if dir.daemon()?.is_none() {
        return Ok(false);
    }
    // Only a daemon knows how to end what a crashed one left: start one, and stop it.
    dir.describe(&description).map_err(|source| Error::Folder {
        path: dir.path().into(),
        source,
    })?;
    start(home, &dir, name).await?;
    if let Some(record) = live(&dir)? {
        end(&dir, &record, control::Request::Stop).await?;
    }
    Ok(true)
}

/// Stops the cluster and removes everything it kept. False when there was none.
pub async fn delete(home: &Home, name: &str) -> Result<bool, Error> {
    let stopped = stop(home, name).await;
    let dir = home.cluster(name);
    // A cluster too broken to be stopped cleanly must still be deletable, but never while its daemon lives.
    if let Err(error) = stopped {
        if live(&dir)?.is_some() {
            return Err(error);
        }
        let ended = dir.id().and_then(|id| LinuxRuntime::end_leftovers(&dir.node(), &id));
        ended.map_err(|source| Error::Leftovers {
            path: dir.path().into(),
            source,
        })?;
    }
    match fs::remove_dir_all(dir.path()) {
        Ok(()) => {
            // Only if this was the last cluster; others keep the folder.
            fs::remove_dir(home.clusters()).ok();
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Folder {
            path: dir.path().into(),
            source,
        }),
    }
}

/// The image store that the cluster's node reads.
pub fn images(home: &Home) -> PathBuf {
    home.images()
}

async fn running(dir: &ClusterDir, settings: &Settings) -> Result<Option<Running>, Error> {
    let Some(record) = live(dir)? else { return Ok(None) };
    if record.version != env!("CARGO_PKG_VERSION") {
        return Ok(None);
    }
    if let Some(asked) = settings.speed.map(Pace::speed)
        && asked != record.speed
    {
        return Err(Error::OtherSpeed {
            running: record.speed,
            asked,
        });
    }
    describe(dir, record).map(Some)
}

/// Waits while a daemon holds its lock and has not said yet that it is ready: whoever started it may be gone.
async fn settle(dir: &ClusterDir) -> Result<(), Error> {
    let starting = || -> Result<bool, Error> {
        let locked = process::is_locked(&dir.daemon_lock()).map_err(|source| Error::Folder {
            path: dir.path().into(),
            source,
        })?;
        Ok(locked && live(dir)?.is_none())
    };
    let end = tokio::time::Instant::now() + START_LIMIT;
    while starting()? {
        if tokio::time::Instant::now() > end {
            return Err(Error::NotReady { log: dir.log() });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The record of a daemon that holds its lock.
pub(crate) fn live(dir: &ClusterDir) -> Result<Option<DaemonRecord>, Error> {
    let locked = process::is_locked(&dir.daemon_lock());
    if !locked.map_err(|source| Error::Folder {
        path: dir.path().into(),
        source,
    })? {
        return Ok(None);
    }
    Ok(dir
        .daemon()?
        .filter(|record| process::start_time(record.pid) == Some(record.start_time)))
}

fn describe(dir: &ClusterDir, record: DaemonRecord) -> Result<Running, Error> {
    let path = dir.kubeconfig();
    let kubeconfig = Kubeconfig::read_from(&path).map_err(|e| Error::Kubeconfig {
        path,
        source: Box::new(e),
    })?;
    Ok(Running {
        api_url: format!("https://127.0.0.1:{}", record.port),
        kubeconfig,
        started_by_us: false,
        speed: Pace::new(record.speed).unwrap_or_default(),
        limits_not_enforced: record.limits_not_enforced,
        pid: record.pid,
    })
}

async fn start(home: &Home, dir: &ClusterDir, name: &str) -> Result<(), Error> {
    let folder = |source| Error::Folder {
        path: dir.path().into(),
        source,
    };
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(dir.log())
        .map_err(folder)?;
    let mut child = tokio::process::Command::new("/proc/self/exe")
        .args(["cluster", "run", "--home"])
        .arg(home.path())
        .args(["--name", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(folder)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        match tokio::time::timeout(START_LIMIT, stdout.read_line(&mut line)).await {
            Ok(read) => read.map(drop).map_err(folder)?,
            Err(_) => return Err(Error::NotReady { log: dir.log() }),
        }
    }
    match serde_json::from_str(&line) {
        Ok(Handshake::Ready) => Ok(()),
        Ok(Handshake::Refused(why)) => Err(Error::Refused(why)),
        Err(_) => Err(died(dir)),
    }
}

fn died(dir: &ClusterDir) -> Error {
    let log = fs::read_to_string(dir.log()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(8)..].join("\n");
    Error::Died { log: dir.log(), tail }
}

async fn end(dir: &ClusterDir, record: &DaemonRecord, request: control::Request) -> Result<(), Error> {
    let failed = |source| Error::Stop {
        pid: record.pid,
        source,
    };
    let socket: &Path = &dir.control_socket();
    let asked = tokio::time::timeout(STOP_LIMIT, control::ask(socket, request)).await;
    match asked {
        Ok(Ok(())) => {}
        Ok(Err(source)) if live(dir)?.is_some() => return Err(failed(source)),
        Ok(Err(_)) => return Ok(()),
        Err(_) => return Err(failed(io::Error::new(io::ErrorKind::TimedOut, "no answer to `stop`"))),
    }
    // It has answered and is on its way out: its lock goes with it.
    let lock = dir.daemon_lock();
    let gone = tokio::task::spawn_blocking(move || Lock::take(&lock).map(drop));
    match tokio::time::timeout(STOP_LIMIT, gone).await {
        Ok(_) => Ok(()),
        Err(_) => {
            process::signal(record.pid, record.start_time, Signal::SIGKILL).map_err(failed)?;
            Ok(())
        }
    }
}
