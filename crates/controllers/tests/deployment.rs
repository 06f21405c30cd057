//! Deployments and ReplicaSets against the API server in process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lab;

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::runtime::watcher;
use lab::{Lab, deployment};
use serde_json::{Value, json};

/// `type=status reason message` of each condition, in order.
fn conditions(deployment: &Deployment) -> Vec<String> {
    let conditions = deployment
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let line = |condition: &k8s_openapi::api::apps::v1::DeploymentCondition| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!(
            "{}={} {} {}",
            condition.type_,
            condition.status,
            text(&condition.reason),
            text(&condition.message)
        )
    };
    conditions.iter().map(line).collect()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[tokio::test(start_paused = true)]
async fn a_deployment_of_three_comes_to_three_pods_and_says_so() {
    let lab = Lab::start().await;
    lab.create::<Deployment>(deployment(3, "web:1", json!({}))).await;
    let done = lab.until_complete("web").await;
    let status = done.status.clone().unwrap();
    assert_eq!(
        (
            status.ready_replicas,
            status.unavailable_replicas,
            status.terminating_replicas
        ),
        (Some(3), None, Some(0))
    );
    let set = &lab.replica_sets().await[0];
    let name = set.name_any();
    assert_eq!(
        conditions(&done),
        [
            "Available=True MinimumReplicasAvailable Deployment has minimum availability.".to_owned(),
            format!("Progressing=True NewReplicaSetAvailable ReplicaSet \"{name}\" has successfully progressed."),
        ]
    );
    assert_eq!(done.annotations()["deployment.kubernetes.io/revision"], "1");
    assert_eq!(set.annotations()["deployment.kubernetes.io/desired-replicas"], "3");
    assert_eq!(set.annotations()["deployment.kubernetes.io/max-replicas"], "4");
    let hash = &set.labels()["pod-template-hash"];
    assert_eq!(name, format!("web-{hash}"));
    let pods = lab.list::<Pod>().await;
    assert!(
        pods.iter()
            .all(|pod| pod.labels()["pod-template-hash"] == *hash && pod.labels()["app"] == "web")
    );
    let owner = &pods[0].owner_references()[0];
    assert_eq!(
        (owner.kind.as_str(), &owner.name, owner.controller),
        ("ReplicaSet", &name, Some(true))
    );
    let told = lab.events("Deployment", "web").await;
    assert_eq!(
        told,
        [format!(
            "Normal ScalingReplicaSet 1: Scaled up replica set {name} from 0 to 3"
        )]
    );
    let mut told = lab.events("ReplicaSet", &name).await;
    let mut expected: Vec<String> = pods
        .iter()
        .map(|pod| format!("Normal SuccessfulCreate 1: Created pod: {}", pod.name_any()))
        .collect();
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
}

/// Watches pods and remembers the extremes: most pods at once, fewest ready ones since all were ready.
fn watch_bounds(lab: &Lab) -> Arc<Mutex<(usize, usize)>> {
    let bounds = Arc::new(Mutex::new((0, usize::MAX)));
    let (api, seen) = (lab.api::<Pod>(), bounds.clone());
    tokio::spawn(async move {
        let mut pods = std::collections::BTreeMap::new();
        let mut listed = false;
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        while let Some(Ok(event)) = events.next().await {
            match event {
                watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                    pods.insert(pod.name_any(), pod);
                }
                watcher::Event::Delete(pod) => {
                    pods.remove(&pod.name_any());
                }
                watcher::Event::Init => {}
                watcher::Event::InitDone => listed = true,
            }
            if !listed {
                continue;
            }
            let active = || pods.values().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            let (most, fewest) = &mut *seen.lock().unwrap();
            *most = (*most).max(active().count());
            *fewest = (*fewest).min(active().filter(|pod| is_ready(pod)).count());
        }
    });
    bounds
}

async fn roll(strategy: Value) -> (Lab, (usize, usize)) {
    let lab = Lab::start().await;
    lab.create::<Deployment>(deployment(10, "web:1", json!({"strategy": strategy})))
        .await;
    lab.until_complete("web").await;
    let bounds = watch_bounds(&lab);
    tokio::task::yield_now().await;
    let template = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}});
    lab.merge::<Deployment>("web", template).await;
    lab.until_complete("web").await;
    let found = *bounds.lock().unwrap();
    (lab, found)
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_keeps_its_bounds() {
    let surge = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}});
    let (lab, bounds) = roll(surge).await;
    assert_eq!(bounds, (12, 10));
    let sets = lab.replica_sets().await;
    let replicas: Vec<_> = sets.iter().map(|set| set.spec.as_ref().unwrap().replicas).collect();
    assert_eq!(replicas, [Some(0), Some(10)]);
    let told = lab.events("Deployment", "web").await;
    let [old, new] = [sets[0].name_any(), sets[1].name_any()];
    assert_eq!(
        told[1],
        format!("Normal ScalingReplicaSet 1: Scaled up replica set {new} from 0 to 2")
    );
    assert!(
        told.contains(&format!(
            "Normal ScalingReplicaSet 1: Scaled down replica set {old} from 10 to 9"
        )) || told.contains(&format!(
            "Normal ScalingReplicaSet 1: Scaled down replica set {old} from 10 to 8"
        )),
        "{told:?}"
    );

    let unavailable = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "30%"}});
    let (_, bounds) = roll(unavailable).await;
    assert_eq!(bounds, (10, 7));
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_never_gets_ready_is_late_after_its_deadline() {
    let lab = Lab::start().await;
    lab.kubelet.never_ready("broken");
    lab.create::<Deployment>(deployment(2, "broken", json!({"progressDeadlineSeconds": 60})))
        .await;
    let late = lab
        .until("web", |deployment: &Deployment| {
            conditions(deployment)
                .iter()
                .any(|condition| condition.starts_with("Progressing=False ProgressDeadlineExceeded"))
        })
        .await;
    let name = lab.replica_sets().await[0].name_any();
    let expected =
        format!("Progressing=False ProgressDeadlineExceeded ReplicaSet \"{name}\" has timed out progressing.");
    assert!(conditions(&late).contains(&expected), "{:?}", conditions(&late));
}

#[tokio::test(start_paused = true)]
async fn a_broken_update_stops_at_the_surge_and_the_old_template_brings_its_set_back() {
    let lab = Lab::start().await;
    lab.kubelet.never_ready("broken");
    lab.create::<Deployment>(deployment(4, "web:1", json!({}))).await;
    lab.until_complete("web").await;
    let image = |image: &str| json!({"spec": {"template": deployment(0, image, json!({}))["spec"]["template"]}});
    lab.merge::<Deployment>("web", image("broken")).await;
    let stuck = lab
        .until("web", |deployment: &Deployment| {
            let status = deployment.status.clone().unwrap_or_default();
            status.updated_replicas == Some(2) && status.replicas == Some(5)
        })
        .await;
    assert_eq!(stuck.status.unwrap().available_replicas, Some(3));
    assert_eq!(
        stuck.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"],
        "2"
    );
    lab.merge::<Deployment>("web", image("web:1")).await;
    let back = lab.until_complete("web").await;
    assert_eq!(back.annotations()["deployment.kubernetes.io/revision"], "3");
    let sets = lab.replica_sets().await;
    assert_eq!(sets.len(), 2);
    assert_eq!(sets[1].annotations()["deployment.kubernetes.io/revision-history"], "1");
}

#[tokio::test(start_paused = true)]
async fn recreate_waits_until_the_last_old_pod_is_gone() {
    let lab = Lab::start().await;
    lab.create::<Deployment>(deployment(3, "web:1", json!({"strategy": {"type": "Recreate"}})))
        .await;
    lab.until_complete("web").await;
    let bounds = watch_bounds(&lab);
    tokio::task::yield_now().await;
    let template = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}});
    lab.merge::<Deployment>("web", template).await;
    lab.until_complete("web").await;
    assert_eq!(
        *bounds.lock().unwrap(),
        (3, 0),
        "never more than three, and none in between"
    );
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let lab = Lab::start().await;
    lab.create::<Deployment>(deployment(2, "web:1", json!({}))).await;
    lab.until_complete("web").await;
    let change = json!({"spec": {"paused": true, "replicas": 4,
        "template": {"metadata": {"annotations": {"version": "2"}}}}});
    lab.merge::<Deployment>("web", change).await;
    let paused = lab
        .until("web", |deployment: &Deployment| {
            deployment.status.as_ref().and_then(|status| status.available_replicas) == Some(4)
        })
        .await;
    assert!(conditions(&paused).contains(&"Progressing=Unknown DeploymentPaused Deployment is paused".to_owned()));
    assert_eq!(lab.replica_sets().await.len(), 1);
    lab.merge::<Deployment>("web", json!({"spec": {"paused": false}})).await;
    lab.until_complete("web").await;
    assert_eq!(lab.replica_sets().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_size_in_the_middle_of_a_rollout_is_shared() {
    let lab = Lab::start().await;
    lab.kubelet.never_ready("broken");
    let strategy =
        json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}});
    lab.create::<Deployment>(deployment(10, "web:1", strategy)).await;
    lab.until_complete("web").await;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "broken"}]}}}});
    lab.merge::<Deployment>("web", image).await;
    lab.until_all(|sets: &[ReplicaSet]| sizes(sets) == [8, 5]).await;
    // The example of Kubernetes' documentation: five more of 13, with 10+3 before and 15+3 after.
    lab.merge::<Deployment>("web", json!({"spec": {"replicas": 15}})).await;
    lab.until_all(|sets: &[ReplicaSet]| sizes(sets) == [11, 7]).await;
}

/// Replicas by revision.
fn sizes(sets: &[ReplicaSet]) -> Vec<i32> {
    let mut sets: Vec<_> = sets.iter().collect();
    sets.sort_by_key(|set| lab::revision(&set.metadata.annotations));
    sets.iter().filter_map(|set| set.spec.as_ref()?.replicas).collect()
}

#[tokio::test(start_paused = true)]
async fn old_sets_beyond_the_history_limit_go() {
    let lab = Lab::start().await;
    lab.create::<Deployment>(deployment(1, "web:1", json!({"revisionHistoryLimit": 2})))
        .await;
    lab.until_complete("web").await;
    for version in 2..=5 {
        let template = json!({"spec": {"template": {"metadata": {"annotations": {"version": version.to_string()}}}}});
        lab.merge::<Deployment>("web", template).await;
        lab.until_complete("web").await;
    }
    let sets = lab.until_all(|sets: &[ReplicaSet]| sets.len() == 3).await;
    let mut revisions: Vec<_> = sets
        .iter()
        .map(|set| lab::revision(&set.metadata.annotations))
        .collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_controllers_creates_nothing_twice() {
    let mut lab = Lab::start().await;
    lab.create::<Deployment>(deployment(6, "web:1", json!({}))).await;
    // Cut off as soon as the first pod is there.
    lab.until_all(|pods: &[Pod]| !pods.is_empty()).await;
    lab.stop_controllers().await;
    lab.start_controllers();
    lab.until_complete("web").await;
    assert_eq!(lab.list::<Pod>().await.len(), 6);
    assert_eq!(lab.replica_sets().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shrinking_set_gives_up_pods_that_are_not_ready_first() {
    let lab = Lab::start().await;
    lab.create::<Deployment>(deployment(3, "web:1", json!({}))).await;
    lab.until_complete("web").await;
    let pods = lab.list::<Pod>().await;
    let unready = pods[1].name_any();
    lab.kubelet.set_ready("default", &unready, false).await;
    lab.until("web", |deployment: &Deployment| {
        deployment.status.as_ref().and_then(|status| status.ready_replicas) == Some(2)
    })
    .await;
    lab.merge::<Deployment>("web", json!({"spec": {"replicas": 2}})).await;
    let left = lab.until_all(|pods: &[Pod]| pods.len() == 2).await;
    assert!(left.iter().all(|pod| pod.name_any() != unready));
}

#[tokio::test(start_paused = true)]
async fn a_set_adopts_what_it_matches_and_replaces_what_it_loses() {
    let lab = Lab::start().await;
    let orphan = json!({"metadata": {"name": "orphan", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]}});
    lab.create::<Pod>(orphan).await;
    let set = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}}});
    let set = lab.create::<ReplicaSet>(set).await;
    let adopted = lab
        .until("orphan", |pod: &Pod| !pod.owner_references().is_empty())
        .await;
    assert_eq!(Some(&adopted.owner_references()[0].uid), set.metadata.uid.as_ref());
    lab.until_all(|pods: &[Pod]| pods.len() == 2).await;
    // Its label changed: let go, and another one takes its place.
    lab.merge::<Pod>("orphan", json!({"metadata": {"labels": {"app": "mine"}}}))
        .await;
    lab.until("orphan", |pod: &Pod| pod.owner_references().is_empty()).await;
    lab.until_all(|pods: &[Pod]| pods.len() == 3).await;
    lab.api::<Pod>()
        .delete("orphan", &DeleteParams::default())
        .await
        .unwrap();
    let status = lab.until("web", |set: &ReplicaSet| {
        set.status
            .as_ref()
            .is_some_and(|status| status.ready_replicas == Some(2))
    });
    assert_eq!(status.await.status.unwrap().fully_labeled_replicas, Some(2));
}
