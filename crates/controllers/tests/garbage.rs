//! Garbage collection and the end of namespaces, against the API server in process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lab;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, ResourceExt};
use lab::{Lab, deployment, until_all_in, until_in};
use serde_json::{Value, json};

fn map(name: &str, owners: &[(&str, &str)], more: Value) -> Value {
    let owners: Vec<Value> = owners
        .iter()
        .map(|(name, uid)| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid,
            "blockOwnerDeletion": true})
        })
        .collect();
    let mut metadata = json!({"name": name, "ownerReferences": owners});
    metadata
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"metadata": metadata})
}

async fn create(lab: &Lab, name: &str, owners: &[(&str, &str)]) -> String {
    lab.create::<ConfigMap>(map(name, owners, json!({})))
        .await
        .metadata
        .uid
        .unwrap()
}

fn policy(policy: PropagationPolicy) -> DeleteParams {
    DeleteParams {
        propagation_policy: Some(policy),
        ..Default::default()
    }
}

fn names(maps: &[ConfigMap]) -> Vec<String> {
    maps.iter()
        .map(ResourceExt::name_any)
        .filter(|name| name != "kube-root-ca.crt")
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_deleted_deployment_takes_its_replica_sets_and_pods_with_it() {
    let lab = Lab::start().await;
    lab.create::<Deployment>(deployment(3, "web:1", json!({}))).await;
    lab.until_complete("web").await;
    lab.api::<Deployment>()
        .delete("web", &policy(PropagationPolicy::Background))
        .await
        .unwrap();
    lab.until_all(<[ReplicaSet]>::is_empty).await;
    lab.until_all(<[Pod]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn in_the_foreground_the_owner_goes_last() {
    let lab = Lab::start().await;
    lab.create::<Deployment>(deployment(2, "web:1", json!({}))).await;
    lab.until_complete("web").await;
    // Nobody ends pods now: everything above them waits.
    lab.kubelet.pause();
    let held = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    let pods = lab.list::<Pod>().await;
    for pod in &pods {
        lab.merge::<Pod>(&pod.name_any(), held.clone()).await;
    }
    lab.api::<Deployment>()
        .delete("web", &policy(PropagationPolicy::Foreground))
        .await
        .unwrap();
    lab.until_all(|pods: &[Pod]| pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()))
        .await;
    let waiting = lab.list::<Deployment>().await.remove(0);
    assert_eq!(waiting.finalizers(), ["foregroundDeletion"]);
    assert_eq!(lab.replica_sets().await.len(), 1);
    for pod in &pods {
        lab.merge::<Pod>(&pod.name_any(), json!({"metadata": {"finalizers": null}}))
            .await;
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            ..Default::default()
        };
        let _ = lab.api::<Pod>().delete(&pod.name_any(), &now).await;
    }
    lab.until_all(<[Deployment]>::is_empty).await;
    assert!(lab.replica_sets().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn orphans_stay_and_forget_their_owner() {
    let lab = Lab::start().await;
    lab.create::<Deployment>(deployment(2, "web:1", json!({}))).await;
    lab.until_complete("web").await;
    lab.api::<Deployment>()
        .delete("web", &policy(PropagationPolicy::Orphan))
        .await
        .unwrap();
    lab.until_all(<[Deployment]>::is_empty).await;
    let set = &lab.replica_sets().await[0];
    assert!(set.owner_references().is_empty());
    assert_eq!(lab.list::<Pod>().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_has_another_owner_stays_without_the_lost_one() {
    let lab = Lab::start().await;
    let (a, b) = (create(&lab, "a", &[]).await, create(&lab, "b", &[]).await);
    create(&lab, "both", &[("a", &a), ("b", &b)]).await;
    create(&lab, "only", &[("a", &a)]).await;
    lab.api::<ConfigMap>()
        .delete("a", &DeleteParams::default())
        .await
        .unwrap();
    lab.until_all(|maps: &[ConfigMap]| names(maps) == ["b", "both"]).await;
    let both = lab
        .until("both", |map: &ConfigMap| map.owner_references().len() == 1)
        .await;
    assert_eq!(both.owner_references()[0].uid, b);
    lab.api::<ConfigMap>()
        .delete("b", &DeleteParams::default())
        .await
        .unwrap();
    lab.until_all(|maps: &[ConfigMap]| names(maps).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_with_another_uid_is_no_owner() {
    let lab = Lab::start().await;
    create(&lab, "owner", &[]).await;
    create(&lab, "child", &[("owner", "11111111-2222-3333-4444-555555555555")]).await;
    lab.until_all(|maps: &[ConfigMap]| names(maps) == ["owner"]).await;
}

#[tokio::test(start_paused = true)]
async fn owners_that_vanished_while_nobody_looked_are_missed_after_a_restart() {
    let mut lab = Lab::start().await;
    let owner = create(&lab, "owner", &[]).await;
    create(&lab, "child", &[("owner", &owner)]).await;
    create(&lab, "grandchild", &[]).await;
    lab.stop_controllers().await;
    lab.api::<ConfigMap>()
        .delete("owner", &policy(PropagationPolicy::Background))
        .await
        .unwrap();
    lab.start_controllers();
    lab.until_all(|maps: &[ConfigMap]| names(maps) == ["grandchild"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_namespace_gets_its_service_account_and_the_ca() {
    let lab = Lab::start().await;
    let namespaces: Api<Namespace> = Api::all(lab.client.clone());
    let shop: Namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
    namespaces.create(&PostParams::default(), &shop).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(lab.client.clone(), "shop");
    let maps: Api<ConfigMap> = Api::namespaced(lab.client.clone(), "shop");
    until_in(&accounts, "default", |_| true).await;
    let ca = |map: &ConfigMap| {
        map.data
            .as_ref()
            .is_some_and(|data| data["ca.crt"].starts_with("-----BEGIN"))
    };
    until_in(&maps, "kube-root-ca.crt", ca).await;
    // Both come back, and a changed certificate too.
    accounts.delete("default", &DeleteParams::default()).await.unwrap();
    until_all_in(&accounts, |accounts| {
        accounts.iter().any(|account| account.name_any() == "default")
    })
    .await;
    let forged = Patch::Merge(json!({"data": {"ca.crt": "forged"}}));
    maps.patch("kube-root-ca.crt", &PatchParams::default(), &forged)
        .await
        .unwrap();
    until_in(&maps, "kube-root-ca.crt", ca).await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_namespace_is_emptied_and_waits_for_finalizers() {
    let lab = Lab::start().await;
    let namespaces: Api<Namespace> = Api::all(lab.client.clone());
    let shop: Namespace =
        serde_json::from_value(json!({"metadata": {"name": "shop"}, "spec": {"finalizers": ["kubernetes"]}})).unwrap();
    namespaces.create(&PostParams::default(), &shop).await.unwrap();
    let deployments: Api<Deployment> = Api::namespaced(lab.client.clone(), "shop");
    let web: Deployment = serde_json::from_value(deployment(2, "web:1", json!({}))).unwrap();
    deployments.create(&PostParams::default(), &web).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(lab.client.clone(), "shop");
    until_all_in(&pods, |pods| pods.len() == 2).await;
    let maps: Api<ConfigMap> = Api::namespaced(lab.client.clone(), "shop");
    let held: ConfigMap =
        serde_json::from_value(map("held", &[], json!({"finalizers": ["example.com/hold"]}))).unwrap();
    maps.create(&PostParams::default(), &held).await.unwrap();
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    let remaining = |namespace: &Namespace| {
        let conditions = namespace
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        conditions.iter().any(|condition| {
            condition.type_ == "NamespaceContentRemaining"
                && condition.status == "True"
                && condition.message.as_deref()
                    == Some("Some resources are remaining: configmaps. has 1 resource instances")
        })
    };
    let ending = until_in(&namespaces, "shop", remaining).await;
    assert_eq!(ending.status.unwrap().phase.as_deref(), Some("Terminating"));
    assert!(deployments.list(&Default::default()).await.unwrap().items.is_empty());
    assert!(pods.list(&Default::default()).await.unwrap().items.is_empty());
    let let_go = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &let_go).await.unwrap();
    until_all_in(&namespaces, |namespaces| {
        namespaces.iter().all(|namespace| namespace.name_any() != "shop")
    })
    .await;
}
