//! NamespaceLifecycle: nothing new in a namespace that is not there or on its way out, and three namespaces stay.
//! After k8s.io/apiserver 0.36 `pkg/admission/plugin/namespace/lifecycle`.

use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;

use super::{Operation, Request};
use crate::store::View;
use crate::strategy::walk::{at, text};

/// Namespaces that nobody may delete.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) fn check(request: &Request<'_>, view: &dyn View) -> Result<(), Status> {
    if request.operation == Operation::Delete {
        return if request.is_for("", "namespaces") && IMMORTAL.contains(&request.name) {
            Err(request.forbid("this namespace may not be deleted"))
        } else {
            Ok(())
        };
    }
    let Some(name) = request.namespace else { return Ok(()) };
    // Asking whether something is allowed is always allowed.
    if request.resource.group == "authorization.k8s.io" {
        return Ok(());
    }
    let namespaces = GroupResource::new("", "namespaces");
    let Some(namespace) = view.get(&namespaces, None, name) else {
        return Err(Status::not_found(&namespaces, name));
    };
    let terminating = text(&namespace, &["status", "phase"]) == "Terminating"
        || at(&namespace, &["metadata", "deletionTimestamp"]).is_some();
    if request.operation == Operation::Create && terminating {
        let detail = format!("unable to create new content in namespace {name} because it is being terminated");
        return Err(request.forbid(detail).with_cause(
            "NamespaceTerminating",
            format!("namespace {name} is being terminated"),
            "metadata.namespace",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::testing::{Objects, creating};

    #[test]
    fn a_namespace_must_be_there() {
        let status = creating("", "pods", "a", |request| check(request, &Objects::default())).unwrap_err();
        assert_eq!(
            (status.code, status.message.as_str()),
            (404, "namespaces \"default\" not found")
        );
    }

    #[test]
    fn nothing_new_in_a_namespace_that_goes() {
        let view = Objects::default().with(
            "",
            "namespaces",
            json!({"metadata": {"name": "default"}, "status": {"phase": "Terminating"}}),
        );
        let status = creating("", "pods", "a", |request| check(request, &view)).unwrap_err();
        assert_eq!(
            status.message,
            "pods \"a\" is forbidden: unable to create new content in namespace default because it is being terminated"
        );
        assert_eq!(
            status.to_value()["details"]["causes"][0]["reason"],
            "NamespaceTerminating"
        );
    }

    #[test]
    fn three_namespaces_stay() {
        let status = creating("", "namespaces", "kube-system", |request| {
            check(
                &Request {
                    operation: Operation::Delete,
                    namespace: None,
                    ..*request
                },
                &Objects::default(),
            )
        })
        .unwrap_err();
        assert_eq!(
            status.message,
            "namespaces \"kube-system\" is forbidden: this namespace may not be deleted"
        );
    }
}
