//! The cases. Each gets a lab of its own and leaves nothing of its pods behind.

use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::time::Duration;

use node::runtime::session::RunError;
use node::runtime::{
    AdoptedState, ContainerId, Error, ExecRequest, Limits, MemoryVolume, Mount, Resources, Runtime, Security,
    TerminalSize, User,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::lab::{self, Lab, sandbox};

pub(crate) struct Case {
    pub name: &'static str,
    pub work: fn(Lab) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

macro_rules! cases {
    ($($name:ident)*) => { &[$(Case { name: stringify!($name), work: |lab| Box::pin($name(lab)) }),*] };
}

pub(crate) const ROOT: &[Case] = cases! {
    a_container_sees_what_was_asked_for_and_no_more
    the_sandbox_forbids_what_containerd_forbids
    containers_of_a_pod_share_what_a_pod_shares
    no_line_of_a_log_is_lost
    a_command_is_executed_inside
    a_command_gets_a_terminal
    a_command_that_is_given_up_is_killed
    signals_end_containers_and_their_children
    a_container_beyond_its_memory_is_oom_killed
    a_cpu_limit_holds_and_is_measured
    what_cannot_be_started_says_why
    pods_talk_to_each_other_and_the_node_to_them
    volumes_are_where_they_should_be_and_lead_nowhere_else
    an_attached_client_reads_and_writes
    a_dead_daemon_s_pods_are_adopted
    a_pod_whose_shim_dies_dies_with_it
    removing_a_pod_in_the_middle_of_everything
    twenty_starts_in_a_row
};

/// What an ordinary user gets, too.
pub(crate) const ROOTLESS: &[Case] = cases! {
    a_dead_daemon_s_pods_are_adopted_from_another_user_namespace
    a_container_sees_what_was_asked_for_and_no_more
    the_sandbox_forbids_what_containerd_forbids
    containers_of_a_pod_share_what_a_pod_shares
    no_line_of_a_log_is_lost
    a_command_is_executed_inside
    a_command_gets_a_terminal
    signals_end_containers_and_their_children
    usage_is_measured_without_a_cgroup
    a_container_beyond_its_memory_is_oom_killed
    a_cpu_limit_holds_and_is_measured
    what_cannot_be_started_says_why
    pods_talk_to_each_other_and_the_node_to_them
    volumes_are_where_they_should_be_and_lead_nowhere_else
    a_pod_whose_shim_dies_dies_with_it
    removing_a_pod_in_the_middle_of_everything
    twenty_starts_in_a_row
};

fn user(uid: u32, gid: u32, supplementary_groups: &[u32]) -> User {
    User {
        uid,
        gid,
        supplementary_groups: supplementary_groups.to_vec(),
    }
}

async fn a_container_sees_what_was_asked_for_and_no_more(lab: Lab) {
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

async fn the_sandbox_forbids_what_containerd_forbids(lab: Lab) {
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

async fn containers_of_a_pod_share_what_a_pod_shares(lab: Lab) {
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

async fn no_line_of_a_log_is_lost(lab: Lab) {
    let pod = lab.pod().await;
    let begin = Instant::now();
    let (exit, log) = lab.run(&pod, lab.container("many", &["lines", "50000"])).await;
    println!("  100 001 log lines: {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
    assert_eq!(exit.code, 0);
    let count = |stream: &str| {
        log.lines()
            .filter(|line| line.split(' ').nth(1) == Some(stream))
            .count()
    };
    assert_eq!((count("stdout"), count("stderr")), (50_001, 50_000));
    assert!(log.ends_with(" stdout P last words\n"));
    let first = log.lines().next().unwrap();
    assert_eq!(
        first.split(' ').next().unwrap().len(),
        "2026-01-02T03:04:05.123456789Z".len(),
        "{first}"
    );
    for attempt in 0..20 {
        let mut config = lab.container("short", &["lines", "1"]);
        config.attempt = attempt;
        let (_, log) = lab.run(&pod, config).await;
        assert_eq!(log.lines().count(), 3, "attempt {attempt}: {log}");
        lab.runtime
            .remove_container(&ContainerId::new(&pod, "short", attempt))
            .await
            .unwrap();
    }
    assert_eq!(
        fs::read_dir(lab.runtime.pod_dir(&pod).join("containers/short"))
            .unwrap()
            .count(),
        0
    );
    lab.remove(&pod).await;
}

async fn a_command_is_executed_inside(lab: Lab) {
    let pod = lab.pod().await;
    let mut config = lab.container("a", &["sleep"]);
    config.user = user(1234, 2345, &[]);
    config.env = vec!["GREETING=hi".into()];
    config.cwd = "/data".into();
    let (id, _) = lab.start(&pod, config).await;

    let command = ["/w", "w", "upper"].map(String::from).to_vec();
    let session = lab
        .runtime
        .exec(
            &id,
            ExecRequest {
                command,
                stdin: true,
                tty: false,
            },
        )
        .await
        .unwrap();
    let mut stdin = session.stdin.unwrap();
    stdin.write_all(b"hello\nworld\n").await.unwrap();
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (session.stdout, session.stderr.unwrap());
    let (a, b) = tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
    a.and(b).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("tty=false\nHELLO\nWORLD\n", "done\n"));
    assert_eq!(session.exit.await.unwrap(), 5);

    let said = String::from_utf8(lab.exec(&id, &["look"]).await.unwrap().output).unwrap();
    for line in [
        "uid=1234 1234 1234 1234 gid=2345",
        "GREETING=hi",
        "cwd=/data",
        "seccomp=2",
        "fds=3",
        "00000000a80425fb",
    ] {
        assert!(said.contains(line), "`{line}` in\n{said}");
    }
    let inside = lab.exec(&id, &["namespaces"]).await.unwrap().output;
    let again = lab.exec(&id, &["namespaces"]).await.unwrap().output;
    assert_eq!(inside, again);

    for (command, text) in [
        ("no-such", "exec: \"no-such\": executable file not found in $PATH"),
        (
            "/no/such",
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let failed =
            node::runtime::session::run(&lab.runtime, &id, &[command.into()], Duration::from_secs(5), 99).await;
        assert!(failed.as_ref().unwrap_err().to_string().contains(text), "{failed:?}");
    }
    let mut times = vec![];
    for _ in 0..20 {
        let begin = Instant::now();
        lab.exec(&id, &["exit", "0"]).await.unwrap();
        times.push(begin.elapsed());
    }
    println!("  an exec probe: {}", spread(times));
    lab.remove(&pod).await;
    assert!(matches!(
        lab.exec(&id, &["exit", "0"]).await,
        Err(RunError::Runtime(Error::NotFound(_)))
    ));
}

async fn a_command_gets_a_terminal(lab: Lab) {
    let pod = lab.pod().await;
    let (id, _) = lab.start(&pod, lab.container("a", &["sleep"])).await;
    let command = ["/w", "w", "upper"].map(String::from).to_vec();
    let session = lab
        .runtime
        .exec(
            &id,
            ExecRequest {
                command,
                stdin: true,
                tty: true,
            },
        )
        .await
        .unwrap();
    let (mut stdin, mut stdout) = (session.stdin.unwrap(), session.stdout);
    session
        .resize
        .unwrap()
        .send(TerminalSize { width: 123, height: 45 })
        .await
        .unwrap();
    let mut seen = String::new();
    until(&mut stdout, &mut seen, "tty=true").await;
    // The size travels beside the input: ask until it has come.
    while !seen.contains("width=123") {
        stdin.write_all(b"width\n").await.unwrap();
        until(&mut stdout, &mut seen, "width=").await;
        tokio::task::yield_now().await;
    }
    drop(stdin); // ^D
    until(&mut stdout, &mut seen, "done").await;
    assert_eq!(session.exit.await.unwrap(), 5);

    let mut config = lab.container("b", &["upper"]);
    config.tty = true;
    config.stdin = true;
    let (id, _) = lab.start(&pod, config).await;
    lab.until_said(&id, "tty=true").await;
    lab.remove(&pod).await;
}

/// Reads on until `text` has been seen after what was seen before.
async fn until(stream: &mut (dyn tokio::io::AsyncRead + Send + Unpin), seen: &mut String, text: &str) {
    let begin = seen.len();
    let mut buffer = [0; 1024];
    while !seen[begin..].contains(text) {
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "end of file before `{text}`: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}

async fn a_command_that_is_given_up_is_killed(lab: Lab) {
    let pod = lab.pod().await;
    let (id, started) = lab.start(&pod, lab.container("a", &["sleep"])).await;
    let command = ["/w", "w", "sleep", "given-up"].map(String::from);
    let gave_up = node::runtime::session::run(&lab.runtime, &id, &command, Duration::from_millis(200), 10).await;
    assert!(matches!(gave_up, Err(RunError::TimedOut)), "{gave_up:?}");
    let alive = || {
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.into_iter()
            .any(|e| fs::read_to_string(e.path().join("cmdline")).is_ok_and(|c| c.contains("given-up")))
    };
    for _ in 0..400 {
        if !alive() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!alive(), "the command still runs");
    assert!(
        fs::exists(format!("/proc/{}", started.pid)).unwrap(),
        "the container does, too"
    );
    lab.remove(&pod).await;
}

async fn signals_end_containers_and_their_children(lab: Lab) {
    let pod = lab.pod().await;
    let (polite, _) = lab.start(&pod, lab.container("polite", &["terminate"])).await;
    lab.until_said(&polite, "ready").await;
    lab.runtime.signal(&polite, libc::SIGTERM).await.unwrap();
    let exit = lab.runtime.wait(&polite).await.unwrap();
    assert_eq!((exit.code, exit.signal), (0, None));
    assert!(exit.finished_at >= exit.started_at);

    let (deaf, _) = lab.start(&pod, lab.container("deaf", &["sleep"])).await;
    lab.runtime.signal(&deaf, libc::SIGTERM).await.unwrap(); // a pid 1 without a handler ignores it
    let waited = tokio::time::timeout(Duration::from_millis(200), lab.runtime.wait(&deaf)).await;
    assert!(waited.is_err(), "it ended of SIGTERM: {waited:?}");
    lab.runtime.signal(&deaf, libc::SIGKILL).await.unwrap();
    let exit = lab.runtime.wait(&deaf).await.unwrap();
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    lab.runtime.signal(&deaf, libc::SIGKILL).await.unwrap(); // fine afterwards

    let (exit, log) = lab.run(&pod, lab.container("parent", &["orphans", "5"])).await;
    assert_eq!(exit.code, 0);
    assert!(log.contains("going"));
    // What `leftovers` looks for would find the five.
    assert!(matches!(
        lab.runtime.wait(&ContainerId::new(&pod, "no", 0)).await,
        Err(Error::NotFound(_))
    ));
    lab.remove(&pod).await;
}

/// As root always; an ordinary user only where a cgroup was delegated to him.
fn limits_are_enforced(lab: &Lab) -> bool {
    let limits = lab.runtime.limits();
    assert!(!lab.root || limits == Limits::Enforced, "{limits:?}");
    limits == Limits::Enforced
}

async fn a_container_beyond_its_memory_is_oom_killed(lab: Lab) {
    if !limits_are_enforced(&lab) {
        return;
    }
    let pod = lab.pod().await;
    let mut config = lab.container("greedy", &["eat", "200"]);
    config.resources = Resources {
        memory_limit_bytes: Some(32 << 20),
        ..Default::default()
    };
    let (exit, _) = lab.run(&pod, config).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true), "{exit:?}");

    let mut config = lab.container("modest", &["eat", "40"]);
    config.resources = Resources {
        memory_limit_bytes: Some(128 << 20),
        oom_score_adj: 500,
        ..Default::default()
    };
    let (id, started) = lab.start(&pod, config).await;
    lab.until_said(&id, "ate").await;
    let usage = lab.runtime.usage(&id).unwrap();
    let mebibytes = usage.working_set_bytes >> 20;
    assert!((40..48).contains(&mebibytes), "{mebibytes} MiB of 40");
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", started.pid)).unwrap();
    assert_eq!(score.trim(), "500");
    let begin = Instant::now();
    for _ in 0..200 {
        lab.runtime.usage(&id).unwrap();
    }
    println!(
        "  reading a container's figures: {:.0} us",
        begin.elapsed().as_secs_f64() * 1e6 / 200.0
    );

    let mut config = lab.container("tiny", &["sleep"]);
    config.resources = Resources {
        memory_limit_bytes: Some(64 << 10),
        ..Default::default()
    };
    let error = lab.refused(&pod, config).await;
    assert!(matches!(error, Error::Create { .. } | Error::Start { .. }), "{error:?}");
    lab.remove(&pod).await;
}

async fn a_cpu_limit_holds_and_is_measured(lab: Lab) {
    if !limits_are_enforced(&lab) {
        return;
    }
    let pod = lab.pod().await;
    let mut config = lab.container("burn", &["burn", "60000"]);
    config.resources = Resources {
        cpu_request_milli: Some(100),
        cpu_limit_milli: Some(200),
        ..Default::default()
    };
    let (id, _) = lab.start(&pod, config).await;
    let (before, begin) = (lab.runtime.usage(&id).unwrap(), Instant::now());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let (after, took) = (lab.runtime.usage(&id).unwrap(), begin.elapsed());
    let used = Duration::from_nanos(after.cpu_nanoseconds - before.cpu_nanoseconds).as_secs_f64() / took.as_secs_f64();
    println!(
        "  limit 0.200 CPUs, used {used:.3}, held back in {} periods",
        after.throttled_periods
    );
    assert!(used < 0.25, "{used} CPUs");
    assert!(after.throttled_periods > 0);
    lab.remove(&pod).await;
}

async fn usage_is_measured_without_a_cgroup(lab: Lab) {
    let Limits::NotEnforced(text) = lab.runtime.limits() else {
        return;
    };
    assert!(text.starts_with("CPU and memory limits are not enforced ("), "{text}");
    println!("  {text}");
    let pod = lab.pod().await;
    let (burn, _) = lab.start(&pod, lab.container("burn", &["burn", "300"])).await;
    let (eat, _) = lab.start(&pod, lab.container("eat", &["eat", "40"])).await;
    lab.until_said(&burn, "burnt").await;
    lab.until_said(&eat, "ate").await;
    let cpu = lab.runtime.usage(&burn).unwrap().cpu_nanoseconds;
    assert!(cpu > 50_000_000, "{cpu} ns of a burn of 300 ms");
    let mebibytes = lab.runtime.usage(&eat).unwrap().working_set_bytes >> 20;
    // The binary counts where the image lies in memory.
    assert!((40..56).contains(&mebibytes), "{mebibytes} MiB of 40");
    lab.remove(&pod).await;
}

async fn what_cannot_be_started_says_why(lab: Lab) {
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

async fn pods_talk_to_each_other_and_the_node_to_them(lab: Lab) {
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

async fn volumes_are_where_they_should_be_and_lead_nowhere_else(lab: Lab) {
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

async fn an_attached_client_reads_and_writes(lab: Lab) {
    let pod = lab.pod().await;
    let mut config = lab.container("a", &["upper"]);
    config.stdin = true;
    let (id, _) = lab.start(&pod, config).await;
    let mut session = lab.runtime.attach(&id).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    let mut seen = String::new();
    until(&mut session.stdout, &mut seen, "ONE").await;
    drop((stdin, session)); // leaves; the container goes on

    let mut config = lab.container("once", &["upper"]);
    (config.stdin, config.stdin_once) = (true, true);
    let (once, _) = lab.start(&pod, config).await;
    let mut session = lab.runtime.attach(&once).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"two\n").await.unwrap();
    drop(stdin); // end of file, as the pod says `stdinOnce`
    let (mut out, mut err) = (String::new(), String::new());
    let (a, b) = tokio::join!(
        session.stdout.read_to_string(&mut out),
        session.stderr.as_mut().unwrap().read_to_string(&mut err)
    );
    a.and(b).unwrap();
    assert!(out.ends_with("TWO\n") && err == "done\n", "{out:?} {err:?}");
    assert_eq!(session.exit.await.unwrap(), 5);
    assert_eq!(lab.said(&once).last().unwrap(), "done", "the log has it, too");
    let waited = tokio::time::timeout(Duration::from_millis(50), lab.runtime.wait(&id)).await;
    assert!(waited.is_err(), "the first one's stdin is still open: {waited:?}");
    lab.remove(&pod).await;
}

/// What [`as_daemon`] leaves: a container that runs, one that ended before, one that ends when nobody looks.
async fn left_by_a_dead_daemon(lab: &Lab) {
    let found = lab.runtime.adopt().await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let pod = &found[0];
    assert!(
        pod.alive && pod.config == sandbox("left") && pod.ip == Ipv4Addr::new(10, 244, 0, 2),
        "{pod:?}"
    );
    let state = |name: &str| {
        let found = pod.containers.iter().find(|c| c.config.name == name);
        found.unwrap_or_else(|| panic!("`{name}` in {pod:?}")).state.clone()
    };
    let AdoptedState::Running(started) = state("stays") else {
        panic!("{pod:?}")
    };
    let AdoptedState::Exited(exit) = state("short") else {
        panic!("{pod:?}")
    };
    assert_eq!(exit.code, 3);
    let late = ContainerId::new("left", "late", 0);
    let exit = lab.runtime.wait(&late).await.unwrap();
    assert_eq!(exit.code, 0);
    assert_eq!(lab.log(&late).lines().count(), 60_001, "its log is complete");

    // The network is the same one: pods of before and of now are neighbours.
    let stays = ContainerId::new("left", "stays", 0);
    lab.until_said(&stays, "listening").await;
    let new = lab.pod().await;
    let (_, log) = lab.run(&new, lab.container("dial", &["dial", "10.244.0.2:80"])).await;
    assert!(log.contains("hello 10.244.0.3"), "{log}");
    assert_eq!(lab.exec(&stays, &["exit", "4"]).await.unwrap().code, 4);
    assert!(fs::exists(format!("/proc/{}", started.pid)).unwrap());
    lab.runtime.signal(&stays, libc::SIGKILL).await.unwrap();
    assert_eq!(lab.runtime.wait(&stays).await.unwrap().signal, Some(9));
    lab.remove("left").await;
    lab.remove(&new).await;
}

/// The role `daemon`: starts a pod and says so, to be killed then.
pub(crate) async fn as_daemon(lab: Lab) {
    lab.runtime.create_sandbox(sandbox("left")).await.unwrap();
    lab.start("left", lab.container("stays", &["serve", "80"])).await;
    lab.run("left", lab.container("short", &["exit", "3"])).await;
    lab.start("left", lab.container("late", &["lines", "30000"])).await;
    println!("up");
    std::future::pending::<()>().await;
}

async fn a_dead_daemon_s_pods_are_adopted(lab: Lab) {
    drop(lab);
    crate::daemon_that_dies(lab::home());
    let begin = Instant::now();
    let lab = Lab::open(true).await;
    println!("  adopting: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    left_by_a_dead_daemon(&lab).await;
}

async fn a_dead_daemon_s_pods_are_adopted_from_another_user_namespace(lab: Lab) {
    left_by_a_dead_daemon(&lab).await;
}

async fn a_pod_whose_shim_dies_dies_with_it(lab: Lab) {
    let pod = lab.pod().await;
    let (id, started) = lab.start(&pod, lab.container("a", &["sleep"])).await;
    let parent = fs::read_to_string(format!("/proc/{}/stat", started.pid)).unwrap();
    let shim: i32 = parent
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let kill =
        async { nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap() };
    let (waited, ()) = tokio::join!(lab.runtime.wait(&id), kill);
    assert!(matches!(waited, Err(Error::SandboxGone(_))), "{waited:?}");
    for _ in 0..400 {
        if !fs::exists(format!("/proc/{}", started.pid)).unwrap() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(
        !fs::exists(format!("/proc/{}", started.pid)).unwrap(),
        "its container still runs"
    );
    let mut config = lab.container("a", &["exit", "0"]);
    config.attempt = 1;
    assert!(matches!(lab.refused(&pod, config.clone()).await, Error::SandboxGone(_)));
    let again = lab.runtime.create_sandbox(sandbox(&pod)).await.unwrap();
    assert_eq!(again.ip, Ipv4Addr::new(10, 244, 0, 2), "the address is kept");
    assert_eq!(lab.run(&pod, config).await.0.code, 0);
    lab.remove(&pod).await;
}

async fn removing_a_pod_in_the_middle_of_everything(lab: Lab) {
    let pod = lab.pod().await;
    let (id, _) = lab.start(&pod, lab.container("a", &["sleep"])).await;
    let command = ["/w", "w", "sleep"].map(String::from).to_vec();
    let session = lab
        .runtime
        .exec(
            &id,
            ExecRequest {
                command,
                stdin: true,
                tty: false,
            },
        )
        .await
        .unwrap();
    let runtime = lab.runtime.clone();
    let config = lab.container("b", &["sleep"]);
    let (starting, uid) = (pod.clone(), pod.clone());
    let start = tokio::spawn(async move { runtime.start_container(&starting, config).await });
    lab.runtime.remove_sandbox(&uid).await.unwrap();
    assert_ne!(session.exit.await.unwrap_or(137), 0);
    start.await.unwrap().ok(); // either way, so long as nothing is left
    lab.remove(&uid).await; // fine again
}

async fn twenty_starts_in_a_row(lab: Lab) {
    let (mut total, mut sandboxes, mut pods) = (vec![], vec![], vec![]);
    for _ in 0..20 {
        let begin = Instant::now();
        let pod = lab.pod().await;
        sandboxes.push(begin.elapsed());
        lab.start(&pod, lab.container("a", &["sleep"])).await;
        total.push(begin.elapsed());
        pods.push(pod);
    }
    println!(
        "  20 pods in a row: {}; of which sandbox and network {}",
        spread(total),
        spread(sandboxes)
    );
    let begin = Instant::now();
    futures::future::join_all(pods.iter().map(|pod| lab.remove(pod))).await;
    println!("  20 pods removed: {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);

    let begin = Instant::now();
    let many: Vec<String> = (0..50).map(|n| format!("many-{n}")).collect();
    futures::future::join_all(many.iter().map(async |uid| {
        lab.runtime.create_sandbox(sandbox(uid)).await.unwrap();
        lab.start(uid, lab.container("a", &["sleep"])).await;
    }))
    .await;
    println!("  50 pods at once: {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
    if let Some(kibibytes) = lab::shim_pss() {
        println!("  a shim's Pss with 50 of them: {kibibytes} KiB");
    }
    futures::future::join_all(many.iter().map(|pod| lab.remove(pod))).await;
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    format!("p50 {:.1} ms, p95 {:.1} ms", at(50), at(95))
}
