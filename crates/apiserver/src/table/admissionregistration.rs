//! Webhook configurations, admission policies and their bindings.

use jiff::Timestamp;
use serde_json::Value;

use super::column::{AGE, Column, NAME, count, shown, text};
use super::show;
use crate::strategy::walk::{self, at};

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    Some(match kind {
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => WEBHOOK_CONFIGURATION,
        "ValidatingAdmissionPolicy" => VALIDATING_ADMISSION_POLICY,
        "MutatingAdmissionPolicy" => MUTATING_ADMISSION_POLICY,
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => POLICY_BINDING,
        _ => return None,
    })
}

const PARAM_KIND: Column = shown(
    "ParamKind",
    "Kind of the objects that parameterize the policy",
    param_kind,
);

static WEBHOOK_CONFIGURATION: &[Column] = &[NAME, count("Webhooks", "Number of webhooks", &["webhooks"]), AGE];

static VALIDATING_ADMISSION_POLICY: &[Column] = &[
    NAME,
    count("Validations", "Number of validations", &["spec", "validations"]),
    PARAM_KIND,
    AGE,
];

static MUTATING_ADMISSION_POLICY: &[Column] = &[
    NAME,
    count("Mutations", "Number of mutations", &["spec", "mutations"]),
    PARAM_KIND,
    AGE,
];

static POLICY_BINDING: &[Column] = &[
    NAME,
    text("PolicyName", "The policy that is bound", &["spec", "policyName"]),
    shown(
        "ParamRef",
        "The object or objects that parameterize the policy",
        param_ref,
    ),
    AGE,
];

fn param_kind(policy: &Value, _: Timestamp) -> Value {
    match at(policy, &["spec", "paramKind"]) {
        None => "<unset>".into(),
        Some(kind) => format!("{}/{}", walk::text(kind, &["apiVersion"]), walk::text(kind, &["kind"])).into(),
    }
}

fn param_ref(binding: &Value, _: Timestamp) -> Value {
    let Some(reference) = at(binding, &["spec", "paramRef"]) else {
        return "<unset>".into();
    };
    match (walk::text(reference, &["namespace"]), walk::text(reference, &["name"])) {
        (_, "") if at(reference, &["selector"]).is_some() => show::selector(reference, &["selector"]).into(),
        (_, "") => "<unset>".into(),
        // Whether such objects have namespaces is not known here.
        ("", name) => format!("*/{name}").into(),
        (namespace, name) => format!("{namespace}/{name}").into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::testing::row;

    const V1: &str = "admissionregistration.k8s.io/v1";

    #[test]
    fn webhooks_and_rules_are_counted() {
        let hooks = json!({"metadata": {"name": "w"}, "webhooks": [{}, {}]});
        assert_eq!(row(V1, "ValidatingWebhookConfiguration", &hooks), "w  2  <unknown>");
        let policy = json!({"metadata": {"name": "p"}, "spec": {"validations": [{}],
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}});
        assert_eq!(
            row(V1, "ValidatingAdmissionPolicy", &policy),
            "p  1  v1/ConfigMap  <unknown>"
        );
        assert_eq!(
            row(V1, "MutatingAdmissionPolicy", &json!({})),
            "  0  <unset>  <unknown>"
        );
    }

    #[test]
    fn a_binding_names_what_it_binds() {
        let of = |reference| {
            let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "paramRef": reference}});
            row(V1, "ValidatingAdmissionPolicyBinding", &binding)
        };
        assert_eq!(of(json!(null)), "b  p  <unset>  <unknown>");
        assert_eq!(of(json!({"name": "x"})), "b  p  */x  <unknown>");
        assert_eq!(of(json!({"name": "x", "namespace": "n"})), "b  p  n/x  <unknown>");
        assert_eq!(
            of(json!({"selector": {"matchLabels": {"a": "b"}}})),
            "b  p  a=b  <unknown>"
        );
    }
}
