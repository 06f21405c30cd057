//! The operator's HTTP API: what there is, how it stands, and scaling.
//!
//! It keeps nothing: every answer is read from the resources, and scaling writes to the resource (its `scale`
//! subresource). So the API and `kubectl` never fight, and any replica of the operator may answer.

use http::{Method, Request, StatusCode};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{MOST_REPLICAS, Supercrud};
use crate::server::{self, Answer};

const PORT: u16 = 8080;

/// Answers until `stop`.
pub(super) async fn serve(client: Client, stop: CancellationToken) -> std::io::Result<()> {
    let listener = server::bind(PORT).await?;
    let answer = move |request: Request<hyper::body::Incoming>| {
        let client = client.clone();
        async move { server::respond(handle(&client, &request).await.unwrap_or_else(|failure| failure)) }
    };
    server::serve_until(listener, answer, stop).await;
    Ok(())
}

async fn handle<B>(client: &Client, request: &Request<B>) -> Result<Answer, Answer> {
    let resources: Api<Supercrud> = Api::default_namespaced(client.clone());
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    match (request.method(), path.as_slice()) {
        (&Method::GET, ["healthz"]) => Ok(server::ok()),
        (&Method::GET, ["status"]) => {
            let found = resources.list(&ListParams::default()).await.map_err(failed)?;
            let each = found.items.iter().map(|resource| {
                let (namespace, replicas) = (resource.namespace(), resource.spec.replicas);
                (
                    resource.name_any(),
                    json!({ "namespace": namespace, "replicas": replicas }),
                )
            });
            let each: serde_json::Map<String, Value> = each.collect();
            Ok((StatusCode::OK, json!({ "supercruds": each })))
        }
        (&Method::GET, ["status", name]) => {
            let found = resources.get_opt(name).await.map_err(failed)?.ok_or_else(not_found)?;
            let status = found.status.clone().unwrap_or_default();
            let body = json!({
                "name": found.name_any(),
                "namespace": found.namespace(),
                "replicas": found.spec.replicas,
                "ready_replicas": status.ready_replicas,
                "available_replicas": status.available_replicas,
                "conditions": status.conditions,
            });
            Ok((StatusCode::OK, body))
        }
        // The page scales by GET; POST is the one that proxies and prefetching leave alone.
        (&Method::GET | &Method::POST, ["scale", name, replicas]) => scale(&resources, name, replicas).await,
        (_, ["healthz" | "status"] | ["status", _] | ["scale", _, _]) => Ok(server::method_not_allowed()),
        _ => Ok(server::not_found()),
    }
}

async fn scale(resources: &Api<Supercrud>, name: &str, replicas: &str) -> Result<Answer, Answer> {
    let message = "Input should be a valid integer, unable to parse string as an integer";
    let wanted: i64 = replicas
        .parse()
        .map_err(|_| server::unprocessable("int_parsing", "replicas", message, replicas))?;
    if !(0..=MOST_REPLICAS).contains(&wanted) {
        let words = format!("a lab has between 0 and {MOST_REPLICAS} replicas, not {wanted}");
        return Err((StatusCode::UNPROCESSABLE_ENTITY, json!({ "error": words })));
    }
    let found = resources.get_opt(name).await.map_err(failed)?.ok_or_else(not_found)?;
    if found.metadata.deletion_timestamp.is_some() {
        return Err((StatusCode::CONFLICT, json!({ "error": "supercrud is being deleted" })));
    }
    let patch = Patch::Merge(json!({ "spec": { "replicas": wanted } }));
    resources
        .patch_scale(name, &PatchParams::default(), &patch)
        .await
        .map_err(failed)?;
    Ok((
        StatusCode::OK,
        json!({ "status": "updated", "name": name, "replicas": wanted }),
    ))
}

fn not_found() -> Answer {
    (StatusCode::NOT_FOUND, json!({ "error": "supercrud not found" }))
}

/// The API server's refusal with its own status; 502 when it does not answer.
fn failed(error: kube::Error) -> Answer {
    match error {
        kube::Error::Api(status) if status.code == 404 => not_found(),
        kube::Error::Api(status) => {
            let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::BAD_GATEWAY);
            (code, json!({ "error": status.message }))
        }
        other => {
            crate::complain(&format!("asking the API server: {other}"));
            (
                StatusCode::BAD_GATEWAY,
                json!({ "error": "the API server does not answer" }),
            )
        }
    }
}
