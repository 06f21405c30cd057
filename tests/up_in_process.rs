//! `up` and `down` of an own scenario against the API server in process, with every request counted.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use apimachinery::clock::ManualClock;
use apiserver::auth::Identity;
use futures::future::BoxFuture;
use k8slab::engine::event::{Event, Listener, Stream, What};
use k8slab::engine::outcome::{RunEnd, StepEnd};
use k8slab::engine::resume::Record;
use k8slab::engine::run::{Limits, Run};
use k8slab::engine::{event, plan};
use k8slab::exec::ThisHost;
use k8slab::exec::script::Script;
use k8slab::images::Recipe;
use k8slab::k8s::wait::Patience;
use k8slab::kubeconfig::UserConfig;
use k8slab::lab::{self, LABEL, LabRef};
use k8slab::paths::Owner;
use k8slab::providers::{Cluster, Explained, NextMove, Presence, Provider};
use k8slab::scenario::model::{Feature, Scenario};
use k8slab::scenario::parameter::{self, Resolved};
use k8slab::scenario::{load, model};
use k8slab::steps::{Action, Done, Effect, FailureKind, Removal, Session, StepError, Surroundings, Thing};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// Method and path of every request, in order.
#[derive(Clone, Default)]
struct Requests(Arc<Mutex<Vec<String>>>);

impl Requests {
    fn writes(&self) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|line| !line.starts_with("GET ")).cloned().collect()
    }

    fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// A cluster that is there: the API server in process.
struct InProcess {
    server: apiserver::Server,
    requests: Requests,
    released: Mutex<Vec<bool>>,
}

impl InProcess {
    async fn new() -> Self {
        Self {
            server: apiserver::Server::in_memory().await,
            requests: Requests::default(),
            released: Mutex::default(),
        }
    }

    fn client(&self) -> kube::Client {
        let requests = self.requests.clone();
        let service = self
            .server
            .service(Identity::new("test", ["system:masters"]))
            .map_request(move |request: http::Request<kube::client::Body>| {
                requests
                    .0
                    .lock()
                    .unwrap()
                    .push(format!("{} {}", request.method(), request.uri()));
                request
            });
        kube::Client::new(service, "default")
    }

    fn cluster(&self) -> Cluster {
        let kubeconfig = "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: []\n\
                          contexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n";
        Cluster {
            client: self.client(),
            kubeconfig: serde_yaml::from_str(kubeconfig).unwrap(),
            summary: "in process".into(),
            node_address: "127.0.0.1".into(),
            warnings: Vec::new(),
            started: false,
        }
    }
}

impl Provider for InProcess {
    fn key(&self) -> String {
        "test".into()
    }
    fn find(&self) -> BoxFuture<'_, Result<Presence, StepError>> {
        Box::pin(async { Ok(Presence::Running(Box::new(self.cluster()))) })
    }
    fn ensure<'a>(&'a self, _note: &'a (dyn Fn(String) + Send + Sync)) -> BoxFuture<'a, Result<Cluster, StepError>> {
        panic!("it is running")
    }
    fn has_image<'a>(&'a self, _image: &'a Recipe) -> BoxFuture<'a, Result<bool, StepError>> {
        panic!("the scenario builds nothing")
    }
    fn load_image<'a>(&'a self, _image: &'a Recipe) -> BoxFuture<'a, Result<(), StepError>> {
        panic!("the scenario builds nothing")
    }
    fn has_feature<'a>(&'a self, _at: &'a Session, _f: Feature) -> BoxFuture<'a, Result<Option<String>, StepError>> {
        panic!("the scenario needs no feature")
    }
    fn ensure_feature<'a>(
        &'a self,
        _at: &'a Session,
        _f: Feature,
        _patience: &'a Patience<'a>,
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        panic!("the scenario needs no feature")
    }
    fn release(&self, force: bool) -> BoxFuture<'_, Result<String, StepError>> {
        self.released.lock().unwrap().push(force);
        Box::pin(async { Ok("let go".into()) })
    }
    fn next_moves<'a>(&'a self, _at: &'a Session) -> BoxFuture<'a, Vec<NextMove>> {
        Box::pin(async { Vec::new() })
    }
    fn explain(&self, _what: &Explained<'_>, script: &mut Script) {
        script.comment("a cluster");
    }
}

#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<Event>>>);

impl Listener for Ear {
    fn hear(&mut self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

const SCENARIO: &str = "apiVersion: k8slab.dev/v1alpha1
kind: Scenario
metadata: { name: shop }
spec:
  title: Two ConfigMaps and a Deployment of none
  parameters:
    - { name: greeting, type: string, default: ciao, sets: [\"config.yaml#ConfigMap/words#/data/greeting\"] }
  steps:
    - { id: config, apply: config.yaml }
    - { id: web, apply: web.yaml, needs: [config] }
";

const CONFIG: &str = "apiVersion: v1
kind: ConfigMap
metadata: { name: words }
data: { greeting: hello, other: thing }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: more }
data: { a: b }
";

const WEB: &str = "apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  selector: { app: web }
  ports: [{ port: 80, targetPort: 8000 }]
";

/// A lab in a folder of its own, with what its journal would know.
struct Lab {
    folder: tempfile::TempDir,
    provider: InProcess,
    made: BTreeSet<Thing>,
    ear: Ear,
}

struct Loaded {
    lab: LabRef,
    scenario: Scenario,
    resolved: Resolved,
    kubeconfig: UserConfig,
    recipes: BTreeMap<String, Result<Recipe, StepError>>,
}

impl Lab {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("scenario.yaml", SCENARIO), ("config.yaml", CONFIG), ("web.yaml", WEB)] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self {
            folder,
            provider: InProcess::new().await,
            made: BTreeSet::new(),
            ear: Ear::default(),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn load(&self, set: &[(&str, &str)]) -> Loaded {
        let scenario = load::load_folder(self.path()).unwrap_or_else(|error| panic!("{error}"));
        let given = set
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let resolved = parameter::resolve(&scenario, &given, false).unwrap();
        Loaded {
            lab: lab::identify(&scenario, "shop", "embedded", "test"),
            kubeconfig: UserConfig::new(self.path().join("kube/config"), Owner::Myself),
            scenario,
            resolved,
            recipes: BTreeMap::new(),
        }
    }

    fn run<'l>(&'l self, loaded: &'l Loaded) -> Run<'l> {
        Run::new(Surroundings {
            lab: &loaded.lab,
            scenario: &loaded.scenario,
            manifests: &loaded.resolved.manifests,
            recipes: &loaded.recipes,
            provider: &self.provider,
            cluster: tokio::sync::OnceCell::new(),
            kubeconfig: &loaded.kubeconfig,
            host: &ThisHost,
            made: &self.made,
            shared: false,
            removal: Removal::default(),
        })
        .unwrap()
    }

    fn stream(&self) -> Stream {
        Stream::new(
            Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH)),
            vec![Box::new(self.ear.clone())],
        )
    }

    async fn up(&mut self, set: &[(&str, &str)]) -> RunEnd {
        let loaded = self.load(set);
        self.provider.requests.clear();
        let end = self
            .run(&loaded)
            .up(&loaded.resolved.values, &self.stream(), &Limits::default())
            .await;
        self.made = Record::replay(self.ear.0.lock().unwrap().iter()).made;
        end
    }

    async fn down(&mut self) -> RunEnd {
        let loaded = self.load(&[]);
        self.provider.requests.clear();
        let end = self.run(&loaded).down(&self.stream(), &Limits::default()).await;
        self.made = Record::replay(self.ear.0.lock().unwrap().iter()).made;
        end
    }

    async fn plan(&self, set: &[(&str, &str)]) -> plan::Plan {
        let loaded = self.load(set);
        self.provider.requests.clear();
        self.run(&loaded)
            .plan(event::Verb::Up, &Limits::default())
            .await
            .unwrap()
    }

    /// How each step of the last run ended.
    fn ends(&self) -> BTreeMap<String, StepEnd> {
        let events = self.ear.0.lock().unwrap();
        let finished = events.iter().filter_map(|event| match &event.event {
            What::StepFinished { step, end, .. } => Some((step.to_string(), end.clone())),
            _ => None,
        });
        finished.collect()
    }

    fn failure(&self, step: &str) -> StepError {
        match &self.ends()[step] {
            StepEnd::Failed(error) => error.clone(),
            other => panic!("expected a failure of `{step}`, got {other:?}"),
        }
    }

    fn config_maps(&self) -> Api<DynamicObject> {
        let kind = kube::api::ApiResource::erase::<k8s_openapi::api::core::v1::ConfigMap>(&());
        Api::namespaced_with(self.provider.server.client(), "shop", &kind)
    }

    async fn words(&self) -> Value {
        serde_json::to_value(self.config_maps().get("words").await.unwrap()).unwrap()
    }

    /// Deletes what is in the namespace and then it, as the namespace controller does.
    async fn finish_namespaces(&self) -> tokio::task::JoinHandle<()> {
        let client = self.provider.server.client();
        tokio::spawn(async move {
            use futures::StreamExt as _;
            let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
            let events = kube::runtime::watcher(namespaces.clone(), kube::runtime::watcher::Config::default());
            let mut events = std::pin::pin!(kube::runtime::WatchStreamExt::applied_objects(events));
            while let Some(Ok(namespace)) = events.next().await {
                if namespace.metadata.deletion_timestamp.is_none() {
                    continue;
                }
                let name = namespace.metadata.name.clone().unwrap();
                let path = format!("/api/v1/namespaces/{name}/finalize");
                let mut done = serde_json::to_value(&namespace).unwrap();
                done["apiVersion"] = "v1".into();
                done["kind"] = "Namespace".into();
                done["spec"] = json!({"finalizers": []});
                let request = http::Request::put(path).header("content-type", "application/json");
                let request = request.body(serde_json::to_vec(&done).unwrap()).unwrap();
                let _ = client.request::<Value>(request).await;
            }
        })
    }
}

#[tokio::test]
async fn a_second_up_changes_nothing_and_writes_nothing() {
    let mut lab = Lab::new().await;
    assert_eq!(lab.up(&[]).await, RunEnd::Done(Effect::Changed), "{:?}", lab.ends());
    let words = lab.words().await;
    assert_eq!(words["data"]["greeting"], "ciao", "the parameter's default");
    assert!(
        words["metadata"]["labels"][LABEL]
            .as_str()
            .unwrap()
            .starts_with("shop-")
    );
    assert_eq!(lab.up(&[]).await, RunEnd::Done(Effect::Unchanged), "{:?}", lab.ends());
    assert_eq!(lab.provider.requests.writes(), [""; 0]);
}

#[tokio::test]
async fn one_changed_parameter_runs_its_step_again_and_no_other() {
    let mut lab = Lab::new().await;
    lab.up(&[]).await;
    let plan = lab.plan(&[("greeting", "salve")]).await;
    let actions: Vec<(&str, Action)> = plan
        .steps
        .iter()
        .map(|step| (step.id.as_str(), step.intent.action))
        .collect();
    assert_eq!(
        actions,
        [
            ("cluster", Action::Keep),
            ("config", Action::Change),
            ("web", Action::Keep)
        ]
    );
    assert_eq!(
        plan.steps[1].intent.details,
        ["ConfigMap/words data.greeting: ciao → salve"]
    );
    assert_eq!(lab.provider.requests.writes(), [""; 0], "a plan changes nothing");
    assert_eq!(lab.up(&[("greeting", "salve")]).await, RunEnd::Done(Effect::Changed));
    let ends = lab.ends();
    let changed = |step: &str| matches!(&ends[step], StepEnd::Done(done) if done.effect == Effect::Changed);
    assert_eq!(
        [changed("cluster"), changed("config"), changed("web")],
        [false, true, false]
    );
    assert_eq!(lab.provider.requests.writes().len(), 1);
}

#[tokio::test]
async fn a_field_that_left_the_manifest_leaves_the_object() {
    let mut lab = Lab::new().await;
    lab.up(&[]).await;
    std::fs::write(lab.path().join("config.yaml"), CONFIG.replace(", other: thing", "")).unwrap();
    assert_eq!(
        lab.plan(&[]).await.steps[1].intent.details,
        ["ConfigMap/words data.other: removed"]
    );
    assert_eq!(lab.up(&[]).await, RunEnd::Done(Effect::Changed));
    assert_eq!(lab.words().await["data"], json!({"greeting": "ciao"}));
}

#[tokio::test]
async fn a_plan_without_a_lab_creates_everything_and_touches_nothing() {
    let lab = Lab::new().await;
    let plan = lab.plan(&[]).await;
    let actions: Vec<Action> = plan.steps.iter().map(|step| step.intent.action).collect();
    assert_eq!(actions, [Action::Change, Action::Create, Action::Create]);
    assert_eq!(lab.provider.requests.writes(), [""; 0]);
    assert!(!lab.path().join("kube").exists());
}

#[tokio::test]
async fn an_object_of_somebody_else_is_never_taken_over() {
    let mut lab = Lab::new().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(lab.provider.server.client());
    namespaces
        .create(&PostParams::default(), &serde_json::from_value(namespace).unwrap())
        .await
        .unwrap();
    let words = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words"}, "data": {"mine": "1"}});
    lab.config_maps()
        .create(&PostParams::default(), &serde_json::from_value(words).unwrap())
        .await
        .unwrap();
    assert_eq!(lab.up(&[]).await, RunEnd::Failed(FailureKind::Failed));
    assert_eq!(
        lab.failure("config").message,
        "ConfigMap `shop/words` is already there and not of this lab"
    );
    assert!(matches!(lab.ends()["web"], StepEnd::Skipped { .. }));
    assert_eq!(lab.words().await["data"], json!({"mine": "1"}));
    // And `down` leaves it, and the namespace that was there before.
    assert!(matches!(lab.down().await, RunEnd::Done(_)), "{:?}", lab.ends());
    assert_eq!(lab.words().await["data"], json!({"mine": "1"}));
}

#[tokio::test]
async fn somebody_elses_change_is_a_conflict_with_name_and_field() {
    let mut lab = Lab::new().await;
    lab.up(&[]).await;
    let patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"greeting": "buongiorno"}});
    let params = PatchParams {
        field_manager: Some("colleague".into()),
        force: true,
        ..PatchParams::default()
    };
    lab.config_maps()
        .patch("words", &params, &Patch::Apply(&patch))
        .await
        .unwrap();
    assert_eq!(lab.up(&[]).await, RunEnd::Failed(FailureKind::Failed));
    let message = lab.failure("config").message;
    assert!(
        message.contains("colleague") && message.contains(".data.greeting"),
        "{message}"
    );
}

#[tokio::test]
async fn down_takes_away_what_up_made_in_turn_and_lets_the_cluster_go() {
    let mut lab = Lab::new().await;
    let controller = lab.finish_namespaces().await;
    lab.up(&[]).await;
    assert!(lab.path().join("kube/config").exists());
    let end = lab.down().await;
    assert!(matches!(end, RunEnd::Done(_)), "{:?}", lab.ends());
    assert!(!lab.path().join("kube/config").exists());
    assert_eq!(*lab.provider.released.lock().unwrap(), [false]);
    assert_eq!(lab.made, BTreeSet::new(), "everything that was made is gone again");
    let deletes = lab.provider.requests.writes();
    let at = |what: &str| {
        deletes
            .iter()
            .position(|line| line.contains(what))
            .unwrap_or_else(|| panic!("{what}: {deletes:?}"))
    };
    assert!(
        at("services/web") < at("configmaps/more") && at("configmaps/words") < at("namespaces/shop?"),
        "{deletes:?}"
    );
    // Gone already is fine.
    assert!(matches!(lab.down().await, RunEnd::Done(_)), "{:?}", lab.ends());
    controller.abort();
}

#[tokio::test]
async fn what_down_leaves_behind_is_listed() {
    let mut lab = Lab::new().await;
    let controller = lab.finish_namespaces().await;
    lab.up(&[]).await;
    let id = lab.load(&[]).lab.id;
    let stray = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stray", "labels": {LABEL: id}}});
    let kind = kube::api::ApiResource::erase::<k8s_openapi::api::core::v1::ConfigMap>(&());
    let elsewhere: Api<DynamicObject> = Api::namespaced_with(lab.provider.server.client(), "default", &kind);
    elsewhere
        .create(&PostParams::default(), &serde_json::from_value(stray).unwrap())
        .await
        .unwrap();
    assert_eq!(lab.down().await, RunEnd::Failed(FailureKind::Leftovers));
    assert_eq!(lab.failure("cluster").seen, ["ConfigMap `default/stray`"]);
    elsewhere.delete("stray", &DeleteParams::default()).await.unwrap();
    assert!(matches!(lab.down().await, RunEnd::Done(_)), "{:?}", lab.ends());
    controller.abort();
}

#[tokio::test]
async fn a_deployment_that_does_not_get_ready_says_what_it_last_saw() {
    let mut lab = Lab::new().await;
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: web }\nspec:\n  selector: { matchLabels: { app: web } }\n  \
                      template:\n    metadata: { labels: { app: web } }\n    spec: { containers: [{ name: web, image: 'web:1' }] }\n";
    std::fs::write(lab.path().join("web.yaml"), deployment).unwrap();
    let scenario = SCENARIO.replace("needs: [config] }", "needs: [config], timeout: 500ms }");
    std::fs::write(lab.path().join("scenario.yaml"), scenario).unwrap();
    assert_eq!(lab.up(&[]).await, RunEnd::Failed(FailureKind::NotReady));
    let error = lab.failure("web");
    assert!(
        error
            .message
            .starts_with("waiting for Deployment `shop/web` to be ready: gave up after"),
        "{}",
        error.message
    );
    assert_eq!(
        error.seen,
        ["Deployment web 0/1: its newest spec was not looked at yet"]
    );
    assert!(matches!(model::StepId::new("web").as_str(), "web"));
}
