//! ServiceAccount tokens for projected volumes: asked for with TokenRequest, bound to the pod, renewed in time.
//!
//! Source of the rules: `pkg/kubelet/token/token_manager.go` of kubernetes 1.36.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};

/// No token is kept longer than this.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// What a volume asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    pub(crate) audience: Option<String>,
    pub(crate) seconds: i64,
}

impl Wanted {
    pub(crate) fn of(source: &ServiceAccountTokenProjection) -> Self {
        let audience = source.audience.clone().filter(|audience| !audience.is_empty());
        Self {
            audience,
            seconds: source.expiration_seconds.unwrap_or(3600),
        }
    }
}

/// A token and its times.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) value: String,
    pub(crate) issued: Timestamp,
    pub(crate) expires: Timestamp,
}

impl Token {
    /// After four fifths of its life, or after a day.
    pub(crate) fn refresh_at(&self) -> Timestamp {
        let life = self.expires.duration_since(self.issued);
        let most = (life * 4 / 5).min(LONGEST);
        self.issued.saturating_add(most).unwrap_or(Timestamp::MAX)
    }
}

/// The tokens of one pod.
pub(crate) type Tokens = HashMap<Wanted, Token>;

/// Why there is no token; the words are upstream's.
#[derive(Debug, thiserror::Error)]
#[error("failed to fetch token: {0}")]
pub(crate) struct TokenError(String);

/// Every token that the pod's volumes ask for.
pub(crate) fn wanted_tokens(pod: &Pod) -> Vec<Wanted> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sources = volumes.flat_map(|volume| {
        volume
            .projected
            .iter()
            .flat_map(|source| source.sources.iter().flatten())
    });
    let mut wanted = Vec::new();
    for source in sources
        .filter_map(|source| source.service_account_token.as_ref())
        .map(Wanted::of)
    {
        if !wanted.contains(&source) {
            wanted.push(source);
        }
    }
    wanted
}

impl Wanted {
    /// Asks the API server for a token of the pod's ServiceAccount that is worth nothing once the pod is gone.
    pub(crate) async fn request(&self, client: Client, pod: &Pod, now: Timestamp) -> Result<Token, TokenError> {
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        let account = account
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".into());
        let namespace = pod.namespace().unwrap_or_default();
        let body = TokenRequest {
            metadata: ObjectMeta::default(),
            spec: Some(TokenRequestSpec {
                audiences: Some(self.audience.iter().cloned().collect()),
                expiration_seconds: Some(self.seconds),
                bound_object_ref: Some(BoundObjectReference {
                    kind: Some("Pod".into()),
                    api_version: Some("v1".into()),
                    name: Some(pod.name_any()),
                    uid: pod.uid(),
                }),
            }),
            status: None,
        };
        let api = Api::<ServiceAccount>::namespaced(client, &namespace);
        let answer = api.create_token_request(&account, &PostParams::default(), &body).await;
        let status = answer.map_err(|error| TokenError(error.to_string()))?.status;
        let told = status.and_then(|status| Some((status.token?, status.expiration_timestamp?.0)));
        let (value, expires) = told.ok_or_else(|| TokenError("the answer holds no token".into()))?;
        Ok(Token {
            value,
            issued: now,
            expires,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_after_four_fifths_of_its_life_or_after_a_day() {
        let issued = Timestamp::from_second(1_800_000_000).unwrap();
        let token = |seconds: i64| Token {
            value: String::new(),
            issued,
            expires: issued + SignedDuration::from_secs(seconds),
        };
        assert_eq!(token(3600).refresh_at().duration_since(issued).as_secs(), 2880);
        assert_eq!(token(365 * 86400).refresh_at().duration_since(issued).as_secs(), 86400);
    }
}
