//! Tells the API server a pod's status: the newest only, one request at a time, again until it is taken.
//!
//! Must not know how a status comes about (`lifecycle::status`).

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The writer of one pod. Dropping it abandons what is not written yet.
pub(crate) struct StatusWriter {
    wanted: watch::Sender<PodStatus>,
    task: JoinHandle<()>,
}

impl StatusWriter {
    /// `known` is what the API server has.
    pub(crate) fn new(api: Api<Pod>, name: String, uid: String, known: PodStatus) -> Self {
        let (wanted, statuses) = watch::channel(known);
        Self {
            wanted,
            task: tokio::spawn(write(api, name, uid, statuses)),
        }
    }

    /// The status as it should be known. Nothing is written if it is known already.
    pub(crate) fn set(&self, status: PodStatus) {
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != status;
            *wanted = status;
            changed
        });
    }

    /// Waits until the last status is written, or can never be.
    pub(crate) async fn flush(self) {
        let Self { wanted, task } = self;
        drop(wanted);
        // The task ends by itself once it has seen the last value.
        let _ = task.await;
    }
}

async fn write(api: Api<Pod>, name: String, uid: String, mut statuses: watch::Receiver<PodStatus>) {
    let mut pause = FIRST_PAUSE;
    while statuses.changed().await.is_ok() {
        loop {
            let status = statuses.borrow_and_update().clone();
            let patch = Patch::Strategic(patch(&uid, &status));
            match api.patch_status(&name, &PatchParams::default(), &patch).await {
                Ok(_) => break,
                Err(kube::Error::Api(status)) if status.code == 404 => return,
                // Another pod has the name now; otherwise a conflict passes.
                Err(kube::Error::Api(status)) if status.code == 409 && !is_there(&api, &name, &uid).await => return,
                Err(error) => {
                    tracing::warn!("writing the status of pod `{name}`: {error}");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        pause = FIRST_PAUSE;
    }
}

/// Whether the name still belongs to the pod; yes when nobody can say.
async fn is_there(api: &Api<Pod>, name: &str, uid: &str) -> bool {
    match api.get_opt(name).await {
        Ok(pod) => pod.is_some_and(|pod| pod.metadata.uid.as_deref() == Some(uid)),
        Err(_) => true,
    }
}

/// A strategic merge patch: conditions are merged by type, so those of others stay. What may disappear is nulled.
fn patch(uid: &str, status: &PodStatus) -> Value {
    let mut status = serde_json::to_value(status).unwrap_or_default();
    for field in ["reason", "message", "podIP", "podIPs"] {
        if status.get(field).is_none() {
            status[field] = Value::Null;
        }
    }
    json!({"metadata": {"uid": uid}, "status": status})
}
