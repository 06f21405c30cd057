//! What the server says about itself against a real server's answers, which are in `data/` (1.36, every group on).
//!
//! Differences are few, and each has its reason in [`DIFFERENCES`].

use std::collections::BTreeMap;
use std::io::Read;

use apiserver::Server;
use serde_json::{Value, json};

use crate::get;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Paths below which we differ, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "/api",
        "names the address that the client asked at, not the one of the recorded server",
    ),
    (
        "/apis/internal.apiserver.k8s.io",
        "v1alpha1 only: off in a real cluster unless asked for",
    ),
    (
        "/apis/storagemigration.k8s.io",
        "v1beta1 only: off in a real cluster unless asked for",
    ),
    ("/logs", "files of the machine's /var/log: nothing of a pod's"),
];

fn known_to_differ(path: &str) -> bool {
    DIFFERENCES.iter().any(|(known, _)| *known == path)
}

/// Beta and alpha versions are off in a real cluster unless asked for; the recorded server had them all on.
fn is_ga(version: &str) -> bool {
    version.starts_with('v') && version[1..].chars().all(|c| c.is_ascii_digit())
}

/// The archive's members below `folder`, by the path that they answer.
fn recorded(folder: &str, suffix: &str) -> BTreeMap<String, Value> {
    let data = include_bytes!("../../data/kubernetes-1.36-discovery-openapi-v3.tar.zst");
    let decoder = ruzstd::decoding::StreamingDecoder::new(&data[..]).unwrap();
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(decoder).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let Some(name) = name.strip_prefix(folder).and_then(|name| name.strip_suffix(suffix)) else {
            continue;
        };
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        found.insert(
            format!("/{}", name.replace("__", "/")),
            serde_json::from_str(&text).unwrap(),
        );
    }
    found
}

/// A group without the versions that are off.
fn without_previews(mut group: Value) -> Value {
    if let Some(versions) = group.get_mut("versions").and_then(Value::as_array_mut) {
        versions.retain(|version| version["version"].as_str().is_none_or(is_ga));
    }
    group
}

fn has_versions(group: &Value) -> bool {
    group["versions"]
        .as_array()
        .is_some_and(|versions| !versions.is_empty())
}

#[tokio::test]
async fn discovery_answers_as_a_real_server_does() {
    let server = Server::in_memory().await;
    let mut compared = 0;
    for (path, golden) in recorded("discovery/", ".json") {
        let version = path.rsplit('/').next().unwrap();
        let is_a_version = path.matches('/').count() == 3;
        if path == "/aggregated_v2" || known_to_differ(&path) || (is_a_version && !is_ga(version)) {
            continue;
        }
        let golden = match path.as_str() {
            "/apis" => {
                let groups = golden["groups"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .cloned()
                    .map(without_previews);
                let groups: Vec<Value> = groups.filter(has_versions).collect();
                json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
            }
            _ => without_previews(golden),
        };
        assert_eq!(get(&server, &path, "application/json").await, golden, "{path}");
        compared += 1;
    }
    assert!(compared >= 40, "compared {compared} answers");
}

#[tokio::test]
async fn aggregated_discovery_answers_as_a_real_server_does() {
    let server = Server::in_memory().await;
    let golden = recorded("discovery/", ".json").remove("/aggregated_v2").unwrap();
    let groups = golden["items"]
        .as_array()
        .unwrap()
        .iter()
        .cloned()
        .map(without_previews);
    let groups: Vec<Value> = groups.filter(has_versions).collect();
    let ours = get(&server, "/apis", AGGREGATED).await;
    assert_eq!(ours["items"].as_array().unwrap(), &groups);
}

#[tokio::test]
async fn openapi_v3_is_a_real_servers() {
    let server = Server::in_memory().await;
    let index = get(&server, "/openapi/v3", "application/json").await;
    let index = index["paths"].as_object().unwrap();
    let golden = recorded("openapi-v3/", "_openapi.json");
    for (path, document) in &golden {
        let name = path.trim_start_matches('/');
        let is_a_version = name.starts_with("api/") || name.matches('/').count() == 2;
        if !is_a_version || known_to_differ(path) || !is_ga(name.rsplit('/').next().unwrap()) {
            continue;
        }
        let url = index.get(name).unwrap_or_else(|| panic!("no `{name}` in the index"))["serverRelativeURL"].as_str();
        assert_eq!(
            &get(&server, url.unwrap(), "application/json").await,
            document,
            "{path}"
        );
    }
    for name in index.keys() {
        assert!(
            golden.contains_key(&format!("/{name}")),
            "`{name}` is no document of a real server"
        );
    }
}

/// Definitions of v2 are the schemas of v3, none is lost.
#[tokio::test]
async fn openapi_v2_defines_every_schema_of_v3() {
    let server = Server::in_memory().await;
    let document = get(&server, "/openapi/v2", "application/json").await;
    let index = get(&server, "/openapi/v3", "application/json").await;
    let golden = recorded("openapi-v3/", "_openapi.json");
    for name in index["paths"].as_object().unwrap().keys() {
        let v3 = &golden[&format!("/{name}")];
        for schema in v3["components"]["schemas"].as_object().unwrap().keys() {
            assert!(document["definitions"].get(schema).is_some(), "{schema}");
        }
        for path in v3["paths"].as_object().unwrap().keys() {
            assert!(document["paths"].get(path).is_some(), "{path}");
        }
    }
}
