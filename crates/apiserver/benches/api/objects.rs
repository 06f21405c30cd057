//! What is written and read: a pod as a Deployment makes it, about 1.5 kB as it is stored.

use bytes::Bytes;
use serde_json::json;

pub(crate) const NAMESPACE: &str = "bench";

pub(crate) fn pods() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods")
}

pub(crate) fn path(i: usize) -> String {
    format!("{}/{}", pods(), name(i))
}

fn name(i: usize) -> String {
    format!("web-7d9f6c5b8-{i:05}")
}

/// One in ten has the label `shard: "0"`.
pub(crate) fn pod(i: usize) -> Bytes {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name(i),
            "labels": {"app": "web", "pod-template-hash": "7d9f6c5b8", "shard": (i % 10).to_string()},
            "annotations": {"example.com/checksum": "0f343b0931126a20f133d67c2b018a3b1f343b0931126a20f133d67c2b018a3b"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d9f6c5b8", "controller": true,
                "blockOwnerDeletion": true, "uid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}],
        },
        "spec": {"containers": [{
            "name": "web",
            "image": "registry.example.com/shop/web:1.4.2",
            "args": ["--listen=:8080", "--log-level=info"],
            "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "DATABASE", "value": "postgres://db.shop.svc/web"}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5},
        }]},
    });
    pod.to_string().into()
}
