//! CertificateSigningRequest.

use apimachinery::duration;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::column::{AGE, Column, NAME, shown, text};
use crate::strategy::walk;

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    (kind == "CertificateSigningRequest").then_some(CERTIFICATE_SIGNING_REQUEST)
}

static CERTIFICATE_SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    text("SignerName", "Who is asked to sign", &["spec", "signerName"]).or("<none>"),
    text("Requestor", "Who asks", &["spec", "username"]),
    shown(
        "RequestedDuration",
        "How long the certificate shall be valid",
        |request, _| {
            let seconds = walk::int(request, &["spec", "expirationSeconds"]);
            seconds
                .map_or_else(
                    || "<none>".to_owned(),
                    |seconds| duration::human(SignedDuration::from_secs(seconds)),
                )
                .into()
        },
    ),
    shown("Condition", "What has been decided and done", condition),
];

fn condition(request: &Value, _: Timestamp) -> Value {
    let has = |kind: &str| {
        let conditions = walk::list(request, &["status", "conditions"]);
        conditions
            .iter()
            .any(|condition| walk::text(condition, &["type"]) == kind)
    };
    let decision = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    };
    let failed = if has("Failed") { ",Failed" } else { "" };
    let issued = match walk::has(request, &["status", "certificate"]) {
        true => ",Issued",
        false => "",
    };
    format!("{decision}{failed}{issued}").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::testing::row;

    #[test]
    fn a_request_is_pending_then_approved_then_issued() {
        let mut request = json!({"metadata": {"name": "r", "creationTimestamp": "2026-01-02T11:59:57Z"},
            "spec": {"signerName": "kubernetes.io/kube-apiserver-client", "username": "ada", "expirationSeconds": 86400}});
        let of = |request: &_| row("certificates.k8s.io/v1", "CertificateSigningRequest", request);
        assert_eq!(
            of(&request),
            "r  3s  kubernetes.io/kube-apiserver-client  ada  24h  Pending"
        );
        request["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}], "certificate": "LS0t"});
        assert_eq!(
            of(&request),
            "r  3s  kubernetes.io/kube-apiserver-client  ada  24h  Approved,Issued"
        );
        assert_eq!(of(&json!({})), "  <unknown>  <none>    <none>  Pending");
    }
}
