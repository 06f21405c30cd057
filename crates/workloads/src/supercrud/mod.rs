//! The supercrud lab: an application over a database, and an operator that runs as many replicas of it as one asks for,
//! by `kubectl` or by an HTTP API of its own.
//!
//! Here is the resource; `operator` keeps it, `api` answers for it, `application` is what runs.

#![expect(
    unreachable_pub,
    reason = "`KubeSchema` works on a copy of the struct, inside a function"
)]

#[cfg(target_os = "linux")]
mod api;
#[cfg(target_os = "linux")]
mod application;
#[cfg(target_os = "linux")]
mod database;
#[cfg(target_os = "linux")]
mod operator;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) use self::operator::run;
#[cfg(target_os = "linux")]
pub(crate) use self::{application::main as application, operator::main as operator};
use crate::condition::Condition;

/// What the lab's node carries.
const MOST_REPLICAS: i64 = 50;

/// The supercrud application in so many replicas, its Service, and the way to its database.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "example.alnao.it",
    version = "v1",
    kind = "Supercrud",
    plural = "supercruds",
    shortname = "super",
    doc = "The supercrud application in so many replicas, its Service, and the way to its database.",
    namespaced,
    status = "SupercrudStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn = r#"{"name": "Database", "type": "string", "jsonPath": ".spec.database"}"#,
    printcolumn = r#"{"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas"}"#,
    printcolumn = r#"{"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas"}"#,
    printcolumn = r#"{"name": "Port", "type": "integer", "jsonPath": ".status.nodePort"}"#,
    printcolumn = r#"{"name": "Degraded", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Degraded\")].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    validation = kube::core::Rule::new("size(self.metadata.name) <= 54")
        .message("the Secret is called NAME-database, the Service NAME-service: a name has at most 54 characters")
)]
pub struct SupercrudSpec {
    /// The image of the application.
    #[schemars(length(min = 1, max = 255))]
    pub image: String,
    /// How many pods.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = MOST_REPLICAS))]
    pub replicas: i32,
    /// Where the items are kept.
    #[serde(default)]
    pub database: Engine,
    /// The port of the node on which the application answers; the API server chooses one if there is none.
    #[schemars(range(min = 30000, max = 32767))]
    pub node_port: Option<i32>,
}

/// Where the items are kept.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The Service `postgres-service`; the password is in the Secret NAME-database, made if there is none.
    #[default]
    Postgres,
    /// A file on the PersistentVolumeClaim `supercrud-data`, shared by all pods of the node.
    Sqlite,
}

/// How it stands.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SupercrudStatus {
    /// The generation of the resource that this is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// Pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Pods that are ready and stay so.
    #[serde(default)]
    pub available_replicas: i32,
    /// The pods' labels, for `kubectl scale` and the HorizontalPodAutoscaler.
    #[serde(default)]
    pub selector: String,
    /// The port of the node on which the application answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<i32>,
    /// `Ready` and `Degraded`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

fn one() -> i32 {
    1
}
