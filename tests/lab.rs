//! The real binary with the real embedded cluster: a lab comes up, works, explains itself, and goes without a trace.
//!
//! Needs root (or user namespaces) and Linux. Elsewhere these tests say why they do not run; with `K8SLAB_TEST_STRICT=1`
//! that is a failure.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test's helpers, and it says why it is skipped"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// A state folder of its own, so that every test has a cluster of its own.
struct Home {
    folder: tempfile::TempDir,
}

impl Drop for Home {
    fn drop(&mut self) {
        // Whatever a failed test left behind.
        let _ = self.command(&["cluster", "delete", "--force", "--purge"]).output();
    }
}

impl Home {
    /// `None` where no container can be started, after saying why.
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            let why = "containers with limits need root";
            assert!(std::env::var_os("K8SLAB_TEST_STRICT").is_none(), "{why}");
            eprintln!("skipped: {why}");
            return None;
        }
        Some(Self {
            folder: tempfile::tempdir().unwrap(),
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_k8slab"));
        command
            .args(args)
            .env("HOME", self.path())
            .env("K8SLAB_HOME", self.state());
        for variable in ["KUBECONFIG", "SUDO_UID", "SUDO_GID", "K8SLAB_CLUSTER", "XDG_STATE_HOME"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs to the end; `code` is the exit code that is expected.
    #[track_caller]
    fn run(&self, code: i32, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        self.expect(code, args, &output);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs to the end; its standard error.
    #[track_caller]
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        self.expect(code, args, &output);
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    #[track_caller]
    fn expect(&self, code: i32, args: &[&str], output: &Output) {
        let log = std::fs::read_to_string(self.state().join("clusters/default/daemon.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(30).collect();
        assert_eq!(
            output.status.code(),
            Some(code),
            "k8slab {}\n{}{}the daemon, last line first:\n{}",
            args.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            tail.join("\n")
        );
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.run(0, &[args, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn spawn(&self, args: &[&str]) -> Child {
        self.command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// The files and folders below `folder`, but for what a lab may leave.
fn left_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "history" && name != "images" && name != ".kube" {
                open.push(path.clone());
            }
            // `~/.kube` is the folder of every Kubernetes tool, kubectl's cache among them.
            if name != "history" && name != "images" && name != "state" && name != ".kube" {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_lab_comes_up_works_and_goes_without_a_trace() {
    let Some(home) = Home::new() else { return };
    let first = home.run(0, &["up", "cpu-hpa"]);
    for line in [
        "  cluster   embedded, API at https://127.0.0.1:",
        "  metrics   resource metrics",
        "  image     cpu-burner:c-",
    ] {
        assert!(first.contains(line), "{first}");
    }
    assert!(first.contains("  burner    Deployment cpu-burner 1/1"), "{first}");
    assert!(
        first.contains("  hpa       HorizontalPodAutoscaler cpu-burner ") && first.contains(", 1 of 1–5"),
        "{first}"
    );
    assert!(
        first.contains("cpu-hpa is up in ") && first.contains("  try   k8slab load cpu-hpa burn"),
        "{first}"
    );

    let again = home.run(0, &["up", "cpu-hpa"]);
    assert!(again.contains("cpu-hpa is up, nothing had to be done"), "{again}");
    let plan = home.json(&["plan", "cpu-hpa"]);
    let actions: Vec<&str> = plan["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["intent"]["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["keep"; 5], "{plan}");
    let plan = home.json(&["plan", "cpu-hpa", "--set", "max=7"]);
    assert_eq!(
        plan["steps"][4]["intent"]["details"][0],
        "HorizontalPodAutoscaler/cpu-burner spec.maxReplicas: 5 → 7"
    );

    let status = home.json(&["status", "cpu-hpa"]);
    assert_eq!(status[0]["firstBrokenLink"], Value::Null, "{status}");
    assert_eq!(status[0]["pods"].as_array().unwrap().len(), 1, "{status}");
    let why = home.run(0, &["status", "cpu-hpa", "--why"]);
    assert_eq!(why, "cpu-hpa: every link holds\n");
    assert!(
        home.run(0, &["load", "cpu-hpa"])
            .contains("burn   push the CPU of every pod")
    );
    assert!(home.run(0, &["load", "cpu-hpa", "rest", "--once"]).contains("200 "));
    assert!(
        home.run(0, &["logs", "cpu-hpa"])
            .contains("cpu-burner: limits are 200 millicores")
    );
    assert_eq!(home.run(0, &["ip", "cpu-hpa"]), "127.0.0.1\n");
    assert!(home.run(0, &["list"]).contains("up"));
    assert!(home.run(0, &["image", "ls"]).contains("cpu-burner:lab"));
    assert!(
        home.run(0, &["cluster", "status"])
            .starts_with("running: API at https://127.0.0.1:")
    );
    assert!(
        home.fails(1, &["cluster", "delete"])
            .contains("labs are up on it: cpu-hpa")
    );

    let gone = home.run(0, &["down", "cpu-hpa"]);
    assert!(gone.contains("cpu-hpa is gone, in "), "{gone}");
    assert_eq!(left_below(home.path()), Vec::<PathBuf>::new());
    assert_eq!(std::fs::read_dir(home.state().join("history")).unwrap().count(), 1);
    assert_eq!(home.run(0, &["down", "cpu-hpa"]), "cpu-hpa is not up\n");
    assert_eq!(home.run(0, &["cluster", "status"]), "there is no cluster\n");
}

#[test]
fn what_keeps_a_pod_from_running_is_said_in_kubernetes_words() {
    let Some(home) = Home::new() else { return };
    let stderr = home.fails(
        4,
        &[
            "up",
            "cpu-hpa",
            "--set",
            "request=64",
            "--set",
            "limit=64",
            "--timeout",
            "8s",
        ],
    );
    assert!(
        stderr.contains("step `burner`: waiting for Deployment `cpu-hpa/cpu-burner` to be ready: gave up"),
        "{stderr}"
    );
    assert!(stderr.contains("Insufficient cpu"), "{stderr}");
    let why = home.run(0, &["status", "--why"]);
    assert!(
        why.contains("first broken link: scheduling of Pod `cpu-burner-") && why.contains("Insufficient cpu"),
        "{why}"
    );

    home.run(0, &["down", "cpu-hpa"]);
    let stderr = home.fails(
        4,
        &[
            "up",
            "cpu-hpa",
            "--set",
            "image=nowhere.invalid/nothing:1",
            "--timeout",
            "8s",
        ],
    );
    assert!(stderr.contains("nowhere.invalid/nothing:1"), "{stderr}");
    let why = home.run(0, &["status", "--why"]);
    assert!(why.contains("first broken link: image of Pod `cpu-burner-"), "{why}");

    let up = home.run(0, &["up", "cpu-hpa"]);
    assert!(up.contains("Deployment cpu-burner 1/1"), "{up}");
    home.run(0, &["down", "--all"]);
}

#[test]
fn an_interrupted_up_is_exit_130_and_the_next_one_goes_on() {
    let Some(home) = Home::new() else { return };
    let mut child = home.spawn(&[
        "up",
        "cpu-hpa",
        "--set",
        "request=64",
        "--set",
        "limit=64",
        "--output",
        "json",
    ]);
    // Its own words say when it waits.
    let stdout = child.stdout.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    let waiting = lines.find(|line| {
        line.as_ref()
            .is_ok_and(|line| line.contains("stepSeen") && line.contains("Insufficient cpu"))
    });
    assert!(waiting.is_some(), "it never waited for the scheduler");
    // A second one is refused meanwhile.
    assert!(
        home.fails(7, &["up", "cpu-hpa"])
            .contains("another k8slab holds the lab")
    );
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    home.run(0, &["up", "cpu-hpa"]);
    home.run(0, &["down", "cpu-hpa"]);
    assert_eq!(left_below(home.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_killed_up_is_finished_by_the_next_and_taken_away_by_down() {
    let Some(home) = Home::new() else { return };
    // Before the daemon, while it starts, while the pod does, and when all is up.
    for millis in [30, 80, 150, 250, 400, 800, 1500] {
        let mut child = home.spawn(&["up", "cpu-hpa"]);
        std::thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();
        if millis % 200 == 0 {
            home.run(0, &["up", "cpu-hpa"]);
        }
        home.run(0, &["down", "cpu-hpa"]);
        assert_eq!(
            left_below(home.path()),
            Vec::<PathBuf>::new(),
            "killed after {millis} ms"
        );
    }
}
