//! Dynamic resource allocation: DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice.

use jiff::Timestamp;
use serde_json::Value;

use super::column::{AGE, Column, NAME, shown, text};
use super::show;
use crate::strategy::walk;

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    Some(match kind {
        "DeviceClass" | "ResourceClaimTemplate" => BY_NAME,
        "ResourceClaim" => RESOURCE_CLAIM,
        "ResourceSlice" => RESOURCE_SLICE,
        _ => return None,
    })
}

static BY_NAME: &[Column] = &[NAME, AGE];

static RESOURCE_CLAIM: &[Column] = &[NAME, shown("State", "Whether it is allocated, and in use", state), AGE];

static RESOURCE_SLICE: &[Column] = &[
    NAME,
    text("Node", "The node that has the devices", &["spec", "nodeName"]),
    text("Driver", "The driver that offers them", &["spec", "driver"]),
    text("Pool", "The pool the slice is part of", &["spec", "pool", "name"]),
    AGE,
];

fn state(claim: &Value, _: Timestamp) -> Value {
    let allocated = walk::at(claim, &["status", "allocation"]).is_some();
    let reserved = !walk::list(claim, &["status", "reservedFor"]).is_empty();
    let deleted = show::is_deleting(claim);
    let states = [
        (deleted, "deleted"),
        (!allocated && !deleted, "pending"),
        (allocated, "allocated"),
        (allocated && reserved, "reserved"),
    ];
    let true_ones = states.into_iter().filter(|(holds, _)| *holds).map(|(_, name)| name);
    true_ones.collect::<Vec<_>>().join(",").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::testing::row;

    #[test]
    fn a_claim_is_pending_allocated_then_reserved() {
        let of = |status, deletion| {
            let claim = json!({"metadata": {"name": "gpu", "deletionTimestamp": deletion}, "status": status});
            row("resource.k8s.io/v1", "ResourceClaim", &claim)
        };
        assert_eq!(of(json!({}), json!(null)), "gpu  pending  <unknown>");
        assert_eq!(of(json!({"allocation": {}}), json!(null)), "gpu  allocated  <unknown>");
        assert_eq!(
            of(
                json!({"allocation": {}, "reservedFor": [{}]}),
                json!("2026-01-02T12:00:00Z")
            ),
            "gpu  deleted,allocated,reserved  <unknown>"
        );
    }
}
