//! Questions about identity and permission that clients POST and nobody stores: access reviews, rules reviews, token
//! reviews.
//!
//! Owns the validation of each and its `status`. Words: kubernetes/kubernetes `pkg/apis/authorization/validation`,
//! `pkg/registry/{authorization,authentication}` (v1.36).

use std::collections::BTreeMap;

use apimachinery::field::{Error, Path};
use apimachinery::gvk::GroupKind;
use apimachinery::status::Status;
use apimachinery::time;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::identity::Identity;
use super::rbac::{Attributes, Authorizer, Decision, Rule};
use super::token::Signer;
use crate::store::View;

const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// What a review looks at.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The current objects.
    pub view: &'a dyn View,
    /// The policy.
    pub authorizer: &'a Authorizer,
    /// Verifies tokens; without it none is valid.
    pub signer: Option<&'a Signer>,
    /// Who asks.
    pub identity: &'a Identity,
    /// The current instant.
    pub now: Timestamp,
}

/// Answers a POST to a review resource of authentication.k8s.io or authorization.k8s.io: the body with its `status`.
/// `None` if `resource` is not a review. `namespace` is the path's.
pub fn review(
    group: &str,
    resource: &str,
    namespace: Option<&str>,
    body: Value,
    cx: &Context<'_>,
) -> Option<Result<Value, Status>> {
    Some(match (group, resource) {
        (AUTHORIZATION, "selfsubjectaccessreviews") => self_subject_access_review(body, cx),
        (AUTHORIZATION, "subjectaccessreviews") => subject_access_review(body, cx),
        (AUTHORIZATION, "localsubjectaccessreviews") => {
            local_subject_access_review(namespace.unwrap_or_default(), body, cx)
        }
        (AUTHORIZATION, "selfsubjectrulesreviews") => self_subject_rules_review(body, cx),
        (AUTHENTICATION, "selfsubjectreviews") => Ok(self_subject_review(body, cx)),
        (AUTHENTICATION, "tokenreviews") => token_review(body, cx),
        _ => return None,
    })
}

/// May I?
pub fn self_subject_access_review(body: Value, cx: &Context<'_>) -> Result<Value, Status> {
    let mut errors = Vec::new();
    check_attributes(&body["spec"], &mut errors);
    finish(&body, "SelfSubjectAccessReview", errors)?;
    let decision = decide(&body["spec"], cx.identity, cx);
    Ok(with_status(body, decision))
}

/// May they?
pub fn subject_access_review(body: Value, cx: &Context<'_>) -> Result<Value, Status> {
    let mut errors = Vec::new();
    check_attributes(&body["spec"], &mut errors);
    check_subject(&body["spec"], &mut errors);
    finish(&body, "SubjectAccessReview", errors)?;
    let decision = decide(&body["spec"], &subject_of(&body["spec"]), cx);
    Ok(with_status(body, decision))
}

/// May they, in this namespace?
pub fn local_subject_access_review(namespace: &str, body: Value, cx: &Context<'_>) -> Result<Value, Status> {
    let spec = &body["spec"];
    let mut errors = Vec::new();
    check_attributes(spec, &mut errors);
    check_subject(spec, &mut errors);
    let asked = spec["resourceAttributes"]["namespace"].as_str().unwrap_or_default();
    if spec["resourceAttributes"].is_object() && asked != namespace {
        let path = Path::new("spec").child("resourceAttributes").child("namespace");
        errors.push(Error::invalid(&path, asked, "must match metadata.namespace"));
    }
    if spec["nonResourceAttributes"].is_object() {
        let path = Path::new("spec").child("nonResourceAttributes");
        errors.push(Error::invalid(
            &path,
            spec["nonResourceAttributes"].clone(),
            "disallowed on this kind of request",
        ));
    }
    finish(&body, "LocalSubjectAccessReview", errors)?;
    let decision = decide(spec, &subject_of(spec), cx);
    Ok(with_status(body, decision))
}

/// What may I do here?
pub fn self_subject_rules_review(body: Value, cx: &Context<'_>) -> Result<Value, Status> {
    let namespace = body["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (rules, errors) = cx.authorizer.rules_of(cx.view, cx.identity, Some(namespace));
    let (mut resource_rules, mut non_resource_rules) = (Vec::new(), Vec::new());
    for rule in &rules {
        if !rule.resources.is_empty() {
            let rule = Rule {
                non_resource_urls: Vec::new(),
                ..rule.clone()
            };
            resource_rules.push(rule.to_value());
        }
        if !rule.non_resource_urls.is_empty() {
            non_resource_rules.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    let mut status = json!({
        "resourceRules": resource_rules,
        "nonResourceRules": non_resource_rules,
        "incomplete": !errors.is_empty(),
    });
    if !errors.is_empty() {
        status["evaluationError"] = json!(errors.join(", "));
    }
    Ok(with_status(body, status))
}

/// Who am I?
pub fn self_subject_review(body: Value, cx: &Context<'_>) -> Value {
    let mut body = with_status(body, json!({"userInfo": cx.identity.to_user_info()}));
    body["metadata"]["creationTimestamp"] = json!(time::format(cx.now));
    body
}

/// Whose token is this, and is it for these audiences (by default the API server)?
pub fn token_review(body: Value, cx: &Context<'_>) -> Result<Value, Status> {
    let spec = &body["spec"];
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let asked: Vec<&str> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let answer = match cx.signer {
        None => Err("no signing key".to_owned()),
        Some(signer) => {
            let audiences = if asked.is_empty() { vec![signer.issuer()] } else { asked };
            signer
                .authenticate(token, &audiences, cx.view, cx.now)
                .map_err(|error| error.to_string())
        }
    };
    let status = match answer {
        Ok(found) => json!({
            "authenticated": true, "user": found.identity.to_user_info(), "audiences": found.audiences,
        }),
        Err(error) => json!({"user": {}, "error": format!("[invalid bearer token, {error}]")}),
    };
    Ok(with_status(body, status))
}

fn check_attributes(spec: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let detail = "cannot be specified in combination with resourceAttributes";
    match (
        spec["resourceAttributes"].is_object(),
        spec["nonResourceAttributes"].is_object(),
    ) {
        (true, true) => {
            let value = spec["nonResourceAttributes"].clone();
            errors.push(Error::invalid(&path.child("nonResourceAttributes"), value, detail));
        }
        (false, false) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(Error::invalid(&path.child("resourceAttributes"), Value::Null, detail));
        }
        _ => {}
    }
}

fn check_subject(spec: &Value, errors: &mut Vec<Error>) {
    let user = spec["user"].as_str().unwrap_or_default();
    if user.is_empty() && spec["groups"].as_array().is_none_or(Vec::is_empty) {
        let detail = "at least one of user or group must be specified";
        errors.push(Error::invalid(&Path::new("spec").child("user"), user, detail));
    }
}

fn finish(body: &Value, kind: &str, mut errors: Vec<Error>) -> Result<(), Status> {
    // Nothing is stored, so nothing has a name; the namespace of a local review is the path's.
    let named = body["metadata"].as_object().into_iter().flatten();
    if named
        .clone()
        .any(|(field, value)| field != "namespace" && field != "creationTimestamp" && !is_empty(value))
    {
        errors.push(Error::invalid(
            &Path::new("metadata"),
            body["metadata"].clone(),
            "must be empty",
        ));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&GroupKind::new(AUTHORIZATION, kind), "", &errors))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The subject a review names: its groups as they stand, nothing is added.
fn subject_of(spec: &Value) -> Identity {
    let words = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let extra = spec["extra"].as_object().into_iter().flatten();
    Identity {
        user: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().filter(|uid| !uid.is_empty()).map(str::to_owned),
        groups: words(&spec["groups"]),
        extra: extra
            .map(|(key, values)| (key.to_lowercase(), words(values)))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn decide(spec: &Value, identity: &Identity, cx: &Context<'_>) -> Value {
    fn text<'a>(value: &'a Value, field: &str) -> &'a str {
        value[field].as_str().unwrap_or_default()
    }
    fn some<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
        Some(text(value, field)).filter(|text| !text.is_empty())
    }
    let resource = &spec["resourceAttributes"];
    let request = if resource.is_object() {
        Attributes {
            verb: text(resource, "verb"),
            group: text(resource, "group"),
            resource: text(resource, "resource"),
            subresource: some(resource, "subresource"),
            namespace: some(resource, "namespace"),
            name: some(resource, "name"),
            path: None,
        }
    } else {
        let path = &spec["nonResourceAttributes"];
        Attributes::on_path(text(path, "verb"), text(path, "path"))
    };
    let (allowed, reason) = match cx.authorizer.authorize(cx.view, identity, &request) {
        Decision::Allow { reason } => (true, reason),
        Decision::Deny { reason } => (false, reason),
    };
    let mut status = json!({"allowed": allowed});
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    status
}

fn with_status(mut body: Value, status: Value) -> Value {
    if !body["metadata"].is_object() {
        body["metadata"] = json!({});
    }
    body["status"] = status;
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Pki;
    use crate::auth::testing::{FakeView, noon};
    use crate::auth::token_request;

    fn view() -> FakeView {
        FakeView::new([
            json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [
                {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]},
                {"verbs": ["get"], "nonResourceURLs": ["/metrics"]},
            ]}),
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "b"},
                "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "Group", "name": "devs"}]}),
            json!({"kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "web", "uid": "s-1"}}),
        ])
    }

    fn ask(resource: &str, namespace: Option<&str>, body: Value) -> Result<Value, String> {
        let (view, authorizer, identity) = (view(), Authorizer::default(), Identity::new("ada", ["devs"]));
        let cx = Context {
            view: &view,
            authorizer: &authorizer,
            signer: None,
            identity: &identity,
            now: noon(),
        };
        let group = if resource == "selfsubjectreviews" {
            AUTHENTICATION
        } else {
            AUTHORIZATION
        };
        review(group, resource, namespace, body, &cx)
            .unwrap()
            .map_err(|status| status.message)
    }

    #[test]
    fn may_i_is_answered_with_the_binding_that_allows_it() {
        let answer = ask(
            "selfsubjectaccessreviews",
            None,
            json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "shop"}}}),
        );
        assert_eq!(
            answer.unwrap()["status"],
            json!({"allowed": true,
                "reason": r#"RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "r" to Group "devs""#})
        );
        let answer = ask(
            "selfsubjectaccessreviews",
            None,
            json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/version"}}}),
        );
        assert_eq!(answer.unwrap()["status"], json!({"allowed": false}));
    }

    #[test]
    fn may_they_takes_the_groups_as_they_stand() {
        let of = |subject: Value| {
            let mut body = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods"}}});
            body["spec"]
                .as_object_mut()
                .unwrap()
                .extend(subject.as_object().unwrap().clone());
            ask("subjectaccessreviews", None, body).map(|answer| answer["status"]["allowed"] == true)
        };
        assert_eq!(of(json!({"user": "bob", "groups": ["devs"]})), Ok(true));
        assert_eq!(of(json!({"groups": ["devs"]})), Ok(true));
        assert_eq!(of(json!({"user": "bob"})), Ok(false));
        assert!(
            of(json!({}))
                .unwrap_err()
                .contains("at least one of user or group must be specified")
        );
    }

    #[test]
    fn a_review_that_asks_nothing_or_two_things_is_invalid() {
        let error = ask("selfsubjectaccessreviews", None, json!({"spec": {}})).unwrap_err();
        assert!(
            error.contains("exactly one of nonResourceAttributes or resourceAttributes must be specified"),
            "{error}"
        );
        let both = json!({"spec": {"resourceAttributes": {}, "nonResourceAttributes": {}}});
        assert!(ask("selfsubjectaccessreviews", None, both).is_err());
        let named = json!({"metadata": {"name": "x"}, "spec": {"resourceAttributes": {}}});
        assert!(
            ask("selfsubjectaccessreviews", None, named)
                .unwrap_err()
                .contains("metadata: Invalid value")
        );
    }

    #[test]
    fn a_local_review_stays_in_its_namespace() {
        let body = |namespace| {
            json!({"metadata": {"namespace": "shop"}, "spec": {"user": "bob",
                "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": namespace}}})
        };
        assert!(ask("localsubjectaccessreviews", Some("shop"), body("shop")).is_ok());
        let error = ask("localsubjectaccessreviews", Some("shop"), body("bank")).unwrap_err();
        assert!(error.contains("must match metadata.namespace"), "{error}");
    }

    #[test]
    fn my_rules_are_listed_apart_for_resources_and_paths() {
        let answer = ask("selfsubjectrulesreviews", None, json!({"spec": {"namespace": "shop"}})).unwrap();
        assert_eq!(
            answer["status"],
            json!({
                "resourceRules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}],
                "incomplete": false,
            })
        );
        assert_eq!(
            ask("selfsubjectrulesreviews", None, json!({"spec": {}})).unwrap_err(),
            "no namespace on request"
        );
    }

    #[test]
    fn who_am_i() {
        let answer = ask("selfsubjectreviews", None, json!({})).unwrap();
        assert_eq!(
            answer["status"]["userInfo"],
            json!({"username": "ada", "groups": ["devs", "system:authenticated"]})
        );
    }

    #[test]
    fn a_token_review_answers_for_the_audiences_asked_for() {
        let (view, authorizer, identity) = (view(), Authorizer::default(), Identity::new("ada", ["devs"]));
        let pki = Pki::in_memory(noon()).unwrap();
        let signer = Some(pki.signer());
        let cx = Context {
            view: &view,
            authorizer: &authorizer,
            signer,
            identity: &identity,
            now: noon(),
        };
        let request = json!({"spec": {"audiences": ["api"]}});
        let issued = token_request::create("shop", "web", request, &view, pki.signer(), noon()).unwrap();
        let token = &issued["status"]["token"];
        let ask = |spec: Value| token_review(json!({"spec": spec}), &cx).unwrap()["status"].clone();
        let status = ask(json!({"token": token, "audiences": ["api", "other"]}));
        assert_eq!(
            (&status["authenticated"], &status["audiences"]),
            (&json!(true), &json!(["api"]))
        );
        assert_eq!(status["user"]["username"], "system:serviceaccount:shop:web");
        let status = ask(json!({"token": token}));
        assert_eq!((&status["authenticated"], &status["user"]), (&Value::Null, &json!({})));
        assert!(
            status["error"]
                .as_str()
                .unwrap()
                .starts_with("[invalid bearer token, expected one of the audiences")
        );
    }
}
