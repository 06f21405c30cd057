//! The real binary without any cluster: what it prints, and its exit codes.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

use std::path::Path;
use std::process::{Command, Stdio};

use k8slab::engine::event::{Event, VERSION, Verb, What};
use k8slab::engine::folder::{Holder, LabFolder};
use k8slab::engine::journal::{Journal, format};
use k8slab::lab;
use k8slab::paths::{Owner, Paths};
use k8slab::scenario::Catalogue;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_k8slab"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.path())
            .env("K8SLAB_HOME", self.path().join("state"));
        command.stdin(Stdio::null());
        command
    }

    /// Exit code, standard output, standard error.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.command(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap_or(-1),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    fn paths(&self) -> Paths {
        Paths {
            home: self.path().join("state"),
            kubeconfig: self.path().join(".kube/config"),
            owner: Owner::Myself,
            cluster: None,
        }
    }

    /// The folder of the shipped lab on the embedded cluster.
    fn lab(&self) -> (lab::LabRef, LabFolder) {
        let scenario = Catalogue::default().load("cpu-hpa").unwrap();
        let key = format!("{}/default", self.path().join("state").display());
        let lab = lab::identify(&scenario, "cpu-hpa", "embedded", &key);
        let folder = LabFolder::new(&self.paths(), &lab.id);
        (lab, folder)
    }
}

fn holder(verb: &str) -> Holder {
    Holder {
        pid: 4242,
        verb: verb.into(),
        since: jiff::Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn what_is_not_up_is_said_with_the_command_that_helps() {
    let home = Home::new();
    let (code, _, stderr) = home.run(&["status", "cpu-hpa"]);
    assert_eq!(
        (code, stderr.as_str()),
        (3, "error: `cpu-hpa` is not up\n  hint: k8slab up cpu-hpa\n")
    );
    let (code, stdout, _) = home.run(&["down", "cpu-hpa"]);
    assert_eq!(
        (code, stdout.as_str()),
        (0, "cpu-hpa is not up\n"),
        "what is gone is gone"
    );
}

#[test]
fn a_wrong_word_is_exit_2_and_gets_the_nearest_right_one() {
    let home = Home::new();
    for (args, said) in [
        (
            vec!["up", "cpu-hap"],
            "error: unknown scenario `cpu-hap`\n  hint: did you mean `cpu-hpa`?\n",
        ),
        (
            vec!["plan", "cpu-hpa", "--set", "maximum=3"],
            "unknown parameter `maximum`",
        ),
        (
            vec!["plan", "cpu-hpa", "--set", "max=a"],
            "parameter `max`: `a` is not a whole number",
        ),
        (
            vec!["plan", "cpu-hpa", "--cluster", "moon"],
            "unknown cluster `moon`\n  hint: there is: embedded",
        ),
        (
            vec!["plan", "cpu-hpa", "--speed", "11"],
            "expected a whole number from 1 to 10",
        ),
        (vec!["plan", "cpu-hpa", "--timeout", "5"], "expected a duration such as"),
        (
            vec!["plan", "cpu-hpa", "--values", "/nowhere.yaml"],
            "reading `/nowhere.yaml`",
        ),
        (vec!["plan", "./nowhere"], "reading `./nowhere/scenario.yaml`"),
        (vec!["lst"], "unrecognized subcommand 'lst'"),
        (vec![], "Usage: k8slab"),
    ] {
        let (code, _, stderr) = home.run(&args);
        assert_eq!(code, 2, "{args:?}: {stderr}");
        assert!(stderr.contains(said), "{args:?}: {stderr}");
    }
}

#[test]
fn a_plan_on_an_empty_machine_starts_nothing() {
    let home = Home::new();
    let (code, stdout, stderr) = home.run(&["plan", "cpu-hpa"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(
        stdout.starts_with("up cpu-hpa on embedded, namespace cpu-hpa\n└─ cluster: create (missing)\n"),
        "{stdout}"
    );
    assert!(!home.path().join("state/clusters").exists() && !home.path().join(".kube").exists());
    let (code, stdout, _) = home.run(&["plan", "cpu-hpa", "-o", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, plan["steps"][0]["id"].as_str()), (0, Some("cluster")));
}

#[test]
fn a_held_lab_is_exit_7_and_names_its_holder() {
    let home = Home::new();
    let (_, folder) = home.lab();
    let _lock = folder.lock(&holder("up cpu-hpa")).unwrap();
    let (code, _, stderr) = home.run(&["up", "cpu-hpa"]);
    assert_eq!(code, 7, "{stderr}");
    assert!(
        stderr.contains("another k8slab holds the lab") && stderr.contains("process 4242"),
        "{stderr}"
    );
}

#[test]
fn a_journal_of_a_newer_version_is_exit_2_and_untouched() {
    let home = Home::new();
    let (lab, folder) = home.lab();
    drop(folder.lock(&holder("up")).unwrap());
    let (mut journal, _) = Journal::open(&folder.journal(), Owner::Myself).unwrap();
    let started = What::RunStarted {
        verb: Verb::Up,
        lab,
        steps: vec![],
        values: Default::default(),
        by: "9".into(),
    };
    let event = Event {
        version: VERSION,
        at: jiff::Timestamp::UNIX_EPOCH,
        event: started,
    };
    journal.append(&event, true).unwrap();
    drop(journal);
    let mut bytes = std::fs::read(folder.journal()).unwrap();
    bytes[format::HEADER - 1] = format::FORMAT + 1;
    std::fs::write(folder.journal(), &bytes).unwrap();
    for args in [["down", "cpu-hpa"], ["up", "cpu-hpa"], ["status", "cpu-hpa"]] {
        let (code, _, stderr) = home.run(&args);
        assert_eq!(code, 2, "{stderr}");
        assert!(
            stderr.contains("the journal has format 2, this k8slab reads up to 1"),
            "{stderr}"
        );
    }
    assert_eq!(std::fs::read(folder.journal()).unwrap(), bytes);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let home = Home::new();
    let mut child = home
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(
        !String::from_utf8_lossy(&output.stderr).contains("panicked"),
        "{output:?}"
    );
}

#[test]
fn explain_is_a_script_that_bash_accepts() {
    let home = Home::new();
    for args in [&["explain", "cpu-hpa"][..], &["explain", "cpu-hpa", "--down"]] {
        let (code, script, _) = home.run(args);
        assert_eq!(code, 0);
        let file = home.path().join("script.sh");
        std::fs::write(&file, &script).unwrap();
        let checked = Command::new("bash").arg("-n").arg(&file).output().unwrap();
        assert!(checked.status.success(), "{script}\n{checked:?}");
    }
}

#[test]
fn every_verb_has_help_and_the_answer_goes_to_standard_output() {
    let home = Home::new();
    for verb in [
        "list",
        "plan",
        "up",
        "down",
        "status",
        "load",
        "watch",
        "open",
        "logs",
        "explain",
        "validate",
        "cluster",
        "ip",
        "kubectl",
        "image",
        "completions",
    ] {
        let (code, stdout, stderr) = home.run(&[verb, "--help"]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{verb}");
        assert!(stdout.contains("Usage: k8slab"), "{verb}: {stdout}");
    }
}

#[test]
fn an_own_scenario_with_commands_needs_consent() {
    let home = Home::new();
    let (code, _, stderr) = home.run(&["up", "tests/scenarios/good"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stderr.contains("note: run `echo up`") && stderr.contains("--trust"),
        "{stderr}"
    );
    assert!(!home.path().join("state/clusters").exists());
}

#[test]
fn init_writes_a_scenario_that_validates_and_never_overwrites_one() {
    let home = Home::new();
    let folder = home.path().join("shop");
    let folder = folder.to_str().unwrap();
    let (code, stdout, stderr) = home.run(&["init", folder]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains(&format!("k8slab up {folder}")), "{stdout}");
    let (code, stdout, _) = home.run(&["validate", folder]);
    assert_eq!((code, stdout.as_str()), (0, "shop: fine, 3 steps\n"));
    let (code, _, stderr) = home.run(&["init", folder]);
    assert_eq!(code, 2);
    assert!(stderr.contains("would be overwritten"), "{stderr}");
}

#[test]
fn history_shows_a_run_that_was_killed_and_writes_its_trace() {
    let home = Home::new();
    let (lab, folder) = home.lab();
    let _lock = folder.lock(&holder("up cpu-hpa")).unwrap();
    let (mut journal, _) = Journal::open(&folder.journal(), Owner::Myself).unwrap();
    let event = What::RunStarted {
        verb: Verb::Up,
        lab,
        steps: Vec::new(),
        values: Default::default(),
        by: "0.1.0".into(),
    };
    let event = Event {
        version: VERSION,
        at: jiff::Timestamp::UNIX_EPOCH,
        event,
    };
    journal.append(&event, true).unwrap();
    let (code, stdout, _) = home.run(&["history", "cpu-hpa"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("up cpu-hpa   no end"), "{stdout}");
    let (code, stdout, _) = home.run(&["history", "--output", "json"]);
    let line: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, line["verb"].as_str()), (0, Some("up")));
    let file = home.path().join("trace.json");
    let (code, _, _) = home.run(&["history", "cpu-hpa", "--trace", file.to_str().unwrap()]);
    let trace: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!((code, trace["traceEvents"].as_array().unwrap().len()), (0, 3));
    let (code, _, stderr) = home.run(&["history", "cpu-hap"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("did you mean `cpu-hpa`"), "{stderr}");
}
