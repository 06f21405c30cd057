//! In place of the embedded cluster where there is no Linux kernel under it: says so, and what will work.

use std::path::Path;

use apimachinery::pace::Pace;
use futures::future::BoxFuture;
use serde::Serialize;

use super::{Cluster, Explained, NextMove, Presence, Provider};
use crate::exec::script::Script;
use crate::images::Recipe;
use crate::k8s::wait::Patience;
use crate::paths::Paths;
use crate::scenario::model::Feature;
use crate::steps::{Done, FailureKind, Session, StepError};

/// The embedded cluster that cannot be here.
#[derive(Clone, Copy, Debug)]
pub struct Embedded;

/// What there is of the embedded cluster: nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum State {
    /// Nothing.
    Absent,
    /// Not here.
    Stopped,
    /// Not here.
    Crashed {
        /// The daemon.
        pid: i32,
    },
    /// Not here.
    Running {
        /// The API server's address.
        api: String,
        /// The daemon.
        pid: i32,
        /// Lab time's divisor.
        speed: u32,
        /// The daemon's k8slab.
        version: String,
        /// Why limits are not enforced.
        limits_not_enforced: Option<String>,
    },
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// Its name.
    pub reference: String,
    /// Its id.
    pub id: String,
}

/// There is no store here.
pub fn images(_paths: &Paths) -> Result<Vec<StoredImage>, StepError> {
    Err(needs_linux())
}

/// There is no store here.
pub fn import_images(_paths: &Paths, _archive: &Path, _names: &[String]) -> Result<Vec<StoredImage>, StepError> {
    Err(needs_linux())
}

fn needs_linux() -> StepError {
    let message = format!("the embedded cluster needs Linux, this is {}", std::env::consts::OS);
    let hint = "run k8slab in WSL2 or in any Linux machine or VM; clusters by Docker and minikube are being built";
    StepError::new(FailureKind::Prerequisite, message).hint(hint)
}

impl Embedded {
    /// Takes what the real one takes.
    pub fn new(_paths: &Paths, _speed: Option<Pace>) -> Self {
        Self
    }

    /// Always nothing.
    pub fn state(&self) -> Result<State, StepError> {
        Ok(State::Absent)
    }

    /// Says what is missing.
    pub async fn start(&self, _note: &(dyn Fn(String) + Send + Sync)) -> Result<Cluster, StepError> {
        Err(needs_linux())
    }

    /// There is nothing to stop.
    pub async fn stop(&self) -> Result<bool, StepError> {
        Ok(false)
    }

    /// There is nothing to delete.
    pub async fn delete(&self) -> Result<bool, StepError> {
        Ok(false)
    }
}

impl Provider for Embedded {
    fn key(&self) -> String {
        String::new()
    }

    fn find(&self) -> BoxFuture<'_, Result<Presence, StepError>> {
        Box::pin(async { Ok(Presence::Absent) })
    }

    fn ensure<'a>(&'a self, _note: &'a (dyn Fn(String) + Send + Sync)) -> BoxFuture<'a, Result<Cluster, StepError>> {
        Box::pin(async { Err(needs_linux()) })
    }

    fn has_image<'a>(&'a self, _image: &'a Recipe) -> BoxFuture<'a, Result<bool, StepError>> {
        Box::pin(async { Ok(false) })
    }

    fn load_image<'a>(&'a self, _image: &'a Recipe) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(async { Err(needs_linux()) })
    }

    fn has_feature<'a>(&'a self, _at: &'a Session, _f: Feature) -> BoxFuture<'a, Result<Option<String>, StepError>> {
        Box::pin(async { Ok(None) })
    }

    fn ensure_feature<'a>(
        &'a self,
        _at: &'a Session,
        _feature: Feature,
        _patience: &'a Patience<'a>,
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async { Err(needs_linux()) })
    }

    fn release(&self, _force: bool) -> BoxFuture<'_, Result<String, StepError>> {
        Box::pin(async { Ok("there was no cluster".to_owned()) })
    }

    fn next_moves<'a>(&'a self, _at: &'a Session) -> BoxFuture<'a, Vec<NextMove>> {
        Box::pin(async { Vec::new() })
    }

    fn explain(&self, _what: &Explained<'_>, script: &mut Script) {
        script.comment("the embedded cluster needs Linux");
    }
}
