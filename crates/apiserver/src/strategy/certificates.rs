//! CertificateSigningRequest. After k/k `pkg/registry/certificates/certificates/strategy.go` at 1.36. Who asks is written
//! by `admission`, which knows the identity.

use std::collections::BTreeSet;

use apimachinery::field::{Error, Path};
use apimachinery::names::dns1123_subdomain;
use serde_json::Value;

use super::check::{self, required};
use super::walk::{self, at, drop_key, each, ensure_at, fill_zero, int, keep_old, list, object_mut, text};
use super::{Status, Strategy, Subresource, empty_status};

/// Rules of CertificateSigningRequests.
pub(super) static CERTIFICATE_SIGNING_REQUEST: Strategy = Strategy {
    prepare_update: |new, old| keep_old(new, old, "spec"),
    validate,
    subresources: &[
        Subresource {
            name: "status",
            ready: keep_decisions,
            validate: |new, old, errors| validate_change(new, old, Write::Status, errors),
        },
        Subresource {
            name: "approval",
            ready: keep_all_but_conditions,
            validate: |new, old, errors| validate_change(new, old, Write::Approval, errors),
        },
    ],
    stamp: stamp_conditions,
    status: Status::Fresh(empty_status),
    ..Strategy::PLAIN
};

/// What a write may be about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Status,
    Approval,
}

const DECISIONS: [&str; 2] = ["Approved", "Denied"];
/// Conditions that never go, and are never anything but true.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

fn conditions<'a>(csr: &'a Value, kind: &str) -> Vec<&'a Value> {
    list(csr, &["status", "conditions"])
        .iter()
        .filter(|condition| text(condition, &["type"]) == kind)
        .collect()
}

/// `/status` writes neither approval nor denial: where there are as many as before, they are as before.
fn keep_decisions(new: &mut Value, old: &Value) {
    for kind in DECISIONS {
        let stored = conditions(old, kind);
        if stored.len() != conditions(new, kind).len() {
            continue;
        }
        let Some(status) = object_mut(new, &["status"]) else {
            return;
        };
        let given = each(status, "conditions").filter(|condition| walk::field(condition, "type") == kind);
        for (condition, stored) in given.zip(stored) {
            if let Value::Object(stored) = stored {
                condition.clone_from(stored);
            }
        }
    }
}

/// `/approval` writes conditions.
fn keep_all_but_conditions(new: &mut Value, old: &Value) {
    let given = at(new, &["status", "conditions"]).cloned();
    for key in ["spec", "status"] {
        keep_old(new, old, key);
    }
    if let Some(status) = ensure_at(new, &["status"]) {
        match given {
            Some(given) => {
                status.insert("conditions".to_owned(), given);
            }
            None => drop_key(status, "conditions"),
        }
    }
}

/// When a condition was written, and when it became what it is.
fn stamp_conditions(csr: &mut Value, old: Option<&Value>, now: &str) {
    let stored = old.map_or(&[] as &[Value], |old| list(old, &["status", "conditions"]));
    let Some(status) = object_mut(csr, &["status"]) else {
        return;
    };
    for condition in each(status, "conditions") {
        fill_zero(condition, "lastUpdateTime", now);
        let same = stored.iter().find(|stored| {
            ["type", "status"]
                .iter()
                .all(|key| text(stored, &[key]) == walk::field(condition, key))
        });
        let since = same
            .map_or("", |stored| text(stored, &["lastTransitionTime"]))
            .to_owned();
        let since = if since.is_empty() { now.to_owned() } else { since };
        fill_zero(condition, "lastTransitionTime", since);
    }
}

fn validate_change(new: &Value, old: &Value, write: Write, errors: &mut Vec<Error>) {
    let path = Path::new("status.conditions");
    validate(new, errors);
    validate_conditions(new, &path, errors);
    for kind in FINAL {
        let (given, stored) = (conditions(new, kind), conditions(old, kind));
        if given.len() < stored.len() {
            let detail = format!("updates may not remove a condition of type {kind:?}");
            errors.push(Error::forbidden(&path, detail));
        } else if write == Write::Status && DECISIONS.contains(&kind) && given.len() > stored.len() {
            let detail = format!("updates may not add a condition of type {kind:?}");
            errors.push(Error::forbidden(&path, detail));
        }
    }
    let certificate = |csr| text(csr, &["status", "certificate"]);
    if certificate(new) != certificate(old) && !certificate(old).is_empty() {
        let detail = "updates may not modify existing certificate content";
        errors.push(Error::forbidden(&Path::new("status.certificate"), detail));
    }
}

fn validate_conditions(csr: &Value, path: &Path, errors: &mut Vec<Error>) {
    let mut seen = BTreeSet::new();
    for (index, condition) in list(csr, &["status", "conditions"]).iter().enumerate() {
        let place = path.index(index);
        let kind = text(condition, &["type"]);
        required(condition, &place, "type", "", errors);
        let statuses: &[&str] = if FINAL.contains(&kind) {
            &["True"]
        } else {
            &["False", "True", "Unknown"]
        };
        check::required_one_of(condition, &place, "status", statuses, errors);
        if !seen.insert(kind) {
            errors.push(Error::duplicate(&place.child("type"), kind));
        } else if DECISIONS.contains(&kind) && DECISIONS.iter().all(|decision| seen.contains(decision)) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.push(Error::invalid(path, kind, detail));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RULES: &Strategy = &CERTIFICATE_SIGNING_REQUEST;

    fn request() -> Value {
        json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "1"}, "status": {},
            "spec": {"request": "eA==", "signerName": "example.com/a", "usages": ["client auth"]}})
    }

    fn step(subresource: &str, new: &mut Value, old: &Value) -> Vec<String> {
        RULES.ready_change(subresource, new, old);
        (RULES.stamp)(new, Some(old), "now");
        let errors = RULES.validate_change(subresource, false, new, old);
        errors
            .iter()
            .map(ToString::to_string)
            .filter(|error| error.starts_with("status"))
            .collect()
    }

    #[test]
    fn only_approval_approves_and_stamps_it() {
        let old = request();
        let mut new = old.clone();
        new["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="});
        let mut approved = new.clone();
        assert_eq!(step("approval", &mut approved, &old), [""; 0]);
        assert_eq!(
            approved["status"],
            json!({"conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": "now",
                "lastTransitionTime": "now"}]})
        );
        assert_eq!(
            step("status", &mut new, &old),
            ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]
        );
        let mut issued = approved.clone();
        issued["status"]["certificate"] = json!("eA==");
        assert_eq!(step("status", &mut issued, &approved), [""; 0]);
        assert_eq!(issued["status"]["certificate"], "eA==");
    }

    #[test]
    fn a_decision_stays_and_stands_alone() {
        let mut old = request();
        old["status"]["conditions"] = json!([{"type": "Approved", "status": "True"}]);
        let mut both = old.clone();
        both["status"]["conditions"] =
            json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]);
        assert_eq!(
            step("approval", &mut both, &old),
            ["status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"]
        );
        assert_eq!(
            step("approval", &mut request(), &old),
            ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
        );
    }
}
