//! Starts a container: the part that runs in a throw-away fork of the shim.
//!
//! libcontainer's heap, descriptors and prctl settings go with the fork; the container's first process falls to the
//! shim, which is the subreaper. The fork and that process report on one close-on-exec pipe, in lines:
//! `pid N`, `create CAUSE`, `exec CAUSE`, `log DETAIL` (what libcontainer had to say). End of file means that the
//! program has been executed, or that nothing more will happen.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::mount::{MsFlags, mount};
use tracing::field::{Field, Visit};

use crate::runtime::config::ContainerConfig;
use crate::runtime::folder::PodFolder;
use crate::runtime::launch::{Program, is_mapped, reset_signals, tell};
use crate::runtime::oci::{self, Bind};
use crate::runtime::rootfs::{self, Links, open_below};

/// What the fork gets from the shim.
pub(super) struct Start<'a> {
    /// The pod's folder.
    pub folder: &'a PodFolder,
    /// The container.
    pub config: &'a ContainerConfig,
    /// stdin, stdout, stderr of the container; none with a terminal.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Where the master of the container's terminal goes.
    pub terminal: Option<OwnedFd>,
    /// The report pipe.
    pub report: OwnedFd,
}

impl Start<'_> {
    /// Runs in the fork and ends it.
    pub(super) fn run(mut self) -> ! {
        reset_signals();
        let report = self.report.as_raw_fd();
        let _ = tracing::subscriber::set_global_default(Reporter(report));
        match self.create() {
            Ok(pid) => tell(report, &format!("pid {pid}")),
            Err(error) => tell(report, &format!("create {error}")),
        }
        #[expect(unsafe_code, reason = "a fork must not run its parent's exit handlers")]
        // SAFETY: ends the process.
        unsafe {
            libc::_exit(0)
        }
    }

    fn create(&mut self) -> io::Result<i32> {
        let Self {
            folder,
            config,
            stdio,
            terminal,
            report,
        } = self;
        let id = format!("{}-{}", config.name, config.attempt);
        let bundle = folder.join("run").join("bundle").join(&id);
        fs::create_dir_all(&bundle)?;
        let rootfs = mount_rootfs(folder, config)?;
        let binds = binds(config, &bundle)?;
        let user = &config.user;
        let map = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let own_namespace =
            !is_mapped(&map("/proc/self/uid_map"), user.uid) || !is_mapped(&map("/proc/self/gid_map"), user.gid);
        let groups_denied = map("/proc/self/setgroups").trim() == "deny";
        let groups: &[u32] = if groups_denied { &[] } else { &user.supplementary_groups };
        let ids = if own_namespace {
            (0, 0, groups)
        } else {
            (user.uid, user.gid, groups)
        };
        if !groups_denied && groups.is_empty() {
            // libcontainer leaves ours when it is given none.
            nix::unistd::setgroups(&[]).ok();
        }
        let mut config = config.clone();
        if crate::privileges::in_user_namespace() {
            // An ordinary user may only make the killer like a process better.
            let own = map("/proc/self/oom_score_adj").trim().parse().unwrap_or(0);
            config.resources.oom_score_adj = config.resources.oom_score_adj.max(own);
        }
        let spec = oci::config(folder, &config, &rootfs, &binds, ids, std::process::id());
        fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)?;

        let program = Program {
            args: config.args.clone(),
            env: config.env.clone(),
            user: config.user.clone(),
            security: config.security.clone(),
            terminal: terminal.as_ref().map(AsRawFd::as_raw_fd),
            report: report.as_raw_fd(),
            user_namespace: None,
        };
        let failed = |error: libcontainer::error::LibcontainerError| io::Error::other(chain(&error));
        let mut builder = ContainerBuilder::new(id, SyscallType::default())
            .with_root_path(folder.join("run").join("oci"))
            .map_err(failed)?
            .with_executor(program);
        if let Some([stdin, stdout, stderr]) = stdio.take() {
            builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
        }
        let builder = builder.as_init(&bundle).with_systemd(false).with_detach(true);
        let mut container = builder.build().map_err(failed)?;
        container.start().map_err(failed)?;
        let pid = container
            .pid()
            .ok_or_else(|| io::Error::other("libcontainer tells no pid"))?;
        Ok(pid.as_raw())
    }
}

/// An error with its causes: libcontainer's top line is often only "failed to prepare rootfs".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

fn mount_rootfs(folder: &PodFolder, config: &ContainerConfig) -> io::Result<PathBuf> {
    let dir = folder.attempt_dir(&config.name, config.attempt);
    let rootfs = dir.join("rootfs");
    fs::create_dir_all(&dir)?;
    // Where the state directory lies on overlayfs itself (a Docker container), writes go to memory.
    let rw = if rootfs::is_on_overlay(&dir) {
        folder
            .join("run")
            .join("rw")
            .join(&config.name)
            .join(config.attempt.to_string())
    } else {
        dir
    };
    rootfs::mount_overlay(&config.layers, &rw.join("upper"), &rw.join("work"), &rootfs)?;
    if !config.cwd.is_empty() && config.cwd != "/" {
        open_below(&File::open(&rootfs)?, Path::new(&config.cwd), Links::InRoot)
            .map_err(|error| io::Error::other(format!("making the working directory `{}`: {error}", config.cwd)))?;
    }
    Ok(rootfs)
}

/// The volumes in mount order: shallow targets first, so that a deeper one is not covered.
fn binds(config: &ContainerConfig, bundle: &Path) -> io::Result<Vec<Bind>> {
    let mut mounts: Vec<_> = config.mounts.iter().collect();
    mounts.sort_by_key(|mount| Path::new(&mount.target).components().count());
    let mut binds = vec![];
    for (number, volume) in mounts.into_iter().enumerate() {
        let source = match &volume.sub_path {
            None => volume.source.clone(),
            Some(path) => {
                // Opened once, safely, and pinned by a bind of our own: between looking and mounting the container
                // could put a link there.
                let opened = open_below(&File::open(&volume.source)?, path, Links::Beneath);
                let opened = opened.map_err(|error| {
                    io::Error::other(format!(
                        "opening subPath `{}` of the volume at `{}`: {error}",
                        path.display(),
                        volume.target
                    ))
                })?;
                let pin = bundle.join(format!("subpath-{number}"));
                let found = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
                if fs::metadata(&found)?.is_dir() {
                    fs::create_dir_all(&pin)?;
                } else {
                    File::create(&pin)?;
                }
                let none = None::<&str>;
                mount(Some(&found), &pin, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
                pin
            }
        };
        let source = source.to_string_lossy().into_owned();
        binds.push(Bind {
            source,
            target: volume.target.clone(),
            read_only: volume.read_only,
        });
    }
    Ok(binds)
}

/// libcontainer tells the causes of its errors to `tracing` only.
struct Reporter(RawFd);

impl tracing::Subscriber for Reporter {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        tell(self.0, &format!("log {}{}", line.message, line.fields));
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write as _;
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
