//! StatefulSets.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::lab::Lab;

fn set(replicas: i32, image: &str, more: Value) -> Value {
    let mut set = json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "serviceName": "peers",
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"storageClassName": "",
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
        },
    });
    set["spec"]
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    set
}

/// All replicas are ready and of the newest revision.
fn complete(set: &StatefulSet) -> bool {
    let (status, spec) = (set.status.clone().unwrap_or_default(), set.spec.clone().unwrap());
    status.observed_generation == set.metadata.generation
        && status.ready_replicas.or(Some(0)) == spec.replicas
        && Some(status.replicas) == spec.replicas
        && status.updated_replicas.or(Some(0)) == spec.replicas
        && status.current_revision == status.update_revision
}

async fn images(lab: &Lab) -> BTreeMap<String, String> {
    let pods = lab.list::<Pod>().await.into_iter();
    pods.map(|pod| (pod.name_any(), pod.spec.unwrap().containers[0].image.clone().unwrap()))
        .collect()
}

fn as_text(images: &BTreeMap<String, String>) -> String {
    images
        .iter()
        .map(|(pod, image)| format!("{pod}={image}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[tokio::test(start_paused = true)]
async fn members_come_in_order_with_names_and_claims_that_outlive_them() {
    let lab = Lab::start().await;
    lab.create::<StatefulSet>(set(2, "one", json!({}))).await;
    let ready = lab.until("web", complete).await;
    assert_eq!(ready.status.unwrap().available_replicas, Some(2));
    let pod = lab.api::<Pod>().get("web-1").await.unwrap();
    let spec = pod.spec.clone().unwrap();
    assert_eq!(
        (spec.hostname.as_deref(), spec.subdomain.as_deref()),
        (Some("web-1"), Some("peers"))
    );
    assert_eq!(pod.labels()["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(pod.labels()["statefulset.kubernetes.io/pod-name"], "web-1");
    let names = |claims: &[PersistentVolumeClaim]| claims.iter().map(|claim| claim.name_any()).collect::<Vec<_>>();
    assert_eq!(names(&lab.list().await), ["data-web-0", "data-web-1"]);
    let told = lab.events("StatefulSet", "web").await;
    assert_eq!(
        told,
        [
            "Normal SuccessfulCreate 1: create Claim data-web-0 Pod web-0 in StatefulSet web success",
            "Normal SuccessfulCreate 1: create Pod web-0 in StatefulSet web successful",
            "Normal SuccessfulCreate 1: create Claim data-web-1 Pod web-1 in StatefulSet web success",
            "Normal SuccessfulCreate 1: create Pod web-1 in StatefulSet web successful",
        ]
    );

    lab.merge::<StatefulSet>("web", json!({"spec": {"replicas": 1}})).await;
    lab.until_all(|pods: &[Pod]| pods.len() == 1 && pods[0].name_any() == "web-0")
        .await;
    assert_eq!(names(&lab.list().await), ["data-web-0", "data-web-1"], "data stays");
    let before = lab.api::<Pod>().get("web-0").await.unwrap().uid();
    lab.api::<Pod>()
        .delete("web-0", &DeleteParams::default())
        .await
        .unwrap();
    lab.until("web-0", |pod: &Pod| pod.uid() != before).await;
    lab.until("web", complete).await;
}

#[tokio::test(start_paused = true)]
async fn an_update_goes_from_the_last_member_to_the_partition_and_back_again() {
    let lab = Lab::start().await;
    let partition = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    lab.create::<StatefulSet>(set(3, "one", json!({"updateStrategy": partition})))
        .await;
    let first = lab.until("web", complete).await.status.unwrap().update_revision;
    let image =
        |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}}});
    lab.merge::<StatefulSet>("web", image("two")).await;
    let partial = lab
        .until("web", |set: &StatefulSet| {
            let status = set.status.clone().unwrap_or_default();
            status.updated_replicas == Some(1) && status.ready_replicas == Some(3)
        })
        .await;
    assert_eq!(as_text(&images(&lab).await), "web-0=one web-1=one web-2=two");
    assert_eq!(partial.status.unwrap().current_revision, first);
    // A member below the partition comes back as it was.
    let before = lab.api::<Pod>().get("web-0").await.unwrap().uid();
    lab.api::<Pod>()
        .delete("web-0", &DeleteParams::default())
        .await
        .unwrap();
    lab.until("web-0", |pod: &Pod| pod.uid() != before).await;
    assert_eq!(images(&lab).await["web-0"], "one");
    let all = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}});
    lab.merge::<StatefulSet>("web", all).await;
    lab.until("web", complete).await;
    assert_eq!(as_text(&images(&lab).await), "web-0=two web-1=two web-2=two");

    lab.merge::<StatefulSet>("web", image("one")).await;
    let back = lab
        .until("web", |set| {
            complete(set) && set.status.as_ref().unwrap().update_revision == first
        })
        .await;
    assert_eq!(
        back.status.unwrap().current_revision,
        first,
        "the old revision is used again"
    );
    let revisions = lab.list::<ControllerRevision>().await;
    let mut numbers: Vec<_> = revisions.iter().map(|revision| revision.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn parallel_members_come_at_once_and_claims_go_where_the_policy_says_so() {
    let lab = Lab::start().await;
    lab.kubelet.never_ready("stuck");
    let more = json!({"podManagementPolicy": "Parallel",
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}});
    lab.create::<StatefulSet>(set(3, "stuck", more)).await;
    lab.until_all(|pods: &[Pod]| pods.len() == 3).await;
    lab.merge::<StatefulSet>("web", json!({"spec": {"replicas": 1}})).await;
    lab.until_all(|claims: &[PersistentVolumeClaim]| claims.len() == 1)
        .await;
    let api = lab.api::<StatefulSet>();
    let owner = api.get("web").await.unwrap();
    lab.until("data-web-0", |claim: &PersistentVolumeClaim| {
        claim
            .owner_references()
            .iter()
            .any(|reference| Some(&reference.uid) == owner.metadata.uid.as_ref())
    })
    .await;
    api.delete("web", &DeleteParams::default()).await.unwrap();
    lab.until_all(|claims: &[PersistentVolumeClaim]| claims.is_empty())
        .await;
    lab.until_all(|pods: &[Pod]| pods.is_empty()).await;
    // The name is free for another set.
    let again: StatefulSet = serde_json::from_value(set(1, "one", json!({}))).unwrap();
    api.create(&PostParams::default(), &again).await.unwrap();
    lab.until("web", complete).await;
}
