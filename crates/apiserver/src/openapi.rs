//! `/openapi/v3`: the embedded documents, decompressed when somebody reads them, and those of custom resources; [`v2`] is
//! made of the embedded ones.

pub(crate) mod v2;

use std::io;
use std::sync::Arc;

use apimachinery::status::Status;
use http::header::{CACHE_CONTROL, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::body::Body;
use crate::call::{Answer, Call};
use crate::custom;
use crate::resources::{Resource, archive, document as member_name};
use crate::respond;
use crate::store::{Key, Object};

/// Every document and the hash under which it may be kept for ever.
pub(crate) fn index(call: &Call) -> Answer {
    let table = call.api.table();
    let mut paths = Map::new();
    for group in table.groups() {
        for version in &group.versions {
            let name = match group.name.as_str() {
                "" => format!("api/{version}"),
                group => format!("apis/{group}/{version}"),
            };
            let url = format!("/openapi/v3/{name}?hash={}", hash(call, &group.name, version));
            paths.insert(name, json!({"serverRelativeURL": url}));
        }
    }
    let body = respond::to_bytes(&json!({"paths": Value::Object(paths)}));
    let etag = format!("\"{}\"", archive::hex(&Sha512::digest(&body)));
    if call
        .headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == etag.as_bytes())
    {
        return Ok(with_etag(empty(StatusCode::NOT_MODIFIED), &etag));
    }
    Ok(with_etag(respond::json(StatusCode::OK, body), &etag))
}

/// One document.
pub(crate) async fn document(call: &Call, path: &str) -> Answer {
    if !call.accept.takes("application/json") {
        return Err(Status::not_acceptable(&["application/json"]));
    }
    let name = path.trim_start_matches("/openapi/v3/");
    let (group, version) = match name.split('/').collect::<Vec<_>>()[..] {
        ["api", version] => ("", version),
        ["apis", group, version] => (group, version),
        _ => return Err(Status::path_not_found()),
    };
    if !call.api.table().has_version(group, version) {
        return Err(Status::path_not_found());
    }
    let hash = hash(call, group, version);
    let etag = format!("\"{hash}\"");
    let asked = call.query.text("hash");
    if asked.is_some_and(|asked| asked != hash) {
        let mut response = empty(StatusCode::MOVED_PERMANENTLY);
        if let Ok(location) = HeaderValue::from_str(&format!("{path}?hash={hash}")) {
            response.headers_mut().insert(LOCATION, location);
        }
        return Ok(response);
    }
    if call
        .headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == etag.as_bytes())
    {
        return Ok(with_etag(empty(StatusCode::NOT_MODIFIED), &etag));
    }
    let document = match custom_resources(call, group, version) {
        resources if resources.is_empty() => {
            let member = member_name(group, version);
            tokio::task::spawn_blocking(move || archive::member(&member)).await
        }
        resources => {
            let (group, version) = (group.to_owned(), version.to_owned());
            tokio::task::spawn_blocking(move || custom_document(&group, &version, &resources)).await
        }
    };
    let document = document.map_err(Status::internal)?;
    let document = document.map_err(Status::internal)?.ok_or_else(Status::path_not_found)?;
    let mut response = with_etag(respond::json(StatusCode::OK, document.into()), &etag);
    if asked.is_some() {
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let expires = call
            .api
            .now()
            .saturating_add(jiff::SignedDuration::from_hours(365 * 24));
        if let Some(value) = expires.ok().and_then(|at| HeaderValue::from_str(&http_date(at)).ok()) {
            headers.insert(EXPIRES, value);
        }
    }
    Ok(response)
}

/// Changes with the document: with the archive, and with the definitions of custom resources.
fn hash(call: &Call, group: &str, version: &str) -> String {
    let mut digest = Sha512::new();
    digest.update(format!("{}/{group}/{version}", archive::digest()));
    for (_, name) in custom_names(call, group, version) {
        if let Some(definition) = call.api.store.object(custom::definitions(), &Key::new(None, &name)) {
            digest.update(format!("{name}@{}", definition.revision));
        }
    }
    archive::hex(&digest.finalize())
}

/// The custom resources of a version, with the names of their definitions.
fn custom_names(call: &Call, group: &str, version: &str) -> Vec<(Arc<Resource>, String)> {
    let table = call.api.table();
    let custom = table
        .version(group, version)
        .filter(|resource| resource.custom.is_some());
    custom
        .map(|resource| (resource.clone(), resource.stored_as.to_string()))
        .collect()
}

/// The custom resources of a version, each with its definition.
fn custom_resources(call: &Call, group: &str, version: &str) -> Vec<(Arc<Resource>, Object)> {
    let names = custom_names(call, group, version).into_iter();
    names
        .filter_map(|(resource, name)| {
            let definition = call.api.store.object(custom::definitions(), &Key::new(None, &name))?;
            Some((resource, definition))
        })
        .collect()
}

fn custom_document(group: &str, version: &str, resources: &[(Arc<Resource>, Object)]) -> io::Result<Option<Vec<u8>>> {
    let definitions: Vec<Value> = resources.iter().map(|(_, definition)| definition.value()).collect();
    let pairs: Vec<(&Resource, &Value)> = resources
        .iter()
        .zip(&definitions)
        .map(|((resource, _), definition)| (&**resource, definition))
        .collect();
    let document = custom::document(group, version, &pairs)?;
    serde_json::to_vec(&document).map(Some).map_err(io::Error::other)
}

/// RFC 9110 §5.6.7.
fn http_date(at: jiff::Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn empty(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

fn with_etag(mut response: Response<Body>, etag: &str) -> Response<Body> {
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}
