//! Claims and volumes.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::lab::{Lab, until_in};

async fn volume(lab: &Lab, name: &str, more: Value) -> PersistentVolume {
    let mut volume = json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}});
    volume["spec"]
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let api: Api<PersistentVolume> = Api::all(lab.client.clone());
    api.create(&PostParams::default(), &serde_json::from_value(volume).unwrap())
        .await
        .unwrap()
}

fn claim(name: &str, more: Value) -> Value {
    let mut claim = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    claim["spec"]
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    claim
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn volume_phase(volume: &PersistentVolume) -> &str {
    volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_bound_to_a_volume_that_is_there_and_lets_it_go_when_no_pod_uses_it() {
    let lab = Lab::start().await;
    let volumes: Api<PersistentVolume> = Api::all(lab.client.clone());
    let waiting: PersistentVolumeClaim = lab.create(claim("data", json!({"storageClassName": ""}))).await;
    assert_eq!(waiting.finalizers(), ["kubernetes.io/pvc-protection"]);
    lab.until("data", |claim| phase(claim) == "Pending").await;
    volume(&lab, "disk", json!({})).await;
    let bound = lab.until("data", |claim| phase(claim) == "Bound").await;
    let status = bound.status.unwrap();
    assert_eq!(bound.spec.unwrap().volume_name.as_deref(), Some("disk"));
    assert_eq!(status.capacity.unwrap()["storage"].0, "1Gi");
    let bound = until_in(&volumes, "disk", |volume| volume_phase(volume) == "Bound").await;
    assert_eq!(bound.spec.unwrap().claim_ref.unwrap().name.as_deref(), Some("data"));
    let told = lab.events("PersistentVolumeClaim", "data").await;
    assert_eq!(
        told,
        ["Normal FailedBinding 1: no persistent volumes available for this claim and no storage class is set"]
    );

    lab.create::<Pod>(
        json!({"metadata": {"name": "user"}, "spec": {"nodeName": "n", "containers": [
        {"name": "c", "image": "i"}], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}),
    )
    .await;
    lab.until("user", |pod: &Pod| {
        pod.status.as_ref().is_some_and(|it| it.start_time.is_some())
    })
    .await;
    let claims = lab.api::<PersistentVolumeClaim>();
    claims.delete("data", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert!(
        claims.get("data").await.unwrap().metadata.deletion_timestamp.is_some(),
        "a pod uses it"
    );
    lab.api::<Pod>().delete("user", &DeleteParams::default()).await.unwrap();
    lab.until_all(|claims: &[PersistentVolumeClaim]| claims.is_empty())
        .await;
    until_in(&volumes, "disk", |volume| volume_phase(volume) == "Released").await;
    volumes.delete("disk", &DeleteParams::default()).await.unwrap();
    crate::lab::until_all_in(&volumes, |volumes| volumes.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_a_delayed_class_waits_for_a_node_and_then_for_its_provisioner() {
    let lab = Lab::start().await;
    let classes: Api<StorageClass> = Api::all(lab.client.clone());
    let class = json!({"metadata": {"name": "standard"}, "provisioner": "example.com/disk",
        "volumeBindingMode": "WaitForFirstConsumer"});
    classes
        .create(&PostParams::default(), &serde_json::from_value(class).unwrap())
        .await
        .unwrap();
    lab.create::<PersistentVolumeClaim>(claim("data", json!({"storageClassName": "standard"})))
        .await;
    lab.until("data", |claim| phase(claim) == "Pending").await;
    let told = lab.events("PersistentVolumeClaim", "data").await;
    assert_eq!(
        told.first().map(String::as_str),
        Some("Normal WaitForFirstConsumer 1: waiting for first consumer to be created before binding")
    );
    let selected = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n"}}});
    lab.merge::<PersistentVolumeClaim>("data", selected).await;
    let asked = lab
        .until("data", |claim: &PersistentVolumeClaim| {
            claim
                .annotations()
                .contains_key("volume.kubernetes.io/storage-provisioner")
        })
        .await;
    assert_eq!(
        asked.annotations()["volume.beta.kubernetes.io/storage-provisioner"],
        "example.com/disk"
    );
    let reference = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": "default", "name": "data",
        "uid": asked.uid()});
    let more = json!({"storageClassName": "standard", "claimRef": reference});
    volume(&lab, "made", more).await;
    let bound = lab.until("data", |claim| phase(claim) == "Bound").await;
    assert_eq!(bound.spec.unwrap().volume_name.as_deref(), Some("made"));
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_volume_is_gone_is_lost_and_a_wrong_choice_is_explained() {
    let lab = Lab::start().await;
    volume(&lab, "small", json!({"capacity": {"storage": "1Mi"}})).await;
    let wanting = claim("picky", json!({"storageClassName": "", "volumeName": "small"}));
    lab.create::<PersistentVolumeClaim>(wanting).await;
    lab.until("picky", |claim| phase(claim) == "Pending").await;
    let told = lab.events("PersistentVolumeClaim", "picky").await;
    let expected = "Warning VolumeMismatch 1: Cannot bind to requested volume \"small\": requested PV is too small";
    assert_eq!(told.first().map(String::as_str), Some(expected));

    let mut gone = claim("gone", json!({"storageClassName": "", "volumeName": "nowhere"}));
    gone["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
    lab.create::<PersistentVolumeClaim>(gone).await;
    lab.until("gone", |claim| phase(claim) == "Lost").await;
    let told = lab.events("PersistentVolumeClaim", "gone").await;
    let expected = "Warning ClaimLost 1: Bound claim has lost its PersistentVolume. Data on the volume is lost!";
    assert_eq!(told, [expected]);
}
