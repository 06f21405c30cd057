//! Every kubectl command against the built binary: what it prints, and what it leaves.
//!
//! One cluster, a namespace a group, the groups side by side. The containers are busybox: a shell, cat, tar, httpd.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::harness::{Lab, Ran, eventually, tool};

/// A cluster whose node has the image `box:lab`; its context is `k8slab-box`.
pub(crate) fn cluster_with_a_box(lab: &Lab) {
    let folder = lab.home().join("box");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(tool("busybox"), folder.join("busybox")).unwrap();
    let names = [
        "busybox", "sh", "cat", "tar", "sleep", "stty", "httpd", "wget", "true", "false",
    ];
    let mut dockerfile = "FROM scratch\nENV PATH=/bin\nENTRYPOINT [\"/bin/sh\", \"-c\"]\n".to_owned();
    for name in names {
        dockerfile.push_str(&format!("COPY --chmod=0755 busybox /bin/{name}\n"));
    }
    dockerfile.push_str(
        "CMD [\"echo serving >/index.html; echo listening; trap exit TERM; httpd -f -p 8000 -h / & wait\"]\n",
    );
    std::fs::write(folder.join("box.Dockerfile"), dockerfile).unwrap();
    let scenario = "apiVersion: k8slab.dev/v1alpha1\nkind: Scenario\nmetadata: { name: box }\nspec:\n  title: A shell\n  \
                    steps:\n    - { id: metrics, feature: resource-metrics }\n    \
                    - { id: image, image: { name: box, dockerfile: box.Dockerfile } }\n";
    std::fs::write(folder.join("scenario.yaml"), scenario).unwrap();
    lab.ok(&["up", folder.to_str().unwrap(), "--trust"]);
}

/// kubectl in a namespace of its own, and what it said so far.
struct Kubectl<'l> {
    lab: &'l Lab,
    namespace: &'static str,
    said: String,
}

impl<'l> Kubectl<'l> {
    fn new(lab: &'l Lab, namespace: &'static str) -> Self {
        let kubectl = Self {
            lab,
            namespace,
            said: String::new(),
        };
        kubectl.ok(&["create", "namespace", namespace]);
        kubectl
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.lab.tool("kubectl");
        command
            .args(["--context", "k8slab-box", "-n", self.namespace])
            .args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap(), args)
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        self.run(args).code(0)
    }

    /// With `input` on its standard input.
    fn fed(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeding = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        // It may have ended before it read everything.
        let _ = feeding.join().unwrap();
        Ran::from(output, args)
    }

    /// Runs it and keeps what it printed for the snapshot.
    #[track_caller]
    fn tell(&mut self, args: &[&str]) {
        self.keep(args, &[], 0);
    }

    #[track_caller]
    fn keep(&mut self, args: &[&str], input: &[u8], code: i32) {
        let ran = self.fed(args, input);
        let all = format!("{}{}", ran.stdout, ran.stderr);
        ran.code(code);
        self.said
            .push_str(&format!("$ kubectl {}\n{}", args.join(" "), normal(&all)));
    }
}

/// Without what differs from run to run: ages, addresses, hashes, ids, widths of columns.
fn normal(text: &str) -> String {
    let mut all = String::new();
    for line in text.lines() {
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let words: Vec<String> = line.split_whitespace().map(normal_word).collect();
        all.push_str(&indent);
        all.push_str(&words.join(" "));
        all.push('\n');
    }
    all
}

fn normal_word(word: &str) -> String {
    let is_age = {
        let numbers = word.trim_end_matches(|c: char| "smhd".contains(c));
        word.starts_with(|c: char| c.is_ascii_digit())
            && numbers.len() < word.len()
            && word.chars().all(|c| c.is_ascii_digit() || "smhd".contains(c))
    };
    if is_age {
        return "AGE".to_owned();
    }
    if word.starts_with("10.96.") || word.starts_with("10.244.") {
        return "ADDRESS".to_owned();
    }
    word.to_owned()
}

const SETTINGS: &[u8] =
    b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n  labels: {a: b}\ndata:\n  x: \"1\"\n";

/// create, apply both ways, diff, edit, patch, replace, label, annotate, the forms of `-o`, delete.
fn objects(lab: &Lab) {
    let mut k = Kubectl::new(lab, "objects");
    let changed = String::from_utf8(SETTINGS.to_vec()).unwrap().replace("\"1\"", "\"2\"");
    k.keep(&["apply", "-f", "-"], SETTINGS, 0);
    k.keep(&["apply", "-f", "-"], SETTINGS, 0);
    let differs = k.fed(&["diff", "-f", "-"], changed.as_bytes()).code(1);
    assert!(differs.contains("-  x: \"1\"\n+  x: \"2\"\n"), "{differs}");
    k.keep(&["apply", "-f", "-", "--dry-run=server"], changed.as_bytes(), 0);
    assert_eq!(k.ok(&["get", "cm", "settings", "-o", "jsonpath={.data.x}"]), "1");
    k.keep(
        &["apply", "-f", "-", "--server-side", "--field-manager=other"],
        changed.as_bytes(),
        1,
    );
    k.keep(
        &[
            "apply",
            "-f",
            "-",
            "--server-side",
            "--field-manager=other",
            "--force-conflicts",
        ],
        changed.as_bytes(),
        0,
    );
    let unknown = changed.replace("\ndata:", "\ndada:");
    k.keep(&["apply", "-f", "-"], unknown.as_bytes(), 1);
    k.keep(&["create", "-f", "-"], SETTINGS, 1);
    let edited = k
        .command(&["edit", "configmap", "settings"])
        .env("EDITOR", "sed -i s/x:/edited:/")
        .output();
    assert_eq!(
        Ran::from(edited.unwrap(), &["edit"]).code(0),
        "configmap/settings edited\n"
    );
    k.tell(&["patch", "cm", "settings", "--type=merge", "-p", r#"{"data":{"z":"3"}}"#]);
    k.tell(&[
        "patch",
        "cm",
        "settings",
        "--type=json",
        "-p",
        r#"[{"op":"remove","path":"/data/z"}]"#,
    ]);
    k.tell(&[
        "patch",
        "cm",
        "settings",
        "-p",
        r#"{"data":{"z":"4"}}"#,
        "--dry-run=server",
        "-o",
        "jsonpath={.data}",
    ]);
    k.tell(&["label", "cm", "settings", "tier=one"]);
    k.keep(&["label", "cm", "settings", "tier=two"], &[], 1);
    k.tell(&["label", "cm", "settings", "tier=two", "--overwrite"]);
    k.tell(&["annotate", "cm", "settings", "note=hello"]);
    k.tell(&["annotate", "cm", "settings", "note-"]);
    k.tell(&["get", "cm", "settings", "-o", "name"]);
    k.tell(&["get", "cm", "settings", "-o", "jsonpath={.data}{\"\\n\"}"]);
    k.tell(&[
        "get",
        "cm",
        "settings",
        "-o",
        "custom-columns=NAME:.metadata.name,TIER:.metadata.labels.tier",
    ]);
    k.tell(&["get", "cm", "-l", "tier=two", "--show-labels"]);
    k.tell(&["get", "cm", "--field-selector", "metadata.name=settings", "-o", "wide"]);
    k.tell(&["describe", "cm", "settings"]);
    let yaml = k.ok(&["get", "cm", "settings", "-o", "yaml"]);
    assert!(yaml.starts_with("apiVersion: v1\ndata:\n"), "{yaml}");
    k.keep(&["replace", "-f", "-"], SETTINGS, 0);
    k.keep(&["replace", "--force", "-f", "-"], SETTINGS, 0);
    k.tell(&["create", "configmap", "made", "--from-literal=a=b"]);
    k.tell(&[
        "create",
        "secret",
        "generic",
        "secret",
        "--from-literal=password=hidden",
    ]);
    k.tell(&["describe", "secret", "secret"]);
    k.tell(&["create", "role", "reader", "--verb=get", "--resource=pods"]);
    k.tell(&[
        "create",
        "rolebinding",
        "readers",
        "--role=reader",
        "--serviceaccount=objects:default",
    ]);
    k.tell(&[
        "auth",
        "can-i",
        "get",
        "pods",
        "--as=system:serviceaccount:objects:default",
    ]);
    k.keep(
        &[
            "auth",
            "can-i",
            "delete",
            "pods",
            "--as=system:serviceaccount:objects:default",
        ],
        &[],
        1,
    );
    k.keep(
        &["get", "secrets", "--as=system:serviceaccount:objects:default"],
        &[],
        1,
    );
    k.tell(&["create", "ingress", "way", "--rule=lab.local/bar=web:80"]);
    k.tell(&["get", "ingress"]);
    k.tell(&["create", "serviceaccount", "robot"]);
    assert_eq!(
        k.ok(&["create", "token", "robot", "--duration=10m"]).split('.').count(),
        3
    );
    k.keep(&["get", "cm", "nope"], &[], 1);
    k.keep(&["get", "nopes"], &[], 1);
    k.tell(&["delete", "cm", "settings", "made"]);
    k.tell(&["explain", "deployment.spec.strategy.rollingUpdate.maxSurge"]);
    k.tell(&["explain", "cronjob.spec.suspend", "--output=plaintext-openapiv2"]);
    k.tell(&["auth", "whoami"]);
    insta::assert_snapshot!("kubectl_objects", k.said);
}

/// What Deployments are for: rollout, scale, autoscale, set, expose.
fn rollouts(lab: &Lab) {
    let k = Kubectl::new(lab, "rollouts");
    let says = |args: &[&str], words: &str| {
        let said = k.ok(args);
        assert!(
            said.contains(words),
            "`kubectl {}`: no `{words}` in:\n{said}",
            args.join(" ")
        );
    };
    let rolled = || {
        says(
            &["rollout", "status", "deployment/web", "--timeout=60s"],
            "successfully rolled out",
        )
    };
    says(
        &["create", "deployment", "web", "--image=box:lab", "--port=8000"],
        "deployment.apps/web created",
    );
    rolled();
    says(&["get", "deploy,rs,pods", "-o", "wide"], "box:lab");
    says(&["describe", "deployment", "web"], "Scaled up replica set web-");
    says(
        &["describe", "pod", "-l", "app=web"],
        "Successfully assigned rollouts/web-",
    );
    says(&["scale", "deployment", "web", "--replicas=2"], "scaled");
    says(&["set", "env", "deployment/web", "A=B"], "env updated");
    rolled();
    says(&["rollout", "history", "deployment/web"], "2         <none>");
    says(&["rollout", "undo", "deployment/web"], "rolled back");
    says(&["rollout", "history", "deployment/web"], "3         <none>");
    says(&["rollout", "pause", "deployment/web"], "paused");
    says(&["set", "image", "deployment/web", "box=box:none"], "image updated");
    says(&["set", "image", "deployment/web", "box=box:lab"], "image updated");
    says(&["rollout", "resume", "deployment/web"], "resumed");
    says(&["rollout", "restart", "deployment/web"], "restarted");
    rolled();
    says(
        &["set", "resources", "deployment/web", "--requests=cpu=50m"],
        "resource requirements updated",
    );
    rolled();
    says(
        &["autoscale", "deployment", "web", "--cpu=50%", "--min=1", "--max=3"],
        "autoscaled",
    );
    says(&["get", "hpa"], "Deployment/web");
    says(&["describe", "hpa", "web"], "Max replicas:");
    says(
        &["expose", "deployment", "web", "--port=80", "--target-port=8000"],
        "service/web exposed",
    );
    says(&["describe", "svc", "web"], "TargetPort:               8000/TCP");
    says(&["get", "all"], "horizontalpodautoscaler.autoscaling/web");
    says(
        &["delete", "all", "--all", "--timeout=60s"],
        "deployment.apps \"web\" deleted",
    );
}

/// Streams: exec, cp, attach, logs, port-forward; events, top, wait, run, debug.
fn streams(lab: &Lab) {
    let k = Kubectl::new(lab, "streams");
    k.ok(&["run", "probe", "--image=box:lab", "--port=8000"]);
    k.ok(&["wait", "--for=condition=Ready", "pod/probe", "--timeout=60s"]);
    let ran = k.fed(
        &[
            "exec",
            "-i",
            "probe",
            "--",
            "sh",
            "-c",
            "cat; echo complaint >&2; exit 3",
        ],
        b"hello\n",
    );
    assert!(
        ran.stderr.contains("complaint\n") && ran.stderr.contains("exit code 3"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.code(3), "hello\n");
    assert_eq!(k.ok(&["logs", "probe"]), "listening\n");
    assert!(
        k.ok(&["logs", "probe", "--timestamps", "--tail=1"])
            .ends_with("Z listening\n")
    );
    assert_eq!(
        k.ok(&["logs", "-l", "run=probe", "--prefix"]),
        "[pod/probe/probe] listening\n"
    );

    // Bytes that are no text, more than any buffer on the way.
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (there, back) = (lab.home().join("there"), lab.home().join("back"));
    std::fs::write(&there, &bytes).unwrap();
    k.ok(&["cp", there.to_str().unwrap(), "probe:/tmp/there"]);
    k.ok(&["cp", "probe:/tmp/there", back.to_str().unwrap()]);
    assert!(
        std::fs::read(&back).unwrap() == bytes,
        "what came back is not what went there"
    );

    let attached = k.fed(
        &[
            "run",
            "talker",
            "-i",
            "--rm",
            "--restart=Never",
            "--image=box:lab",
            "--command",
            "--",
            "cat",
        ],
        b"said to a container\n",
    );
    let said = attached.code(0);
    assert!(said.contains("said to a container"), "{said}");

    for websockets in ["true", "false"] {
        let mut forward = Forward::start(&k, websockets);
        for _ in 0..3 {
            let answer = forward.get("/index.html");
            assert!(answer.ends_with("serving\n"), "websockets {websockets}: {answer}");
        }
    }
    let events = k.ok(&["events", "--for", "pod/probe"]);
    for words in ["Scheduled", "Pulled", "Created", "Started"] {
        assert!(events.contains(words), "{events}");
    }
    eventually("top", Duration::from_secs(60), || {
        let ran = k.run(&["top", "pod", "probe", "--no-headers"]);
        if ran.status == Some(0) { Ok(()) } else { Err(ran.stderr) }
    });
    k.ok(&["top", "node"]);
    k.ok(&[
        "debug",
        "probe",
        "--image=box:lab",
        "-c",
        "debugger",
        "--target=probe",
        "--",
        "true",
    ]);
    k.ok(&[
        "wait",
        "--for=jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}=0",
        "pod/probe",
        "--timeout=60s",
    ]);
    let mut watching = k
        .command(&["get", "pods", "probe", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    k.ok(&["delete", "pod", "probe", "--now"]);
    watching.kill().unwrap();
    let seen = watching.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&seen.stdout).starts_with("pod/probe\n"));
}

/// A `kubectl port-forward` that runs.
struct Forward {
    child: Child,
    port: u16,
}

impl Forward {
    fn start(k: &Kubectl<'_>, websockets: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = k.command(&["port-forward", "pod/probe", &format!("{port}:8000")]);
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = Vec::new();
        let stdout = child.stdout.as_mut().unwrap();
        let mut byte = [0];
        while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        assert!(
            line.starts_with(b"Forwarding from"),
            "{}",
            String::from_utf8_lossy(&line)
        );
        Self { child, port }
    }

    fn get(&mut self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What concerns all namespaces, so after the other groups: the node and what there is.
fn cluster(lab: &Lab) {
    let mut k = Kubectl::new(lab, "cluster");
    k.tell(&["api-versions"]);
    k.tell(&["api-resources", "--api-group=apps"]);
    k.tell(&["get", "nodes"]);
    k.tell(&["cordon", "k8slab"]);
    k.ok(&["run", "pending", "--image=box:lab"]);
    k.ok(&[
        "wait",
        "--for=condition=PodScheduled=False",
        "pod/pending",
        "--timeout=60s",
    ]);
    k.tell(&["uncordon", "k8slab"]);
    k.ok(&["wait", "--for=condition=Ready", "pod/pending", "--timeout=60s"]);
    k.tell(&["taint", "nodes", "k8slab", "a=b:NoSchedule"]);
    k.tell(&["taint", "nodes", "k8slab", "a-"]);
    let drained = k.ok(&[
        "drain",
        "k8slab",
        "--force",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=60s",
    ]);
    assert!(
        drained.contains("pod/pending evicted") && drained.contains("node/k8slab drained"),
        "{drained}"
    );
    k.tell(&["uncordon", "k8slab"]);
    let described = k.ok(&["describe", "node", "k8slab"]);
    assert!(described.contains("KubeletReady"), "{described}");
    k.tell(&["get", "--raw", "/readyz"]);
    k.tell(&["delete", "namespace", "cluster", "objects", "--timeout=60s"]);
    insta::assert_snapshot!("kubectl_cluster", k.said);
}

#[test]
fn every_kubectl_command_works_unmodified() {
    let Some(lab) = Lab::new() else { return };
    cluster_with_a_box(&lab);
    std::thread::scope(|scope| {
        for group in [objects, rollouts, streams] {
            let lab = &lab;
            scope.spawn(move || group(lab));
        }
    });
    cluster(&lab);
}
