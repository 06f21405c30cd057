//! Where state, caches and the kubeconfig live, and on whose behalf they are written.
//!
//! The one reader of `HOME`, `XDG_*`, `KUBECONFIG` and `K8SLAB_*`. Under `sudo` everything of the user's stays the
//! user's: files are opened with the invoking user's identity, so that neither ownership nor a planted link surprises.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The folders and the user of a run.
#[derive(Clone, Debug)]
pub struct Paths {
    /// State: clusters, labs, history, image cache (`K8SLAB_HOME`).
    pub home: PathBuf,
    /// The user's kubeconfig, the one that is written.
    pub kubeconfig: PathBuf,
    /// Whose files these are.
    pub owner: Owner,
    /// Where new labs go (`K8SLAB_CLUSTER`).
    pub cluster: Option<String>,
}

/// On whose behalf files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The user who runs this process.
    Myself,
    /// The user who called `sudo`.
    Invoker {
        /// `SUDO_UID`.
        uid: u32,
        /// `SUDO_GID`.
        gid: u32,
    },
}

/// Why there is no place to live.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// Nothing says where home is.
    #[error("neither `K8SLAB_HOME`, `XDG_STATE_HOME` nor `HOME` is set")]
    NoHome,
    /// A path that would mean something else tomorrow.
    #[error("`{variable}` is `{}`, which is not an absolute path", path.display())]
    Relative {
        /// The variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// The user behind sudo is not known here.
    #[error("no home folder is known for the user {0} behind sudo")]
    UnknownUser(u32),
}

impl PathsError {
    /// What to try.
    pub fn hint(&self) -> String {
        "set `K8SLAB_HOME` to a folder for k8slab's state".to_owned()
    }
}

/// The environment of this process, as far as this room reads it.
pub trait Environment {
    /// The value of a variable, when it is set and not empty.
    fn get(&self, name: &str) -> Option<OsString>;
    /// Whether this process runs as root.
    fn is_root(&self) -> bool;
    /// The text of `/etc/passwd`. Asked by hand because a static binary cannot load the system's name services.
    fn passwd(&self) -> String;
}

/// The real one.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name).filter(|value| !value.is_empty())
    }

    #[cfg(unix)]
    fn is_root(&self) -> bool {
        nix::unistd::geteuid().is_root()
    }

    #[cfg(not(unix))]
    fn is_root(&self) -> bool {
        false
    }

    fn passwd(&self) -> String {
        std::fs::read_to_string("/etc/passwd").unwrap_or_default()
    }
}

impl Paths {
    /// Reads the environment.
    pub fn find(environment: &impl Environment) -> Result<Self, PathsError> {
        let number = |name| {
            environment
                .get(name)
                .and_then(|value| value.to_str()?.parse::<u32>().ok())
        };
        let owner = match (environment.is_root(), number("SUDO_UID"), number("SUDO_GID")) {
            (true, Some(uid), Some(gid)) if uid != 0 => Owner::Invoker { uid, gid },
            _ => Owner::Myself,
        };
        let absolute = |variable: &'static str| match environment.get(variable).map(PathBuf::from) {
            Some(path) if !path.is_absolute() => Err(PathsError::Relative { variable, path }),
            path => Ok(path),
        };
        let user_home = || match owner {
            Owner::Invoker { uid, .. } => match passwd_home(&environment.passwd(), uid) {
                Some(home) => Ok(home),
                None => absolute("SUDO_HOME")?.ok_or(PathsError::UnknownUser(uid)),
            },
            Owner::Myself => absolute("HOME")?.or(absolute("USERPROFILE")?).ok_or(PathsError::NoHome),
        };
        // Root's own XDG folders say nothing about the user behind sudo.
        let state = if owner == Owner::Myself {
            absolute("XDG_STATE_HOME")?
        } else {
            None
        };
        let home = match (absolute("K8SLAB_HOME")?, state) {
            (Some(home), _) => home,
            (None, Some(state)) => state.join("k8slab"),
            (None, None) => user_home()?.join(".local/state/k8slab"),
        };
        let listed = environment.get("KUBECONFIG");
        let first = listed
            .as_ref()
            .and_then(|list| std::env::split_paths(list).find(|path| !path.as_os_str().is_empty()));
        let kubeconfig = match first {
            Some(path) => std::path::absolute(&path).unwrap_or(path),
            None => user_home().map_or_else(|_| home.join("kubeconfig"), |user| user.join(".kube/config")),
        };
        let cluster = environment
            .get("K8SLAB_CLUSTER")
            .and_then(|name| name.into_string().ok());
        Ok(Self {
            home,
            kubeconfig,
            owner,
            cluster,
        })
    }

    /// The folder with one folder a lab.
    pub fn labs(&self) -> PathBuf {
        self.home.join("labs")
    }

    /// The journals of labs that are gone.
    pub fn history(&self) -> PathBuf {
        self.home.join("history")
    }

    /// The image cache: it survives `down`, and everything in it can be made again.
    pub fn images(&self) -> PathBuf {
        self.home.join("images")
    }
}

/// The sixth field of the line whose third is `uid`.
fn passwd_home(passwd: &str, uid: u32) -> Option<PathBuf> {
    let uid = uid.to_string();
    let line = passwd
        .lines()
        .find(|line| line.split(':').nth(2) == Some(uid.as_str()))?;
    line.split(':')
        .nth(5)
        .map(PathBuf::from)
        .filter(|home| home.is_absolute())
}

impl Owner {
    /// Runs `act` with the owner's rights on files, so that what it makes is the owner's and what the owner may not
    /// touch it does not touch. For code that opens, renames or removes files; must not wait for anything.
    #[cfg(target_os = "linux")]
    pub fn act<T>(self, act: impl FnOnce() -> T) -> T {
        use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

        /// Gives root's rights back, whatever happens inside.
        struct Restore(Uid, Gid);
        impl Drop for Restore {
            fn drop(&mut self) {
                setfsuid(self.0);
                setfsgid(self.1);
            }
        }
        match self {
            Self::Myself => act(),
            Self::Invoker { uid, gid } => {
                // Both are properties of the thread. Leaving uid 0 also takes the capabilities that override file
                // permissions, which is the point; the group goes first, while that is still allowed.
                let group = setfsgid(Gid::from_raw(gid));
                let _restore = Restore(setfsuid(Uid::from_raw(uid)), group);
                act()
            }
        }
    }

    /// Runs `act`; only Linux has sudo's case.
    #[cfg(not(target_os = "linux"))]
    pub fn act<T>(self, act: impl FnOnce() -> T) -> T {
        act()
    }
}

/// Makes a folder and those above it, closed to others.
pub fn create_private_folder(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Replaces a file in one step, readable by its owner only. A reader sees the old text or the new one.
pub fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    create_private_folder(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let _ = std::fs::remove_file(&draft);
    let written = options.open(&draft).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(Vec<(&'static str, &'static str)>, bool);

    impl Environment for Fake {
        fn get(&self, name: &str) -> Option<OsString> {
            self.0
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).into())
        }
        fn is_root(&self) -> bool {
            self.1
        }
        fn passwd(&self) -> String {
            "root:x:0:0:root:/root:/bin/sh\nana:x:1000:1000:Ana,,,:/home/ana:/bin/bash\n".to_owned()
        }
    }

    #[test]
    fn state_follows_the_environment() {
        let find = |vars: &[(&'static str, &'static str)]| Paths::find(&Fake(vars.to_vec(), false));
        assert_eq!(
            find(&[("HOME", "/h")]).unwrap().home,
            Path::new("/h/.local/state/k8slab")
        );
        assert_eq!(
            find(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]).unwrap().home,
            Path::new("/s/k8slab")
        );
        let own = find(&[("HOME", "/h"), ("K8SLAB_HOME", "/k"), ("KUBECONFIG", "/a:/b")]).unwrap();
        assert_eq!(
            (own.home.as_path(), own.kubeconfig.as_path()),
            (Path::new("/k"), Path::new("/a"))
        );
        assert!(matches!(find(&[]), Err(PathsError::NoHome)));
        assert!(matches!(
            find(&[("K8SLAB_HOME", "here")]),
            Err(PathsError::Relative { .. })
        ));
    }

    #[test]
    fn under_sudo_everything_is_the_invoking_users() {
        let sudo = Fake(
            vec![
                ("HOME", "/root"),
                ("XDG_STATE_HOME", "/root/s"),
                ("SUDO_UID", "1000"),
                ("SUDO_GID", "1000"),
            ],
            true,
        );
        let paths = Paths::find(&sudo).unwrap();
        assert_eq!(paths.home, Path::new("/home/ana/.local/state/k8slab"));
        assert_eq!(paths.kubeconfig, Path::new("/home/ana/.kube/config"));
        assert_eq!(paths.owner, Owner::Invoker { uid: 1000, gid: 1000 });
        let stranger = Fake(vec![("SUDO_UID", "7"), ("SUDO_GID", "7")], true);
        assert!(matches!(Paths::find(&stranger), Err(PathsError::UnknownUser(7))));
        let not_root = Fake(vec![("HOME", "/h"), ("SUDO_UID", "1000"), ("SUDO_GID", "1000")], false);
        assert_eq!(Paths::find(&not_root).unwrap().owner, Owner::Myself);
    }

    #[test]
    fn a_replaced_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/config");
        write_private(&path, "one").unwrap();
        write_private(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        #[cfg(unix)]
        assert_eq!(
            std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap()) & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
