//! Probes and hooks of a container.

use apimachinery::field::{Error, Path};
use serde_json::Value;

use crate::strategy::check::{self, is_set, non_negative, required, text_messages};
use crate::strategy::names::header_name;
use crate::strategy::walk::{at, int, list, text};

/// Kinds of handler, in upstream's order.
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// The three probes of a container.
pub(super) fn all(container: &Value, grace: Option<i64>, path: &Path, errors: &mut Vec<Error>) {
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = at(container, &[key]) else { continue };
        let path = path.child(key);
        handler(probe, &HANDLERS[..4], grace, &path, errors);
        for key in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            non_negative(probe, &path, key, errors);
        }
        let own_grace = int(probe, &["terminationGracePeriodSeconds"]);
        if let Some(seconds) = own_grace.filter(|seconds| *seconds <= 0) {
            errors.push(Error::invalid(
                &path.child("terminationGracePeriodSeconds"),
                seconds,
                "must be greater than 0",
            ));
        }
        match key {
            "readinessProbe" => {
                if let Some(seconds) = own_grace {
                    let detail = "must not be set for readinessProbes";
                    errors.push(Error::invalid(
                        &path.child("terminationGracePeriodSeconds"),
                        seconds,
                        detail,
                    ));
                }
            }
            // What lives or has started does so at the first success.
            _ => {
                if let Some(threshold) = int(probe, &["successThreshold"]).filter(|threshold| *threshold != 1) {
                    errors.push(Error::invalid(&path.child("successThreshold"), threshold, "must be 1"));
                }
            }
        }
    }
}

/// The hooks of a container.
pub(super) fn lifecycle(container: &Value, grace: Option<i64>, path: &Path, errors: &mut Vec<Error>) {
    let Some(lifecycle) = at(container, &["lifecycle"]) else {
        return;
    };
    for key in ["postStart", "preStop"] {
        if let Some(hook) = at(lifecycle, &[key]) {
            let path = path.child("lifecycle").child(key);
            handler(hook, &["exec", "httpGet", "tcpSocket", "sleep"], grace, &path, errors);
        }
    }
}

fn handler(owner: &Value, kinds: &[&str], grace: Option<i64>, path: &Path, errors: &mut Vec<Error>) {
    let mut given = kinds.iter().filter(|kind| is_set(owner, kind));
    let Some(first) = given.next() else {
        errors.push(Error::required(path, "must specify a handler type"));
        return;
    };
    let action = &owner[*first];
    let place = path.child(first);
    match *first {
        "exec" => {
            required(action, &place, "command", "", errors);
        }
        "httpGet" => http_get(action, &place, errors),
        "tcpSocket" | "grpc" => port(action, &place, errors),
        _ => {
            let seconds = int(action, &["seconds"]).unwrap_or(0);
            if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.push(Error::invalid(&place, seconds, detail));
            }
        }
    }
    for further in given {
        errors.push(Error::forbidden(
            &path.child(further),
            "may not specify more than 1 handler type",
        ));
    }
}

fn http_get(action: &Value, path: &Path, errors: &mut Vec<Error>) {
    required(action, path, "path", "", errors);
    port(action, path, errors);
    check::one_of(action, path, "scheme", &["HTTP", "HTTPS"], errors);
    for header in list(action, &["httpHeaders"]) {
        let name = text(header, &["name"]);
        text_messages(header_name(name), &path.child("httpHeaders"), name, errors);
    }
}

fn port(action: &Value, path: &Path, errors: &mut Vec<Error>) {
    check::port_number_or_name(action.get("port"), &path.child("port"), errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::validation::tests::{problems, with};

    #[test]
    fn a_probe_has_one_handler() {
        assert_eq!(
            problems(with(json!({"livenessProbe": {}}))),
            ["spec.containers[0].livenessProbe: Required value: must specify a handler type",]
        );
        let both = json!({"httpGet": {"port": 80}, "tcpSocket": {"port": 80}});
        assert_eq!(
            problems(with(json!({"readinessProbe": both}))),
            ["spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",]
        );
    }

    #[test]
    fn a_probe_is_asked_for_sensible_things() {
        let probe = json!({"httpGet": {"port": 0, "scheme": "ftp"}, "successThreshold": 2, "periodSeconds": -1});
        assert_eq!(
            problems(with(json!({"livenessProbe": probe}))),
            [
                "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.containers[0].livenessProbe.httpGet.scheme: Unsupported value: \"ftp\": supported values: \"HTTP\", \"HTTPS\"",
                "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ]
        );
    }

    #[test]
    fn a_hook_sleeps_no_longer_than_the_grace_period() {
        assert_eq!(
            problems(with(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}))),
            [
                "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than \
             terminationGracePeriodSeconds (30)",
            ]
        );
    }
}
