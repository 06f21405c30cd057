//! DaemonSets.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::lab::Lab;

async fn node(lab: &Lab, name: &str) {
    let nodes: Api<Node> = Api::all(lab.client.clone());
    let node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let patch = Patch::Merge(json!({"spec": {"taints": null}}));
    nodes.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

fn complete(set: &DaemonSet, nodes: i32) -> bool {
    let status = set.status.clone().unwrap_or_default();
    status.observed_generation == set.metadata.generation
        && status.desired_number_scheduled == nodes
        && status.updated_number_scheduled == Some(nodes)
        && status.number_available == Some(nodes)
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_on_every_node_and_is_rolled_one_by_one() {
    let lab = Lab::start().await;
    node(&lab, "a").await;
    node(&lab, "b").await;
    let tolerate = json!([{"operator": "Exists"}]);
    lab.create::<DaemonSet>(json!({"metadata": {"name": "agent"}, "spec": {
        "selector": {"matchLabels": {"app": "agent"}},
        "template": {"metadata": {"labels": {"app": "agent"}},
            "spec": {"tolerations": tolerate, "containers": [{"name": "c", "image": "one"}]}}}}))
        .await;
    lab.until("agent", |set| complete(set, 2)).await;
    let pods = lab.list::<Pod>().await;
    let affinity = pods[0]
        .spec
        .as_ref()
        .unwrap()
        .affinity
        .as_ref()
        .unwrap()
        .node_affinity
        .as_ref()
        .unwrap();
    let terms = &affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()
        .unwrap()
        .node_selector_terms;
    assert_eq!(terms[0].match_fields.as_ref().unwrap()[0].key, "metadata.name");

    let image = json!({"spec": {"template": {"spec": {"tolerations": tolerate,
        "containers": [{"name": "c", "image": "two"}]}}}});
    lab.merge::<DaemonSet>("agent", image).await;
    lab.until("agent", |set| complete(set, 2)).await;
    let pods = lab
        .until_all(|pods: &[Pod]| pods.len() == 2 && pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()))
        .await;
    assert!(
        pods.iter()
            .all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("two"))
    );
    let mut revisions: Vec<_> = lab
        .list::<ControllerRevision>()
        .await
        .iter()
        .map(|it| it.revision)
        .collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [1, 2]);
    let told = lab.events("DaemonSet", "agent").await;
    let created = told
        .iter()
        .filter(|text| text.starts_with("Normal SuccessfulCreate 1: Created pod: agent-"));
    assert_eq!(created.count(), 4, "{told:?}");
    assert!(pods[0].name_any().starts_with("agent-"));
}
