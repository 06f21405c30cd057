//! Custom resources, through the real client over the server in process.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use apiserver::Server;
use futures::{StreamExt, pin_mut};
use http::Request;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::core::{ApiResource, WatchEvent};
use kube::runtime::conditions::is_crd_established;
use serde_json::{Value, json};

fn replicator() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "replicators.lab.example"},
        "spec": {
            "group": "lab.example", "scope": "Namespaced",
            "names": {"plural": "replicators", "kind": "Replicator", "shortNames": ["rep"], "categories": ["all"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true,
                 "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "size": {"type": "integer"}, "color": {"type": "string"},
                        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {"type": "object", "required": ["name"], "properties": {
                                "name": {"type": "string"}, "port": {"type": "integer"}}}},
                    }},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                 }}},
                 "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size",
                    "labelSelectorPath": ".status.selector"}},
                 "selectableFields": [{"jsonPath": ".spec.color"}],
                 "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]},
                {"name": "v1beta1", "served": true, "storage": false,
                 "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
            ],
        },
    })
}

fn definitions(client: &Client) -> Api<CustomResourceDefinition> {
    Api::all(client.clone())
}

async fn define(client: &Client, definition: Value) -> CustomResourceDefinition {
    let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
    let api = definitions(client);
    let created = api.create(&PostParams::default(), &definition).await.unwrap();
    api.get(created.metadata.name.as_deref().unwrap()).await.unwrap()
}

fn replicators(client: &Client, version: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "lab.example".to_owned(),
        version: version.to_owned(),
        api_version: format!("lab.example/{version}"),
        kind: "Replicator".to_owned(),
        plural: "replicators".to_owned(),
    };
    Api::namespaced_with(client.clone(), "default", &resource)
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn rep(name: &str, spec: &Value) -> DynamicObject {
    object(json!({
        "apiVersion": "lab.example/v1", "kind": "Replicator", "metadata": {"name": name}, "spec": spec,
    }))
}

async fn get(client: &Client, path: &str, accept: &str) -> Value {
    let request = Request::get(path).header("accept", accept).body(Vec::new()).unwrap();
    client.request(request).await.unwrap()
}

fn code(error: kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.message),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_definition_is_established_and_served_when_its_creation_is_answered() {
    let server = Server::in_memory().await;
    let client = server.client();
    let definition = define(&client, replicator()).await;
    assert!(is_crd_established().matches_object(Some(&definition)));
    let status = definition.status.unwrap();
    let conditions: Vec<_> = status
        .conditions
        .unwrap()
        .into_iter()
        .map(|c| (c.type_, c.status, c.reason.unwrap()))
        .collect();
    let expected = [
        ("NamesAccepted", "True", "NoConflicts"),
        ("Established", "True", "InitialNamesAccepted"),
    ];
    assert_eq!(
        conditions,
        expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
    );
    assert_eq!(status.stored_versions.unwrap(), ["v1"]);
    assert_eq!(status.accepted_names.unwrap().singular.as_deref(), Some("replicator"));

    let list = get(&client, "/apis/lab.example/v1", "application/json").await;
    let names: Vec<_> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].clone())
        .collect();
    assert_eq!(names, ["replicators", "replicators/status", "replicators/scale"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["rep"]));
    assert_eq!(list["resources"][0]["categories"], json!(["all"]));
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let groups = get(&client, "/apis", accept).await;
    let group = groups["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|g| g["metadata"]["name"] == "lab.example")
        .unwrap();
    assert_eq!(
        group["versions"][0]["resources"][0]["responseKind"]["kind"],
        "Replicator"
    );
    assert_eq!(group["versions"][1]["version"], "v1beta1");
}

#[tokio::test]
async fn custom_resources_have_the_verbs_of_every_resource() {
    let server = Server::in_memory().await;
    let client = server.client();
    define(&client, replicator()).await;
    let api = replicators(&client, "v1");
    let created = api
        .create(&PostParams::default(), &rep("a", &json!({"size": 1, "no": 2})))
        .await
        .unwrap();
    assert_eq!(created.data["spec"], json!({"size": 1}), "pruned");
    assert_eq!(created.metadata.generation, Some(1));
    let version = created.metadata.resource_version.clone().unwrap();
    let stream = api.watch(&WatchParams::default(), &version).await.unwrap();
    pin_mut!(stream);

    let merge = Patch::Merge(json!({"spec": {"size": 2}, "status": {"x": 1}}));
    let patched = api.patch("a", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(
        (patched.metadata.generation, patched.data.get("status")),
        (Some(2), None)
    );
    let WatchEvent::Modified(seen) = stream.next().await.unwrap().unwrap() else {
        panic!()
    };
    assert_eq!(seen.data["spec"]["size"], 2);

    let merge = Patch::Merge(json!({"spec": {"size": 9}, "status": {"size": 2, "selector": "a=b"}}));
    let patched = api.patch_status("a", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(
        (&patched.data["spec"]["size"], &patched.data["status"]["size"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(patched.metadata.generation, Some(2));

    let scale = api.get_scale("a").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(2));
    let status = scale.status.unwrap();
    assert_eq!((status.replicas, status.selector.as_deref()), (2, Some("a=b")));
    let merge = Patch::Merge(json!({"spec": {"replicas": 5}}));
    api.patch_scale("a", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(api.get("a").await.unwrap().data["spec"]["size"], 5);

    let strategic = Patch::Strategic(json!({"spec": {"size": 3}}));
    let error = api.patch("a", &PatchParams::default(), &strategic).await.unwrap_err();
    assert_eq!(code(error).0, 415);
    let error = api
        .create(&PostParams::default(), &rep("a", &json!({})))
        .await
        .unwrap_err();
    assert_eq!(code(error).0, 409);
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn server_side_apply_merges_the_lists_of_a_custom_resource_by_their_keys() {
    let server = Server::in_memory().await;
    let client = server.client();
    define(&client, replicator()).await;
    let api = replicators(&client, "v1");
    for (manager, name) in [("one", "http"), ("two", "grpc")] {
        let config = rep("a", &json!({"ports": [{"name": name, "port": 80}]}));
        api.patch("a", &PatchParams::apply(manager), &Patch::Apply(&config))
            .await
            .unwrap();
    }
    let config = rep("a", &json!({"ports": [{"name": "http", "port": 81}]}));
    let error = api
        .patch("a", &PatchParams::apply("two"), &Patch::Apply(&config))
        .await
        .unwrap_err();
    let (code, message) = code(error);
    assert_eq!(code, 409);
    assert!(message.contains(r#".spec.ports[name="http"].port"#), "{message}");
    assert_eq!(
        api.get("a").await.unwrap().data["spec"]["ports"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn tables_and_field_selectors_are_what_the_definition_says() {
    let server = Server::in_memory().await;
    let client = server.client();
    define(&client, replicator()).await;
    let api = replicators(&client, "v1");
    for (name, color) in [("a", "red"), ("b", "blue")] {
        api.create(&PostParams::default(), &rep(name, &json!({"size": 3, "color": color})))
            .await
            .unwrap();
    }
    let red = api.list(&ListParams::default().fields("spec.color=red")).await.unwrap();
    assert_eq!(red.items.len(), 1);
    let error = api
        .list(&ListParams::default().fields("spec.size=3"))
        .await
        .unwrap_err();
    assert_eq!(code(error), (400, "field label not supported: spec.size".to_owned()));
    let path = "/apis/lab.example/v1/namespaces/default/replicators";
    let table = get(
        &client,
        path,
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )
    .await;
    let names: Vec<_> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].clone())
        .collect();
    assert_eq!(names, ["Name", "Size", "Age"]);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..2],
        [json!("a"), json!(3)]
    );
}

#[tokio::test]
async fn every_version_shows_the_same_objects_under_its_own_name() {
    let server = Server::in_memory().await;
    let client = server.client();
    define(&client, replicator()).await;
    let (v1, beta) = (replicators(&client, "v1"), replicators(&client, "v1beta1"));
    let mut body = rep("a", &json!({"size": 3}));
    body.types.as_mut().unwrap().api_version = "lab.example/v1beta1".to_owned();
    let created = beta.create(&PostParams::default(), &body).await.unwrap();
    assert_eq!(created.types.unwrap().api_version, "lab.example/v1beta1");
    assert_eq!(v1.get("a").await.unwrap().types.unwrap().api_version, "lab.example/v1");
    let list = beta.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.types.api_version, "lab.example/v1beta1");
    assert_eq!(list.items[0].data["spec"]["size"], 3);
}

#[tokio::test]
async fn deleting_a_definition_deletes_its_instances_and_waits_for_their_finalizers() {
    let server = Server::in_memory().await;
    let client = server.client();
    define(&client, replicator()).await;
    let (api, definitions) = (replicators(&client, "v1"), definitions(&client));
    api.create(&PostParams::default(), &rep("free", &json!({})))
        .await
        .unwrap();
    let mut held = rep("held", &json!({}));
    held.metadata.finalizers = Some(vec!["lab.example/hold".to_owned()]);
    let held = api.create(&PostParams::default(), &held).await.unwrap();
    let version = held.metadata.resource_version.unwrap();
    let stream = api.watch(&WatchParams::default(), &version).await.unwrap();
    pin_mut!(stream);

    definitions
        .delete("replicators.lab.example", &DeleteParams::default())
        .await
        .unwrap();
    let waiting = definitions.get("replicators.lab.example").await.unwrap();
    assert!(waiting.metadata.deletion_timestamp.is_some());
    assert!(api.get_opt("free").await.unwrap().is_none());
    assert!(api.get("held").await.unwrap().metadata.deletion_timestamp.is_some());
    let error = api
        .create(&PostParams::default(), &rep("new", &json!({})))
        .await
        .unwrap_err();
    let message = "create not allowed while custom resource definition is terminating";
    assert_eq!(code(error), (405, message.to_owned()));

    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("held", &PatchParams::default(), &release).await.unwrap();
    assert!(definitions.get_opt("replicators.lab.example").await.unwrap().is_none());
    assert_eq!(code(api.list(&ListParams::default()).await.unwrap_err()).0, 404);
    // The watch ends by itself.
    while stream.next().await.is_some() {}

    define(&client, replicator()).await;
    assert!(api.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn names_that_are_taken_are_given_when_they_become_free() {
    let server = Server::in_memory().await;
    let client = server.client();
    define(&client, replicator()).await;
    let mut other = replicator();
    other["metadata"]["name"] = json!("others.lab.example");
    other["spec"]["names"] =
        json!({"plural": "others", "kind": "Replicator", "singular": "other", "listKind": "OtherList"});
    let other = define(&client, other).await;
    assert!(!is_crd_established().matches_object(Some(&other)));
    let condition = &other.status.unwrap().conditions.unwrap()[0];
    assert_eq!(condition.reason.as_deref(), Some("KindConflict"));
    assert_eq!(condition.message.as_deref(), Some(r#""Replicator" is already in use"#));
    let definitions = definitions(&client);
    definitions
        .delete("replicators.lab.example", &DeleteParams::default())
        .await
        .unwrap();
    let other = definitions.get("others.lab.example").await.unwrap();
    assert!(is_crd_established().matches_object(Some(&other)));
}

#[tokio::test]
async fn the_openapi_document_of_a_group_describes_its_kinds() {
    let server = Server::in_memory().await;
    let client = server.client();
    define(&client, replicator()).await;
    let index = get(&client, "/openapi/v3", "application/json").await;
    let url = index["paths"]["apis/lab.example/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    let document = get(&client, &url, "application/json").await;
    let schema = &document["components"]["schemas"]["example.lab.v1.Replicator"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["type"], "integer");
    let patch = &document["paths"]["/apis/lab.example/v1/namespaces/{namespace}/replicators/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Replicator");
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(
        parameters
            .iter()
            .any(|parameter| parameter["name"] == "fieldValidation")
    );
    assert!(document["paths"]["/apis/lab.example/v1/namespaces/{namespace}/replicators/{name}/scale"].is_object());
    assert!(
        !document.to_string().contains("PodDisruption"),
        "nothing of the model is left"
    );
}

trait Matches {
    fn matches_object(&self, object: Option<&CustomResourceDefinition>) -> bool;
}

impl<C: kube::runtime::wait::Condition<CustomResourceDefinition>> Matches for C {
    fn matches_object(&self, object: Option<&CustomResourceDefinition>) -> bool {
        kube::runtime::wait::Condition::matches_object(self, object)
    }
}

#[tokio::test]
async fn objects_get_their_defaults_and_must_fit_the_schema() {
    let server = Server::in_memory().await;
    let client = server.client();
    let mut definition = replicator();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({
        "type": "object", "required": ["color"], "properties": {
            "color": {"type": "string", "enum": ["red", "blue"]},
            "size": {"type": "integer", "minimum": 0, "default": 3},
        },
    });
    define(&client, definition).await;
    let api = replicators(&client, "v1");
    let created = api
        .create(&PostParams::default(), &rep("a", &json!({"color": "red"})))
        .await
        .unwrap();
    assert_eq!(created.data["spec"]["size"], 3);

    let wrong = rep("b", &json!({"color": "green", "size": -1}));
    let error = api.create(&PostParams::default(), &wrong).await.unwrap_err();
    let expected = "Replicator.lab.example \"b\" is invalid: [spec.color: Unsupported value: \"green\": supported values: \
                    \"red\", \"blue\", spec.size: Invalid value: -1: spec.size in body should be greater than or equal to 0]";
    assert_eq!(code(error), (422, expected.to_owned()));
    let merge = Patch::Merge(json!({"spec": {"size": "many"}}));
    let error = api.patch("a", &PatchParams::default(), &merge).await.unwrap_err();
    let (status, message) = code(error);
    assert_eq!(status, 422);
    assert!(
        message.contains(r#"spec.size in body must be of type integer: "string""#),
        "{message}"
    );
}

#[tokio::test]
async fn a_schema_that_is_not_structural_is_refused() {
    let server = Server::in_memory().await;
    let mut definition = replicator();
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["properties"]["size"] = json!({"default": "x"});
    schema["properties"]["spec"]["properties"]["color"] = json!({"type": "string", "default": 1});
    let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
    let error = definitions(&server.client())
        .create(&PostParams::default(), &definition)
        .await
        .unwrap_err();
    let (status, message) = code(error);
    assert_eq!(status, 422);
    let size = "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[size].type: Required value: must not be \
                empty for specified object fields";
    assert!(message.contains(size), "{message}");
    assert!(
        message.contains("properties[color].default: Invalid value: \"integer\""),
        "{message}"
    );
}
