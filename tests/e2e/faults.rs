//! What goes wrong on real machines, and what k8slab says then.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Lab, Ran, command_in, eventually};
use crate::leftovers::HostView;

#[test]
fn a_taken_port_gets_another_and_the_kubeconfig_follows() {
    let Some(lab) = Lab::new() else { return };
    let _taken = TcpListener::bind("127.0.0.1:6443").ok();
    lab.ok(&["up", "cpu-hpa"]);
    let config = std::fs::read_to_string(lab.kubeconfig()).unwrap();
    assert!(!config.contains("127.0.0.1:6443"), "{config}");
    lab.kubectl(&["get", "pods"]);
    lab.ok(&["down", "cpu-hpa"]);
}

#[test]
fn two_clusters_with_two_homes_live_side_by_side() {
    let Some(lab) = Lab::new() else { return };
    let other = lab.second_home();
    lab.ok(&["up", "cpu-hpa"]);
    let args = ["up", "cpu-hpa"];
    Ran::from(command_in(other.path(), &args).output().unwrap(), &args).code(0);
    lab.kubectl(&["get", "pods"]);
    let args = ["down", "cpu-hpa"];
    Ran::from(command_in(other.path(), &args).output().unwrap(), &args).code(0);
    assert!(lab.kubectl(&["get", "pods"]).contains("1/1"));
    lab.ok(&["down", "cpu-hpa"]);
}

#[test]
fn a_corrupted_store_is_said_and_kept_and_its_containers_can_still_be_ended() {
    let Some(lab) = Lab::new() else { return };
    let before = HostView::take();
    lab.ok(&["up", "cpu-hpa"]);
    kill(Pid::from_raw(lab.daemon()), Signal::SIGKILL).unwrap();
    let store = lab.home().join("clusters/default/store.redb");
    let mut bytes = std::fs::read(&store).unwrap();
    let length = bytes.len();
    bytes[..4096.min(length)].fill(0x5a);
    std::fs::write(&store, &bytes).unwrap();
    let ran = lab.run(&["up", "cpu-hpa"]);
    assert_ne!(ran.status, Some(0));
    assert!(ran.stderr.contains("store.redb"), "{}", ran.stderr);
    assert_eq!(std::fs::read(&store).unwrap(), bytes, "the damaged store was changed");
    lab.ok(&["cluster", "delete", "--force", "--purge"]);
    eventually("the host to be as before", Duration::from_secs(5), || {
        let after = HostView::take();
        if after == before {
            Ok(())
        } else {
            Err(format!("{after:#?}"))
        }
    });
}

#[test]
fn an_image_that_is_not_there_is_named_as_kubernetes_does() {
    let Some(lab) = Lab::new() else { return };
    lab.ok(&["up", "cpu-hpa"]);
    lab.kubectl(&["run", "ghost", "--image=no-such-image:lab", "--image-pull-policy=Never"]);
    eventually("ErrImageNeverPull", Duration::from_secs(30), || {
        let pods = lab.kubectl(&["get", "pods", "--no-headers"]);
        if pods.contains("ErrImageNeverPull") {
            Ok(())
        } else {
            Err(pods)
        }
    });
    lab.ok(&["down", "cpu-hpa"]);
}

#[test]
fn a_pod_that_asks_for_too_much_cpu_is_the_first_broken_link() {
    let Some(lab) = Lab::new() else { return };
    let ran = lab.run(&[
        "up",
        "cpu-hpa",
        "--set",
        "request=500",
        "--set",
        "limit=500",
        "--timeout",
        "5s",
    ]);
    assert_eq!(ran.status, Some(4), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("Insufficient cpu"), "{}", ran.stderr);
    let status = lab.run(&["status", "cpu-hpa", "--why"]);
    assert!(
        status.stdout.contains("Insufficient cpu"),
        "{}{}",
        status.stdout,
        status.stderr
    );
    lab.ok(&["down", "cpu-hpa"]);
}

#[test]
fn an_interrupted_up_ends_with_130_and_the_next_one_goes_on() {
    let Some(lab) = Lab::new() else { return };
    let mut up = lab.spawn(&["up", "cpu-hpa"]);
    eventually("the daemon", Duration::from_secs(30), || {
        let record = lab.home().join("clusters/default/daemon.json");
        if record.exists() {
            Ok(())
        } else {
            Err("no daemon.json".into())
        }
    });
    kill(Pid::from_raw(up.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(130));
    lab.ok(&["up", "cpu-hpa"]);
    lab.ok(&["down", "cpu-hpa"]);
}

/// Every file below `folder` with its owner, links not followed.
fn owners(folder: &Path, found: &mut Vec<(PathBuf, u32)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let metadata = path.symlink_metadata().unwrap();
        found.push((path.clone(), metadata.uid()));
        if metadata.is_dir() {
            owners(&path, found);
        }
    }
}

#[test]
fn under_sudo_what_is_the_users_is_written_as_the_user() {
    const USER: u32 = 65534;
    let Some(lab) = Lab::new() else { return };
    std::os::unix::fs::chown(lab.home(), Some(USER), Some(USER)).unwrap();
    let sudo = |args: &[&str]| {
        let mut command = lab.command(args);
        let output = command
            .env("SUDO_UID", USER.to_string())
            .env("SUDO_GID", USER.to_string());
        Ran::from(output.output().unwrap(), args)
    };
    // A link that the user may not follow is not followed for them either.
    let secret = lab.second_home();
    std::fs::set_permissions(secret.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(secret.path().join("config"), "root's own\n").unwrap();
    std::os::unix::fs::symlink(secret.path().join("config"), lab.kubeconfig()).unwrap();
    let refused = sudo(&["up", "cpu-hpa"]);
    assert_ne!(refused.status, Some(0), "{}", refused.stdout);
    assert_eq!(
        std::fs::read_to_string(secret.path().join("config")).unwrap(),
        "root's own\n"
    );
    std::fs::remove_file(lab.kubeconfig()).unwrap();

    sudo(&["up", "cpu-hpa"]).code(0);
    assert_eq!(lab.kubeconfig().metadata().unwrap().mode() & 0o777, 0o600);
    let mut found = vec![];
    owners(lab.home(), &mut found);
    // What the daemon keeps for itself is root's: it runs as root.
    let foreign: Vec<_> = found
        .iter()
        .filter(|(path, owner)| {
            *owner != USER
                && !path.starts_with(lab.home().join("clusters"))
                && !path.starts_with(lab.home().join("images"))
        })
        .collect();
    assert!(foreign.is_empty(), "{foreign:#?}");
    sudo(&["down", "cpu-hpa"]).code(0);
}

#[test]
fn a_home_that_cannot_be_written_is_named() {
    let Some(lab) = Lab::new() else { return };
    let file = lab.home().join("not-a-folder");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o400)).unwrap();
    let args = ["up", "cpu-hpa"];
    let ran = Ran::from(command_in(&file, &args).output().unwrap(), &args);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("not-a-folder"), "{}", ran.stderr);
}
