//! The user's kubeconfig: one context a lab, merged in and taken out again without touching anything else.
//!
//! Written whole or not at all, mode 0600, under the lock file that kubectl uses too. A file that k8slab made goes with
//! its last context; the marker for that is an extension, which every client carries along.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{Context, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext, NamedExtension};
use serde_json::json;

use crate::paths::{self, Owner};

/// The name of the extension that says that k8slab made this file.
const MARKER: &str = "k8slab.dev/made";
/// How long to wait for somebody else's lock.
const LOCK_LIMIT: Duration = Duration::from_secs(3);
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// Where the user's kubeconfig is, and whose it is.
#[derive(Clone, Debug)]
pub struct UserConfig {
    path: PathBuf,
    owner: Owner,
}

/// Why the kubeconfig could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not a kubeconfig.
    #[error("reading `{}`: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The disk said no.
    #[error("writing `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Somebody else writes it.
    #[error("`{}` is locked by `{}`", path.display(), lock.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// The lock's file.
        lock: PathBuf,
    },
    /// What should be merged has no cluster in it.
    #[error("the cluster's kubeconfig has no usable context")]
    Source,
}

impl ConfigError {
    /// What to try.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Locked { lock, .. } => Some(format!("if nobody is writing it, remove `{}`", lock.display())),
            Self::Unreadable { .. } => Some("mend it, or point `KUBECONFIG` at another file".to_owned()),
            Self::Io { .. } => Some("point `KUBECONFIG` at a file that you may write".to_owned()),
            Self::Source => None,
        }
    }
}

impl UserConfig {
    /// The file at `path`, on behalf of `owner`.
    pub fn new(path: PathBuf, owner: Owner) -> Self {
        Self { path, owner }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `context` is there and leads where `source` leads.
    pub fn has(&self, context: &str, source: &Kubeconfig, namespace: &str) -> Result<bool, ConfigError> {
        let Some(present) = self.owner.act(|| self.read())? else {
            return Ok(false);
        };
        let mut merged = present.clone();
        put(&mut merged, context, source, namespace)?;
        Ok(text(&merged) == text(&present))
    }

    /// Puts `context` in, leading where the current context of `source` leads. False when it was there already.
    pub fn put(&self, context: &str, source: &Kubeconfig, namespace: &str) -> Result<bool, ConfigError> {
        self.change(|config| put(config, context, source, namespace))
    }

    /// Takes `context` out, with its cluster and user. False when it was not there.
    pub fn remove(&self, context: &str) -> Result<bool, ConfigError> {
        self.change(|config| {
            config.contexts.retain(|entry| entry.name != context);
            config.clusters.retain(|entry| entry.name != context);
            config.auth_infos.retain(|entry| entry.name != context);
            if config.current_context.as_deref() == Some(context) {
                config.current_context = None;
            }
            Ok(())
        })
    }

    fn change(&self, change: impl FnOnce(&mut Kubeconfig) -> Result<(), ConfigError>) -> Result<bool, ConfigError> {
        self.owner.act(|| {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            let present = self.read()?;
            let mut config = present.clone().unwrap_or_else(|| new_config(!folder.exists()));
            change(&mut config)?;
            let unchanged = match &present {
                Some(present) => text(present) == text(&config),
                None => is_empty(&config),
            };
            if unchanged {
                return Ok(false);
            }
            let lock = self.lock()?;
            // Somebody may have written since this was read; their change must not be lost.
            if self.read()?.as_ref().map(text) != present.as_ref().map(text) {
                return Err(ConfigError::Locked {
                    path: self.path.clone(),
                    lock: self.lock_path(),
                });
            }
            let made_folder = marker(&config).is_some_and(|marker| marker["folder"] == true);
            let gone = self.write(&config)?;
            drop(lock);
            if gone && made_folder {
                // Others may have put something into it: then it stays.
                let _ = std::fs::remove_dir(folder);
            }
            Ok(true)
        })
    }

    fn read(&self) -> Result<Option<Kubeconfig>, ConfigError> {
        let unreadable = |why: String| ConfigError::Unreadable {
            path: self.path.clone(),
            why,
        };
        let bytes = match std::fs::read_to_string(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        if bytes.trim().is_empty() {
            return Ok(None);
        }
        serde_yaml::from_str(&bytes)
            .map(Some)
            .map_err(|error| unreadable(error.to_string()))
    }

    /// Writes the file, or removes it where nothing of anybody is left in it; whether it was removed.
    fn write(&self, config: &Kubeconfig) -> Result<bool, ConfigError> {
        let io = |source| ConfigError::Io {
            path: self.path.clone(),
            source,
        };
        if is_empty(config) && marker(config).is_some() {
            std::fs::remove_file(&self.path).map_err(io)?;
            return Ok(true);
        }
        // A link is followed by hand: replacing it would part the user's file from where the user keeps it.
        let target = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        paths::write_private(&target, &text(config)).map_err(io)?;
        Ok(false)
    }

    fn lock_path(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".lock");
        name.into()
    }

    /// The lock that kubectl takes: a file that only one can create.
    fn lock(&self) -> Result<LockFile, ConfigError> {
        let io = |source| ConfigError::Io {
            path: self.path.clone(),
            source,
        };
        let lock = self.lock_path();
        if let Some(folder) = lock.parent() {
            paths::create_private_folder(folder).map_err(io)?;
        }
        let tries = LOCK_LIMIT.as_millis() / LOCK_AGAIN.as_millis();
        for _ in 0..tries {
            match std::fs::OpenOptions::new().write(true).create_new(true).open(&lock) {
                Ok(_) => return Ok(LockFile(lock)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => std::thread::sleep(LOCK_AGAIN),
                Err(error) => return Err(io(error)),
            }
        }
        Err(ConfigError::Locked {
            path: self.path.clone(),
            lock,
        })
    }
}

/// A kubeconfig with nothing but `context`, leading where the current context of `source` leads.
pub fn alone(context: &str, source: &Kubeconfig, namespace: &str) -> Result<String, ConfigError> {
    let mut config = Kubeconfig {
        extensions: None,
        ..new_config(false)
    };
    put(&mut config, context, source, namespace)?;
    Ok(text(&config))
}

struct LockFile(PathBuf);

impl Drop for LockFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An empty file of ours, in a folder that was or was not there before.
fn new_config(folder: bool) -> Kubeconfig {
    let marker = NamedExtension {
        name: MARKER.to_owned(),
        extension: json!({ "folder": folder }),
    };
    Kubeconfig {
        api_version: Some("v1".to_owned()),
        kind: Some("Config".to_owned()),
        extensions: Some(vec![marker]),
        ..Kubeconfig::default()
    }
}

fn marker(config: &Kubeconfig) -> Option<&serde_json::Value> {
    let found = config
        .extensions
        .iter()
        .flatten()
        .find(|extension| extension.name == MARKER);
    found.map(|marker| &marker.extension)
}

/// Whether nothing is in it but what k8slab puts into a new file.
fn is_empty(config: &Kubeconfig) -> bool {
    let others = config
        .extensions
        .iter()
        .flatten()
        .filter(|extension| extension.name != MARKER)
        .count();
    config.contexts.is_empty()
        && config.clusters.is_empty()
        && config.auth_infos.is_empty()
        && config.other.is_empty()
        && config.current_context.as_deref().unwrap_or_default().is_empty()
        && others == 0
}

fn text(config: &Kubeconfig) -> String {
    serde_yaml::to_string(config).unwrap_or_default()
}

fn put(config: &mut Kubeconfig, name: &str, source: &Kubeconfig, namespace: &str) -> Result<(), ConfigError> {
    let current = source.current_context.as_deref();
    let context = source
        .contexts
        .iter()
        .find(|context| current.is_none_or(|current| context.name == current));
    let context = context
        .and_then(|context| context.context.as_ref())
        .ok_or(ConfigError::Source)?;
    let cluster = source
        .clusters
        .iter()
        .find(|cluster| cluster.name == context.cluster)
        .ok_or(ConfigError::Source)?;
    let user = source
        .auth_infos
        .iter()
        .find(|user| Some(&user.name) == context.user.as_ref());

    let entry = NamedCluster {
        name: name.to_owned(),
        ..cluster.clone()
    };
    replace(&mut config.clusters, entry, |entry| entry.name == name);
    if let Some(user) = user {
        let entry = NamedAuthInfo {
            name: name.to_owned(),
            ..user.clone()
        };
        replace(&mut config.auth_infos, entry, |entry| entry.name == name);
    }
    let context = Context {
        cluster: name.to_owned(),
        user: user.map(|_| name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..context.clone()
    };
    let entry = NamedContext {
        name: name.to_owned(),
        context: Some(context),
        other: std::collections::BTreeMap::new(),
    };
    replace(&mut config.contexts, entry, |entry| entry.name == name);
    if config.current_context.as_deref().unwrap_or_default().is_empty() {
        config.current_context = Some(name.to_owned());
    }
    Ok(())
}

fn replace<T>(list: &mut Vec<T>, entry: T, same: impl Fn(&T) -> bool) {
    match list.iter_mut().find(|present| same(present)) {
        Some(present) => *present = entry,
        None => list.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Kubeconfig {
        serde_yaml::from_str(
            "apiVersion: v1\nkind: Config\nclusters: [{name: k8slab, cluster: {server: 'https://127.0.0.1:1', certificate-authority-data: QQ==}}]\n\
             users: [{name: k8slab, user: {client-certificate-data: Qg==, client-key-data: Qw==}}]\n\
             contexts: [{name: k8slab, context: {cluster: k8slab, user: k8slab}}]\ncurrent-context: k8slab\n",
        )
        .unwrap()
    }

    fn config(folder: &tempfile::TempDir) -> UserConfig {
        UserConfig::new(folder.path().join(".kube/config"), Owner::Myself)
    }

    #[test]
    fn a_file_made_for_a_lab_goes_with_its_last_context() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        assert!(config.put("k8slab-a", &source(), "a").unwrap());
        assert!(
            !config.put("k8slab-a", &source(), "a").unwrap(),
            "nothing to write the second time"
        );
        assert!(config.has("k8slab-a", &source(), "a").unwrap());
        assert!(config.put("k8slab-b", &source(), "b").unwrap());
        let text = std::fs::read_to_string(config.path()).unwrap();
        assert!(
            text.contains("current-context: k8slab-a") && text.contains("namespace: b"),
            "{text}"
        );
        assert!(config.remove("k8slab-a").unwrap());
        assert!(!config.remove("k8slab-a").unwrap());
        assert!(config.remove("k8slab-b").unwrap());
        assert!(!folder.path().join(".kube").exists());
        assert!(!config.remove("k8slab-b").unwrap(), "a file that is not there is fine");
    }

    #[test]
    fn the_users_own_entries_and_current_context_stay() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        let own = "apiVersion: v1\nkind: Config\nclusters:\n- name: work\n  cluster:\n    server: https://work\n    my-field: 1\n\
                   contexts:\n- name: work\n  context:\n    cluster: work\n    user: me\nusers: []\ncurrent-context: work\nmine: yes\n";
        paths::write_private(config.path(), own).unwrap();
        config.put("k8slab-a", &source(), "a").unwrap();
        let merged = std::fs::read_to_string(config.path()).unwrap();
        assert!(
            merged.contains("current-context: work") && merged.contains("my-field: 1") && merged.contains("mine: yes"),
            "{merged}"
        );
        config.remove("k8slab-a").unwrap();
        let left: serde_json::Value = serde_yaml::from_str(&std::fs::read_to_string(config.path()).unwrap()).unwrap();
        let before: serde_json::Value = serde_yaml::from_str(own).unwrap();
        assert_eq!(left, before);
    }

    #[test]
    fn a_locked_or_broken_file_is_said_so_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        paths::write_private(config.path(), "contexts: 3\n").unwrap();
        assert!(matches!(
            config.put("k8slab-a", &source(), "a"),
            Err(ConfigError::Unreadable { .. })
        ));
        assert_eq!(std::fs::read_to_string(config.path()).unwrap(), "contexts: 3\n");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("dotfiles");
        std::fs::write(&real, "apiVersion: v1\n").unwrap();
        let link = folder.path().join("config");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        UserConfig::new(link.clone(), Owner::Myself)
            .put("k8slab-a", &source(), "a")
            .unwrap();
        assert!(link.is_symlink());
        assert!(std::fs::read_to_string(real).unwrap().contains("k8slab-a"));
    }
}
