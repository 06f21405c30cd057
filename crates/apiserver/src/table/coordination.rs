//! Lease.

use super::column::{AGE, Column, NAME, text};

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    (kind == "Lease").then_some(LEASE)
}

static LEASE: &[Column] = &[
    NAME,
    text("Holder", "Who holds the lease", &["spec", "holderIdentity"]),
    AGE,
];
