//! DefaultStorageClass and DefaultIngressClass. After k/k 1.36 `plugin/pkg/admission/{storage/storageclass,network}`.

use std::cmp::Reverse;
use std::sync::Arc;

use apimachinery::gvk::GroupResource;
use serde_json::Value;

use super::{Operation, Request};
use crate::store::View;
use crate::strategy::walk::{at, ensure_at, text};

const DEFAULT_STORAGE_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_INGRESS_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

pub(super) fn admit(request: &Request<'_>, object: &mut Value, view: &dyn View) {
    if request.operation != Operation::Create {
        return;
    }
    let says_nothing = |key: &str, annotation: &str| {
        at(object, &["spec", key]).is_none() && at(object, &["metadata", "annotations", annotation]).is_none()
    };
    if request.is_for("", "persistentvolumeclaims")
        && says_nothing("storageClassName", "volume.beta.kubernetes.io/storage-class")
    {
        let class = default_class(view, "storage.k8s.io", "storageclasses", DEFAULT_STORAGE_CLASS);
        set(object, "storageClassName", class);
    } else if request.is_for("networking.k8s.io", "ingresses")
        && says_nothing("ingressClassName", "kubernetes.io/ingress.class")
    {
        let class = default_class(view, "networking.k8s.io", "ingressclasses", DEFAULT_INGRESS_CLASS);
        set(object, "ingressClassName", class);
    }
}

/// The class that says it is the default; of several the newest.
fn default_class(view: &dyn View, group: &str, resource: &str, annotation: &str) -> Option<Arc<Value>> {
    view.list(&GroupResource::new(group, resource), None)
        .into_iter()
        .filter(|class| text(class, &["metadata", "annotations", annotation]) == "true")
        .min_by_key(|class| {
            let created = text(class, &["metadata", "creationTimestamp"]).to_owned();
            (Reverse(created), text(class, &["metadata", "name"]).to_owned())
        })
}

fn set(object: &mut Value, key: &str, class: Option<Arc<Value>>) {
    if let (Some(class), Some(spec)) = (class, ensure_at(object, &["spec"])) {
        spec.insert(key.to_owned(), text(&class, &["metadata", "name"]).into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::testing::{Objects, creating};

    #[test]
    fn a_claim_without_a_class_gets_the_default_one() {
        let class = json!({"metadata": {"name": "local-path", "annotations": {DEFAULT_STORAGE_CLASS: "true"}}});
        let view = Objects::default().with("storage.k8s.io", "storageclasses", class);
        let admitted = |mut claim: Value| {
            creating("", "persistentvolumeclaims", "a", |request| {
                admit(request, &mut claim, &view)
            });
            claim["spec"]["storageClassName"].clone()
        };
        assert_eq!(admitted(json!({"spec": {}})), "local-path");
        assert_eq!(admitted(json!({"spec": {"storageClassName": ""}})), "");
    }
}
