//! Logs, commands inside, terminals, attached clients.

use std::fs;
use std::time::Duration;

use node::runtime::session::RunError;
use node::runtime::{ContainerId, Error, ExecRequest, Runtime, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::lab::Lab;

use super::{spread, user};

pub(crate) async fn no_line_of_a_log_is_lost(lab: Lab) {
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

pub(crate) async fn a_command_is_executed_inside(lab: Lab) {
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

pub(crate) async fn a_command_gets_a_terminal(lab: Lab) {
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
pub(crate) async fn until(stream: &mut (dyn tokio::io::AsyncRead + Send + Unpin), seen: &mut String, text: &str) {
    let begin = seen.len();
    let mut buffer = [0; 1024];
    while !seen[begin..].contains(text) {
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "end of file before `{text}`: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}

pub(crate) async fn a_command_that_is_given_up_is_killed(lab: Lab) {
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

pub(crate) async fn an_attached_client_reads_and_writes(lab: Lab) {
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
