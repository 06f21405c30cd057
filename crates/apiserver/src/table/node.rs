//! RuntimeClass.

use super::column::{AGE, Column, NAME, text};

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    (kind == "RuntimeClass").then_some(RUNTIME_CLASS)
}

static RUNTIME_CLASS: &[Column] = &[
    NAME,
    text("Handler", "The runtime that starts its containers", &["handler"]),
    AGE,
];
