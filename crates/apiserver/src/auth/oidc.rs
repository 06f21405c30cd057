//! The documents by which others verify ServiceAccount tokens (OpenID Connect Discovery 1.0).

use serde_json::{Value, json};

use super::token::Signer;

/// `/.well-known/openid-configuration`; `api_server` is where clients reach the API server, e.g.
/// `https://127.0.0.1:6443`.
pub fn configuration(signer: &Signer, api_server: &str) -> Value {
    json!({
        "issuer": signer.issuer(),
        "jwks_uri": format!("{}/openid/v1/jwks", api_server.trim_end_matches('/')),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

/// `/openid/v1/jwks`, served as `application/jwk-set+json`.
pub fn key_set(signer: &Signer) -> Value {
    signer.key_set()
}
