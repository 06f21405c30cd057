//! Discovery: which groups, versions and resources there are, in the aggregated and in the old form.

use apimachinery::status::Status;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::body::Body;
use crate::call::{Answer, Call};
use crate::local;
use crate::resources::{Group, Resource, Subresource, Table, Verbs, archive};
use crate::respond;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/api` and `/apis`.
pub(crate) async fn roots(call: &Call, path: &str) -> Answer {
    let table = call.api.table();
    let core = path == "/api";
    let groups: Vec<&Group> = table
        .groups()
        .iter()
        .filter(|group| group.name.is_empty() == core)
        .collect();
    let local = if core {
        Vec::new()
    } else {
        local::groups(&call.api).await
    };
    if call.accept.aggregated_discovery() {
        let mut items: Vec<Value> = groups.iter().map(|group| aggregated_group(&table, group)).collect();
        items.extend(
            local
                .iter()
                .map(|(group, resources)| local::aggregated(*group, resources)),
        );
        return Ok(aggregated(call, items));
    }
    let body = if core {
        let versions: Vec<&str> = groups
            .iter()
            .flat_map(|group| &group.versions)
            .map(String::as_str)
            .collect();
        json!({
            "kind": "APIVersions",
            "versions": versions,
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host(call)}],
        })
    } else {
        let mut list: Vec<Value> = groups
            .iter()
            .map(|group| legacy_group(&group.name, &group.versions))
            .collect();
        list.extend(
            local
                .iter()
                .map(|(group, _)| legacy_group(group.name, &[group.version.to_owned()])),
        );
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
    };
    let mut response = respond::json(StatusCode::OK, respond::to_bytes(&body));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// `/apis/G`, `/apis/G/V` and `/api/V`.
pub(crate) async fn handle(call: &Call, path: &str) -> Answer {
    let table = call.api.table();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let body = match parts[..] {
        ["apis", group] => match table.group(group) {
            Some(group) => {
                let mut body = legacy_group(&group.name, &group.versions);
                body["kind"] = "APIGroup".into();
                body["apiVersion"] = "v1".into();
                body
            }
            None => match local::groups(&call.api)
                .await
                .into_iter()
                .find(|(known, _)| known.name == group)
            {
                Some((found, _)) => {
                    let mut body = legacy_group(found.name, &[found.version.to_owned()]);
                    body["kind"] = "APIGroup".into();
                    body["apiVersion"] = "v1".into();
                    body
                }
                None => return Err(Status::path_not_found()),
            },
        },
        ["apis", group, version] if table.has_version(group, version) => legacy_resources(&table, group, version),
        ["api", version] if table.has_version("", version) => legacy_resources(&table, "", version),
        ["apis", group, version] => return local::discovery(call, group, version).await,
        _ => return Err(Status::path_not_found()),
    };
    Ok(respond::json(StatusCode::OK, respond::to_bytes(&body)))
}

fn host(call: &Call) -> &str {
    call.headers
        .get(http::header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("127.0.0.1")
}

fn aggregated(call: &Call, items: Vec<Value>) -> Response<Body> {
    let body = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    });
    let bytes = respond::to_bytes(&body);
    let etag = format!("\"{}\"", archive::hex(&Sha512::digest(&bytes)));
    let known = call
        .headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let mut response = match known {
        true => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        false => respond::json(StatusCode::OK, bytes),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    response
}

fn aggregated_group(table: &Table, group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = table
                .version(&group.name, version)
                .map(|r| aggregated_resource(r))
                .collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.name.is_empty() {
        json!({})
    } else {
        json!({"name": group.name})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut entry = Map::new();
    let mut put = |name: &str, value: Value| {
        entry.insert(name.to_owned(), value);
    };
    put("resource", resource.plural.as_str().into());
    put(
        "responseKind",
        match resource.custom {
            Some(_) => json!({"group": resource.group, "version": resource.version, "kind": resource.kind}),
            None => json!({"group": "", "version": "", "kind": resource.kind}),
        },
    );
    put(
        "scope",
        if resource.namespaced { "Namespaced" } else { "Cluster" }.into(),
    );
    put("singularResource", resource.singular.as_str().into());
    put("verbs", verbs(resource.verbs));
    if !resource.short_names.is_empty() {
        put("shortNames", json!(resource.short_names));
    }
    if !resource.categories.is_empty() {
        put("categories", json!(resource.categories));
    }
    if !resource.subresources.is_empty() {
        put(
            "subresources",
            resource.subresources.iter().map(aggregated_subresource).collect(),
        );
    }
    Value::Object(entry)
}

fn aggregated_subresource(subresource: &Subresource) -> Value {
    let Subresource {
        name,
        group,
        version,
        kind,
        verbs: can,
    } = subresource;
    json!({
        "subresource": name,
        "responseKind": {"group": group, "version": version, "kind": kind},
        "verbs": verbs(*can),
    })
}

fn verbs(verbs: Verbs) -> Value {
    verbs.iter().map(|verb| Value::from(verb.as_str())).collect()
}

fn legacy_group(name: &str, versions: &[String]) -> Value {
    let entries: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": entries, "preferredVersion": entries.first()})
}

fn legacy_resources(table: &Table, group: &str, version: &str) -> Value {
    let mut entries: Vec<Value> = Vec::new();
    for resource in table.version(group, version) {
        let mut own = vec![(resource.plural.clone(), legacy_resource(resource))];
        own.extend(resource.subresources.iter().map(|subresource| {
            let name = format!("{}/{}", resource.plural, subresource.name);
            (name.clone(), legacy_subresource(resource, subresource, &name))
        }));
        entries.extend(own.into_iter().map(|(_, entry)| entry));
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    let mut list = Map::new();
    list.insert("kind".to_owned(), "APIResourceList".into());
    if !group.is_empty() {
        // The core group's list comes without, from a time before it had one.
        list.insert("apiVersion".to_owned(), "v1".into());
    }
    list.insert("groupVersion".to_owned(), group_version.into());
    list.insert("resources".to_owned(), entries.into());
    Value::Object(list)
}

fn legacy_resource(resource: &Resource) -> Value {
    let mut entry = Map::new();
    let mut put = |name: &str, value: Value| {
        entry.insert(name.to_owned(), value);
    };
    put("name", resource.plural.as_str().into());
    put("singularName", resource.singular.as_str().into());
    put("namespaced", resource.namespaced.into());
    put("kind", resource.kind.as_str().into());
    put("verbs", verbs(resource.verbs));
    if !resource.short_names.is_empty() {
        put("shortNames", json!(resource.short_names));
    }
    if !resource.categories.is_empty() {
        put("categories", json!(resource.categories));
    }
    if !resource.storage_version_hash.is_empty() {
        put("storageVersionHash", resource.storage_version_hash.as_str().into());
    }
    Value::Object(entry)
}

fn legacy_subresource(resource: &Resource, subresource: &Subresource, name: &str) -> Value {
    let mut entry = Map::new();
    let mut put = |name: &str, value: Value| {
        entry.insert(name.to_owned(), value);
    };
    put("name", name.into());
    put("singularName", "".into());
    put("namespaced", resource.namespaced.into());
    if !subresource.group.is_empty() {
        put("group", subresource.group.as_str().into());
    }
    if !subresource.version.is_empty() {
        put("version", subresource.version.as_str().into());
    }
    put("kind", subresource.kind.as_str().into());
    put("verbs", verbs(subresource.verbs));
    Value::Object(entry)
}
