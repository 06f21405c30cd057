//! What an image will hold, before anything is assembled: files with their sums, configuration, and the tag of it all.

use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::digest::Digests;
use super::dockerfile::{self, Dockerfile, DockerfileError};

/// The name by which Dockerfiles copy k8slab's own binary.
pub const SELF: &str = "k8slab";

/// An image that can be assembled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Its name, without tag.
    pub name: String,
    /// Its files.
    pub files: Vec<RecipeFile>,
    /// Its configuration.
    pub config: Dockerfile,
    /// Eight hex digits made of everything above.
    pub content: String,
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeFile {
    /// On this machine.
    pub source: PathBuf,
    /// In the image, absolute.
    pub target: String,
    /// Its permissions.
    pub mode: u32,
}

/// Why an image cannot be assembled.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The Dockerfile.
    #[error("reading `{dockerfile}`: {source}")]
    Dockerfile {
        /// Its path.
        dockerfile: String,
        /// What is wrong.
        source: DockerfileError,
    },
    /// A file that is copied.
    #[error("`{dockerfile}`, line {line}: copying `{file}`: {why}")]
    File {
        /// The Dockerfile's path.
        dockerfile: String,
        /// The line of the `COPY`.
        line: usize,
        /// The file, as written.
        file: String,
        /// What is wrong with it.
        why: String,
    },
}

impl RecipeError {
    /// What to try.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Dockerfile { source, .. } => Some(source.hint()),
            Self::File { .. } => None,
        }
    }
}

/// Where the files of a Dockerfile are.
#[derive(Clone, Copy, Debug)]
pub struct Pantry<'a> {
    /// k8slab's own binary.
    pub binary: &'a Path,
    /// The folder of an own scenario; shipped ones copy the binary only.
    pub folder: Option<&'a Path>,
}

impl Recipe {
    /// Reads a Dockerfile and looks at the files that it copies.
    pub fn read(
        name: &str,
        path: &str,
        text: &str,
        pantry: Pantry<'_>,
        digests: &mut Digests,
    ) -> Result<Self, RecipeError> {
        let config = dockerfile::parse(text).map_err(|source| RecipeError::Dockerfile {
            dockerfile: path.to_owned(),
            source,
        })?;
        let mut files = Vec::new();
        let mut sums = Vec::new();
        for copy in &config.copies {
            let fail = |why: String| RecipeError::File {
                dockerfile: path.to_owned(),
                line: copy.line,
                file: copy.source.clone(),
                why,
            };
            let source = pantry.find(&copy.source).map_err(fail)?;
            let sum = digests.of(&source).map_err(|error| fail(error.to_string()))?;
            let mode = match copy.mode {
                Some(mode) => mode,
                None if copy.source == SELF => 0o755,
                // Docker keeps the file's own; of ours only whether it is a program, so that a umask changes no content tag.
                None => {
                    let metadata = source.metadata().map_err(|error| fail(error.to_string()))?;
                    if metadata.permissions().mode() & 0o111 == 0 {
                        0o644
                    } else {
                        0o755
                    }
                }
            };
            sums.push(json!([copy.target, mode, sum]));
            files.push(RecipeFile {
                source,
                target: copy.target.clone(),
                mode,
            });
        }
        // Everything that the image is made of, in one canonical text.
        let whole = json!([
            1,
            sums,
            config.entrypoint,
            config.cmd,
            config.user,
            config.workdir,
            config.env,
            config.exposed,
            config.labels
        ]);
        let digest = Sha256::digest(whole.to_string());
        let content = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            name: name.to_owned(),
            files,
            config,
            content,
        })
    }

    /// The reference by content: `cpu-burner:c-3f9a2b71`.
    pub fn reference(&self) -> String {
        format!("{}:c-{}", self.name, self.content)
    }

    /// The reference that manifests use.
    pub fn lab_reference(&self) -> String {
        format!("{}:{}", self.name, crate::scenario::manifest::LAB_TAG)
    }
}

impl Pantry<'_> {
    fn find(&self, source: &str) -> Result<PathBuf, String> {
        if source == SELF {
            return Ok(self.binary.to_owned());
        }
        let folder = self.folder.ok_or("a shipped image copies `k8slab` only")?;
        let plain = Path::new(source)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let real = folder.join(source).canonicalize().map_err(|error| error.to_string())?;
        let root = folder.canonicalize().map_err(|error| error.to_string())?;
        if !plain || !real.starts_with(root) {
            return Err("it leaves the scenario's folder".to_owned());
        }
        if real.is_file() {
            Ok(real)
        } else {
            Err("it is not a file".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Owner;

    #[test]
    fn the_tag_follows_the_content_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("k8slab-binary");
        std::fs::write(&binary, "one").unwrap();
        std::fs::write(folder.path().join("page.html"), "hi").unwrap();
        let mut digests = Digests::open(folder.path(), Owner::Myself);
        let text = "FROM scratch\nCOPY k8slab /k8slab\nCOPY page.html /page.html\nENTRYPOINT [\"/k8slab\"]\n";
        let pantry = Pantry {
            binary: &binary,
            folder: Some(folder.path()),
        };
        let mut tag = |text: &str| {
            Recipe::read("web", "web.Dockerfile", text, pantry, &mut digests)
                .unwrap()
                .reference()
        };
        let first = tag(text);
        assert_eq!(first, tag(&format!("# a comment\n{text}")));
        assert_ne!(first, tag(&text.replace("[\"/k8slab\"]", "[\"/k8slab\", \"x\"]")));
        std::fs::write(folder.path().join("page.html"), "hello").unwrap();
        assert_ne!(first, tag(text));
        assert_eq!(first.len(), "web:c-12345678".len());
    }

    #[test]
    fn a_file_outside_or_not_there_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("b");
        std::fs::write(&binary, "one").unwrap();
        let mut digests = Digests::open(folder.path(), Owner::Myself);
        let pantry = Pantry {
            binary: &binary,
            folder: Some(folder.path()),
        };
        let mut read = |source: &str| {
            let text = format!("FROM scratch\nCOPY {source} /x\n");
            Recipe::read("web", "D", &text, pantry, &mut digests)
                .unwrap_err()
                .to_string()
        };
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        assert!(read("sub").contains("not a file"));
        assert!(read("gone").contains("No such file"));
        assert!(read("/etc/hostname").contains("leaves the scenario's folder"));
    }
}
