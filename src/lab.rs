//! A lab's identity: cluster + namespace + scenario, and an id made of them. A leaf.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::scenario::model::{Origin, Scenario};

/// The label that everything of a lab carries.
pub const LABEL: &str = "k8slab.dev/lab";

/// Which lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabRef {
    /// The value of the label `k8slab.dev/lab`.
    pub id: String,
    /// The scenario's name.
    pub scenario: String,
    /// The folder of an own scenario.
    pub folder: Option<PathBuf>,
    /// Its namespace.
    pub namespace: String,
    /// Its cluster, as `--cluster` names it.
    pub cluster: String,
    /// Its kubeconfig context.
    pub context: String,
}

/// Gives a lab its identity: the same scenario in the same namespace of the same cluster is the same lab.
/// `cluster_key` tells clusters of one name apart, as the state folder does for embedded ones.
pub fn identify(scenario: &Scenario, namespace: &str, cluster: &str, cluster_key: &str) -> LabRef {
    let mut hash = Sha256::new();
    for part in [cluster, cluster_key, namespace, &scenario.name] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest: String = hash
        .finalize()
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    LabRef {
        id: format!("{namespace}-{digest}"),
        scenario: scenario.name.clone(),
        folder: match &scenario.origin {
            Origin::Shipped => None,
            Origin::Folder(folder) => Some(std::path::absolute(folder).unwrap_or_else(|_| folder.clone())),
        },
        namespace: namespace.to_owned(),
        cluster: cluster.to_owned(),
        context: format!("k8slab-{namespace}"),
    }
}
