//! Priority: the number behind a Pod's PriorityClass. After k/k 1.36 `plugin/pkg/admission/priority`.

use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use serde_json::Value;

use super::{Operation, Request};
use crate::store::View;
use crate::strategy::walk::{at, ensure_at, fill, flag, int, text};

pub(super) fn admit(request: &Request<'_>, object: &mut Value, view: &dyn View) -> Result<(), Status> {
    if request.is_for("", "pods") {
        match (request.operation, request.old) {
            (Operation::Create, _) => return resolve(request, object, view),
            (_, Some(old)) => keep(object, old),
            _ => {}
        }
    }
    if request.is_for("scheduling.k8s.io", "priorityclasses") && flag(object, &["globalDefault"]) {
        return only_default(request, object, view);
    }
    Ok(())
}

/// An update that leaves out what the server set means to keep it.
fn keep(pod: &mut Value, old: &Value) {
    let Some(spec) = ensure_at(pod, &["spec"]) else { return };
    for key in ["priority", "preemptionPolicy"] {
        if let Some(value) = at(old, &["spec", key]) {
            fill(spec, key, value.clone());
        }
    }
}

fn resolve(request: &Request<'_>, pod: &mut Value, view: &dyn View) -> Result<(), Status> {
    let classes = GroupResource::new("scheduling.k8s.io", "priorityclasses");
    let name = text(pod, &["spec", "priorityClassName"]).to_owned();
    let class = if name.is_empty() {
        default_class(view)
    } else {
        let class = view.get(&classes, None, &name);
        Some(class.ok_or_else(|| request.forbid(format!("no PriorityClass with name {name} was found")))?)
    };
    let (value, policy) = match &class {
        Some(class) => (
            int(class, &["value"]).unwrap_or(0),
            text(class, &["preemptionPolicy"]).to_owned(),
        ),
        None => (0, "PreemptLowerPriority".to_owned()),
    };
    if let Some(given) = int(pod, &["spec", "priority"]).filter(|given| *given != value) {
        return Err(request.forbid(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        )));
    }
    let given = text(pod, &["spec", "preemptionPolicy"]);
    if !policy.is_empty() && !given.is_empty() && given != policy {
        return Err(request.forbid(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    let Some(spec) = ensure_at(pod, &["spec"]) else {
        return Ok(());
    };
    if let Some(class) = &class {
        spec.insert(
            "priorityClassName".to_owned(),
            text(class, &["metadata", "name"]).into(),
        );
    }
    spec.insert("priority".to_owned(), value.into());
    if !policy.is_empty() {
        spec.insert("preemptionPolicy".to_owned(), policy.into());
    }
    Ok(())
}

/// The class of Pods that name none: after a race there may be two, the lower one counts.
fn default_class(view: &dyn View) -> Option<std::sync::Arc<Value>> {
    view.list(&GroupResource::new("scheduling.k8s.io", "priorityclasses"), None)
        .into_iter()
        .filter(|class| flag(class, &["globalDefault"]))
        .min_by_key(|class| int(class, &["value"]).unwrap_or(0))
}

fn only_default(request: &Request<'_>, class: &Value, view: &dyn View) -> Result<(), Status> {
    let Some(known) = default_class(view) else {
        return Ok(());
    };
    let known = text(&known, &["metadata", "name"]);
    if request.operation == Operation::Create || known != text(class, &["metadata", "name"]) {
        return Err(request.forbid(format!(
            "PriorityClass {known} is already marked as default. Only one default can exist"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::testing::{Objects, creating};

    fn classes() -> Objects {
        let class = json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"});
        Objects::default().with("scheduling.k8s.io", "priorityclasses", class)
    }

    fn admitted(mut pod: Value) -> Result<Value, String> {
        let result = creating("", "pods", "a", |request| admit(request, &mut pod, &classes()));
        result.map(|()| pod["spec"].clone()).map_err(|status| status.message)
    }

    #[test]
    fn a_class_gives_its_number_and_policy() {
        let spec = admitted(json!({"spec": {"priorityClassName": "high"}})).unwrap();
        assert_eq!(
            spec,
            json!({"priorityClassName": "high", "priority": 1000, "preemptionPolicy": "Never"})
        );
        let spec = admitted(json!({"spec": {}})).unwrap();
        assert_eq!(spec, json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}));
    }

    #[test]
    fn an_unknown_class_is_refused() {
        assert_eq!(
            admitted(json!({"spec": {"priorityClassName": "x"}})).unwrap_err(),
            "pods \"a\" is forbidden: no PriorityClass with name x was found"
        );
    }
}
