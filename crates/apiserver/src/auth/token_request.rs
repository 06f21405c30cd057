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
