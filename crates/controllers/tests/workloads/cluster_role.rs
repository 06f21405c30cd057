//! Aggregated ClusterRoles.

use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::lab::{Lab, until_in};

fn resources(role: &ClusterRole) -> Vec<&str> {
    let rules = role.rules.iter().flatten();
    rules
        .flat_map(|rule| rule.resources.iter().flatten().map(String::as_str))
        .collect()
}

async fn role(api: &Api<ClusterRole>, role: Value) {
    api.create(&PostParams::default(), &serde_json::from_value(role).unwrap())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_role_labelled_for_view_is_seen_in_view_edit_and_admin_and_goes_with_its_label() {
    let lab = Lab::start().await;
    let roles: Api<ClusterRole> = Api::all(lab.client.clone());
    let before = roles.get("view").await.unwrap();
    role(
        &roles,
        json!({"metadata": {"name": "widgets-viewer", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
            "rules": [{"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get", "list"]}]}),
    )
    .await;
    for name in ["view", "edit", "admin"] {
        until_in(&roles, name, |role| resources(role).contains(&"widgets")).await;
    }
    let unlabelled = json!({"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-view": null}}});
    roles
        .patch("widgets-viewer", &PatchParams::default(), &Patch::Merge(unlabelled))
        .await
        .unwrap();
    for name in ["view", "edit", "admin"] {
        until_in(&roles, name, |role| !resources(role).contains(&"widgets")).await;
    }
    assert_eq!(roles.get("view").await.unwrap().rules, before.rules);
}

#[tokio::test(start_paused = true)]
async fn an_aggregated_role_has_each_rule_once_by_role_name_and_nothing_of_its_own() {
    let lab = Lab::start().await;
    let roles: Api<ClusterRole> = Api::all(lab.client.clone());
    let rule = |resource: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]});
    let part =
        |name: &str, rules: Value| json!({"metadata": {"name": name, "labels": {"part": "yes"}}, "rules": rules});
    role(&roles, part("b", json!([rule("pods"), rule("nodes")]))).await;
    role(&roles, part("a", json!([rule("nodes"), rule("secrets")]))).await;
    role(
        &roles,
        json!({"metadata": {"name": "whole"}, "rules": [rule("services")],
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "yes"}}]}}),
    )
    .await;
    until_in(&roles, "whole", |role| resources(role) == ["nodes", "secrets", "pods"]).await;
    roles.delete("a", &DeleteParams::default()).await.unwrap();
    until_in(&roles, "whole", |role| resources(role) == ["pods", "nodes"]).await;
    roles.delete("b", &DeleteParams::default()).await.unwrap();
    until_in(&roles, "whole", |role| resources(role).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_clusters_aggregated_roles_need_no_writing() {
    let lab = Lab::start().await;
    let roles: Api<ClusterRole> = Api::all(lab.client.clone());
    // The role of this test's own is the last that the controller could have been woken for before.
    role(
        &roles,
        json!({"metadata": {"name": "whole"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}]}}),
    )
    .await;
    until_in(&roles, "whole", |role| !resources(role).is_empty()).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    for name in ["view", "edit", "admin"] {
        let managers = roles
            .get(name)
            .await
            .unwrap()
            .metadata
            .managed_fields
            .unwrap_or_default();
        let controller = Some("clusterrole-aggregation-controller");
        assert!(
            managers.iter().all(|entry| entry.manager.as_deref() != controller),
            "{name}: {managers:?}"
        );
    }
}
