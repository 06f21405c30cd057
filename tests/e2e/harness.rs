//! A k8slab home of its own for a test, the binary, a kubectl, and what the host shows of them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A home with nothing in it.
pub(crate) struct Lab {
    home: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Lab {
    /// `None`, said on standard error, where containers cannot run; with `K8SLAB_TEST_STRICT=1` that is a failure.
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return skip("it needs root (real cgroup limits)");
        }
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self {
            home: tempfile::tempdir().unwrap(),
            _turn: turn,
        })
    }

    /// A second home beside this one.
    pub(crate) fn second_home(&self) -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("user.kubeconfig")
    }

    /// The binary with this home, ready to be given more.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        command_in(self.home.path(), args)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap(), args)
    }

    /// Runs and expects exit code 0; what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.run(args).code(0)
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// kubectl with the lab's context and nothing else.
    #[track_caller]
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).code(0)
    }

    pub(crate) fn try_kubectl(&self, args: &[&str]) -> Ran {
        let mut command = self.tool("kubectl");
        command.args(["--context", "k8slab-cpu-hpa"]);
        Ran::from(command.args(args).output().unwrap(), args)
    }

    /// kubectl or helm with this lab's kubeconfig.
    pub(crate) fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(tool(name));
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.home.path())
            .current_dir(self.home.path());
        command
    }

    #[track_caller]
    pub(crate) fn get(&self, args: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], args].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// The daemon's process id.
    pub(crate) fn daemon(&self) -> i32 {
        let record = std::fs::read(self.home.path().join("clusters/default/daemon.json")).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        record["pid"].as_i64().unwrap() as i32
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.home.path().join("clusters/default/daemon.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "the end of daemon.log:\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
        self.run(&["cluster", "delete", "--force", "--purge"]);
    }
}

/// The binary with `home`, for tests that have two.
pub(crate) fn command_in<S: AsRef<OsStr>>(home: &Path, args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_k8slab"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("K8SLAB_HOME", home)
        .env("KUBECONFIG", home.join("user.kubeconfig"))
        .args(args);
    command
}

/// What a command left.
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    line: String,
}

impl Ran {
    pub(crate) fn from(output: Output, args: &[&str]) -> Self {
        Self {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            line: args.join(" "),
        }
    }

    /// Expects this exit code; what it printed.
    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> String {
        assert_eq!(
            self.status,
            Some(expected),
            "`{}`\n--- stdout\n{}\n--- stderr\n{}",
            self.line,
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

/// From PATH, else the pinned one, which `scripts/tools` (or the script of that name) fetches.
pub(crate) fn tool(name: &str) -> PathBuf {
    if let Ok(found) = which::which(name) {
        return found;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("target/tools").join(name);
    let script = if name == "busybox" {
        "scripts/busybox"
    } else {
        "scripts/tools"
    };
    let fetched = path.exists()
        || Command::new(root.join(script))
            .status()
            .is_ok_and(|status| status.success());
    assert!(fetched, "no {name} on PATH, and `{script}` could not fetch one");
    path
}

fn skip<T>(reason: &str) -> Option<T> {
    assert!(
        std::env::var_os("K8SLAB_TEST_STRICT").is_none(),
        "strict: this test may not be skipped: {reason}"
    );
    eprintln!("ignored: {reason}");
    None
}

/// Asks until `probe` answers, for what only shows itself by looking; says what it last saw when it gives up.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + limit;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > end => {
                panic!("waiting for {what}: gave up after {limit:?}; last seen: {seen}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// A home and the binary for an unprivileged user: `nobody`, in a user namespace of its own making.
pub(crate) struct RootlessLab {
    home: tempfile::TempDir,
    binary: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

const NOBODY: u32 = 65534;

impl RootlessLab {
    /// `None`, said on standard error, where a test cannot become another user.
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return skip("it needs root, to become an ordinary user");
        }
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let home = tempfile::tempdir().unwrap();
        // The build's folder may be out of reach for an ordinary user.
        let binary = home.path().join("k8slab");
        std::fs::copy(env!("CARGO_BIN_EXE_k8slab"), &binary).unwrap();
        std::os::unix::fs::chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        std::os::unix::fs::chown(&binary, Some(NOBODY), Some(NOBODY)).unwrap();
        Some(Self {
            home,
            binary,
            _turn: turn,
        })
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("K8SLAB_HOME", self.home.path().join("state"))
            .env("KUBECONFIG", self.home.path().join("user.kubeconfig"))
            .current_dir(self.home.path())
            .uid(NOBODY)
            .gid(NOBODY)
            .args(args);
        Ran::from(command.output().unwrap(), args)
    }

    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.run(args).code(0)
    }

    /// kubectl, as root but with the lab's kubeconfig.
    #[track_caller]
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        let mut command = Command::new(tool("kubectl"));
        command
            .env("KUBECONFIG", self.home.path().join("user.kubeconfig"))
            .env("HOME", self.home.path());
        Ran::from(
            command
                .args(["--context", "k8slab-cpu-hpa"])
                .args(args)
                .output()
                .unwrap(),
            args,
        )
        .code(0)
    }
}

impl Drop for RootlessLab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.home.path().join("state/clusters/default/daemon.log");
            eprintln!("daemon.log:\n{}", std::fs::read_to_string(log).unwrap_or_default());
        }
        self.run(&["cluster", "delete", "--force", "--purge"]);
    }
}
