//! Where keys are kept: a folder, or nowhere.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::PkiError;

/// Where keys are kept.
pub(super) enum Shelf<'a> {
    Folder(&'a Path),
    Memory,
}

impl<'a> Shelf<'a> {
    /// The folder `dir`, made if it is not there.
    pub(super) fn open(dir: &'a Path) -> Result<Self, PkiError> {
        make_dir(dir)?;
        Ok(Self::Folder(dir))
    }

    /// The text of `file`, if it is there.
    pub(super) fn read(&self, file: &str) -> Result<Option<String>, PkiError> {
        let Self::Folder(dir) = self else { return Ok(None) };
        let path = dir.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PkiError::Io {
                doing: "reading",
                path,
                source,
            }),
        }
    }

    /// Stores `text` and hands it back.
    pub(super) fn write(&self, file: &str, text: String) -> Result<String, PkiError> {
        if let Self::Folder(dir) = self {
            let path = dir.join(file);
            replace(&path, text.as_bytes()).map_err(|source| PkiError::Io {
                doing: "writing",
                path,
                source,
            })?;
        }
        Ok(text)
    }

    /// The error that says what is wrong with `file`.
    pub(super) fn damaged(&self, file: &str, what: String) -> PkiError {
        let path = match self {
            Self::Folder(dir) => dir.join(file),
            Self::Memory => PathBuf::from(file),
        };
        PkiError::Damaged { path, what }
    }
}

/// Writes a temporary file, then renames it: at `path` there is the old text or the new one, never a part of it.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("pem.tmp");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(dir) = path.parent().filter(|_| cfg!(unix)) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn make_dir(dir: &Path) -> Result<(), PkiError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|source| PkiError::Io {
        doing: "making the folder",
        path: dir.to_owned(),
        source,
    })
}
