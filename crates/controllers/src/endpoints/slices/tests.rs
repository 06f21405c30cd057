//! What slices hold, and how little changes.

use serde_json::{Value, json};

use super::*;

fn service(more: Value) -> Service {
    let mut service = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "s", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}]},
    });
    service["spec"]
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    serde_json::from_value(service).unwrap()
}

fn pod(name: &str, port: i32, ready: bool) -> Arc<Pod> {
    let octet = name.trim_start_matches('p');
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"podIP": format!("10.0.0.{octet}"), "podIPs": [{"ip": format!("10.0.0.{octet}")}],
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        }))
        .unwrap(),
    )
}

fn groups(service: &Service, pods: &[Arc<Pod>]) -> Vec<Group> {
    wanted_groups(service, pods, |node| Some(format!("zone-of-{node}")))
}

/// What the server would hold after the plan.
fn apply(slices: &mut Vec<Arc<EndpointSlice>>, plan: Plan) {
    slices.retain(|slice| !plan.delete.contains(&slice.name_any()));
    for slice in plan.update {
        let place = slices
            .iter_mut()
            .find(|old| old.name_any() == slice.name_any())
            .unwrap();
        *place = Arc::new(slice);
    }
    for (number, mut slice) in plan.create.into_iter().enumerate() {
        slice.metadata.name = Some(format!("web-{}-{number}", slices.len()));
        slices.push(Arc::new(slice));
    }
}

fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    slices
        .iter()
        .map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len))
        .collect()
}

#[test]
fn an_endpoint_says_whether_its_pod_is_ready_and_where_it_is() {
    let service = service(json!({}));
    let groups = groups(&service, &[pod("p1", 8080, true)]);
    let slice = new_slice(&service, &groups[0].ports, groups[0].endpoints.clone());
    insta::assert_json_snapshot!(slice, @r#"
    {
      "apiVersion": "discovery.k8s.io/v1",
      "kind": "EndpointSlice",
      "addressType": "IPv4",
      "endpoints": [
        {
          "addresses": [
            "10.0.0.1"
          ],
          "conditions": {
            "ready": true,
            "serving": true,
            "terminating": false
          },
          "nodeName": "n1",
          "targetRef": {
            "kind": "Pod",
            "name": "p1",
            "namespace": "default",
            "uid": "p1"
          },
          "zone": "zone-of-n1"
        }
      ],
      "metadata": {
        "generateName": "web-",
        "labels": {
          "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
          "kubernetes.io/service-name": "web",
          "team": "a"
        },
        "namespace": "default",
        "ownerReferences": [
          {
            "apiVersion": "v1",
            "blockOwnerDeletion": true,
            "controller": true,
            "kind": "Service",
            "name": "web",
            "uid": "s"
          }
        ]
      },
      "ports": [
        {
          "name": "",
          "port": 8080,
          "protocol": "TCP"
        }
      ]
    }
    "#);
}

#[test]
fn a_terminating_pod_still_serves_but_is_not_ready() {
    let conditions = |service: &Service, pod: &Pod| {
        let conditions = endpoint(service, pod, |_| None).conditions.unwrap();
        (
            conditions.ready.unwrap(),
            conditions.serving.unwrap(),
            conditions.terminating.unwrap(),
        )
    };
    let mut leaving = (*pod("p1", 80, true)).clone();
    leaving.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    assert_eq!(conditions(&service(json!({})), &leaving), (false, true, true));
    let careless = service(json!({"publishNotReadyAddresses": true}));
    assert_eq!(conditions(&careless, &pod("p2", 80, false)), (true, false, false));
}

#[test]
fn pods_with_different_ports_are_in_different_slices() {
    let service = service(json!({}));
    let groups = groups(
        &service,
        &[pod("p1", 80, true), pod("p2", 81, true), pod("p3", 80, true)],
    );
    assert_eq!(
        groups.iter().map(|group| group.endpoints.len()).collect::<Vec<_>>(),
        [2, 1]
    );
}

#[test]
fn slices_fill_up_to_a_hundred_and_change_as_little_as_possible() {
    let service = service(json!({}));
    let pods: Vec<_> = (1..=240).map(|n| pod(&format!("p{n}"), 80, true)).collect();
    let (mut slices, empty) = (Vec::new(), Plan::default());
    apply(&mut slices, plan(&service, groups(&service, &pods), &[], None));
    assert_eq!(sizes(&slices), [100, 100, 40]);
    assert_eq!(plan(&service, groups(&service, &pods), &slices, None), empty);
    // Two pods go, one comes: it takes a place in the slice that changes anyway.
    let mut fewer = pods.clone();
    fewer.retain(|pod| !["p1", "p10"].contains(&pod.name_any().as_str()));
    fewer.push(pod("p250", 80, true));
    let change = plan(&service, groups(&service, &fewer), &slices, None);
    assert_eq!(
        (change.create.len(), change.update.len(), change.delete.len()),
        (0, 1, 0)
    );
    apply(&mut slices, change);
    assert_eq!(sizes(&slices), [99, 100, 40]);
    // A pod that only changes its state stays where it is.
    let mut unready = fewer.clone();
    unready[150] = pod(&unready[150].name_any(), 80, false);
    let change = plan(&service, groups(&service, &unready), &slices, None);
    assert_eq!(
        (change.create.len(), change.update.len(), change.delete.len()),
        (0, 1, 0)
    );
    let changed = &change.update[0];
    let before = slices
        .iter()
        .find(|slice| slice.name_any() == changed.name_any())
        .unwrap();
    let identities = |slice: &EndpointSlice| -> Vec<_> { slice.endpoints.iter().flatten().map(identity).collect() };
    assert_eq!(identities(changed), identities(before));
}

#[test]
fn a_service_without_pods_keeps_one_empty_slice() {
    let service = service(json!({}));
    let mut slices = Vec::new();
    let mut with = |pods: &[Arc<Pod>]| {
        let plan = plan(&service, groups(&service, pods), &slices, None);
        let changes = plan != Plan::default();
        apply(&mut slices, plan);
        (sizes(&slices), changes)
    };
    assert_eq!(with(&[]), (vec![0], true));
    assert_eq!(with(&[]), (vec![0], false));
    assert_eq!(with(&[pod("p1", 80, true)]), (vec![1], true));
    assert_eq!(with(&[]), (vec![0], true));
}
