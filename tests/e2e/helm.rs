//! helm 4 against the built binary: releases with hooks and tests, waits, an upgrade that is stuck, the way back.

use std::path::{Path, PathBuf};

use crate::harness::{Lab, Ran};
use crate::kubectl::cluster_with_a_box;

/// A small chart: a Deployment behind a Service, a hook before each change, a test.
const CHART: &[(&str, &str)] = &[
    ("Chart.yaml", "apiVersion: v2\nname: web\nversion: 0.1.0\n"),
    ("values.yaml", "replicas: 1\nimage: box:lab\n"),
    (
        "templates/web.yaml",
        r#"apiVersion: apps/v1
kind: Deployment
metadata: { name: "{{ .Release.Name }}" }
spec:
  replicas: {{ .Values.replicas }}
  selector: { matchLabels: { app: "{{ .Release.Name }}" } }
  template:
    metadata: { labels: { app: "{{ .Release.Name }}" } }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: "{{ .Values.image }}"
          ports: [{ containerPort: 8000 }]
          readinessProbe: { httpGet: { path: /index.html, port: 8000 }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: "{{ .Release.Name }}" }
spec:
  selector: { app: "{{ .Release.Name }}" }
  ports: [{ port: 80, targetPort: 8000 }]
"#,
    ),
    (
        "templates/hook.yaml",
        r#"apiVersion: v1
kind: Pod
metadata:
  name: "{{ .Release.Name }}-before"
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  restartPolicy: Never
  containers: [{ name: c, image: box:lab, command: ["true"] }]
"#,
    ),
    (
        "templates/tests/answers.yaml",
        r#"apiVersion: v1
kind: Pod
metadata:
  name: "{{ .Release.Name }}-test"
  annotations: { helm.sh/hook: test, helm.sh/hook-delete-policy: before-hook-creation }
spec:
  restartPolicy: Never
  containers: [{ name: c, image: box:lab, command: [wget, -q, -O, "-", "http://{{ .Release.Name }}/index.html"] }]
"#,
    ),
];

fn write_chart(folder: &Path) -> PathBuf {
    let chart = folder.join("chart");
    for (name, content) in CHART {
        let path = chart.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    chart
}

#[test]
fn helm_installs_upgrades_tests_rolls_back_and_uninstalls() {
    let Some(lab) = Lab::new() else { return };
    cluster_with_a_box(&lab);
    let chart = write_chart(lab.home());
    let chart = chart.to_str().unwrap();
    let helm = |args: &[&str]| {
        let mut command = lab.tool("helm");
        command.args(["--kube-context", "k8slab-box", "-n", "shop"]).args(args);
        Ran::from(command.output().unwrap(), args)
    };
    let says = |args: &[&str], words: &str| {
        let said = helm(args).code(0);
        assert!(
            said.contains(words),
            "`helm {}`: no `{words}` in:\n{said}",
            args.join(" ")
        );
    };
    let kubectl = |args: &[&str]| {
        let mut command = lab.tool("kubectl");
        command.args(["--context", "k8slab-box", "-n", "shop"]).args(args);
        Ran::from(command.output().unwrap(), args).code(0)
    };
    let wait = ["--wait", "--timeout", "60s"];
    let waiting = |args: &[&'static str]| [args, &wait].concat();

    says(
        &[&["install", "one", chart, "--create-namespace"][..], &wait].concat(),
        "STATUS: deployed",
    );
    // The hook's pod is gone again.
    assert_eq!(kubectl(&["get", "pods", "-o", "name"]).lines().count(), 1);
    says(&["test", "one"], "Phase:          Succeeded");
    says(
        &[&["upgrade", "one", chart, "--set", "replicas=2"][..], &wait].concat(),
        "REVISION: 2",
    );
    assert_eq!(
        kubectl(&["get", "deploy", "one", "-o", "jsonpath={.status.readyReplicas}"]),
        "2"
    );
    says(&waiting(&["rollback", "one", "1"]), "Rollback was a success");
    assert_eq!(
        kubectl(&["get", "deploy", "one", "-o", "jsonpath={.spec.replicas}"]),
        "1"
    );

    // An upgrade that never gets ready is said, and the next one goes through.
    let stuck = helm(&[
        "upgrade",
        "one",
        chart,
        "--set",
        "image=box:none",
        "--wait",
        "--timeout",
        "3s",
    ]);
    assert!(
        stuck.stderr.contains("Deployment/shop/one not ready"),
        "{}",
        stuck.stderr
    );
    stuck.code(1);
    says(&["history", "one"], "failed");
    says(
        &[&["upgrade", "one", chart, "--server-side=false"][..], &wait].concat(),
        "REVISION: 5",
    );
    says(&["get", "manifest", "one"], "kind: Deployment");
    says(&["list"], "deployed");

    // One that cannot start takes itself away.
    let gone = helm(&[
        "install",
        "two",
        chart,
        "--set",
        "image=box:none",
        "--rollback-on-failure",
        "--timeout",
        "3s",
    ]);
    assert!(gone.stderr.contains("has been uninstalled"), "{}", gone.stderr);
    gone.code(1);

    says(&waiting(&["uninstall", "one"]), "uninstalled");
    assert_eq!(kubectl(&["get", "deploy,svc", "-o", "name"]), "");
    says(&["list", "-q"], "");
}
