//! Event: `events.k8s.io/v1` calls fields differently.

use serde_json::Value;

use super::rename;

const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

pub(super) fn to_core(event: &mut Value) {
    for (core, new) in NAMES {
        rename(event, new, core);
    }
}

pub(super) fn from_core(event: &mut Value) {
    for (core, new) in NAMES {
        rename(event, core, new);
    }
}
