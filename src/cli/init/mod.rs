//! `init`: writes a scenario with every part explained, which runs as it is.

use std::path::{Path, PathBuf};

use super::app::App;
use super::error::CliError;
use crate::exit::Code;
use crate::scenario::load::{self, load_folder};

/// The files of the template; the scenario's name in them is `NAME`.
const FILES: [(&str, &str); 3] = [
    (load::FILE, include_str!("scenario.yaml")),
    ("web.yaml", include_str!("web.yaml")),
    ("web.Dockerfile", include_str!("web.Dockerfile")),
];
const NAME: &str = "my-lab";
/// As `validate` wants it.
const NAME_LIMIT: usize = 40;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder to make; its name becomes the scenario's
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let folder = &args.folder;
    let name = name_of(folder)?;
    let written = app.paths.owner.act(|| write(folder, &name));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let message = format!("writing `{}`: it has files that would be overwritten", folder.display());
            CliError::usage(message).hint("name a folder that is not there yet")
        }
        _ => CliError::failed(&format!("writing `{}`", folder.display()), &error),
    })?;
    load_folder(folder)?;
    let shown = shown(folder);
    app.out.say(format!("{shown}: a scenario of {} files", FILES.len()));
    app.out
        .say(format!("  try   k8slab validate {shown}\n        k8slab up {shown}"));
    Ok(Code::Fine)
}

/// A folder as `up` takes it: a bare name would be that of a shipped scenario.
fn shown(folder: &Path) -> String {
    let text = folder.display().to_string();
    if text.contains(std::path::MAIN_SEPARATOR) {
        text
    } else {
        format!(".{}{text}", std::path::MAIN_SEPARATOR)
    }
}

/// The folder's own name as a DNS label.
fn name_of(folder: &Path) -> Result<String, CliError> {
    let text = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = text.chars().map(letter).take(NAME_LIMIT).collect();
    match name.trim_matches('-') {
        "" => {
            let message = format!("`{}` gives the scenario no name", folder.display());
            Err(CliError::usage(message).hint("name a folder such as `./my-lab`"))
        }
        name => Ok(name.to_owned()),
    }
}

/// Writes the files, none of which may be there.
fn write(folder: &Path, name: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    if let Some((file, _)) = FILES.iter().find(|(file, _)| folder.join(file).exists()) {
        return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, *file));
    }
    std::fs::create_dir_all(folder)?;
    for (file, text) in FILES {
        let mut file = std::fs::File::create_new(folder.join(file))?;
        file.write_all(text.replace(NAME, name).as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_a_valid_scenario_of_the_folders_name_and_overwrites_nothing() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("Il mio Lab");
        let name = name_of(&folder).unwrap();
        write(&folder, &name).unwrap();
        let scenario = load_folder(&folder).unwrap();
        assert_eq!(scenario.name, "il-mio-lab");
        assert!(!scenario.parameters.is_empty() && !scenario.checks.is_empty());
        let again = write(&folder, &name).unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
        assert!(name_of(Path::new("..")).is_err());
    }
}
