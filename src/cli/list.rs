//! `list`: the scenarios there are, and whether they are up.

use serde_json::json;

use super::app::App;
use super::error::CliError;
use crate::engine::folder;
use crate::exit::Code;
use crate::row;
use crate::ui::Format;
use crate::ui::table::columns;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, app: &App) -> Result<Code, CliError> {
    let entries = app.catalogue.list()?;
    let known = folder::known(&app.paths)?;
    let state = |name: &str| {
        let lab = known.iter().find(|lab| lab.lab.scenario == name);
        lab.map_or("", |lab| if lab.record.is_up() { "up" } else { "unfinished" })
    };
    if app.out.format == Format::Json {
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| match &entry.scenario {
                Ok(scenario) => json!({
                    "name": entry.name,
                    "title": scenario.title,
                    "description": scenario.description,
                    "state": state(&entry.name),
                    "parameters": scenario.parameters.iter().map(|parameter| json!({
                        "name": parameter.name, "type": parameter.kind.name(),
                        "default": parameter.default, "description": parameter.description,
                    })).collect::<Vec<_>>(),
                    "actions": scenario.actions.iter().map(|action| &action.name).collect::<Vec<_>>(),
                }),
                Err(error) => json!({ "name": entry.name, "problem": error.to_string() }),
            })
            .collect();
        app.out.json(&entries);
        return Ok(Code::Fine);
    }
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| match &entry.scenario {
            Ok(scenario) => row![entry.name, scenario.title, state(&entry.name)],
            Err(_) => row![entry.name, "has problems: k8slab validate", ""],
        })
        .collect();
    app.out.line(columns("", &rows));
    Ok(Code::Fine)
}
