//! Objects that every cluster of ours has beside Kubernetes' own: what an addon manager would apply.
//!
//! Made where they are missing, never changed: they are the user's from then on.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Makes what is missing.
pub(crate) async fn apply(client: &Client) -> Result<(), kube::Error> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "kube-system");
    let bindings = Api::<ClusterRoleBinding>::all(client.clone());
    let classes = Api::<StorageClass>::all(client.clone());
    tokio::try_join!(
        create(&accounts, json!({"metadata": {"name": "local-path-provisioner"}})),
        create(
            &bindings,
            json!({
                "metadata": {"name": "local-path-provisioner-bind"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                    "name": "system:persistent-volume-provisioner"},
                "subjects": [
                    {"kind": "ServiceAccount", "name": "local-path-provisioner", "namespace": "kube-system"}],
            })
        ),
        create(
            &classes,
            json!({
                "metadata": {"name": "standard",
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
                "provisioner": "k8slab.dev/local-path",
                "reclaimPolicy": "Delete",
                "volumeBindingMode": "WaitForFirstConsumer",
            })
        ),
    )?;
    Ok(())
}

async fn create<K>(api: &Api<K>, object: Value) -> Result<(), kube::Error>
where
    K: Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}
