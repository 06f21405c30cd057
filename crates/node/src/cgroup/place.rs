//! Where on this machine the cluster's cgroup may be, and making the way free for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Cgroup, Dir};

/// The controllers without which limits are a fiction.
const NEEDED: [&str; 2] = ["cpu", "memory"];
const ROOTLESS: &str = "rootless, no cgroup delegation";
/// What we use where it is.
const USED: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "devices"];

impl Cgroup {
    /// Finds a place for the cluster's group and makes it. The error says why there is none, in words for a node
    /// condition.
    pub fn for_cluster(cluster_id: &str) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("reading mountinfo: {e}"))?;
        let found = hierarchies(&mounts);
        let name = format!("k8slab-{cluster_id}");
        if let Some(mount) = found.v2.as_ref().filter(|mount| has_controllers(mount)) {
            let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let base = v2_base(mount, &own)?;
            enable_controllers(&base).map_err(|e| format!("enabling controllers in `{}`: {e}", base.display()))?;
            let group = Self {
                v2: true,
                dirs: vec![Dir {
                    controllers: vec![],
                    path: base.join(name),
                }],
            };
            group
                .make()
                .map_err(|e| format!("making a cgroup in `{}`: {e}", base.display()))?;
            enable_controllers(&group.dirs[0].path).map_err(|e| format!("enabling controllers: {e}"))?;
            return Ok(group);
        }
        let missing: Vec<_> = NEEDED.iter().filter(|c| !found.v1.iter().any(|d| d.has(c))).collect();
        if !missing.is_empty() {
            return Err(match crate::privileges::in_user_namespace() {
                true => ROOTLESS.into(),
                false => format!("no cgroup controller {}", quoted(&missing)),
            });
        }
        let dirs = found
            .v1
            .into_iter()
            .map(|d| Dir {
                path: d.path.join(&name),
                ..d
            })
            .collect();
        let group = Self { v2: false, dirs };
        group.make().map_err(|e| format!("making a cgroup: {e}"))?;
        Ok(group)
    }
}

#[derive(Default)]
struct Hierarchies {
    v1: Vec<Dir>,
    v2: Option<PathBuf>,
}

/// Where which controllers are mounted, from `/proc/self/mountinfo`.
fn hierarchies(mountinfo: &str) -> Hierarchies {
    let mut found = Hierarchies::default();
    for line in mountinfo.lines() {
        let Some((front, back)) = line.split_once(" - ") else {
            continue;
        };
        let Some(path) = front.split(' ').nth(4).map(PathBuf::from) else {
            continue;
        };
        let mut back = back.split(' ');
        match back.next() {
            Some("cgroup2") if found.v2.is_none() => found.v2 = Some(path),
            Some("cgroup") => {
                let options = back.nth(1).unwrap_or("").split(',');
                let controllers: Vec<String> = options.filter(|o| USED.contains(o)).map(ToString::to_string).collect();
                let known = |d: &Dir| controllers.iter().any(|c| d.has(c));
                if !controllers.is_empty() && !found.v1.iter().any(known) {
                    found.v1.push(Dir { controllers, path });
                }
            }
            _ => {}
        }
    }
    found
}

fn has_controllers(dir: &Path) -> bool {
    let text = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    NEEDED.iter().all(|c| text.split_whitespace().any(|have| have == *c))
}

/// Where on v2 the tree may hang: at the top as root, else in our own group if somebody delegated it to us.
fn v2_base(mount: &Path, own: &str) -> Result<PathBuf, String> {
    let writable = |dir: &Path| nix::unistd::access(&dir.join("cgroup.procs"), nix::unistd::AccessFlags::W_OK).is_ok();
    if fs::create_dir(mount.join(".k8slab-probe")).is_ok() {
        fs::remove_dir(mount.join(".k8slab-probe")).ok();
        return Ok(mount.into());
    }
    let path = Path::new(own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/"));
    // An earlier daemon of this session has moved us all to the leaf.
    let path = if path.ends_with(LEAF) {
        path.parent().unwrap_or(path)
    } else {
        path
    };
    let base = mount.join(path.strip_prefix("/").unwrap_or(path));
    if !writable(&base) {
        return Err(ROOTLESS.into());
    }
    let controllers = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|c| !controllers.split_whitespace().any(|have| have == **c))
        .collect();
    if missing.is_empty() {
        Ok(base)
    } else {
        Err(format!("{} not delegated", quoted(&missing)))
    }
}

fn quoted<T: std::fmt::Display>(names: &[T]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Lets children of `dir` have limits. A group with processes of its own may not (except the real root): those are
/// moved to a leaf first, as container images that run a whole system do. First, because the kernel would let `cpu`
/// pass and make the group a threaded one, in which `memory` is impossible.
pub(super) fn enable_controllers(dir: &Path) -> io::Result<()> {
    let have = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    let missing: Vec<_> = USED
        .iter()
        .filter(|c| !have.split_whitespace().any(|have| have == **c))
        .collect();
    if missing.iter().any(|c| NEEDED.contains(c)) {
        empty_into_leaf(dir)?;
    }
    for controller in missing {
        match fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")) {
            Err(error) if NEEDED.contains(controller) => return Err(error),
            // `pids` is good to have; `cpuacct` and `devices` are no controllers on v2.
            _ => {}
        }
    }
    Ok(())
}

/// Where processes go that were in the group that becomes ours.
const LEAF: &str = "k8slab-init";

fn empty_into_leaf(dir: &Path) -> io::Result<()> {
    let is_real_root = !dir.join("cgroup.type").exists();
    let processes = fs::read_to_string(dir.join("cgroup.procs"))?;
    if is_real_root || processes.is_empty() {
        return Ok(());
    }
    let leaf = dir.join(LEAF);
    fs::create_dir(&leaf).or_else(|e| {
        if e.kind() == io::ErrorKind::AlreadyExists {
            Ok(())
        } else {
            Err(e)
        }
    })?;
    for pid in processes.lines() {
        // Kernel threads stay, and what ended meanwhile is gone.
        fs::write(leaf.join("cgroup.procs"), pid).ok();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_mounted_together_count_once() {
        let text = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                    31 25 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                    32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    33 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        let found = hierarchies(text);
        assert_eq!(found.v1.len(), 2);
        assert_eq!(found.v1[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found.v1[1].path, Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(found.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
    }
}
