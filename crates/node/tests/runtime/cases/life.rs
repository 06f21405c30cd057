//! Ends, adoption, removal; how long a start takes.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use node::runtime::{AdoptedState, ContainerId, Error, ExecRequest, Runtime};
use tokio::time::Instant;

use crate::lab::{self, Lab, sandbox};

use super::spread;

pub(crate) async fn signals_end_containers_and_their_children(lab: Lab) {
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

/// What [`as_daemon`] leaves: a container that runs, one that ended before, one that ends when nobody looks.
pub(crate) async fn left_by_a_dead_daemon(lab: &Lab) {
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

pub(crate) async fn a_dead_daemon_s_pods_are_adopted(lab: Lab) {
    drop(lab);
    crate::daemon_that_dies(lab::home());
    let begin = Instant::now();
    let lab = Lab::open(true).await;
    println!("  adopting: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    left_by_a_dead_daemon(&lab).await;
}

pub(crate) async fn a_dead_daemon_s_pods_are_adopted_from_another_user_namespace(lab: Lab) {
    left_by_a_dead_daemon(&lab).await;
}

pub(crate) async fn a_pod_whose_shim_dies_dies_with_it(lab: Lab) {
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

pub(crate) async fn removing_a_pod_in_the_middle_of_everything(lab: Lab) {
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

pub(crate) async fn twenty_starts_in_a_row(lab: Lab) {
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
