//! CertificateSigningRequest. After k/k `pkg/registry/certificates/certificates/strategy.go` at 1.36. Who asks is written
//! by `admission`, which knows the identity.

use serde_json::Value;

use super::walk::{each, keep_old, list, object_mut, text};
use super::{Status, Strategy, empty_status};

/// Rules of CertificateSigningRequests.
pub(super) static CERTIFICATE_SIGNING_REQUEST: Strategy = Strategy {
    prepare_update: |new, old| keep_old(new, old, "spec"),
    prepare_status: keep_decisions,
    status: Status::Fresh(empty_status),
    ..Strategy::PLAIN
};

/// Approval and denial are written through `/approval` only.
fn keep_decisions(new: &mut Value, old: &Value) {
    let decided = |kind: &str| matches!(kind, "Approved" | "Denied");
    let stored: Vec<&Value> = list(old, &["status", "conditions"])
        .iter()
        .filter(|condition| decided(text(condition, &["type"])))
        .collect();
    let Some(status) = object_mut(new, &["status"]) else {
        return;
    };
    for condition in each(status, "conditions") {
        let kind = super::walk::field(condition, "type").to_owned();
        if !decided(&kind) {
            continue;
        }
        if let Some(Value::Object(known)) = stored.iter().find(|known| text(known, &["type"]) == kind) {
            condition.clone_from(known);
        }
    }
}
