//! `down` and `cluster delete` leave nothing: compared before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::harness::{Lab, eventually};

/// Everything of ours that the host can show.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HostView {
    processes: BTreeSet<String>,
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    network_namespaces: usize,
    interfaces: BTreeSet<String>,
    routes: String,
}

impl HostView {
    pub(crate) fn take() -> Self {
        let mut processes = BTreeSet::new();
        let mut namespaces = BTreeSet::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let path = entry.path();
            let Ok(exe) = fs::read_link(path.join("exe")) else {
                continue;
            };
            if let Ok(namespace) = fs::read_link(path.join("ns/net")) {
                namespaces.insert(namespace);
            }
            if exe.to_string_lossy().contains("k8slab") && !exe.to_string_lossy().contains("/deps/") {
                processes.insert(format!("{} {}", entry.file_name().display(), exe.display()));
            }
        }
        let mut cgroups = BTreeSet::new();
        find_cgroups(Path::new("/sys/fs/cgroup"), 0, &mut cgroups);
        Self {
            processes,
            mounts: fs::read_to_string("/proc/self/mountinfo")
                .unwrap()
                .lines()
                .filter_map(|line| line.split(' ').nth(4).map(String::from))
                .filter(|target| target.contains("k8slab") || target.contains("/clusters/"))
                .collect(),
            cgroups,
            network_namespaces: namespaces.len(),
            interfaces: fs::read_dir("/sys/class/net")
                .unwrap()
                .flatten()
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .collect(),
            routes: fs::read_to_string("/proc/net/route").unwrap(),
        }
    }
}

fn find_cgroups(dir: &Path, depth: usize, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with("k8slab") {
            found.insert(entry.path().display().to_string());
        } else if depth < 4 {
            find_cgroups(&entry.path(), depth + 1, found);
        }
    }
}

fn files(home: &Path) -> BTreeSet<String> {
    fs::read_dir(home)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn down_leaves_history_and_images_and_purge_leaves_nothing() {
    let Some(lab) = Lab::new() else { return };
    let before = HostView::take();
    lab.ok(&["up", "cpu-hpa"]);
    let during = HostView::take();
    assert!(
        during.processes.len() > before.processes.len() && during.cgroups != before.cgroups,
        "{during:#?}"
    );
    assert_eq!(
        (&during.interfaces, &during.routes),
        (&before.interfaces, &before.routes),
        "the host's network was touched"
    );
    lab.ok(&["down", "cpu-hpa"]);
    eventually("the host to be as before", Duration::from_secs(5), || {
        let after = HostView::take();
        if after == before {
            Ok(())
        } else {
            Err(format!("{after:#?}\nbefore: {before:#?}"))
        }
    });
    let kubeconfig = fs::read_to_string(lab.kubeconfig()).unwrap_or_default();
    assert!(!kubeconfig.contains("k8slab-cpu-hpa"), "{kubeconfig}");
    let left: BTreeSet<String> = files(lab.home())
        .into_iter()
        .filter(|name| !name.starts_with('.') && name != "user.kubeconfig")
        .collect();
    assert_eq!(left, BTreeSet::from(["history".to_owned(), "images".to_owned()]));

    lab.ok(&["cluster", "delete", "--purge"]);
    let left: BTreeSet<String> = files(lab.home())
        .into_iter()
        .filter(|name| !name.starts_with('.') && name != "user.kubeconfig")
        .collect();
    assert_eq!(left, BTreeSet::new());
}
