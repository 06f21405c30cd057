//! StorageObjectInUseProtection: volumes and claims are born with the finalizer that keeps them while they are in use;
//! the protection controllers take it away. After k/k 1.36 `plugin/pkg/admission/storage/storageobjectinuseprotection`.

use serde_json::{Value, json};

use super::{Operation, Request};
use crate::strategy::walk::ensure_at;

pub(super) fn admit(request: &Request<'_>, object: &mut Value) {
    if request.operation != Operation::Create {
        return;
    }
    let finalizer = if request.is_for("", "persistentvolumeclaims") {
        "kubernetes.io/pvc-protection"
    } else if request.is_for("", "persistentvolumes") {
        "kubernetes.io/pv-protection"
    } else {
        return;
    };
    let Some(metadata) = ensure_at(object, &["metadata"]) else {
        return;
    };
    match metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
        Some(finalizers) if finalizers.iter().any(|known| known == finalizer) => {}
        Some(finalizers) => finalizers.push(finalizer.into()),
        None => drop(metadata.insert("finalizers".into(), json!([finalizer]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::creating;

    #[test]
    fn claims_and_volumes_are_protected_once() {
        let admitted = |resource: &str, mut object: Value| {
            creating("", resource, "a", |request| admit(request, &mut object));
            object["metadata"]["finalizers"].clone()
        };
        assert_eq!(
            admitted("persistentvolumeclaims", json!({})),
            json!(["kubernetes.io/pvc-protection"])
        );
        let own = json!({"metadata": {"finalizers": ["x", "kubernetes.io/pv-protection"]}});
        assert_eq!(
            admitted("persistentvolumes", own),
            json!(["x", "kubernetes.io/pv-protection"])
        );
        assert_eq!(admitted("pods", json!({})), Value::Null);
    }
}
