//! ServiceAccount: every Pod runs as one, and gets its token, the cluster's CA and its namespace as files.
//! After k/k 1.36 `plugin/pkg/admission/serviceaccount`.

use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use serde_json::{Value, json};

use super::{Operation, Request};
use crate::store::View;
use crate::strategy::pod::defaults::mirror_service_account;
use crate::strategy::walk::{at, each, ensure_at, has, list, object_mut, text};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A token of a year is handed out for this one, and its user warned: the API server knows the number.
const TOKEN_SECONDS: i64 = 3607;

pub(super) fn admit(request: &Request<'_>, pod: &mut Value, view: &dyn View) -> Result<(), Status> {
    if !request.is_for("", "pods") || request.operation != Operation::Create {
        return Ok(());
    }
    // A kubelet's own Pod, shown in the API: nothing may be added.
    if at(pod, &["metadata", "annotations", MIRROR]).is_some() {
        return if has(pod, &["spec", "serviceAccountName"]) {
            Err(request.forbid("a mirror pod may not reference service accounts"))
        } else {
            Ok(())
        };
    }
    if let Some(spec) = ensure_at(pod, &["spec"]) {
        crate::strategy::walk::fill_zero(spec, "serviceAccountName", "default");
        mirror_service_account(spec);
    }
    let namespace = request.namespace.unwrap_or_default();
    let name = text(pod, &["spec", "serviceAccountName"]).to_owned();
    let accounts = GroupResource::new("", "serviceaccounts");
    let Some(account) = view.get(&accounts, Some(namespace), &name) else {
        return Err(request.forbid(format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        )));
    };
    if automounts(pod, &account) {
        mount(pod);
    }
    let secrets = list(&account, &["imagePullSecrets"]);
    if !has(pod, &["spec", "imagePullSecrets"])
        && !secrets.is_empty()
        && let Some(spec) = object_mut(pod, &["spec"])
    {
        spec.insert("imagePullSecrets".to_owned(), secrets.to_vec().into());
    }
    Ok(())
}

/// The Pod's word counts before the account's; without either the token is mounted.
fn automounts(pod: &Value, account: &Value) -> bool {
    let pod = at(pod, &["spec", "automountServiceAccountToken"]);
    let account = at(account, &["automountServiceAccountToken"]);
    pod.or(account).and_then(Value::as_bool).unwrap_or(true)
}

fn mount(pod: &mut Value) {
    let volumes = list(pod, &["spec", "volumes"])
        .iter()
        .map(|volume| text(volume, &["name"]));
    let known = volumes
        .into_iter()
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let name = known
        .clone()
        .unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", suffix(pod)));
    let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
    let mut mounted = false;
    let Some(spec) = object_mut(pod, &["spec"]) else { return };
    for containers in ["initContainers", "containers"] {
        for container in each(spec, containers) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            // Whoever mounts something there keeps the token out.
            if mounts.iter().all(|mount| text(mount, &["mountPath"]) != MOUNT_PATH) {
                mounts.push(mount.clone());
                mounted = true;
            }
        }
    }
    if mounted && known.is_none() {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(volume(&name));
        }
    }
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

/// Five letters that spell no word, from the Pod's uid: the same for the same Pod.
fn suffix(pod: &Value) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let uid = text(pod, &["metadata", "uid"]);
    let seed = if uid.is_empty() {
        text(pod, &["metadata", "name"])
    } else {
        uid
    };
    let mut hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut letter = || {
        let index = usize::try_from(hash % 27).unwrap_or(0);
        hash /= 27;
        char::from(LETTERS[index])
    };
    (0..5).map(|_| letter()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Objects, creating};

    fn pod() -> Value {
        json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"containers": [{"name": "c"}], "initContainers": [
            {"name": "i", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]}]}})
    }

    fn account() -> Objects {
        let account =
            json!({"metadata": {"name": "default", "namespace": "default"}, "imagePullSecrets": [{"name": "s"}]});
        Objects::default().with("", "serviceaccounts", account)
    }

    #[test]
    fn a_pod_runs_as_default_and_sees_its_token() {
        let mut pod = pod();
        creating("", "pods", "a", |request| admit(request, &mut pod, &account())).unwrap();
        let spec = &pod["spec"];
        assert_eq!(
            (&spec["serviceAccountName"], &spec["serviceAccount"]),
            (&json!("default"), &json!("default"))
        );
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "s"}]));
        let name = spec["volumes"][0]["name"].as_str().unwrap();
        assert_eq!((&name[..16], name.len()), ("kube-api-access-", 21));
        assert_eq!(
            spec["containers"][0]["volumeMounts"],
            json!([{"name": name, "readOnly": true, "mountPath": MOUNT_PATH}])
        );
        assert_eq!(spec["initContainers"][0]["volumeMounts"].as_array().unwrap().len(), 1);
        assert_eq!(
            spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
            3607
        );
    }

    #[test]
    fn a_pod_may_decline_the_token() {
        let mut pod = pod();
        pod["spec"]["automountServiceAccountToken"] = json!(false);
        creating("", "pods", "a", |request| admit(request, &mut pod, &account())).unwrap();
        assert_eq!(pod["spec"].get("volumes"), None);
    }

    #[test]
    fn without_its_account_a_pod_is_refused() {
        let status = creating("", "pods", "a", |request| {
            admit(request, &mut pod(), &Objects::default())
        })
        .unwrap_err();
        assert_eq!(
            status.message,
            "pods \"a\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found"
        );
    }
}
