//! Everything that is no resource: discovery, OpenAPI, health, version, metrics, token keys.

use apimachinery::status::Status;
use http::{Method, StatusCode};
use serde_json::json;

use crate::auth::oidc;
use crate::call::{Answer, Call};
use crate::{discovery, health, local, openapi, respond};

pub(crate) async fn handle(call: &Call) -> Answer {
    let path = call.path.trim_end_matches('/');
    if !matches!(call.method, Method::GET | Method::HEAD) && !path.starts_with("/debug") {
        return Err(Status::path_not_found());
    }
    match path {
        "" => index(call),
        "/version" => version(call),
        "/healthz" | "/livez" | "/readyz" => health::handle(call, path),
        "/metrics" => health::metrics(call),
        "/openapi/v2" => openapi::v2::document(call).await,
        "/openapi/v3" => openapi::index(call),
        "/openid/v1/jwks" => {
            let bytes = respond::to_bytes(&oidc::key_set(call.api.pki.signer()));
            Ok(respond::with_type(
                StatusCode::OK,
                "application/jwk-set+json",
                bytes.into(),
            ))
        }
        "/.well-known/openid-configuration" => {
            let host = call
                .headers
                .get(http::header::HOST)
                .and_then(|host| host.to_str().ok())
                .unwrap_or("kubernetes.default.svc");
            let configuration = oidc::configuration(call.api.pki.signer(), &format!("https://{host}"));
            Ok(respond::json(StatusCode::OK, respond::to_bytes(&configuration)))
        }
        _ if path.starts_with("/openapi/v3/") => openapi::document(call, path).await,
        _ if path.starts_with("/debug/") => local::debug(call).await,
        _ if path.starts_with("/healthz/") || path.starts_with("/livez/") || path.starts_with("/readyz/") => {
            health::handle(call, path)
        }
        "/api" | "/apis" => discovery::roots(call, path).await,
        _ => discovery::handle(call, path).await,
    }
}

fn version(call: &Call) -> Answer {
    let version = &call.api.config.version;
    let body = json!({
        "major": version.major,
        "minor": version.minor,
        "emulationMajor": version.major,
        "emulationMinor": version.minor,
        "gitVersion": version.git_version,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
    });
    Ok(respond::json(StatusCode::OK, respond::to_bytes(&body)))
}

/// `/`: every path there is.
fn index(call: &Call) -> Answer {
    let table = call.api.table();
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for group in table.groups() {
        let root = if group.name.is_empty() {
            "/api".to_owned()
        } else {
            format!("/apis/{}", group.name)
        };
        paths.extend(group.versions.iter().map(|version| format!("{root}/{version}")));
        paths.push(root);
    }
    paths.sort();
    paths.dedup();
    Ok(respond::json(
        StatusCode::OK,
        respond::to_bytes(&json!({"paths": paths})),
    ))
}
