//! The answer to a TokenRequest: a fresh token for a ServiceAccount.
//!
//! Rules and words: kubernetes/kubernetes `pkg/registry/core/serviceaccount/storage/token.go` and
//! `pkg/apis/authentication/validation` (v1.36).

use apimachinery::field::{Error, Path};
use apimachinery::gvk::{GroupKind, GroupResource};
use apimachinery::quote::quote;
use apimachinery::status::Status;
use apimachinery::time;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::identity::service_account_user;
use super::token::{Claims, PrivateClaims, Reference, Signer};
use super::{NODES, PODS, SECRETS, SERVICE_ACCOUNTS};
use crate::store::View;

const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// What kubelets ask for on behalf of a pod's default token volume, whose reader may be too old to read it again.
const EXTENDED_SECONDS: i64 = 3607;
/// How long such a token really lasts.
const EXTENSION: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Answers a POST to `serviceaccounts/NAME/token`: the request with its defaults, `status.token` and
/// `status.expirationTimestamp`. `name` and `namespace` are the path's.
pub fn create(
    namespace: &str,
    name: &str,
    mut request: Value,
    view: &dyn View,
    signer: &Signer,
    now: Timestamp,
) -> Result<Value, Status> {
    let account = view
        .get(&SERVICE_ACCOUNTS, Some(namespace), name)
        .ok_or_else(|| Status::not_found(&SERVICE_ACCOUNTS, name))?;
    default_and_validate(namespace, name, &mut request, signer)?;
    let uid = text(&account["metadata"], "uid");
    let asked_uid = text(&request["metadata"], "uid");
    if !asked_uid.is_empty() && asked_uid != uid {
        let detail =
            format!("the UID in the token request ({asked_uid}) does not match the UID of the service account ({uid})");
        return Err(Status::conflict(&SERVICE_ACCOUNTS, name, detail));
    }

    let mut kubernetes = PrivateClaims {
        namespace: namespace.to_owned(),
        node: None,
        pod: None,
        secret: None,
        serviceaccount: Reference {
            name: name.to_owned(),
            uid: uid.to_owned(),
        },
        warnafter: None,
    };
    bind(&mut kubernetes, &request["spec"]["boundObjectRef"], view)?;

    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
    let audiences: Vec<String> = strings(&request["spec"]["audiences"]);
    let promised = later(now, SignedDuration::from_secs(seconds));
    let mut ends = promised;
    if seconds == EXTENDED_SECONDS && kubernetes.pod.is_some() && audiences == [signer.issuer()] {
        kubernetes.warnafter = Some(promised.as_second());
        ends = later(now, EXTENSION);
    }
    let claims = Claims {
        aud: audiences,
        exp: ends.as_second(),
        iat: now.as_second(),
        iss: signer.issuer().to_owned(),
        jti: Uuid::new_v4().to_string(),
        kubernetes,
        nbf: now.as_second(),
        sub: service_account_user(namespace, name),
    };
    let token = signer
        .sign(&claims)
        .map_err(|error| Status::internal(format!("failed to generate token: {error}")))?;
    request["metadata"]["name"] = json!(name);
    request["metadata"]["namespace"] = json!(namespace);
    request["metadata"]["creationTimestamp"] = json!(time::format(now));
    request["status"] = json!({"token": token, "expirationTimestamp": time::format(promised)});
    Ok(request)
}

fn default_and_validate(namespace: &str, name: &str, request: &mut Value, signer: &Signer) -> Result<(), Status> {
    for (field, expected) in [("name", name), ("namespace", namespace)] {
        let got = text(&request["metadata"], field);
        if !(got.is_empty() || got == expected) {
            return Err(Status::bad_request(format!(
                "the {field} of the provided object ({got}) does not match the {field} sent on the request ({expected})"
            )));
        }
    }
    if !request["metadata"].is_object() {
        request["metadata"] = json!({});
    }
    if !request["spec"].is_object() {
        request["spec"] = json!({});
    }
    let spec = &mut request["spec"];
    if spec["audiences"].as_array().is_none_or(Vec::is_empty) {
        spec["audiences"] = json!([signer.issuer()]);
    }
    if spec["expirationSeconds"].is_null() {
        spec["expirationSeconds"] = json!(DEFAULT_SECONDS);
    }
    let (path, value) = (
        Path::new("spec").child("expirationSeconds"),
        spec["expirationSeconds"].clone(),
    );
    let refusal = match value.as_i64() {
        Some(seconds) if seconds < MIN_SECONDS => "may not specify a duration less than 10 minutes",
        Some(seconds) if seconds > MAX_SECONDS => "may not specify a duration larger than 2^32 seconds",
        Some(_) => return Ok(()),
        None => "expected seconds, as a number",
    };
    let kind = GroupKind::new("authentication.k8s.io", "TokenRequest");
    Err(Status::invalid(&kind, name, &[Error::invalid(&path, value, refusal)]))
}

/// Binds the token to the object that `reference` names, which must be there.
fn bind(claims: &mut PrivateClaims, reference: &Value, view: &dyn View) -> Result<(), Status> {
    if !reference.is_object() {
        return Ok(());
    }
    let name = text(reference, "name");
    let find = |resource: &GroupResource, namespace| {
        let object = view
            .get(resource, namespace, name)
            .ok_or_else(|| Status::not_found(resource, name))?;
        let uid = text(&object["metadata"], "uid").to_owned();
        let asked = text(reference, "uid");
        if !asked.is_empty() && asked != uid {
            let detail = format!(
                "the UID in the bound object reference ({asked}) does not match the UID in record. The object might \
                 have been deleted and then recreated"
            );
            return Err(Status::conflict(resource, name, detail));
        }
        Ok((
            object,
            Reference {
                name: name.to_owned(),
                uid,
            },
        ))
    };
    let namespace = claims.namespace.clone();
    match (text(reference, "apiVersion"), text(reference, "kind")) {
        ("v1", "Pod") => {
            let (pod, found) = find(&PODS, Some(&namespace))?;
            let runs_as = text(&pod["spec"], "serviceAccountName");
            if runs_as != claims.serviceaccount.name {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                    quote(&claims.serviceaccount.name)
                )));
            }
            claims.pod = Some(found);
            let node = text(&pod["spec"], "nodeName");
            claims.node = view
                .get(&NODES, None, node)
                .filter(|_| !node.is_empty())
                .map(|found| Reference {
                    name: node.to_owned(),
                    uid: text(&found["metadata"], "uid").to_owned(),
                });
        }
        ("v1", "Node") => claims.node = Some(find(&NODES, None)?.1),
        ("v1", "Secret") => claims.secret = Some(find(&SECRETS, Some(&namespace))?.1),
        (version, kind) => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {version}, Kind={kind}"
            )));
        }
    }
    Ok(())
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::testing::{FakeView, noon};
    use crate::auth::{ISSUER, Pki};

    fn view() -> FakeView {
        FakeView::new([
            json!({"kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "web", "uid": "s-1"}}),
            json!({"kind": "Pod", "metadata": {"namespace": "shop", "name": "web-0", "uid": "p-1"},
                "spec": {"serviceAccountName": "web", "nodeName": "lab"}}),
            json!({"kind": "Pod", "metadata": {"namespace": "shop", "name": "other", "uid": "p-2"},
                "spec": {"serviceAccountName": "default"}}),
            json!({"kind": "Node", "metadata": {"name": "lab", "uid": "n-1"}}),
        ])
    }

    fn ask(spec: Value) -> Result<(Value, Claims), Status> {
        let pki = Pki::in_memory(noon()).unwrap();
        let answer = create("shop", "web", json!({"spec": spec}), &view(), pki.signer(), noon())?;
        let claims = pki
            .signer()
            .verify(answer["status"]["token"].as_str().unwrap())
            .unwrap();
        Ok((answer, Claims::clone(&claims)))
    }

    fn bound_to(kind: &str, name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": kind, "name": name})
    }

    #[test]
    fn an_empty_request_gets_an_hour_for_the_api_server() {
        let (answer, claims) = ask(json!({})).unwrap();
        assert_eq!(
            answer["spec"],
            json!({"audiences": [ISSUER], "expirationSeconds": 3600})
        );
        assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-02T13:00:00Z");
        assert_eq!(claims.exp - claims.iat, 3600);
        assert_eq!(claims.sub, "system:serviceaccount:shop:web");
        assert_eq!(claims.kubernetes.serviceaccount.uid, "s-1");
    }

    #[test]
    fn a_pods_default_token_lasts_a_year_and_says_when_it_should_be_read_again() {
        let (answer, claims) =
            ask(json!({"expirationSeconds": 3607, "boundObjectRef": bound_to("Pod", "web-0")})).unwrap();
        assert_eq!(claims.exp - claims.iat, 365 * 24 * 3600);
        assert_eq!(claims.kubernetes.warnafter, Some(claims.iat + 3607));
        assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-02T13:00:07Z");
        let node = Reference {
            name: "lab".into(),
            uid: "n-1".into(),
        };
        assert_eq!(claims.kubernetes.node, Some(node));
        // For another audience it is an ordinary token.
        let spec =
            json!({"expirationSeconds": 3607, "audiences": ["vault"], "boundObjectRef": bound_to("Pod", "web-0")});
        let (_, claims) = ask(spec).unwrap();
        assert_eq!((claims.exp - claims.iat, claims.kubernetes.warnafter), (3607, None));
    }

    #[test]
    fn a_lifetime_has_bounds() {
        let refusal = |seconds: i64| ask(json!({"expirationSeconds": seconds})).unwrap_err().message;
        assert_eq!(
            refusal(599),
            r#"TokenRequest.authentication.k8s.io "web" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"#
        );
        assert!(refusal((1 << 32) + 1).ends_with("may not specify a duration larger than 2^32 seconds"));
        assert!(ask(json!({"expirationSeconds": 1_i64 << 32})).is_ok());
    }

    #[test]
    fn a_token_is_bound_to_what_is_there_and_runs_as_the_account() {
        let refusal = |reference: Value| {
            let error = ask(json!({"boundObjectRef": reference})).unwrap_err();
            (error.code, error.message)
        };
        assert_eq!(
            refusal(bound_to("Pod", "gone")),
            (404, r#"pods "gone" not found"#.into())
        );
        let (code, message) = refusal(bound_to("Pod", "other"));
        assert_eq!(code, 400);
        assert!(message.contains("different serviceaccount name"), "{message}");
        let mut another = bound_to("Pod", "web-0");
        another["uid"] = json!("p-0");
        assert_eq!(refusal(another).0, 409);
        assert_eq!(
            refusal(bound_to("Job", "x")),
            (400, "cannot bind token to object of type v1, Kind=Job".into())
        );
        assert!(ask(json!({"boundObjectRef": bound_to("Node", "lab")})).is_ok());
    }

    #[test]
    fn an_account_that_is_not_there_gets_no_token() {
        let pki = Pki::in_memory(noon()).unwrap();
        let error = create("shop", "gone", json!({}), &view(), pki.signer(), noon()).unwrap_err();
        assert_eq!(error.message, r#"serviceaccounts "gone" not found"#);
    }
}
