//! CertificateSigningRequest. After k/k `pkg/registry/certificates/certificates/strategy.go` at 1.36. Who asks is written
//! by `admission`, which knows the identity.

use std::collections::BTreeSet;

use apimachinery::field::{Error, Path};
use apimachinery::names::dns1123_subdomain;
use serde_json::Value;

use super::check::{self, required};
use super::walk::{each, int, keep_old, list, object_mut, text};
use super::{Status, Strategy, empty_status};

/// Rules of CertificateSigningRequests.
pub(super) static CERTIFICATE_SIGNING_REQUEST: Strategy = Strategy {
    prepare_update: |new, old| keep_old(new, old, "spec"),
    prepare_status: keep_decisions,
    validate,
    status: Status::Fresh(empty_status),
    ..Strategy::PLAIN
};

/// Approval and denial are written through `/approval` only.
fn keep_decisions(new: &mut Value, old: &Value) {
    let decided = |kind: &str| matches!(kind, "Approved" | "Denied");
    let stored: Vec<&Value> = list(old, &["status", "conditions"])
        .iter()
        .filter(|condition| decided(text(condition, &["type"])))
        .collect();
    let Some(status) = object_mut(new, &["status"]) else {
        return;
    };
    for condition in each(status, "conditions") {
        let kind = super::walk::field(condition, "type").to_owned();
        if !decided(&kind) {
            continue;
        }
        if let Some(Value::Object(known)) = stored.iter().find(|known| text(known, &["type"]) == kind) {
            condition.clone_from(known);
        }
    }
}

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Shortest certificate that may be asked for, in seconds.
const DURATION_MIN: i64 = 600;

fn validate(csr: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = csr.get("spec").unwrap_or(&Value::Null);
    if text(spec, &["request"]).is_empty() {
        let detail = "PEM block type must be CERTIFICATE REQUEST";
        errors.push(Error::invalid(&path.child("request"), "", detail));
    }
    let usages = list(spec, &["usages"]);
    if usages.is_empty() {
        errors.push(Error::required(&path.child("usages"), ""));
    }
    let mut seen = BTreeSet::new();
    for (index, usage) in usages.iter().enumerate() {
        let usage = usage.as_str().unwrap_or_default();
        let path = path.child("usages").index(index);
        if !USAGES.contains(&usage) {
            errors.push(Error::not_supported(&path, usage, &USAGES));
        }
        if !seen.insert(usage) {
            errors.push(Error::duplicate(&path, usage));
        }
    }
    signer(spec, &path, errors);
    if let Some(seconds) = int(spec, &["expirationSeconds"]).filter(|seconds| *seconds < DURATION_MIN) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(Error::invalid(&path.child("expirationSeconds"), seconds, detail));
    }
}

/// `domain/path`.
fn signer(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let Some(name) = required(spec, path, "signerName", "", errors).and_then(Value::as_str) else {
        return;
    };
    let path = path.child("signerName");
    match name.split_once('/') {
        Some((domain, rest)) if !rest.is_empty() && !rest.contains('/') => {
            check::text_messages(dns1123_subdomain(domain), &path, name, errors);
            if !domain.contains('.') {
                let detail = "should be a domain with at least two segments separated by dots";
                errors.push(Error::invalid(&path, domain, detail));
            }
        }
        _ => {
            let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.push(Error::invalid(&path, name, detail));
        }
    }
}
