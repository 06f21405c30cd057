//! The columns and cells that `kubectl get` shows of every built-in kind.
//!
//! Owns what a person sees of an object: pure functions over its JSON, one file an API group. Must not know how a
//! `Table` is put together or who asked for it (`respond`). Custom resources bring their own columns and are not here.
//!
//! Source of columns and cell rules: kubernetes, `pkg/printers/internalversion/printers.go` and, for APIServices,
//! kube-aggregator's `pkg/registry/apiservice/storage`, 1.36.

mod admissionregistration;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod column;
mod coordination;
mod core;
mod discovery;
mod flowcontrol;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod scheduling;
mod show;
mod storage;
#[cfg(test)]
mod testing;

use std::borrow::Cow;

use apimachinery::gvk::GroupVersionKind;
use jiff::Timestamp;
use serde_json::Value;

use crate::resources::conversion;

pub use self::column::Column;
use self::column::{CREATED_AT, NAME};

/// What a kind without columns of its own has. Roles, LimitRanges and definitions are among them.
static GENERIC: &[Column] = &[NAME, CREATED_AT];

/// The columns of a kind. A kind without columns of its own has `Name` and `Created At`.
pub fn columns(kind: &GroupVersionKind) -> &'static [Column] {
    let own = match kind.group.as_str() {
        "" | "events.k8s.io" => core::columns(&kind.kind),
        "admissionregistration.k8s.io" => admissionregistration::columns(&kind.kind),
        "apiregistration.k8s.io" => apiregistration::columns(&kind.kind),
        "apps" => apps::columns(&kind.kind),
        "autoscaling" => autoscaling::columns(&kind.kind),
        "batch" => batch::columns(&kind.kind),
        "certificates.k8s.io" => certificates::columns(&kind.kind),
        "coordination.k8s.io" => coordination::columns(&kind.kind),
        "discovery.k8s.io" => discovery::columns(&kind.kind),
        "flowcontrol.apiserver.k8s.io" => flowcontrol::columns(&kind.kind),
        "networking.k8s.io" => networking::columns(&kind.kind),
        "node.k8s.io" => node::columns(&kind.kind),
        "policy" => policy::columns(&kind.kind),
        "rbac.authorization.k8s.io" => rbac::columns(&kind.kind),
        "resource.k8s.io" => resource::columns(&kind.kind),
        "scheduling.k8s.io" => scheduling::columns(&kind.kind),
        "storage.k8s.io" => storage::columns(&kind.kind),
        _ => None,
    };
    own.unwrap_or(GENERIC)
}

/// The cells of an object's row, one for each of [`columns`]. Wide ones are among them: hiding them is the client's.
pub fn cells(kind: &GroupVersionKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let object = as_stored(kind, object);
    columns(kind).iter().map(|column| column.cell(&object, now)).collect()
}

/// Kinds that are served in two shapes are shown from the one in which they are stored.
fn as_stored<'a>(kind: &GroupVersionKind, object: &'a Value) -> Cow<'a, Value> {
    let plural = match kind.kind.as_str() {
        "HorizontalPodAutoscaler" => "horizontalpodautoscalers",
        "Event" => "events",
        _ => return Cow::Borrowed(object),
    };
    match conversion::of(&kind.group, &kind.version, plural) {
        Some(conversion) if object.is_object() => {
            let mut stored = object.clone();
            conversion.store(&mut stored);
            Cow::Owned(stored)
        }
        _ => Cow::Borrowed(object),
    }
}

/// The row's `conditions`: that a pod has completed. `None` where there is nothing to say.
pub fn conditions(kind: &GroupVersionKind, object: &Value) -> Option<Vec<Value>> {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => core::pod::completed(object).map(|condition| vec![condition]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::Table;

    #[test]
    fn every_kind_has_a_row_as_long_as_its_heading_even_when_the_object_is_empty() {
        let now = Timestamp::UNIX_EPOCH;
        for resource in Table::built_in().unwrap().resources() {
            let kind = resource.gvk();
            assert_eq!(cells(&kind, &json!({}), now).len(), columns(&kind).len(), "{kind}");
            // Nothing of a wrong type is worth a panic either.
            for wrong in [
                json!(null),
                json!([]),
                json!({"metadata": 1, "spec": "x", "status": []}),
            ] {
                cells(&kind, &wrong, now);
                conditions(&kind, &wrong);
            }
        }
    }

    #[test]
    fn only_these_kinds_have_no_columns_of_their_own() {
        let table = Table::built_in().unwrap();
        let generic: Vec<_> = table
            .resources()
            .filter(|resource| resource.is_stored() && std::ptr::eq(columns(&resource.gvk()), GENERIC))
            .map(|resource| resource.kind.as_str())
            .collect();
        assert_eq!(
            generic,
            ["LimitRange", "ClusterRole", "Role", "CustomResourceDefinition"]
        );
    }

    #[test]
    fn a_kind_without_columns_shows_when_it_was_made() {
        let kind = GroupVersionKind::new("rbac.authorization.k8s.io", "v1", "Role");
        let role = json!({"metadata": {"name": "r", "creationTimestamp": "2026-01-02T03:04:05Z"}});
        assert_eq!(
            cells(&kind, &role, Timestamp::UNIX_EPOCH),
            [json!("r"), json!("2026-01-02T03:04:05Z")]
        );
    }
}
