//! The columns and cells that `kubectl get` shows of every built-in kind.
//!
//! Owns what a person sees of an object: pure functions over its JSON, one file an API group. Must not know how a
//! `Table` is put together or who asked for it (`respond`). Custom resources bring their own columns and are not here.
//!
//! Source of columns and cell rules: kubernetes, `pkg/printers/internalversion/printers.go`, 1.36.

use apimachinery::gvk::GroupVersionKind;
use jiff::Timestamp;
use serde_json::Value;

/// A column's definition, as in `TableColumnDefinition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its heading, in title case; clients print it in capitals.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`, …
    pub kind: &'static str,
    /// `name` for the column that names the object, else empty.
    pub format: &'static str,
    /// What it shows, in a sentence.
    pub description: &'static str,
    /// 0: always shown; 1: with `-o wide` only.
    pub priority: u8,
}

/// The columns of a kind. A kind without columns of its own has `Name` and `Created At`.
pub fn columns(_kind: &GroupVersionKind) -> &'static [Column] {
    &[]
}

/// The cells of an object's row, one for each of [`columns`].
pub fn cells(_kind: &GroupVersionKind, _object: &Value, _now: Timestamp) -> Vec<Value> {
    Vec::new()
}

/// The row's `conditions`: that a pod has completed. `None` where there is nothing to say.
pub fn conditions(_kind: &GroupVersionKind, _object: &Value) -> Option<Vec<Value>> {
    None
}
