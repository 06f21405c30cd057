//! The forms in which lists, objects and changes leave the server: tables and metadata alone.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod golden;

use apiserver::Server;
use http::Request;
use serde_json::{Value, json};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

async fn with_two_maps() -> Server {
    let server = Server::in_memory().await;
    for name in ["a", "b"] {
        let body = json!({"metadata": {"name": name, "labels": {"x": "y"}}, "data": {"k": "v"}}).to_string();
        let request = Request::post("/api/v1/namespaces/default/configmaps").header("content-type", "application/json");
        let request = request.body(body.into_bytes()).unwrap();
        server.client().request::<Value>(request).await.unwrap();
    }
    server
}

async fn get(server: &Server, path: &str, accept: &str) -> Value {
    let request = Request::get(path).header("accept", accept).body(Vec::new()).unwrap();
    server.client().request(request).await.unwrap()
}

#[tokio::test]
async fn a_table_has_a_row_an_object_with_its_metadata() {
    let server = with_two_maps().await;
    let path = "/api/v1/namespaces/default/configmaps?fieldSelector=metadata.name!%3Dkube-root-ca.crt";
    let table = get(&server, path, TABLE).await;
    assert_eq!(
        (&table["kind"], &table["apiVersion"]),
        (&json!("Table"), &json!("meta.k8s.io/v1"))
    );
    let names: Vec<_> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| &column["name"])
        .collect();
    assert_eq!(names, ["Name", "Data", "Age"]);
    let definition = &table["columnDefinitions"][0];
    assert_eq!(
        definition.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["name", "type", "format", "description", "priority"]
    );
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1]["cells"].as_array().unwrap()[..2], [json!("b"), json!(1)]);
    let object = &rows[1]["object"];
    assert_eq!(
        (&object["kind"], &object["metadata"]["name"]),
        (&json!("PartialObjectMetadata"), &json!("b"))
    );
    assert_eq!(object.get("data"), None);

    let whole = get(&server, &format!("{path}&includeObject=Object"), TABLE).await;
    assert_eq!(whole["rows"][0]["object"]["data"], json!({"k": "v"}));
    let nothing = get(&server, &format!("{path}&includeObject=None"), TABLE).await;
    assert_eq!(nothing["rows"][0]["object"], Value::Null);
}

#[tokio::test]
async fn a_table_of_one_object_has_its_revision() {
    let server = with_two_maps().await;
    let table = get(&server, "/api/v1/namespaces/default/configmaps/a", TABLE).await;
    let revision = &table["rows"][0]["object"]["metadata"]["resourceVersion"];
    assert_eq!(&table["metadata"]["resourceVersion"], revision);
}

#[tokio::test]
async fn an_empty_table_still_has_columns() {
    let server = Server::in_memory().await;
    let table = get(&server, "/apis/apps/v1/deployments", TABLE).await;
    assert_eq!(table["rows"], json!([]));
    assert_eq!(table["columnDefinitions"][1]["name"], "Ready");
}

#[tokio::test]
async fn metadata_alone_is_all_that_a_metadata_list_holds() {
    let server = with_two_maps().await;
    let path = "/api/v1/namespaces/default/configmaps?labelSelector=x";
    let list = get(&server, path, METADATA).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(
        items[0].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["kind", "apiVersion", "metadata"]
    );
    assert_eq!(items[0]["metadata"]["labels"], json!({"x": "y"}));
}
