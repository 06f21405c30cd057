//! What the tests of every group need: a fixed now, and rows as `kubectl get` prints them.

use apimachinery::gvk::GroupVersionKind;
use apimachinery::time;
use jiff::Timestamp;
use serde_json::Value;

/// 2026-01-02T12:00:00Z.
pub(super) fn now() -> Timestamp {
    time::parse("2026-01-02T12:00:00Z").unwrap()
}

/// The cells of the columns that are always shown, ` | `, those of `-o wide`; each in its printed form.
pub(super) fn row(api_version: &str, kind: &str, object: &Value) -> String {
    let kind = GroupVersionKind::parse(api_version, kind).unwrap();
    let cells = super::cells(&kind, object, now());
    let print = |priority: u8| {
        let of_priority = super::columns(&kind).iter().zip(&cells);
        of_priority
            .filter(|(column, _)| column.priority == priority)
            .map(|(_, cell)| super::show::plain(cell))
            .collect::<Vec<_>>()
            .join("  ")
    };
    match print(1).as_str() {
        "" => print(0),
        wide => format!("{} | {wide}", print(0)),
    }
}

/// The headings in the same form.
pub(super) fn headings(api_version: &str, kind: &str) -> String {
    let kind = GroupVersionKind::parse(api_version, kind).unwrap();
    let all = super::columns(&kind).iter();
    let print = |wide: bool| {
        let names = all.clone().filter(|column| (column.priority == 1) == wide);
        names.map(|column| column.name).collect::<Vec<_>>().join("  ")
    };
    match print(true).as_str() {
        "" => print(false),
        wide => format!("{} | {wide}", print(false)),
    }
}
