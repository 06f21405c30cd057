//! `image`: the image store of the embedded cluster.

use std::path::PathBuf;

use serde_json::json;

use super::app::App;
use super::error::CliError;
use crate::exit::Code;
use crate::providers::embedded;
use crate::row;
use crate::ui::Format;
use crate::ui::table::columns;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Show the images
    Ls,
    /// Put the images of an archive into the store, as `docker save` or an OCI layout has them
    Import {
        /// The archive, a tar file
        #[arg(value_name = "FILE")]
        archive: PathBuf,
        /// Give the archive's only image this name
        #[arg(long, value_name = "NAME:TAG")]
        name: Vec<String>,
    },
}

pub(super) fn run(verb: &Verb, app: &App) -> Result<Code, CliError> {
    let images = match verb {
        Verb::Ls => embedded::images(&app.paths)?,
        Verb::Import { archive, name } => embedded::import_images(&app.paths, archive, name)?,
    };
    if app.out.format == Format::Json {
        let images: Vec<_> = images
            .iter()
            .map(|image| json!({"reference": image.reference, "id": image.id}))
            .collect();
        app.out.json(&images);
        return Ok(Code::Fine);
    }
    let mut rows = vec![row!["IMAGE", "ID"]];
    rows.extend(
        images
            .iter()
            .map(|image| row![image.reference, image.id.chars().take(19).collect::<String>()]),
    );
    app.out.line(columns("", &rows));
    Ok(Code::Fine)
}
