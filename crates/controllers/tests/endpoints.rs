//! EndpointSlices and Endpoints, and what nodes do to pods, against the API server in process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lab;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use lab::{Lab, deployment, until_in};
use serde_json::json;

fn of_web(slices: &[EndpointSlice]) -> impl Iterator<Item = &EndpointSlice> {
    slices.iter().filter(|slice| {
        slice
            .labels()
            .get("kubernetes.io/service-name")
            .is_some_and(|name| name == "web")
    })
}

/// How many endpoints of `web` are ready, and how many there are.
fn counts(slices: &[EndpointSlice]) -> (usize, usize) {
    let endpoints: Vec<_> = of_web(slices)
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .collect();
    let ready = endpoints
        .iter()
        .filter(|endpoint| endpoint.conditions.as_ref().unwrap().ready == Some(true))
        .count();
    (ready, endpoints.len())
}

fn addresses(endpoints: &Endpoints) -> (usize, usize) {
    let subsets = endpoints.subsets.as_deref().unwrap_or_default();
    let ready = subsets
        .iter()
        .map(|subset| subset.addresses.as_ref().map_or(0, Vec::len))
        .sum();
    let not_ready = subsets
        .iter()
        .map(|subset| subset.not_ready_addresses.as_ref().map_or(0, Vec::len))
        .sum();
    (ready, not_ready)
}

#[tokio::test(start_paused = true)]
async fn a_service_follows_its_pods() {
    let lab = Lab::start().await;
    let service = json!({"metadata": {"name": "web"}, "spec": {
        "clusterIP": "10.96.0.7", "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": 8000, "protocol": "TCP"}]}});
    lab.create::<Service>(service).await;
    lab.until_all(|slices: &[EndpointSlice]| of_web(slices).count() == 1)
        .await;
    lab.create::<Deployment>(deployment(3, "web:1", json!({}))).await;
    lab.until_all(|slices: &[EndpointSlice]| counts(slices) == (3, 3)).await;
    let endpoints = lab
        .until("web", |endpoints: &Endpoints| addresses(endpoints) == (3, 0))
        .await;
    assert_eq!(endpoints.subsets.unwrap()[0].ports.as_ref().unwrap()[0].port, 8000);
    let pod = lab.list::<Pod>().await.remove(0).name_any();
    lab.kubelet.set_ready("default", &pod, false).await;
    lab.until_all(|slices: &[EndpointSlice]| counts(slices) == (2, 3)).await;
    lab.until("web", |endpoints: &Endpoints| addresses(endpoints) == (2, 1))
        .await;
    lab.merge::<Deployment>("web", json!({"spec": {"replicas": 1}})).await;
    lab.until_all(|slices: &[EndpointSlice]| counts(slices) == (1, 1)).await;
    lab.api::<Service>()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    lab.until_all(|slices: &[EndpointSlice]| of_web(slices).count() == 0)
        .await;
    lab.until_all(|all: &[Endpoints]| all.iter().all(|endpoints| endpoints.name_any() != "web"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_loses_its_taint_when_it_is_ready_and_gets_another_when_it_falls_silent() {
    let lab = Lab::start().await;
    let nodes: Api<Node> = Api::all(lab.client.clone());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let taints = |node: &Node| -> Vec<String> {
        let taints = node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.as_deref())
            .unwrap_or_default();
        taints.iter().map(|taint| taint.key.clone()).collect()
    };
    until_in(&nodes, "n1", |node| taints(node) == ["node.kubernetes.io/not-ready"]).await;
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
    nodes
        .patch_status("n1", &PatchParams::default(), &Patch::Merge(ready))
        .await
        .unwrap();
    until_in(&nodes, "n1", |node| taints(node).is_empty()).await;
    let silent = until_in(&nodes, "n1", |node| taints(node) == ["node.kubernetes.io/unreachable"]).await;
    let conditions = silent.status.unwrap().conditions.unwrap();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_deref()),
        ("Unknown", Some("NodeStatusUnknown"))
    );
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_is_gone_are_removed() {
    let lab = Lab::start().await;
    let nodes: Api<Node> = Api::all(lab.client.clone());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let pod = json!({"metadata": {"name": "lost"}, "spec": {
        "nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    lab.create::<Pod>(pod).await;
    lab.kubelet.pause();
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    lab.until_all(<[Pod]>::is_empty).await;
}
