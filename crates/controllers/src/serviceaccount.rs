//! What every namespace has: ServiceAccount `default`, and the cluster's CA certificate as a ConfigMap.
//!
//! Two small controllers with an identity each: `service-account-controller` and `root-ca-cert-publisher`.
//! (k/k `pkg/controller/serviceaccount`, `pkg/controller/certificates/rootcacertpublisher`, v1.36.)

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

use crate::Context;
use crate::error::{self, Doing, Result};
use crate::informers::{Change, ROOT_CA};
use crate::key::Key;
use crate::reconcile::Reconcile;
use crate::workqueue::WorkQueue;

const DEFAULT: &str = "default";
const DESCRIPTION: &str = "kubernetes.io/description";
const ROOT_CA_DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
    internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

/// Keys of both controllers: namespaces.
fn namespaces(context: &Context) -> Arc<WorkQueue<Key>> {
    let queue = WorkQueue::new();
    let wake = queue.clone();
    context.informers.namespaces.on_change(move |change| {
        if !matches!(change, Change::Deleted(_)) {
            wake.add(Key::of(&**change.object()));
        }
    });
    queue
}

fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}

/// Makes ServiceAccount `default`.
pub(crate) struct ServiceAccounts {
    context: Context,
    client: Client,
    queue: Arc<WorkQueue<Key>>,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start(context: &Context) -> ServiceAccounts {
    let queue = namespaces(context);
    let wake = queue.clone();
    context.informers.service_accounts.on_change(move |change| {
        if let Change::Deleted(account) = change {
            wake.add(Key::new("", account.namespace().unwrap_or_default()));
        }
    });
    ServiceAccounts {
        context: context.clone(),
        client: context.client(ServiceAccounts::NAME),
        queue,
    }
}

impl Reconcile for ServiceAccounts {
    const NAME: &'static str = "service-account-controller";
    const WORKERS: usize = 1;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let informers = &self.context.informers;
        if !informers
            .namespaces
            .get(key)
            .is_some_and(|namespace| is_active(&namespace))
            || informers.service_accounts.get(&Key::new(&key.name, DEFAULT)).is_some()
        {
            return Ok(());
        }
        let metadata = ObjectMeta {
            name: Some(DEFAULT.to_owned()),
            ..Default::default()
        };
        let account = ServiceAccount {
            metadata,
            ..Default::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.name);
        match api.create(&PostParams::default(), &account).await {
            Err(error) if error::is_already_exists(&error) || error::is_namespace_terminating(&error) => Ok(()),
            created => created
                .map(drop)
                .doing(|| format!("creating ServiceAccount `{}/{DEFAULT}`", key.name)),
        }
    }
}

/// Publishes the CA certificate.
pub(crate) struct RootCas {
    context: Context,
    client: Client,
    queue: Arc<WorkQueue<Key>>,
    ca_pem: String,
}

/// Registers the controller's handlers; the controller runs when the caches do.
pub(crate) fn start_root_ca(context: &Context, ca_pem: String) -> RootCas {
    let queue = namespaces(context);
    let wake = queue.clone();
    context.informers.root_cas.on_change(move |change| {
        wake.add(Key::new("", change.object().namespace().unwrap_or_default()));
    });
    RootCas {
        context: context.clone(),
        client: context.client(RootCas::NAME),
        queue,
        ca_pem,
    }
}

impl Reconcile for RootCas {
    const NAME: &'static str = "root-ca-cert-publisher";
    const WORKERS: usize = 1;
    type Key = Key;

    fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<()> {
        let informers = &self.context.informers;
        if !informers
            .namespaces
            .get(key)
            .is_some_and(|namespace| is_active(&namespace))
        {
            return Ok(());
        }
        let data = BTreeMap::from([("ca.crt".to_owned(), self.ca_pem.clone())]);
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.name);
        let written = match informers.root_cas.get(&Key::new(&key.name, ROOT_CA)) {
            None => {
                let annotations = BTreeMap::from([(DESCRIPTION.to_owned(), ROOT_CA_DESCRIPTION.to_owned())]);
                let metadata = ObjectMeta {
                    name: Some(ROOT_CA.to_owned()),
                    annotations: Some(annotations),
                    ..Default::default()
                };
                let map = ConfigMap {
                    metadata,
                    data: Some(data),
                    ..Default::default()
                };
                api.create(&PostParams::default(), &map).await
            }
            Some(existing) if existing.data.as_ref() == Some(&data) => return Ok(()),
            Some(existing) => {
                let mut map = (*existing).clone();
                map.data = Some(data);
                map.annotations_mut()
                    .insert(DESCRIPTION.to_owned(), ROOT_CA_DESCRIPTION.to_owned());
                api.replace(ROOT_CA, &PostParams::default(), &map).await
            }
        };
        match written {
            Err(error) if error::is_already_exists(&error) || error::is_namespace_terminating(&error) => Ok(()),
            written => written
                .map(drop)
                .doing(|| format!("publishing ConfigMap `{}/{ROOT_CA}`", key.name)),
        }
    }
}
