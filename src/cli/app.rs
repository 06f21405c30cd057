//! What every verb is given: folders, clock, catalogue, output.

use std::sync::Arc;

use apimachinery::clock::{Clock, SystemClock};

use super::Global;
use super::error::CliError;
use crate::kubeconfig::UserConfig;
use crate::paths::{Paths, ProcessEnvironment};
use crate::providers::{Provider, ProviderName, embedded};
use crate::scenario::Catalogue;
use crate::scenario::model::{Origin, Scenario};
use crate::ui::Out;

/// The program's surroundings.
pub(super) struct App {
    pub(super) global: Global,
    pub(super) paths: Paths,
    pub(super) out: Out,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) catalogue: Catalogue,
    pub(super) kubeconfig: UserConfig,
}

impl App {
    pub(super) fn new(global: Global, out: Out) -> Result<Self, CliError> {
        let paths = Paths::find(&ProcessEnvironment)?;
        let kubeconfig = UserConfig::new(paths.kubeconfig.clone(), paths.owner);
        let catalogue = Catalogue::new(global.scenarios.clone());
        Ok(Self {
            global,
            out,
            clock: Arc::new(SystemClock),
            catalogue,
            kubeconfig,
            paths,
        })
    }

    /// The provider behind a name of `--cluster`.
    pub(super) fn provider(
        &self,
        name: &str,
        speed: Option<apimachinery::pace::Pace>,
    ) -> Result<Box<dyn Provider>, CliError> {
        let names = ProviderName::ALL.map(ProviderName::name).join(", ");
        match ProviderName::named(name) {
            Some(ProviderName::Embedded) => Ok(Box::new(embedded::Embedded::new(&self.paths, speed))),
            None => Err(CliError::usage(format!("unknown cluster `{name}`")).hint(format!("there is: {names}"))),
        }
    }

    /// The scenario of a lab that is known by its journal; one whose folder is gone is replaced by its bare name, so
    /// that `down` still finds everything by its label.
    pub(super) fn scenario_of(&self, lab: &crate::lab::LabRef) -> Scenario {
        let loaded = match &lab.folder {
            Some(folder) => crate::scenario::load::load_folder(folder),
            None => self.catalogue.load(&lab.scenario),
        };
        loaded.unwrap_or_else(|_| bare(lab))
    }
}

fn bare(lab: &crate::lab::LabRef) -> Scenario {
    Scenario {
        name: lab.scenario.clone(),
        title: "its files are no longer there".to_owned(),
        description: None,
        requires: crate::scenario::model::Requires::default(),
        parameters: Vec::new(),
        steps: Vec::new(),
        endpoints: Vec::new(),
        actions: Vec::new(),
        checks: Vec::new(),
        manifests: std::collections::BTreeMap::new(),
        dockerfiles: std::collections::BTreeMap::new(),
        origin: lab.folder.clone().map_or(Origin::Shipped, Origin::Folder),
    }
}
