//! Broken scenario files and their whole reports; and the shipped ones, which have none.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use k8slab::scenario::{Catalogue, LoadError, load};

/// A copy of the good scenario's folder with one edit, which must hit.
fn edited(file: &str, from: &str, to: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir("tests/scenarios/good").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut text = fs::read_to_string(&path).unwrap();
        if name == file {
            assert!(text.contains(from), "`{from}` is not in {file}");
            text = text.replacen(from, to, 1);
        }
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn report(folder: &Path) -> String {
    match load::load_folder(folder) {
        Ok(scenario) => format!("no problem: {}", scenario.name),
        Err(error @ LoadError::Problems(_)) => error
            .to_string()
            .replace(&format!("{}/", folder.display()), "lab/")
            .replace("/private", ""),
        Err(error) => panic!("{error}"),
    }
}

/// (what is wrong, the file, the text that is there, the text instead)
const CASES: &[(&str, &str, &str, &str)] = &[
    (
        "two documents",
        "scenario.yaml",
        "kind: Scenario\n",
        "kind: Scenario\n---\nkind: Scenario\n",
    ),
    (
        "not YAML",
        "scenario.yaml",
        "title: A small web lab",
        "title: \"A small\n  - web",
    ),
    ("a tab", "scenario.yaml", "  title: A", "\ttitle: A"),
    ("another version", "scenario.yaml", "v1alpha1", "v2"),
    ("another kind", "scenario.yaml", "kind: Scenario", "kind: Scenari"),
    ("no name", "scenario.yaml", "{ name: web }", "{}"),
    (
        "a name that is no label",
        "scenario.yaml",
        "{ name: web }",
        "{ name: Web_Lab }",
    ),
    (
        "a name that is too long",
        "scenario.yaml",
        "{ name: web }",
        "{ name: wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww }",
    ),
    ("no title", "scenario.yaml", "  title: A small web lab\n", ""),
    (
        "a title that is a number",
        "scenario.yaml",
        "title: A small web lab",
        "title: 12",
    ),
    ("an unknown field", "scenario.yaml", "  title:", "  tilte:"),
    (
        "an unknown field far from any",
        "scenario.yaml",
        "  steps:",
        "  plugins: []\n  steps:",
    ),
    ("a doubled key", "scenario.yaml", "  title:", "  title: Once\n  title:"),
    ("no steps", "scenario.yaml", "  steps:\n", "  actions: []\n  x:\n"),
    (
        "steps that are no list",
        "scenario.yaml",
        "  steps:\n    - { id: metrics,",
        "  steps: { a: 1 }\n  x:\n    - { id: metrics,",
    ),
    (
        "an unknown step",
        "scenario.yaml",
        "needs: [image, config]",
        "needs: [iamge, config]",
    ),
    (
        "a ring",
        "scenario.yaml",
        "apply: config.yaml }",
        "apply: config.yaml, needs: [answers] }",
    ),
    (
        "a step that needs itself",
        "scenario.yaml",
        "apply: config.yaml }",
        "apply: config.yaml, needs: [config] }",
    ),
    ("a doubled step", "scenario.yaml", "id: ready", "id: web"),
    ("a reserved step", "scenario.yaml", "id: ready", "id: cluster"),
    (
        "a step without id",
        "scenario.yaml",
        "{ id: metrics, feature",
        "{ feature",
    ),
    (
        "a step that does nothing",
        "scenario.yaml",
        "{ id: metrics, feature: resource-metrics }",
        "{ id: metrics }",
    ),
    (
        "a step that does two things",
        "scenario.yaml",
        "feature: resource-metrics }\n    - { id: image",
        "feature: resource-metrics, apply: config.yaml }\n    - { id: image",
    ),
    (
        "an unknown kind of step",
        "scenario.yaml",
        "{ id: config, apply:",
        "{ id: config, aply:",
    ),
    (
        "an unknown feature",
        "scenario.yaml",
        "feature: resource-metrics }",
        "feature: resource-metric }",
    ),
    (
        "a feature required that nobody has",
        "scenario.yaml",
        "features: [resource-metrics]",
        "features: [gpu]",
    ),
    ("a timeout without unit", "scenario.yaml", "timeout: 90s", "timeout: 90"),
    ("a timeout in days", "scenario.yaml", "timeout: 90s", "timeout: 1d"),
    (
        "a manifest that is not there",
        "scenario.yaml",
        "apply: web.yaml",
        "apply: wbe.yaml",
    ),
    (
        "a manifest outside",
        "scenario.yaml",
        "apply: web.yaml",
        "apply: ../web.yaml",
    ),
    (
        "an absolute manifest",
        "scenario.yaml",
        "apply: web.yaml",
        "apply: /etc/passwd",
    ),
    (
        "a Dockerfile that is not there",
        "scenario.yaml",
        "dockerfile: web.Dockerfile",
        "dockerfile: web.dockerfile",
    ),
    (
        "an image without Dockerfile",
        "scenario.yaml",
        ", dockerfile: web.Dockerfile",
        "",
    ),
    ("a manifest that is not YAML", "web.yaml", "replicas: 1", "replicas: [1"),
    (
        "a manifest with a doubled key",
        "web.yaml",
        "  replicas: 1\n",
        "  replicas: 1\n  replicas: 2\n",
    ),
    ("a manifest without kind", "config.yaml", "kind: ConfigMap\n", ""),
    ("a manifest without name", "config.yaml", "{ name: web }", "{}"),
    (
        "a manifest without documents",
        "config.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: web }\ndata: { greeting: hello }\n",
        "# nothing\n",
    ),
    (
        "a list in a manifest",
        "config.yaml",
        "kind: ConfigMap\n",
        "kind: List\nitems: []\n",
    ),
    (
        "an image used before it is there",
        "scenario.yaml",
        "needs: [image, config]",
        "needs: [config]",
    ),
    ("an image nobody builds", "web.yaml", "image: web:lab", "image: wep:lab"),
    (
        "an object of two steps",
        "config.yaml",
        "data:",
        "data2: {}\n---\napiVersion: v1\nkind: Service\nmetadata: { name: web }\ndata:",
    ),
    (
        "a wait for two objects",
        "scenario.yaml",
        "{ deployment: web, condition",
        "{ deployment: web, pod: web, condition",
    ),
    (
        "a wait for nothing",
        "scenario.yaml",
        "{ deployment: web, condition",
        "{ condition",
    ),
    (
        "an unknown endpoint",
        "scenario.yaml",
        "endpoint: site",
        "endpoint: sites",
    ),
    (
        "a path that is none",
        "scenario.yaml",
        "path: /healthz",
        "path: healthz",
    ),
    ("a status that is none", "scenario.yaml", "status: 200", "status: 2000"),
    ("a command without words", "scenario.yaml", "run: [echo, up]", "run: []"),
    (
        "a command that is a text",
        "scenario.yaml",
        "run: [echo, up]",
        "run: echo up",
    ),
    ("a target of unknown kind", "scenario.yaml", "service/web", "svc/web"),
    ("a port that is none", "scenario.yaml", "port: 80 ", "port: 80000 "),
    ("an action on every pod", "scenario.yaml", "\"app=web\"", "\"\""),
    (
        "an action with a bad selector",
        "scenario.yaml",
        "\"app=web\"",
        "\"app in web\"",
    ),
    ("a check of an unknown action", "scenario.yaml", "do: poke", "do: pokes"),
    (
        "a check without expectation",
        "scenario.yaml",
        "expect: { deployment: web, replicas: 2 }, ",
        "",
    ),
    (
        "negative replicas",
        "scenario.yaml",
        "replicas: 2 }, within",
        "replicas: -2 }, within",
    ),
    (
        "a quantity that is none",
        "scenario.yaml",
        "memory: 64Mi",
        "memory: 64MiB",
    ),
    ("no nodes", "scenario.yaml", "nodes: 1", "nodes: 0"),
    ("an unknown type", "scenario.yaml", "type: integer", "type: int"),
    ("a default out of bounds", "scenario.yaml", "default: 2", "default: 20"),
    (
        "a default of another type",
        "scenario.yaml",
        "default: 2",
        "default: two",
    ),
    (
        "a default that is no choice",
        "scenario.yaml",
        "default: ciao",
        "default: salve",
    ),
    ("bounds of a text", "scenario.yaml", "oneOf: [ciao, hello]", "min: 1"),
    (
        "choices of a number",
        "scenario.yaml",
        "min: 1, max: 9",
        "oneOf: [1, 2]",
    ),
    (
        "a bound that is no number",
        "scenario.yaml",
        "min: 1, max: 9",
        "min: one, max: 9",
    ),
    (
        "a parameter that sets nothing",
        "scenario.yaml",
        ", sets: [\"config.yaml#/data/greeting\"]",
        "",
    ),
    (
        "a pointer that is none",
        "scenario.yaml",
        "config.yaml#/data/greeting",
        "config.yaml#data.greeting",
    ),
    (
        "a pointer to nowhere",
        "scenario.yaml",
        "config.yaml#/data/greeting",
        "config.yaml#/data/greetings",
    ),
    (
        "a pointer into another file",
        "scenario.yaml",
        "config.yaml#/data/greeting",
        "conf.yaml#/data/greeting",
    ),
    (
        "a pointer without its document",
        "scenario.yaml",
        "web.yaml#Deployment/web#/spec/replicas",
        "web.yaml#/spec/replicas",
    ),
    (
        "a pointer to a document that is not there",
        "scenario.yaml",
        "web.yaml#Deployment/web#/spec/replicas",
        "web.yaml#Deployment/wep#/spec/replicas",
    ),
    (
        "a pointer at another type",
        "scenario.yaml",
        "web.yaml#Deployment/web#/spec/replicas",
        "web.yaml#Deployment/web#/spec/selector",
    ),
    (
        "four problems at once",
        "scenario.yaml",
        "timeout: 90s }\n    - { id: ready, wait: { deployment: web",
        "timout: 90s }\n    - { id: ready, wait: { deplyment: web",
    ),
];

#[test]
fn every_broken_scenario_is_told_what_is_wrong_where_and_what_was_meant() {
    let mut all = String::new();
    for (name, file, from, to) in CASES {
        let folder = edited(file, from, to);
        writeln!(all, "## {name}\n{}\n", report(folder.path())).unwrap();
    }
    insta::assert_snapshot!("broken_scenarios", all);
}

#[test]
fn the_good_scenario_and_every_shipped_one_have_no_problem() {
    load::load_folder(Path::new("tests/scenarios/good")).unwrap();
    let entries = Catalogue::default().list().unwrap();
    assert!(!entries.is_empty());
    for entry in entries {
        let scenario = entry.scenario.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(scenario.name, entry.name);
    }
}

#[cfg(unix)]
#[test]
fn a_link_that_leaves_the_folder_is_refused() {
    let folder = edited("web.yaml", "replicas: 1", "replicas: 1");
    fs::remove_file(folder.path().join("config.yaml")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", folder.path().join("config.yaml")).unwrap();
    assert!(report(folder.path()).contains("`config.yaml` leaves the scenario's folder"));
}
