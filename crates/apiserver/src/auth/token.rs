//! ServiceAccount tokens: JSON Web Tokens signed with ES256, bound to a ServiceAccount and, mostly, to a Pod.
//!
//! Owns the token's format, its signature, what makes it valid, and the answer to a TokenRequest (the rules of
//! kubernetes/kubernetes `pkg/serviceaccount` and `pkg/registry/core/serviceaccount/storage/token.go`). Must not know
//! HTTP or RBAC.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::{SignedDuration, Timestamp};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::identity::{Identity, service_account_user};
use super::remembered::Remembered;
use crate::store::View;

/// A deleted ServiceAccount or Pod keeps its tokens for this long after its deletion timestamp, so that a pod can
/// finish its work while it terminates.
const LEEWAY_AFTER_DELETION: SignedDuration = SignedDuration::from_secs(60);

/// Why a bearer token proves nothing. The text is for the log and for a TokenReview; an HTTP client learns only
/// `Unauthorized`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// Not three base64url parts of the right content.
    #[error("the token is not a JSON Web Token of ours: {0}")]
    Malformed(&'static str),
    /// Signed by another key, or changed on the way.
    #[error("the token's signature does not match")]
    Signature,
    /// Somebody else's token.
    #[error("expected issuer `{expected}`, got `{got}`")]
    Issuer {
        /// Ours.
        expected: String,
        /// The token's.
        got: String,
    },
    /// Too late.
    #[error("the token expired at {0}")]
    Expired(Timestamp),
    /// Too early.
    #[error("the token is not valid before {0}")]
    NotYet(Timestamp),
    /// Meant for others.
    #[error("expected one of the audiences {expected:?}, got {got:?}")]
    Audience {
        /// Those that were asked for.
        expected: Vec<String>,
        /// Those the token is for.
        got: Vec<String>,
    },
    /// The ServiceAccount, Pod, Node or Secret that it is bound to is gone, or is another one of the same name.
    #[error("the token is bound to {kind} `{name}`, which {why}")]
    Unbound {
        /// The kind of the object.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What is the matter with it.
        why: &'static str,
    },
    /// The random source of the machine is out of order.
    #[error("signing the token")]
    Signing,
}

/// An object that a token names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its uid when the token was made.
    pub uid: String,
}

/// Kubernetes' own claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateClaims {
    /// Namespace of the ServiceAccount, and of the Pod or Secret.
    pub namespace: String,
    /// The Node that the Pod was on, or that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The Pod it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The Secret it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// Whose token it is.
    pub serviceaccount: Reference,
    /// When its holder should have fetched a new one, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// The claims of a ServiceAccount token, times in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whom it is for.
    pub aud: Vec<String>,
    /// Last second of its validity.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// Its own id, a uuid.
    pub jti: String,
    /// Kubernetes' own claims.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: PrivateClaims,
    /// First second of its validity.
    pub nbf: i64,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
}

/// Signs tokens and verifies signatures with the cluster's ServiceAccount key.
pub struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
    issuer: String,
    key_id: String,
    /// The first part of every token of ours, encoded.
    header: String,
    verified: Remembered<Claims>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("issuer", &self.issuer)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// From a P-256 key (`pkcs8`) and its SubjectPublicKeyInfo, both DER.
    pub(super) fn new(pkcs8: &[u8], public_key_info: &[u8], issuer: &str) -> Result<Self, String> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(|error| format!("expected a P-256 key: {error}"))?;
        let key_id = BASE64.encode(digest(&SHA256, public_key_info));
        let header = BASE64.encode(json!({"alg": "ES256", "kid": key_id}).to_string());
        Ok(Self {
            key,
            random,
            issuer: issuer.to_owned(),
            key_id,
            header,
            verified: Remembered::default(),
        })
    }

    /// Who signs: the tokens' `iss`, and the audience of those made for the API server.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The key's id in tokens and in the published key set.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public key as a JSON Web Key set (RFC 7517), for `/openid/v1/jwks`.
    pub fn key_set(&self) -> Value {
        // An uncompressed point: 0x04, x, y.
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        }]})
    }

    /// A signed token with these claims.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let claims = serde_json::to_vec(claims).map_err(|_| TokenError::Signing)?;
        let mut token = format!("{}.{}", self.header, BASE64.encode(claims));
        let signature = self
            .key
            .sign(&self.random, token.as_bytes())
            .map_err(|_| TokenError::Signing)?;
        token.push('.');
        BASE64.encode_string(signature, &mut token);
        Ok(token)
    }

    /// The claims of a token that this key signed. Says nothing about time, audience or what it is bound to.
    pub fn verify(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        self.verified
            .get_or_verify(token.as_bytes(), || self.verify_signature(token))
    }

    fn verify_signature(&self, token: &str) -> Result<Claims, TokenError> {
        let three_parts = TokenError::Malformed("expected three parts");
        let Some((signed, signature)) = token.rsplit_once('.') else {
            return Err(three_parts);
        };
        let Some((header, claims)) = signed.split_once('.') else {
            return Err(three_parts);
        };
        let decode = |part: &str| {
            BASE64
                .decode(part)
                .map_err(|_| TokenError::Malformed("expected base64url"))
        };
        let header: Value = serde_json::from_slice(&decode(header)?).unwrap_or_default();
        if header["alg"] != "ES256" {
            return Err(TokenError::Malformed("expected the algorithm ES256"));
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| TokenError::Signature)?;
        let claims: Claims = serde_json::from_slice(&decode(claims)?)
            .map_err(|_| TokenError::Malformed("expected the claims of a ServiceAccount token"))?;
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer {
                expected: self.issuer.clone(),
                got: claims.iss,
            });
        }
        Ok(claims)
    }

    /// Who holds `token`: signature, time, audience (one of `audiences`) and everything it is bound to are checked.
    pub fn authenticate(
        &self,
        token: &str,
        audiences: &[&str],
        view: &dyn View,
        now: Timestamp,
    ) -> Result<Authenticated, TokenError> {
        let claims = self.verify(token)?;
        claims.check_time(now)?;
        let met: Vec<String> = claims
            .aud
            .iter()
            .filter(|own| audiences.contains(&own.as_str()))
            .cloned()
            .collect();
        if met.is_empty() {
            return Err(TokenError::Audience {
                expected: audiences.iter().map(|&wanted| wanted.to_owned()).collect(),
                got: claims.aud.clone(),
            });
        }
        claims.check_bindings(view, now)?;
        Ok(Authenticated {
            identity: claims.identity(),
            audiences: met,
        })
    }
}

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Who holds it.
    pub identity: Identity,
    /// Those of the audiences asked for that it is meant for.
    pub audiences: Vec<String>,
}

impl Claims {
    fn check_time(&self, now: Timestamp) -> Result<(), TokenError> {
        let at = |second| Timestamp::from_second(second).map_err(|_| TokenError::Malformed("expected a time"));
        if now.as_second() > self.exp {
            return Err(TokenError::Expired(at(self.exp)?));
        }
        // A minute of difference between two clocks is nobody's fault.
        if now.as_second() + 60 < self.nbf {
            return Err(TokenError::NotYet(at(self.nbf)?));
        }
        Ok(())
    }

    fn check_bindings(&self, view: &dyn View, now: Timestamp) -> Result<(), TokenError> {
        let own = &self.kubernetes;
        if self.sub != service_account_user(&own.namespace, &own.serviceaccount.name) {
            return Err(TokenError::Malformed("expected a subject that is its ServiceAccount"));
        }
        let namespaced = Some(own.namespace.as_str());
        check_bound(
            view,
            "ServiceAccount",
            &super::SERVICE_ACCOUNTS,
            namespaced,
            &own.serviceaccount,
            now,
        )?;
        if let Some(pod) = &own.pod {
            check_bound(view, "Pod", &super::PODS, namespaced, pod, now)?;
        } else if let Some(node) = &own.node {
            // Beside a Pod the Node is a note; alone it is what the token is bound to.
            check_bound(view, "Node", &super::NODES, None, node, now)?;
        }
        if let Some(secret) = &own.secret {
            check_bound(view, "Secret", &super::SECRETS, namespaced, secret, now)?;
        }
        Ok(())
    }

    fn identity(&self) -> Identity {
        let own = &self.kubernetes;
        let mut identity = Identity::service_account(&own.namespace, &own.serviceaccount.name);
        identity.uid = Some(own.serviceaccount.uid.clone());
        let mut note = |key: &str, value: &str| {
            identity
                .extra
                .insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        };
        note("credential-id", &format!("JTI={}", self.jti));
        if let Some(pod) = &own.pod {
            note("pod-name", &pod.name);
            note("pod-uid", &pod.uid);
        }
        if let Some(node) = &own.node {
            note("node-name", &node.name);
            note("node-uid", &node.uid);
        }
        identity
    }
}

fn check_bound(
    view: &dyn View,
    kind: &'static str,
    resource: &apimachinery::gvk::GroupResource,
    namespace: Option<&str>,
    reference: &Reference,
    now: Timestamp,
) -> Result<(), TokenError> {
    let unbound = |why| {
        Err(TokenError::Unbound {
            kind,
            name: reference.name.clone(),
            why,
        })
    };
    let Some(object) = view.get(resource, namespace, &reference.name) else {
        return unbound("does not exist");
    };
    let metadata = &object["metadata"];
    if metadata["uid"] != reference.uid {
        return unbound("is another one of the same name by now");
    }
    let deleted = metadata["deletionTimestamp"]
        .as_str()
        .and_then(|text| text.parse::<Timestamp>().ok());
    if deleted.is_some_and(|deleted| now > deleted + LEEWAY_AFTER_DELETION) {
        return unbound("has been deleted");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Pki;
    use crate::auth::testing::{FakeView, noon};

    const API: &str = crate::auth::ISSUER;

    fn claims() -> Claims {
        let now = noon().as_second();
        Claims {
            aud: vec![API.into(), "vault".into()],
            exp: now + 600,
            iat: now,
            iss: API.into(),
            jti: "b7a0".into(),
            kubernetes: PrivateClaims {
                namespace: "shop".into(),
                node: Some(Reference {
                    name: "lab".into(),
                    uid: "n-1".into(),
                }),
                pod: Some(Reference {
                    name: "web-0".into(),
                    uid: "p-1".into(),
                }),
                secret: None,
                serviceaccount: Reference {
                    name: "web".into(),
                    uid: "s-1".into(),
                },
                warnafter: None,
            },
            nbf: now,
            sub: "system:serviceaccount:shop:web".into(),
        }
    }

    fn view() -> FakeView {
        FakeView::new([
            json!({"kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "web", "uid": "s-1"}}),
            json!({"kind": "Pod", "metadata": {"namespace": "shop", "name": "web-0", "uid": "p-1"}}),
        ])
    }

    #[test]
    fn a_token_shows_its_service_account_and_the_pod_it_is_bound_to() {
        let pki = Pki::in_memory(noon()).unwrap();
        let token = pki.signer().sign(&claims()).unwrap();
        for _ in 0..2 {
            let found = pki
                .signer()
                .authenticate(&token, &["vault", "other"], &view(), noon())
                .unwrap();
            assert_eq!(found.audiences, ["vault"]);
            assert_eq!(found.identity.user, "system:serviceaccount:shop:web");
            assert_eq!(found.identity.uid.as_deref(), Some("s-1"));
            let extra: Vec<(&str, &str)> = found
                .identity
                .extra
                .iter()
                .map(|(key, values)| (key.as_str(), values[0].as_str()))
                .collect();
            assert_eq!(
                extra,
                [
                    ("authentication.kubernetes.io/credential-id", "JTI=b7a0"),
                    ("authentication.kubernetes.io/node-name", "lab"),
                    ("authentication.kubernetes.io/node-uid", "n-1"),
                    ("authentication.kubernetes.io/pod-name", "web-0"),
                    ("authentication.kubernetes.io/pod-uid", "p-1"),
                ]
            );
        }
    }

    #[test]
    fn a_token_ends_with_its_time_its_pod_and_its_service_account() {
        let pki = Pki::in_memory(noon()).unwrap();
        let token = pki.signer().sign(&claims()).unwrap();
        let check = |view: &FakeView, now| pki.signer().authenticate(&token, &[API], view, now).map(|_| ());
        let later = |seconds| noon() + SignedDuration::from_secs(seconds);
        assert_eq!(check(&view(), later(600)), Ok(()));
        assert_eq!(check(&view(), later(601)), Err(TokenError::Expired(later(600))));
        assert_eq!(check(&view(), later(-61)), Err(TokenError::NotYet(noon())));
        let gone = view().without("Pod", "web-0");
        assert!(matches!(
            check(&gone, noon()),
            Err(TokenError::Unbound { kind: "Pod", .. })
        ));
        let other = view().with(json!({
            "kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "web", "uid": "s-2"},
        }));
        assert!(matches!(
            check(&other, noon()),
            Err(TokenError::Unbound {
                kind: "ServiceAccount",
                ..
            })
        ));
        let dying = view().with(json!({"kind": "Pod", "metadata": {
            "namespace": "shop", "name": "web-0", "uid": "p-1", "deletionTimestamp": "2026-01-02T11:59:30Z",
        }}));
        assert_eq!(check(&dying, noon()), Ok(()));
        assert!(matches!(check(&dying, later(31)), Err(TokenError::Unbound { .. })));
    }

    #[test]
    fn a_token_that_anybody_touched_is_refused() {
        let (pki, other) = (Pki::in_memory(noon()).unwrap(), Pki::in_memory(noon()).unwrap());
        let token = pki.signer().sign(&claims()).unwrap();
        assert_eq!(other.signer().verify(&token), Err(TokenError::Signature));
        let parts: Vec<&str> = token.split('.').collect();
        let mut forged = claims();
        forged.kubernetes.serviceaccount.name = "admin".into();
        let forged = BASE64.encode(serde_json::to_vec(&forged).unwrap());
        assert_eq!(
            pki.signer().verify(&format!("{}.{forged}.{}", parts[0], parts[2])),
            Err(TokenError::Signature)
        );
        let none = BASE64.encode(r#"{"alg":"none"}"#);
        for bad in [
            String::new(),
            "a.b".into(),
            "..".into(),
            format!("{none}.{}.", parts[1]),
            token + "x",
        ] {
            assert!(pki.signer().verify(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_for_others_is_not_for_us() {
        let pki = Pki::in_memory(noon()).unwrap();
        let token = pki
            .signer()
            .sign(&Claims {
                aud: vec!["vault".into()],
                ..claims()
            })
            .unwrap();
        let error = pki.signer().authenticate(&token, &[API], &view(), noon()).unwrap_err();
        assert_eq!(
            error,
            TokenError::Audience {
                expected: vec![API.into()],
                got: vec!["vault".into()]
            }
        );
    }

    #[test]
    fn the_published_key_set_verifies_our_tokens() {
        let pki = Pki::in_memory(noon()).unwrap();
        let token = pki.signer().sign(&claims()).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let set = pki.signer().key_set();
        let mut point = vec![4];
        for axis in ["x", "y"] {
            point.extend(BASE64.decode(set["keys"][0][axis].as_str().unwrap()).unwrap());
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        assert!(
            key.verify(signed.as_bytes(), &BASE64.decode(signature).unwrap())
                .is_ok()
        );
        let header: Value = serde_json::from_slice(&BASE64.decode(signed.split('.').next().unwrap()).unwrap()).unwrap();
        assert_eq!(header["kid"], set["keys"][0]["kid"]);
    }
}
