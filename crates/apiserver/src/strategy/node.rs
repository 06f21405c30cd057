//! Node and RuntimeClass. After k/k `pkg/registry/core/node/strategy.go` and `pkg/apis/core/v1/defaults.go` at 1.36.

use serde_json::Value;

use super::walk::{drop_key, ensure_at, has, object, object_mut};
use super::{Status, Strategy};

/// Rules of Nodes. A kubelet registers with a status, which is kept.
pub(super) static NODE: Strategy = Strategy {
    default: default_node,
    status: Status::Kept,
    ..Strategy::PLAIN
};

/// Rules of RuntimeClasses.
pub(super) static RUNTIME_CLASS: Strategy = Strategy {
    unconditional_update: false,
    create_on_update: true,
    ..Strategy::PLAIN
};

fn default_node(node: &mut Value) {
    if !has(node, &["status", "allocatable"])
        && let Some(capacity) = object(node, &["status", "capacity"]).cloned()
        && let Some(status) = object_mut(node, &["status"])
    {
        status.insert("allocatable".to_owned(), Value::Object(capacity));
    }
    if let Some(spec) = ensure_at(node, &["spec"]) {
        drop_key(spec, "configSource");
    }
}
