//! What a container is given, and what it is not.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;

use node::runtime::{ContainerId, Error, MemoryVolume, Mount, Runtime, Security};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{Lab, sandbox};

use super::user;

pub(crate) async fn a_container_sees_what_was_asked_for_and_no_more(lab: Lab) {
    let pod = lab.pod().await;
    let mut config = lab.container("a", &["look"]);
    config.user = user(1234, 2345, &[3456]);
    config.cwd = "/srv/made/for/it".into();
    config.env = vec!["B=1".into(), "A=2".into(), "B=3".into()];
    let (exit, _) = lab.run(&pod, config).await;
    assert_eq!(exit.code, 0);
    let said = lab.said(&ContainerId::new(&pod, "a", 0)).join("\n");
    let groups = if lab.root { "3456" } else { "" }; // one user has one id and no groups
    for line in [
        format!("uid=1234 1234 1234 1234 gid=2345 2345 2345 2345 groups={groups}"),
        "pid=1".into(),
        "cwd=/srv/made/for/it".into(),
        "env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin,B=3,A=2,HOME=/srv/web".into(),
        format!("hostname=host-{pod} host-{pod}"),
        format!("hosts=10.244.0.2\thost-{pod}"),
        "seccomp=2 nnp=0".into(),
        "signals blocked=0000000000000000 ignored=0000000000001000".into(), // its own Rust runtime ignores SIGPIPE
        "fds=3".into(),
        "rootfs-write=false".into(), // the folder is root's
        "shm-write=true".into(),
        "proc-sys-write=false".into(),
        "kcore=0".into(),
        "capabilities=0000000000000000 00000000a80425fb".into(),
    ] {
        let rootless_owner = !lab.root && line.starts_with("rootfs-write");
        assert!(said.contains(&line) || rootless_owner, "`{line}` in\n{said}");
    }

    let mut config = lab.container("b", &["look"]);
    config.security = Security {
        drop_capabilities: vec!["ALL".into()],
        add_capabilities: vec!["NET_BIND_SERVICE".into()],
        no_new_privileges: true,
        read_only_root: true,
        ..Default::default()
    };
    lab.run(&pod, config).await;
    let said = lab.said(&ContainerId::new(&pod, "b", 0)).join("\n");
    for line in [
        "capabilities=0000000000000400 0000000000000400",
        "seccomp=2 nnp=1",
        "rootfs-write=false",
    ] {
        assert!(said.contains(line), "`{line}` in\n{said}");
    }

    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(&*lab.dir.to_string_lossy()),
        "no mount of a pod shows on the host: {mounts}"
    );
    lab.remove(&pod).await;
}

pub(crate) async fn the_sandbox_forbids_what_containerd_forbids(lab: Lab) {
    let pod = lab.pod().await;
    lab.run(&pod, lab.container("a", &["try"])).await;
    let said = lab.said(&ContainerId::new(&pod, "a", 0)).join("\n");
    for line in [
        "unshare=EPERM",
        "mount=EPERM",
        "clone3=ENOSYS", // not EPERM: the C library falls back to clone
        "vsock=EPERM",
        "inet=ok",
        "getpid=ok",
        "kmsg=PermissionDenied",
        "disk=PermissionDenied",
    ] {
        assert!(said.contains(line), "`{line}` in\n{said}");
    }
    assert!(!lab.root || said.contains("null=ok"), "{said}");
    // Our own binary, which runs as pid 1 for a moment, must not be writable through /proc.
    let mut config = lab.container("b", &[]);
    config.args = vec!["/proc/self/exe".into(), "w".into(), "look".into()];
    lab.run(&pod, config).await;
    let said = lab.said(&ContainerId::new(&pod, "b", 0)).join("\n");
    assert!(said.contains("exe-read-only=true"), "{said}");
    lab.remove(&pod).await;
}

pub(crate) async fn containers_of_a_pod_share_what_a_pod_shares(lab: Lab) {
    let (pod, other) = (lab.pod().await, lab.pod().await);
    let mut seen = vec![];
    for (pod, name) in [(&pod, "a"), (&pod, "b"), (&other, "a")] {
        // All at the same time: the numbers of namespaces that have ended are used again.
        let (id, _) = lab.start(pod, lab.container(name, &["sleep"])).await;
        let said = String::from_utf8(lab.exec(&id, &["namespaces"]).await.unwrap().output).unwrap();
        seen.push(said.split_whitespace().map(ToString::to_string).collect::<Vec<_>>());
    }
    assert_eq!(seen[0][..3], seen[1][..3], "net, ipc, uts are the pod's");
    assert!(
        seen[0][3] != seen[1][3] && seen[0][4] != seen[1][4],
        "pid and mnt are the container's"
    );
    assert!((0..3).all(|n| seen[0][n] != seen[2][n]), "another pod has others");
    lab.remove(&pod).await;
    lab.remove(&other).await;
}

pub(crate) async fn what_cannot_be_started_says_why(lab: Lab) {
    let pod = lab.pod().await;
    for (command, text) in [
        ("no-such", "exec: \"no-such\": executable file not found in $PATH"),
        (
            "/no/such",
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let mut config = lab.container("bad", &[]);
        config.args = vec![command.into()];
        // The same attempt may be tried again: nothing of a failed start stays.
        let error = lab.refused(&pod, config).await;
        assert!(
            matches!(&error, Error::Start { cause, .. } if cause.contains(text)),
            "{error:?}"
        );
    }
    let mut config = lab.container("bad", &["sleep"]);
    config.mounts = vec![Mount {
        source: "/no/such/folder".into(),
        target: "/x".into(),
        ..Default::default()
    }];
    let error = lab.refused(&pod, config).await;
    assert!(
        matches!(&error, Error::Create { cause, .. } if cause.contains("/no/such/folder")),
        "{error:?}"
    );
    let mut config = lab.container("bad", &["sleep"]);
    config.layers = vec!["/no/such/layer".into()];
    assert!(matches!(lab.refused(&pod, config).await, Error::Create { .. }));
    let mut config = lab.container("bad", &["sleep"]);
    config.security.privileged = true;
    assert!(matches!(lab.refused(&pod, config).await, Error::Refused(_)));
    assert!(matches!(
        lab.refused("nowhere", lab.container("a", &["sleep"])).await,
        Error::NotFound(_)
    ));
    let mut config = lab.container("../up", &["sleep"]);
    config.attempt = 1;
    assert!(matches!(lab.refused(&pod, config).await, Error::Refused(_)));

    let (id, _) = lab.start(&pod, lab.container("bad", &["sleep"])).await; // attempt 0 is still free
    let error = lab.refused(&pod, lab.container("bad", &["sleep"])).await;
    assert!(error.to_string().contains("started before"), "{error}");
    assert!(lab.runtime.remove_container(&id).await.is_err(), "it still runs");
    lab.remove(&pod).await;
}

pub(crate) async fn pods_talk_to_each_other_and_the_node_to_them(lab: Lab) {
    let (a, b) = (lab.pod().await, lab.pod().await);
    let mut config = lab.container("serve", &["serve", "80"]);
    config.user = user(1234, 2345, &[]); // a port below 1024 without root: the pod's own namespace
    let (id, _) = lab.start(&a, config).await;
    lab.until_said(&id, "listening").await;
    let ip = lab.runtime.create_sandbox(sandbox(&a)).await.unwrap().ip; // asked again: what is there
    assert_eq!(ip, Ipv4Addr::new(10, 244, 0, 2));
    let (_, log) = lab.run(&b, lab.container("dial", &["dial", &format!("{ip}:80")])).await;
    assert!(log.contains("hello 10.244.0.3"), "the pod's own address: {log}");

    let netns = lab.runtime.network().netns();
    let mut stream = netns.connect(SocketAddr::from((ip, 80))).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello 10.244.0.1\n");

    let service = SocketAddr::from((Ipv4Addr::new(10, 96, 12, 34), 8080));
    let listener = netns.listen(service).unwrap();
    let answer = tokio::spawn(async move {
        let (mut stream, peer) = listener.accept().await.unwrap();
        stream
            .write_all(format!("service for {}\n", peer.ip()).as_bytes())
            .await
            .unwrap();
    });
    let mut config = lab.container("dial", &["dial", "10.96.12.34:8080"]);
    config.attempt = 1;
    let (_, log) = lab.run(&b, config).await;
    answer.await.unwrap();
    assert!(log.contains("service for 10.244.0.3"), "{log}");
    let mut config = lab.container("dial", &["dial", "10.96.12.34:9999"]);
    config.attempt = 2;
    let (exit, log) = lab.run(&b, config).await;
    assert!(
        exit.code == 1 && log.contains("refused"),
        "no listener, no service: {log}"
    );
    lab.remove(&a).await;
    lab.remove(&b).await;
}

pub(crate) async fn volumes_are_where_they_should_be_and_lead_nowhere_else(lab: Lab) {
    let uid = "volumes";
    let volumes = lab.runtime.pod_dir(uid).join("volumes");
    for name in ["secret", "shared", "memory", "trap"] {
        fs::create_dir_all(volumes.join(name)).unwrap();
    }
    fs::write(volumes.join("secret/token"), "s3cret").unwrap();
    fs::set_permissions(volumes.join("shared"), fs::Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink("/etc", volumes.join("trap/link")).unwrap();
    let memory = MemoryVolume {
        path: volumes.join("memory"),
        size_bytes: Some(1 << 20),
    };
    let config = node::runtime::SandboxConfig {
        memory_volumes: vec![memory],
        ..sandbox(uid)
    };
    lab.runtime.create_sandbox(config).await.unwrap();

    let mount = |name: &str, target: &str, read_only| Mount {
        source: volumes.join(name),
        target: target.into(),
        read_only,
        ..Default::default()
    };
    let mounts = vec![
        mount("shared", "/var/deep/shared", false),
        mount("secret", "/var/run/secrets", true),
        mount("memory", "/memory", false),
        Mount {
            sub_path: Some("made/below".into()),
            ..mount("shared", "/sub", false)
        },
    ];
    let with = |name: &str, command: &[&str]| {
        let mut config = lab.container(name, command);
        config.mounts.clone_from(&mounts);
        config.termination_message_path = Some("/dev/termination-log".into());
        config
    };
    let (a, _) = lab.start(uid, with("a", &["sleep"])).await;
    let code = async |command: &[&str]| lab.exec(&a, command).await.unwrap().code;
    assert_eq!(
        lab.exec(&a, &["cat", "/var/run/secrets/token"]).await.unwrap().output,
        b"s3cret"
    );
    assert_eq!(code(&["write", "/var/run/secrets/token", "x"]).await, 1);
    assert_eq!(code(&["write", "/var/deep/shared/note", "hello"]).await, 0);
    assert_eq!(code(&["write", "/memory/note", "volatile"]).await, 0);
    assert_eq!(code(&["write", "/sub/note", "below"]).await, 0);
    assert_eq!(code(&["write", "/data/new", "layer"]).await, 0);
    assert_eq!(
        fs::read_to_string(volumes.join("shared/made/below/note")).unwrap(),
        "below"
    );
    assert!(!volumes.join("memory/note").exists(), "memory is the sandbox's");
    assert!(!lab.dir.join("image/data/new").exists(), "the image stays clean");
    let (exit, log) = lab.run(uid, with("b", &["cat", "/memory/note"])).await;
    assert!(
        exit.code == 0 && log.contains("volatile"),
        "shared within the pod: {log}"
    );
    let (exit, _) = lab
        .run(uid, with("c", &["write", "/dev/termination-log", "my last words"]))
        .await;
    assert_eq!(exit.message, "my last words");

    let mut config = lab.container("trapped", &["sleep"]);
    config.mounts = vec![Mount {
        sub_path: Some("link/passwd".into()),
        ..mount("trap", "/x", false)
    }];
    let error = lab.refused(uid, config).await;
    assert!(error.to_string().contains("subPath"), "{error}");
    lab.remove(uid).await;
    assert!(!volumes.exists());
}
