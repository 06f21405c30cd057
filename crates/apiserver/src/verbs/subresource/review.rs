//! What is asked, not stored: access reviews, token reviews, ServiceAccount tokens.

use apimachinery::status::Status;
use http::StatusCode;

use crate::auth::{reviews, token_request};
use crate::call::{Answer, Call};
use crate::request::{MediaType, WriteOptions, decode_object, decode_optional};
use crate::respond;
use crate::verbs::{Target, metadata};

/// POST to a review resource.
pub(crate) async fn create(call: &Call, target: &Target) -> Answer {
    // A review changes nothing: dry run or not is the same, but a bad option is refused.
    WriteOptions::read(&call.query, "CreateOptions")?;
    let mut body = decode_object(MediaType::read(&call.headers)?, &call.body().await?)?.value;
    metadata::check_type(&mut body, &target.resource.kind, &target.resource.api_version())?;
    let context = reviews::Context {
        view: call.api.view(),
        authorizer: &call.api.authorizer,
        signer: Some(call.api.pki.signer()),
        identity: &call.identity,
        now: call.api.now(),
    };
    let (group, plural) = (&target.resource.group, &target.resource.plural);
    match reviews::review(group, plural, target.namespace.as_deref(), body, &context) {
        Some(review) => respond::value(call, StatusCode::CREATED, &review?),
        None => Err(super::not_implemented(&target.group_resource().to_string())),
    }
}

/// POST to `serviceaccounts/NAME/token`.
pub(super) async fn token(call: &Call, target: &Target) -> Answer {
    let body = decode_optional(MediaType::read(&call.headers)?, &call.body().await?)?;
    let mut request = body.unwrap_or_else(|| serde_json::json!({}));
    metadata::check_type(&mut request, "TokenRequest", "authentication.k8s.io/v1")?;
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let (api, now) = (&call.api, call.api.now());
    let answer: Result<_, Status> =
        token_request::create(namespace, &target.name, request, api.view(), api.pki.signer(), now);
    respond::value(call, StatusCode::CREATED, &answer?)
}
