//! Kubernetes' own controllers over kube-rs clients: they see the cluster through its API and would run against any.
//!
//! Owns the loops that turn a spec into what it asks for, with Kubernetes' algorithms, constants, reasons, messages and
//! events. Must not know who serves the API, what a container is, or how a user looks at all this. Each controller
//! writes under an identity of its own and reads from caches that all of them share. A crash loses nothing but HPA
//! history, back-off counters and the aggregation of events.
//!
//! A controller is one file (or folder) with a `start` function, and one line in [`start`]:
//!
//! | file | identity | does |
//! |---|---|---|
//! | `replicaset` | `replicaset-controller` | as many pods as asked for |
//! | `deployment` | `deployment-controller` | rolls ReplicaSets over |
//! | `statefulset` | `statefulset-controller` | named pods with claims of their own, in order |
//! | `job` | `job-controller`, `ttl-after-finished-controller` | pods that run to their end |
//! | `cronjob` | `cronjob-controller` | Jobs on a schedule |
//! | `daemonset` | `daemon-set-controller` | a pod on every node |
//! | `hpa` | `horizontal-pod-autoscaler` | as many replicas as the metrics ask for |
//! | `endpoints` | `endpointslice-controller`, `endpoint-controller` | which pods a Service stands for |
//! | `namespace` | `namespace-controller` | empties and lets go of deleted namespaces |
//! | `serviceaccount` | `service-account-controller`, `root-ca-cert-publisher` | what every namespace has |
//! | `garbage` | `generic-garbage-collector` | what nobody owns any more goes |
//! | `cluster_role_aggregation` | `clusterrole-aggregation-controller` | the rules of aggregated ClusterRoles |
//! | `node_lifecycle`, `taint_eviction` | `node-controller` | taints by condition, silent nodes, `NoExecute` |
//! | `pod_gc` | `pod-garbage-collector` | pods of nodes that are gone |
//! | `volume` | `persistent-volume-binder`, `pvc-protection-controller`, `pv-protection-controller` | claims and volumes |

use std::sync::Arc;

use apimachinery::clock::Clock;
use apimachinery::pace::Pace;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod cluster_role_aggregation;
mod cronjob;
mod daemonset;
mod deployment;
mod discovery;
mod endpoints;
mod error;
mod events;
mod expectations;
mod garbage;
mod history;
mod hpa;
mod informers;
mod job;
mod key;
mod namespace;
mod node_lifecycle;
mod ownership;
mod pod_gc;
mod pod_ranking;
mod pods;
mod reconcile;
mod replicaset;
mod selector;
mod serviceaccount;
mod statefulset;
mod taint_eviction;
mod volume;
mod workqueue;

use informers::Informers;
use reconcile::Reconcile;

pub use hpa::{Held, Limit, NextMove};

/// A client for a controller's identity: `deployment-controller` means the ServiceAccount user
/// `system:serviceaccount:kube-system:deployment-controller`, and [`INFORMERS`] means the user
/// `system:kube-controller-manager`, under which all shared caches read.
pub type ClientFor = Arc<dyn Fn(&str) -> kube::Client + Send + Sync>;

/// The name that [`ClientFor`] is asked for on behalf of the shared caches.
pub const INFORMERS: &str = "kube-controller-manager";

/// What the controllers need to run.
pub struct Config {
    /// Clients by identity.
    pub client_for: ClientFor,
    /// How fast lab time runs.
    pub pace: Pace,
    /// Where timestamps come from. Waiting uses tokio's time.
    pub clock: Arc<dyn Clock>,
    /// The cluster's CA certificate, published to every namespace as ConfigMap `kube-root-ca.crt`.
    pub ca_pem: String,
    /// Ends every loop.
    pub shutdown: CancellationToken,
}

/// Running controllers. Dropping them ends every loop at once, wherever it is.
pub struct Controllers {
    tasks: JoinSet<()>,
    moves: hpa::Moves,
}

/// Starts every controller; returns at once, their caches fill in the background. Needs a tokio runtime.
pub fn start(config: Config) -> Controllers {
    let (sink, write_events) = events::Sink::new();
    let shutdown = config.shutdown.clone();
    let context = Context {
        informers: Informers::new(),
        clock: config.clock.clone(),
        pace: config.pace,
        client_for: config.client_for.clone(),
        sink,
    };
    let mut tasks = JoinSet::new();
    // One line a controller. All of them register with the caches before the caches run.
    let mut run = Run {
        context: &context,
        tasks: &mut tasks,
        shutdown: &shutdown,
    };
    run.this(replicaset::start(&context));
    run.this(deployment::start(&context));
    let moves = hpa::Moves::default();
    run.this(hpa::start(&context, moves.clone()));
    run.this(endpoints::start_slices(&context));
    run.this(endpoints::start_legacy(&context));
    run.this(serviceaccount::start(&context));
    run.this(serviceaccount::start_root_ca(&context, config.ca_pem));
    run.this(cluster_role_aggregation::start(&context));
    run.this(node_lifecycle::start(&context));
    run.this(taint_eviction::start(&context));
    run.this(pod_gc::start(&context));
    run.this(statefulset::start(&context));
    run.this(job::start(&context));
    run.this(job::start_ttl(&context));
    run.this(cronjob::start(&context));
    run.this(daemonset::start(&context));
    run.this(volume::start_binder(&context));
    run.this(volume::start_claim_protection(&context));
    run.this(volume::start_volume_protection(&context));
    let namespaces = namespace::start(&context);
    let (garbage, monitors) = garbage::start(&context, namespaces.emptied());
    run.this(namespaces);
    run.this(garbage);
    let until = shutdown.clone();
    tasks.spawn(async move {
        until.run_until_cancelled(monitors).await;
    });
    tasks.spawn(write_events);
    context.informers.run(&context.client(INFORMERS), &mut tasks, &shutdown);
    Controllers { tasks, moves }
}

impl Controllers {
    /// What each HorizontalPodAutoscaler will do next, and when; sorted by namespace and name.
    pub fn next_moves(&self) -> Vec<NextMove> {
        self.moves.list()
    }

    /// Waits until every loop has ended, after [`Config::shutdown`] was cancelled. Events recorded before are written.
    pub async fn join(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// What every controller is started with.
#[derive(Clone)]
struct Context {
    informers: Informers,
    clock: Arc<dyn Clock>,
    pace: Pace,
    client_for: ClientFor,
    sink: events::Sink,
}

impl Context {
    /// A client under the identity of `controller`.
    fn client(&self, controller: &str) -> kube::Client {
        (self.client_for)(controller)
    }

    /// Records events under the name and identity of `controller`.
    fn recorder(&self, controller: &'static str) -> events::Recorder {
        self.sink
            .recorder(controller, self.client(controller), self.clock.clone())
    }
}

struct Run<'a> {
    context: &'a Context,
    tasks: &'a mut JoinSet<()>,
    shutdown: &'a CancellationToken,
}

impl Run<'_> {
    fn this<C: Reconcile>(&mut self, controller: C) {
        let (informers, shutdown) = (self.context.informers.clone(), self.shutdown.clone());
        self.tasks
            .spawn(reconcile::run(Arc::new(controller), informers, shutdown));
    }
}
