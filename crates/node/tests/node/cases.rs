//! What is tried.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::lab::{Lab, container, is_ready};
use super::registry::Registry;

/// A case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn() -> BoxFuture<'static, ()>,
    /// It measures rather than tests.
    pub(crate) only_on_request: bool,
}

macro_rules! cases {
    ($($name:ident),*; $($figures:ident),*) => {
        pub(crate) const ALL: &[Case] = &[
            $(Case { name: stringify!($name), run: || $name().boxed(), only_on_request: false },)*
            $(Case { name: stringify!($figures), run: || $figures().boxed(), only_on_request: true },)*
        ];
    };
}

cases! {
    a_pod_is_scheduled_serves_is_measured_and_goes,
    configuration_reaches_the_container,
    a_crash_is_restarted_and_its_log_kept,
    containers_outlive_the_daemon,
    a_service_is_reached_by_its_address_and_its_name,
    an_image_comes_from_a_registry,
    pods_reach_what_is_outside_and_not_the_hosts_loopback;
    figures_of_pod_starts
}

async fn a_pod_is_scheduled_serves_is_measured_and_goes() {
    let lab = Lab::open("pod").await;
    let probe = json!({"readinessProbe": {"exec": {"command": ["/w", "w", "cat", "/proc/self/status"]}}});
    lab.run("web", &["serve", "8000"], probe).await;
    let pod = lab.ready("web").await;
    let ip = pod.status.unwrap().pod_ip.unwrap();
    let mut stream = lab.node.dial(format!("{ip}:8000").parse().unwrap()).await.unwrap();
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).await.unwrap();
    assert_eq!(greeting, "hello 10.244.0.1\n");
    assert!(lab.log("web").await.contains("listening\n"));
    let (output, status) = lab.exec("web", &["/w", "w", "namespaces"]).await;
    assert!(output.starts_with("net:["), "{output}");
    assert_eq!(status, r#"{"metadata":{},"status":"Success"}"#);
    let (_, status) = lab.exec("web", &["/none"]).await;
    assert!(status.contains("\"reason\":\"InternalError\""), "{status}");
    let mut metrics = String::new();
    for _ in 0..100 {
        metrics = lab
            .get(true, "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/web")
            .await;
        if metrics.starts_with("HTTP/1.1 200") {
            break;
        }
        // The first two samples are a second apart.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        metrics.contains("\"containers\":[{\"name\":\"c\",\"usage\":{\"cpu\":"),
        "{metrics}"
    );
    lab.delete("web").await;
    assert!(
        !lab.dir.join("pods").read_dir().unwrap().any(|entry| entry.is_ok()),
        "a pod folder is left"
    );
    lab.close().await;
}

async fn configuration_reaches_the_container() {
    let lab = Lab::open("configuration").await;
    lab.make(
        "ConfigMap",
        json!({"metadata": {"name": "cm"}, "data": {"file": "from the map", "COLOUR": "red"}}),
    )
    .await;
    let spec = json!({
        "volumes": [{"name": "v", "configMap": {"name": "cm"}}, {"name": "m", "emptyDir": {"medium": "Memory"}}],
        "containers": [
            {"name": "c", "image": "w:1", "args": ["look"], "envFrom": [{"configMapRef": {"name": "cm"}}],
             "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
             "env": [{"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                     {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]},
            {"name": "cat", "image": "w:1", "args": ["cat", "/v/file"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
            {"name": "token", "image": "w:1", "args": ["cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"]},
            {"name": "write", "image": "w:1", "args": ["write", "/m/x", "y"], "volumeMounts": [{"name": "m", "mountPath": "/m"}]},
        ],
        "restartPolicy": "Never",
    });
    lab.create("looker", spec).await;
    let ended = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded")
    };
    let pod = lab.until("looker", ended).await;
    let log = lab.log("looker").await;
    let ip = pod.status.unwrap().pod_ip.unwrap();
    for expected in ["COLOUR=red", "LIMIT=500", &format!("IP={ip}"), "hostname=looker"] {
        assert!(log.contains(expected), "{expected} in {log}");
    }
    assert!(
        lab.get(false, "/containerLogs/default/looker/cat")
            .await
            .contains("from the map")
    );
    // A signed token: three parts, and the header says which key.
    let token = lab.get(false, "/containerLogs/default/looker/token").await;
    assert!(token.contains("eyJ") && token.matches('.').count() >= 2, "{token}");
    lab.close().await;
}

async fn a_crash_is_restarted_and_its_log_kept() {
    let lab = Lab::open("crash").await;
    lab.run("crash", &["lines", "1"], json!({})).await;
    let again = |pod: &k8s_openapi::api::core::v1::Pod| container(pod).restart_count == 1;
    let pod = lab.until("crash", again).await;
    let last = container(&pod).last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (0, Some("Completed")));
    let previous = lab.get(false, "/containerLogs/default/crash/c?previous=true").await;
    assert!(previous.contains("out 0\n"), "{previous}");
    let waiting = |pod: &k8s_openapi::api::core::v1::Pod| {
        let state = container(pod).state.and_then(|state| state.waiting);
        state.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
    };
    lab.until("crash", waiting).await;
    lab.close().await;
}

async fn containers_outlive_the_daemon() {
    let mut lab = Lab::open("adopt").await;
    lab.run("web", &["serve", "8000"], json!({})).await;
    let before = container(&lab.ready("web").await);
    lab.node.drain().await;
    let gone = std::mem::replace(&mut lab.node, Lab::node(&lab.dir, &lab.server).await);
    drop(gone);
    let (output, _) = lab.exec_when_known("web", &["/w", "w", "namespaces"]).await;
    assert!(output.starts_with("net:["), "{output}");
    let after = container(&lab.ready("web").await);
    assert_eq!(
        (before.container_id, before.state, 0),
        (after.container_id, after.state, after.restart_count)
    );
    lab.delete("web").await;
    lab.close().await;
}

async fn a_service_is_reached_by_its_address_and_its_name() {
    let lab = Lab::open("service").await;
    lab.run("web", &["serve", "8000"], json!({})).await;
    let pod = lab.ready("web").await;
    let ip = pod.status.unwrap().pod_ip.unwrap();
    lab.make("Service", json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80, "targetPort": 8000}]}}))
        .await;
    let slice = json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "ports": [{"name": "", "port": 8000, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}]});
    let slices = kube::Api::<k8s_openapi::api::discovery::v1::EndpointSlice>::namespaced(lab.client.clone(), "default");
    slices
        .create(
            &kube::api::PostParams::default(),
            &serde_json::from_value(slice).unwrap(),
        )
        .await
        .unwrap();
    // The listener opens when the proxy has seen both.
    let begin = Instant::now();
    let mut stream = loop {
        match lab.node.dial("10.96.0.77:80".parse().unwrap()).await {
            Ok(stream) => break stream,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(10), "{error}"),
        }
        tokio::task::yield_now().await;
    };
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).await.unwrap();
    assert_eq!(greeting, "hello 10.244.0.1\n");
    lab.close().await;
}

/// Create → Running through the whole API: twenty in a row, then fifty at once.
/// This binary without its debug information, which is most of it.
fn small_program(dir: &std::path::Path) -> Vec<u8> {
    let (exe, small) = (std::fs::read_link("/proc/self/exe").unwrap(), dir.join("small"));
    let stripped = std::process::Command::new("strip")
        .arg("-o")
        .args([&small, &exe])
        .status();
    std::fs::read(if stripped.is_ok_and(|status| status.success()) {
        small
    } else {
        exe
    })
    .unwrap()
}

async fn an_image_comes_from_a_registry() {
    let lab = Lab::open("registry").await;
    let Some(registry) = Registry::start(&lab.dir.join("registry")).await else {
        assert!(!crate::strict(), "Debian's `docker-registry` is not installed");
        eprintln!("skipped: Debian's `docker-registry` is not installed");
        return lab.close().await;
    };
    registry.push(&small_program(&lab.dir)).await;
    let image = format!("{}/team/web:1", registry.address);
    let spec = |image: &str, more: serde_json::Value| {
        let mut spec = json!({
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": image, "args": ["sleep"]}],
        });
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    };
    let waits = |pod: &k8s_openapi::api::core::v1::Pod| {
        let state = container(pod).state.unwrap_or_default().waiting.unwrap_or_default();
        (state.reason.unwrap_or_default(), state.message.unwrap_or_default())
    };
    let refused =
        |pod: &k8s_openapi::api::core::v1::Pod| matches!(waits(pod).0.as_str(), "ErrImagePull" | "ImagePullBackOff");
    lab.create("stranger", spec(&image, json!({}))).await;
    let (_, message) = waits(&lab.until("stranger", refused).await);
    assert!(message.ends_with("authorization failed"), "{message}");

    let login = json!({"auths": {&registry.address: {"username": "lab", "password": "secret"}}});
    let secret = json!({
        "metadata": {"name": "login"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": login.to_string()},
    });
    lab.make("Secret", secret).await;
    let known = json!({"imagePullSecrets": [{"name": "login"}]});
    lab.create("web", spec(&image, known.clone())).await;
    let pod = lab.ready("web").await;
    let id = container(&pod).image_id;
    assert!(
        id.starts_with(&format!("{}/team/web@sha256:", registry.address)),
        "{id}"
    );
    for (file, expected) in [("/etc/kept", "kept\n"), ("/etc/added", "added\n")] {
        assert_eq!(lab.exec("web", &["/w", "w", "cat", file]).await.0, expected);
    }
    let (hidden, _) = lab.exec("web", &["/w", "w", "cat", "/etc/hidden"]).await;
    assert!(hidden.contains("No such file"), "{hidden}");

    // By the digest, and one that is not there.
    lab.create("same", spec(&id, known.clone())).await;
    assert_eq!(container(&lab.ready("same").await).image_id, id);
    lab.create("none", spec(&format!("{}/team/none:1", registry.address), known))
        .await;
    let (_, message) = waits(&lab.until("none", refused).await);
    assert!(message.ends_with("team/none:1: not found"), "{message}");
    lab.close().await;
}

/// This machine's address as others see it.
fn host_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the kernel only chooses a route.
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback()).then_some(ip)
}

async fn pods_reach_what_is_outside_and_not_the_hosts_loopback() {
    let Some(ip) = host_address() else {
        eprintln!("skipped: this machine has no address but its loopback's");
        return;
    };
    // Any of the ports that are let out.
    let ports = [8081, 8888, 9000, 9090, 3128, 4222, 5672, 27017];
    let outside = ports
        .iter()
        .find_map(|port| std::net::TcpListener::bind((ip, *port)).ok());
    let Some(outside) = outside else {
        eprintln!("skipped: every port is taken");
        return;
    };
    let address = outside.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = outside.accept() {
            std::io::Write::write_all(&mut client, b"hello from outside").ok();
        }
    });
    let lab = Lab::open("outside").await;
    lab.run("pod", &["sleep"], json!({})).await;
    lab.ready("pod").await;
    let dial = async |to: &str| lab.exec("pod", &["/w", "w", "dial", to]).await.0;
    assert_eq!(dial(&address.to_string()).await, "hello from outside");
    // A port that is not let out, a cloud's metadata service, a Service without an endpoint: refused or reset at once.
    for closed in [format!("{ip}:1"), "169.254.169.254:80".into(), "10.96.7.7:80".into()] {
        let answer = dial(&closed).await;
        assert!(
            answer.contains("refused") || answer.contains("reset"),
            "{closed}: {answer}"
        );
    }
    // The same after a restart of the node, with the pod that ran on.
    lab.node.drain().await;
    let node = Lab::node(&lab.dir, &lab.server).await;
    let lab = Lab { node, ..lab };
    let (answer, _) = lab
        .exec_when_known("pod", &["/w", "w", "dial", &address.to_string()])
        .await;
    assert_eq!(answer, "hello from outside");
    lab.delete_now("pod").await;
    lab.close().await;
}

async fn figures_of_pod_starts() {
    let lab = Lab::open("figures").await;
    let running =
        |pod: &k8s_openapi::api::core::v1::Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
    let mut times = vec![];
    for n in 0..21 {
        let name = format!("p{n}");
        let begin = Instant::now();
        lab.run(&name, &["sleep"], json!({})).await;
        lab.until(&name, running).await;
        times.push(begin.elapsed());
        lab.delete_now(&name).await;
    }
    let mut times = times.split_off(1);
    times.sort();
    println!("one after the other: p50 {:?}, p95 {:?}", times[10], times[18]);
    let begin = Instant::now();
    let names: Vec<_> = (0..50).map(|n| format!("q{n}")).collect();
    futures::future::join_all(names.iter().map(|name| async {
        lab.run(name, &["sleep"], json!({})).await;
        lab.until(name, is_ready).await;
    }))
    .await;
    println!("fifty at once: {:?}", begin.elapsed());
    let begin = Instant::now();
    futures::future::join_all(names.iter().map(|name| lab.delete_now(name))).await;
    println!("fifty deleted: {:?}", begin.elapsed());
    lab.close().await;
}
