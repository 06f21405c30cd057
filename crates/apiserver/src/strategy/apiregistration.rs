//! APIService. After kube-aggregator 0.36 `pkg/apis/apiregistration`.

use apimachinery::field::{Error, Path};
use apimachinery::names::dns1123_label;
use serde_json::Value;

use super::check::{required, text_messages};
use super::names::Rule;
use super::walk::{at, ensure_at, fill, flag, has, inner, int, text};
use super::{Status, Strategy, empty_status};

/// Rules of APIServices.
pub(super) static API_SERVICE: Strategy = Strategy {
    default: |service| {
        if let Some(service) = ensure_at(service, &["spec"]).and_then(|spec| inner(spec, "service")) {
            fill(service, "port", 443);
        }
    },
    validate,
    name: Rule::PathSegment,
    status: Status::Fresh(empty_status),
    unconditional_update: false,
    ..Strategy::PLAIN
};

fn validate(service: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = service.get("spec").unwrap_or(&Value::Null);
    let (group, version) = (text(spec, &["group"]), text(spec, &["version"]));
    let expected = format!("{version}.{group}");
    let name = text(service, &["metadata", "name"]);
    if name != expected {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {expected:?}");
        errors.push(Error::invalid(&Path::new("metadata.name"), name, detail));
    }
    if group.is_empty() && version != "v1" {
        errors.push(Error::required(
            &path.child("group"),
            "only v1 may have an empty group and it better be legacy kube",
        ));
    }
    text_messages(dns1123_label(version), &path.child("version"), version, errors);
    for (key, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
        let number = int(spec, &[key]).unwrap_or(0);
        if !(1..=max).contains(&number) {
            let detail = format!("must be positive and less than {max}");
            errors.push(Error::invalid(&path.child(key), number, detail));
        }
    }
    let Some(target) = at(spec, &["service"]) else {
        if has(spec, &["caBundle"]) {
            let detail = "local APIServices may not have a caBundle";
            errors.push(Error::invalid(
                &path.child("caBundle"),
                format!("{} bytes", text(spec, &["caBundle"]).len()),
                detail,
            ));
        }
        if flag(spec, &["insecureSkipTLSVerify"]) {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(Error::invalid(&path.child("insecureSkipTLSVerify"), true, detail));
        }
        return;
    };
    let place = path.child("service");
    required(target, &place, "namespace", "", errors);
    required(target, &place, "name", "", errors);
    if flag(spec, &["insecureSkipTLSVerify"]) && has(spec, &["caBundle"]) {
        let detail = "may not be true if caBundle is present";
        errors.push(Error::invalid(&path.child("insecureSkipTLSVerify"), true, detail));
    }
}
