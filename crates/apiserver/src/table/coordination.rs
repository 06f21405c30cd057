//! Lease.

use super::cell::{age, name};
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::text;

pub(super) static LEASE: Printer = Printer {
    columns: &[NAME, Column::text("Holder", "Who has it."), AGE],
    cells: |lease, now| {
        vec![
            name(lease),
            text(lease, &["spec", "holderIdentity"]).into(),
            age(lease, now),
        ]
    },
};
