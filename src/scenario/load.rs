//! Finds scenarios: those inside the binary, those in `--scenarios DIR`, and a folder named on the command line.

use std::path::{Path, PathBuf};

use super::files::{Files, shipped_scenarios};
use super::model::Scenario;
use super::problem::{FieldPath, Problem, ProblemKind, Problems};
use super::{suggestion, validate::validate};

/// The file that makes a folder a scenario.
pub const FILE: &str = "scenario.yaml";

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nobody knows it.
    #[error("unknown scenario `{name}`")]
    Unknown {
        /// As given.
        name: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// It is there and wrong.
    #[error(transparent)]
    Problems(#[from] Problems),
    /// A folder could not be read.
    #[error("reading `{path}`: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

impl LoadError {
    /// What to try.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown {
                nearest: Some(name), ..
            } => Some(format!("did you mean `{name}`?")),
            Self::Unknown { .. } => {
                Some("`k8slab list` shows what there is; a folder is given as `./folder`".to_owned())
            }
            _ => None,
        }
    }
}

/// The scenarios one can name.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    folder: Option<PathBuf>,
}

/// A scenario that can be named, loaded or not.
#[derive(Debug)]
pub struct Entry {
    /// The name to use on the command line.
    pub name: String,
    /// What it is, or what is wrong with it.
    pub scenario: Result<Scenario, LoadError>,
}

impl Catalogue {
    /// The shipped scenarios, and those in the folders below `folder`.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// Everything there is, by name; a folder's scenario goes before a shipped one of the same name.
    pub fn list(&self) -> Result<Vec<Entry>, LoadError> {
        let mut entries = Vec::new();
        for folder in self.folders()? {
            let name = folder
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            entries.push(Entry {
                name,
                scenario: load_folder(&folder),
            });
        }
        for (path, text) in shipped_scenarios() {
            let name = shipped_name(path).to_owned();
            if entries.iter().all(|entry| entry.name != name) {
                let scenario = validate(path, text, &Files::Shipped).map_err(LoadError::from);
                entries.push(Entry { name, scenario });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The scenario of that name, or in that folder when the name has a `/` or is `.` or `..`.
    pub fn load(&self, name: &str) -> Result<Scenario, LoadError> {
        if name.contains(std::path::MAIN_SEPARATOR) || matches!(name, "." | "..") {
            return load_folder(Path::new(name));
        }
        if let Some(base) = &self.folder {
            let folder = base.join(name);
            if folder.join(FILE).is_file() {
                return load_folder(&folder);
            }
        }
        match shipped_scenarios().find(|(path, _)| shipped_name(path) == name) {
            Some((path, text)) => Ok(validate(path, text, &Files::Shipped)?),
            None => {
                let folders = self.folders().unwrap_or_default();
                let own = folders.iter().filter_map(|folder| folder.file_name()?.to_str());
                let names: Vec<&str> = shipped_scenarios()
                    .map(|(path, _)| shipped_name(path))
                    .chain(own)
                    .collect();
                Err(LoadError::Unknown {
                    name: name.to_owned(),
                    nearest: suggestion::nearest(name, names),
                })
            }
        }
    }

    fn folders(&self) -> Result<Vec<PathBuf>, LoadError> {
        let Some(base) = &self.folder else {
            return Ok(Vec::new());
        };
        let fail = |source| LoadError::Folder {
            path: base.clone(),
            source,
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(base).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if path.join(FILE).is_file() {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

fn shipped_name(path: &str) -> &str {
    path.trim_start_matches("scenarios/").trim_end_matches(".yaml")
}

/// The scenario in `folder/scenario.yaml`.
pub fn load_folder(folder: &Path) -> Result<Scenario, LoadError> {
    let path = folder.join(FILE);
    let shown = path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(validate(&shown, &text, &Files::Folder(folder.to_owned()))?),
        Err(error) => {
            let kind = ProblemKind::Unreadable {
                path: shown.clone(),
                why: error.to_string(),
            };
            let problem = Problem {
                file: shown.clone(),
                at: None,
                path: FieldPath::root(),
                kind,
                line: None,
            };
            Err(Problems {
                scenario: shown,
                list: vec![problem],
            }
            .into())
        }
    }
}
