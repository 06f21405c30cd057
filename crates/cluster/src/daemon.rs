//! The daemon's life on one page: `cluster run --home DIR --name NAME`.
//!
//! Owns lock, session, log, handshake with whoever started it, and signals. What a cluster is made of is `cluster`'s.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use apimachinery::pace::Pace;
use apiserver::OpenError;
use apiserver::store::{BackendError, Dump};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use node::image;
use node::privileges::{self, Means};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::client::{Handshake, Refusal};
use crate::cluster::{Cluster, Config, StartError};
use crate::control::{self, Request};
use crate::home::{ClusterDir, DAEMON_FORMAT, DaemonRecord, Home};
use crate::memory;
use crate::process::{self, Lock};

/// Runs the daemon until it is told to go. Must be called while the process has one thread.
pub(crate) fn main(args: &[OsString]) -> i32 {
    let outcome = prepare(args).and_then(run);
    match outcome {
        Ok(()) => 0,
        Err(refusal) => {
            tell(&Handshake::Refused(refusal));
            1
        }
    }
}

struct Prepared {
    home: Home,
    dir: ClusterDir,
    /// Kept until the process ends.
    lock: Lock,
}

/// Everything that must happen while the process has one thread.
fn prepare(args: &[OsString]) -> Result<Prepared, Refusal> {
    let (home, name) = parse(args)?;
    let home = Home::new(home);
    let dir = home.cluster(&name);
    dir.create()
        .map_err(|e| format!("creating `{}`: {e}", dir.path().display()))?;
    nix::unistd::setsid().ok();
    memory::bound();
    // Pods see some of our files (`/etc/hosts`, volumes): what is secret has its mode set where it is written, and the
    // cluster's folder is its owner's alone.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    raise_fd_limit();
    let lock = take_lock(&dir)?;
    take_privileges(&dir)?;
    Ok(Prepared { home, dir, lock })
}

/// Root as it is; an ordinary user in a user namespace, the one in which pods of an earlier daemon live if there are any.
fn take_privileges(dir: &ClusterDir) -> Result<(), Refusal> {
    let taken = privileges::detect().and_then(|means| match means {
        Means::Root => Ok(()),
        Means::UserNamespace => privileges::enter_user_namespace(&dir.node().join("pods")),
    });
    taken.map_err(|denied| {
        let exe = std::env::current_exe().unwrap_or_else(|_| "k8slab".into());
        Refusal {
            why: denied.to_string(),
            hints: denied.hints(&exe, "up"),
            prerequisite: true,
            newer: false,
        }
    })
}

fn parse(args: &[OsString]) -> Result<(PathBuf, String), String> {
    match args {
        [home_flag, home, name_flag, name] if home_flag == "--home" && name_flag == "--name" => {
            let name = name
                .to_str()
                .ok_or_else(|| format!("cluster name `{}` is not text", name.display()))?;
            Ok((home.into(), name.into()))
        }
        _ => Err("usage: k8slab cluster run --home DIR --name NAME".into()),
    }
}

fn take_lock(dir: &ClusterDir) -> Result<Lock, String> {
    // Somebody who looks whether a daemon lives holds the lock for a moment: try a few times.
    for _ in 0..10 {
        match Lock::try_take(&dir.daemon_lock()) {
            Ok(Some(lock)) => return Ok(lock),
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(e) => return Err(format!("locking `{}`: {e}", dir.daemon_lock().display())),
        }
    }
    let holder = dir
        .daemon()
        .ok()
        .flatten()
        .map_or("another process".into(), |d| format!("pid {}", d.pid));
    Err(format!(
        "the cluster in `{}` already has a daemon ({holder})",
        dir.path().display()
    ))
}

/// One fd per service listener and two per proxied connection: the usual 1024 is too few.
fn raise_fd_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    }
}

fn run(prepared: Prepared) -> Result<(), Refusal> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .map_err(|e| format!("starting the runtime: {e}"))?;
    let outcome = runtime.block_on(serve(&prepared));
    // Whatever still runs on a blocking thread must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    drop(prepared.lock);
    outcome
}

async fn serve(prepared: &Prepared) -> Result<(), Refusal> {
    let Prepared { home, dir, .. } = prepared;
    let text = |e: &dyn std::error::Error| chain(e);
    let description = dir
        .description()
        .map_err(|e| text(&e))?
        .ok_or_else(|| format!("`{}` holds no cluster", dir.path().display()))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| text(&e))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| text(&e))?;
    let mut asked = control::listen(&dir.control_socket()).map_err(|e| text(&e))?;

    let config = Config {
        pace: Pace::new(description.speed).unwrap_or_default(),
        port: description.port,
        images: home.images(),
        registries: image::Registries {
            mirrors: Some(home.registries()),
            docker_config: docker_config(),
        },
        dir: dir.clone(),
    };
    let cluster = Cluster::start(config).await.map_err(|e| refusal(&e, dir))?;
    let port = cluster.port();
    if port != description.port {
        let moved = crate::home::Description {
            port,
            ..description.clone()
        };
        dir.describe(&moved).map_err(|e| text(&e))?;
    }
    dir.record_daemon(&record(&description, port, cluster.limits_not_enforced()))
        .map_err(|e| text(&e))?;
    info!(port, speed = description.speed, "ready");
    tell(&Handshake::Ready);

    let (request, answer) = loop {
        tokio::select! {
            Some(asked) = asked.recv() => match asked.request {
                Request::Export => drop(tokio::spawn(asked.send(Dump::of(cluster.contents())))),
                request => break (request, Some(asked)),
            },
            // A daemon that is merely ended leaves its containers to the next one.
            _ = terminate.recv() => break (Request::Detach, None),
            _ = interrupt.recv() => break (Request::Detach, None),
            never = memory::give_back() => match never {},
        }
    };
    info!(?request, "ending");
    match request {
        Request::Stop => {
            cluster.stop().await;
            dir.forget_daemon();
        }
        Request::Detach | Request::Export => cluster.drain().await,
    }
    if let Some(asked) = answer {
        asked.answer(Ok(())).await;
    }
    info!("ended");
    Ok(())
}

fn record(description: &crate::home::Description, port: u16, limits_not_enforced: Option<String>) -> DaemonRecord {
    let pid = std::process::id() as i32;
    DaemonRecord {
        format: DAEMON_FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        pid,
        start_time: process::start_time(pid).unwrap_or(0),
        port,
        speed: description.speed,
        limits_not_enforced,
    }
}

/// Docker's configuration of whoever the daemon runs as; root's where somebody used sudo without `-E`, as with Docker.
fn docker_config() -> Option<PathBuf> {
    let folder = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let config = folder("DOCKER_CONFIG").or_else(|| Some(folder("HOME")?.join(".docker")))?;
    Some(config.join("config.json"))
}

/// Why the cluster does not start, and for a store that cannot be used, what can be done.
fn refusal(error: &StartError, dir: &ClusterDir) -> Refusal {
    let store = match error {
        StartError::ApiServer(OpenError::Store(store)) => Some(store),
        _ => None,
    };
    let hints = match store {
        Some(BackendError::Corrupted { .. }) => vec![
            format!("nothing was changed: `{}` is as it was found", dir.store().display()),
            "`k8slab cluster import FILE` puts an earlier export in its place and keeps the damaged file beside it"
                .into(),
            "`k8slab cluster delete` takes the cluster away, to begin anew".into(),
        ],
        Some(BackendError::Format { .. }) => vec![
            "use that version of k8slab; its `k8slab cluster export FILE` writes what this one may be able to import"
                .into(),
        ],
        _ => vec![],
    };
    Refusal {
        why: chain(error),
        hints,
        prerequisite: false,
        newer: matches!(store, Some(BackendError::Format { .. })),
    }
}

/// An error with its sources, one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    error!("{text}");
    text
}

/// Tells whoever started us. Nobody may be listening, and that is fine.
fn tell(handshake: &Handshake) {
    let line = serde_json::to_string(handshake).unwrap_or_default();
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).ok();
}
