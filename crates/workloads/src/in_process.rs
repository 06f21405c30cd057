//! The operators against the API server in process: what they do, with just the rights that they ship with.

#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::messaggio::{self, Messaggio};
use crate::operator;
use crate::replicatore::{self, Replicatore};
use crate::supercrud::{self, Supercrud};

/// Long enough for anything here, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster without nodes and controllers.
struct Lab {
    admin: Client,
    /// As the operator's ServiceAccount.
    operator: Client,
    /// The operator asked for something that its Role does not give.
    refused: Arc<AtomicBool>,
    stop: CancellationToken,
}

fn manifest(scenario: &str, file: &str) -> Vec<Value> {
    let path = format!("{}/../../manifests/{scenario}/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

async fn create<K>(client: &Client, document: Value) -> K
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(document).unwrap();
    let api: Api<K> = Api::default_namespaced(client.clone());
    api.create(&PostParams::default(), &object).await.unwrap()
}

impl Lab {
    /// The scenario's CRD and its operator's Role, as shipped.
    async fn start(scenario: &str) -> Self {
        let server = apiserver::Server::open(apiserver::Config::new(apiserver::Storage::Memory))
            .await
            .unwrap();
        let admin = server.client();
        for document in manifest(scenario, "crd") {
            let definition: CustomResourceDefinition = serde_json::from_value(document).unwrap();
            let definitions: Api<CustomResourceDefinition> = Api::all(admin.clone());
            definitions.create(&PostParams::default(), &definition).await.unwrap();
            let established = conditions::is_crd_established();
            until(await_condition(definitions, &definition.name_any(), established))
                .await
                .unwrap();
        }
        for document in manifest(scenario, "operator") {
            match document["kind"].as_str().unwrap() {
                "Role" => drop(create::<Role>(&admin, document).await),
                "RoleBinding" => drop(create::<RoleBinding>(&admin, document).await),
                _ => {}
            }
        }
        let refused = Arc::new(AtomicBool::new(false));
        let seen = refused.clone();
        let groups = ["system:serviceaccounts", "system:serviceaccounts:default"];
        let user = format!("system:serviceaccount:default:{scenario}-operator");
        let service = server.service(apiserver::auth::Identity::new(&user, groups));
        type Request = http::Request<kube::client::Body>;
        let service = ServiceExt::<Request>::map_response(service, move |response: http::Response<apiserver::Body>| {
            seen.fetch_or(response.status() == 403, Ordering::Relaxed);
            response
        });
        Self {
            admin,
            operator: Client::new(service, "default"),
            refused,
            stop: CancellationToken::new(),
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::default_namespaced(self.admin.clone())
    }

    /// Waits until an object is as it should be.
    async fn when<K>(&self, name: &str, is: impl Fn(&K) -> bool + Send) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
        K: Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
    {
        let condition = |object: Option<&K>| object.is_some_and(&is);
        until(await_condition(self.api::<K>(), name, condition))
            .await
            .unwrap()
            .unwrap()
    }

    fn end(self) {
        self.stop.cancel();
        assert!(!self.refused.load(Ordering::Relaxed), "the Role lacks something");
    }
}

async fn until<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing came")
}

#[tokio::test]
async fn a_message_is_read_once_for_each_change() {
    let lab = Lab::start("messaggio").await;
    tokio::spawn(messaggio::run(lab.operator.clone(), lab.stop.clone(), operator::now));
    let message: Messaggio = create(&lab.admin, manifest("messaggio", "messaggio").remove(0)).await;
    let read = |text: &'static str| {
        move |message: &Messaggio| message.status.as_ref().is_some_and(|status| status.text == text)
    };
    lab.when("messaggio", read("Ciao dal CRD di Alnao!")).await;
    let change = Patch::Merge(json!({"spec": {"message": "Di nuovo"}}));
    lab.api::<Messaggio>()
        .patch("messaggio", &PatchParams::default(), &change)
        .await
        .unwrap();
    let message_now = lab.when("messaggio", read("Di nuovo")).await;
    assert_eq!(message_now.status.unwrap().observed_generation, 2);
    assert_eq!(message.uid(), message_now.metadata.uid);
    lab.api::<Messaggio>()
        .delete("messaggio", &DeleteParams::default())
        .await
        .unwrap();
    let told = |events: Vec<Event>| {
        let mut reasons: Vec<String> = events.into_iter().filter_map(|event| event.reason).collect();
        reasons.sort();
        reasons
    };
    let all = until(async {
        loop {
            let events = lab.api::<Event>().list(&ListParams::default()).await.unwrap();
            if events.items.len() >= 3 {
                return told(events.items);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(all.await, ["Changed", "Created", "Deleted"]);
    lab.end();
}

#[tokio::test]
async fn children_are_made_follow_their_resource_and_come_back() {
    let lab = Lab::start("replicatore").await;
    tokio::spawn(replicatore::run(lab.operator.clone(), lab.stop.clone(), operator::now));
    let owner: Replicatore = create(&lab.admin, manifest("replicatore", "replicatore").remove(0)).await;
    let name = "replicatore-deployment";
    let made: Deployment = lab.when(name, |_| true).await;
    let reference = &made.owner_references()[0];
    assert_eq!(
        (Some(reference.uid.clone()), reference.controller),
        (owner.uid(), Some(true))
    );
    let service: Service = lab.when("replicatore-service", |_| true).await;
    lab.api::<Service>()
        .delete("replicatore-service", &DeleteParams::default())
        .await
        .unwrap();
    lab.when("replicatore-service", |back: &Service| back.uid() != service.uid())
        .await;
    let replicas =
        |wanted: i32| move |made: &Deployment| made.spec.as_ref().and_then(|spec| spec.replicas) == Some(wanted);
    let scale = Patch::Merge(json!({"spec": {"replicas": 5}}));
    lab.api::<Replicatore>()
        .patch_scale("replicatore", &PatchParams::default(), &scale)
        .await
        .unwrap();
    lab.when(name, replicas(5)).await;
    // Somebody scales the child by hand.
    let drift = Patch::Merge(json!({"spec": {"replicas": 1}}));
    lab.api::<Deployment>()
        .patch(name, &PatchParams::default(), &drift)
        .await
        .unwrap();
    lab.when(name, replicas(5)).await;
    lab.when("replicatore", |resource: &Replicatore| {
        let status = resource.status.clone().unwrap_or_default();
        status.observed_generation == 2 && status.selector == "app.kubernetes.io/instance=replicatore"
    })
    .await;
    lab.end();
}

#[tokio::test]
async fn the_password_is_made_once_and_a_taken_port_is_told() {
    let lab = Lab::start("supercrud").await;
    let taken = json!({"metadata": {"name": "squatter"}, "spec": {"type": "NodePort", "ports": [{"port": 1, "nodePort": 30081}]}});
    create::<Service>(&lab.admin, taken).await;
    tokio::spawn(supercrud::run(lab.operator.clone(), lab.stop.clone(), operator::now));
    let _: Supercrud = create(&lab.admin, manifest("supercrud", "supercrud").remove(0)).await;
    let secret: Secret = lab.when("supercrud-database", |_| true).await;
    lab.when("supercrud", |resource: &Supercrud| {
        let conditions = resource.status.iter().flat_map(|status| &status.conditions);
        let mut degraded = conditions.filter(|condition| condition.type_ == "Degraded" && condition.status == "True");
        degraded
            .any(|condition| condition.reason == "NodePortTaken" && condition.message.contains("Service `squatter`"))
    })
    .await;
    lab.api::<Service>()
        .delete("squatter", &DeleteParams::default())
        .await
        .unwrap();
    lab.when("supercrud-service", |_: &Service| true).await;
    let now: Secret = lab.when("supercrud-database", |_| true).await;
    assert_eq!(now.data, secret.data);
    lab.end();
}
