//! The only reader of files in this room: what a scenario's paths mean, inside the binary or in a folder.
//!
//! Owns the rule that a path stays below its folder, symbolic links included.

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use super::problem::ProblemKind;
use super::suggestion;

/// Every file below `scenarios/`, `manifests/` and `Dockerfiles/`, written by the build script.
static SHIPPED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// Larger than any honest manifest.
const SIZE_LIMIT: u64 = 4 * 1024 * 1024;

/// Where a scenario's paths are looked up.
#[derive(Clone, Debug)]
pub enum Files {
    /// Inside the binary: `manifests/PATH`, `Dockerfiles/PATH`.
    Shipped,
    /// Below a folder, for both.
    Folder(PathBuf),
}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Something to apply.
    Manifest,
    /// Something to build.
    Dockerfile,
}

impl Class {
    fn folder(self) -> &'static str {
        match self {
            Self::Manifest => "manifests/",
            Self::Dockerfile => "Dockerfiles/",
        }
    }

    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Dockerfile => "Dockerfile",
        }
    }
}

/// The shipped scenario files: name in the repository and text.
pub fn shipped_scenarios() -> impl Iterator<Item = (&'static str, &'static str)> {
    SHIPPED
        .iter()
        .copied()
        .filter(|(path, _)| path.starts_with("scenarios/"))
}

impl Files {
    /// How a message names the file: as the user would find it.
    pub fn shown(&self, class: Class, path: &str) -> String {
        match self {
            Self::Shipped => format!("{}{path}", class.folder()),
            Self::Folder(root) => root.join(path).display().to_string(),
        }
    }

    /// The text of a file that a scenario names.
    pub fn read(&self, class: Class, path: &str) -> Result<String, ProblemKind> {
        let plain = Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !plain || path.is_empty() {
            return Err(ProblemKind::Outside(path.to_owned()));
        }
        match self {
            Self::Shipped => {
                let full = format!("{}{path}", class.folder());
                let found = SHIPPED.iter().find(|(name, _)| *name == full);
                found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| {
                    let names = SHIPPED.iter().filter_map(|(name, _)| name.strip_prefix(class.folder()));
                    unknown(class, path, names)
                })
            }
            Self::Folder(root) => read_below(root, class, path),
        }
    }
}

fn unknown<'a>(class: Class, path: &str, names: impl Iterator<Item = &'a str>) -> ProblemKind {
    ProblemKind::Unknown {
        what: class.name(),
        got: path.to_owned(),
        nearest: suggestion::nearest(path, names),
    }
}

fn read_below(root: &Path, class: Class, path: &str) -> Result<String, ProblemKind> {
    let unreadable = |why: &dyn std::fmt::Display| ProblemKind::Unreadable {
        path: path.to_owned(),
        why: why.to_string(),
    };
    let full = root.join(path);
    let real_root = root.canonicalize().map_err(|error| unreadable(&error))?;
    let real = match full.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let names = siblings(&full, path);
            return Err(unknown(class, path, names.iter().map(String::as_str)));
        }
        Err(error) => return Err(unreadable(&error)),
    };
    if !real.starts_with(&real_root) {
        return Err(ProblemKind::Outside(path.to_owned()));
    }
    let file = std::fs::File::open(&real).map_err(|error| unreadable(&error))?;
    let meta = file.metadata().map_err(|error| unreadable(&error))?;
    if !meta.is_file() {
        return Err(unreadable(&"it is not a file"));
    }
    let mut text = String::new();
    let read = file
        .take(SIZE_LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(&error))?;
    if read as u64 > SIZE_LIMIT {
        return Err(unreadable(&format_args!("it is larger than {SIZE_LIMIT} bytes")));
    }
    Ok(text)
}

/// The files beside a missing one, named like it is.
fn siblings(full: &Path, path: &str) -> Vec<String> {
    let above = Path::new(path).parent().unwrap_or(Path::new(""));
    let entries = full.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let names = entries.into_iter().flatten().filter_map(Result::ok);
    names
        .map(|entry| above.join(entry.file_name()).display().to_string())
        .collect()
}
