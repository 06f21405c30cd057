//! `/healthz`, `/livez`, `/readyz`, `/metrics`.

use std::fmt::Write as _;

use apimachinery::status::Status;
use http::StatusCode;

use crate::call::{Answer, Call};
use crate::respond;

/// `(name, whether it is well)`
type Check = (&'static str, bool);

pub(crate) fn handle(call: &Call, path: &str) -> Answer {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let kind = parts.next().unwrap_or_default();
    let all: Vec<Check> = checks(call, kind);
    let checks: Vec<Check> = match parts.next() {
        None => all,
        Some(one) => all.into_iter().filter(|(name, _)| *name == one).collect(),
    };
    if checks.is_empty() {
        return Err(Status::path_not_found());
    }
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let mut text = String::new();
    let mut well = true;
    for (name, ok) in checks {
        let outcome = match (excluded.contains(&name), ok) {
            (true, _) => "excluded: ok",
            (false, true) => "ok",
            (false, false) => "failed: reason withheld",
        };
        well &= ok || excluded.contains(&name);
        let _ = writeln!(text, "[{}]{name} {outcome}", if ok { '+' } else { '-' });
    }
    if !well {
        let _ = writeln!(text, "{kind} check failed");
        return Ok(respond::text(StatusCode::INTERNAL_SERVER_ERROR, text));
    }
    if call.query.get("verbose").is_some() {
        let _ = writeln!(text, "{kind} check passed");
        return Ok(respond::text(StatusCode::OK, text));
    }
    Ok(respond::text(StatusCode::OK, "ok"))
}

fn checks(call: &Call, kind: &str) -> Vec<Check> {
    let mut checks = vec![("ping", true), ("log", true), ("etcd", true)];
    if kind == "readyz" {
        checks.push(("shutdown", !call.api.closing.is_cancelled()));
    }
    checks
}

/// Prometheus' text format; the names are upstream's.
pub(crate) fn metrics(call: &Call) -> Answer {
    let store = &call.api.store;
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        std::mem::take(&mut text)
    };
    let mut out = family(
        "apiserver_storage_objects",
        "gauge",
        "Number of stored objects at the time of last check.",
    );
    let mut counts = store.counts();
    counts.sort();
    for (resource, count) in counts {
        let _ = writeln!(out, "apiserver_storage_objects{{resource=\"{resource}\"}} {count}");
    }
    out += &family("apiserver_storage_revision", "counter", "Revision of the last change.");
    let _ = writeln!(out, "apiserver_storage_revision {}", store.revision());
    Ok(respond::with_type(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        out.into(),
    ))
}
