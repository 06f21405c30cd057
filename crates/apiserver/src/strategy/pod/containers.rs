//! Containers of a PodSpec: regular ones, init containers and ephemeral ones.

use std::collections::BTreeSet;

use apimachinery::field::{Error, Path};
use apimachinery::names::{config_map_key, dns1123_subdomain, port_name};
use serde_json::Value;

use super::validation::unique_name;
use super::volumes::{self, Volumes};
use super::{env, probes, resources, security};
use crate::strategy::check::{self, is_set, messages, required, text_messages};
use crate::strategy::names::port_number;
use crate::strategy::walk::{has, int, is_zero, list, text};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// Checks all three lists of containers.
pub(super) fn validate(spec: &Value, volumes: &Volumes<'_>, path: &Path, errors: &mut Vec<Error>) {
    let regular = list(spec, &["containers"]);
    let grace = int(spec, &["terminationGracePeriodSeconds"]);
    let pod = PodContext {
        volumes,
        restarts: text(spec, &["restartPolicy"]),
    };
    let place = path.child("containers");
    if regular.is_empty() {
        errors.push(Error::required(&place, ""));
    }
    let mut names = BTreeSet::new();
    for (index, container) in regular.iter().enumerate() {
        let path = place.index(index);
        unique_name(container, &path, &mut names, errors);
        common(container, &pod, &path, errors);
        probes::lifecycle(container, grace, &path, errors);
        probes::all(container, grace, &path, errors);
        restart_policy(container, &path, errors);
    }
    host_ports(regular, &place, errors);
    for (index, container) in list(spec, &["initContainers"]).iter().enumerate() {
        let place = path.child("initContainers");
        let path = place.index(index);
        unique_name(container, &path, &mut names, errors);
        common(container, &pod, &path, errors);
        restart_policy(container, &path, errors);
        // They run one after the other, so each has all ports for itself.
        host_ports(std::slice::from_ref(container), &place, errors);
        if text(container, &["restartPolicy"]) == "Always" {
            probes::lifecycle(container, grace, &path, errors);
            probes::all(container, grace, &path, errors);
        } else {
            for key in ["lifecycle"]
                .into_iter()
                .chain(PROBES)
                .filter(|key| is_set(container, key))
            {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(Error::forbidden(&path.child(key), detail));
            }
        }
    }
    ephemeral(spec, &pod, names, &path.child("ephemeralContainers"), errors);
}

/// What a container needs to know of its Pod.
struct PodContext<'a> {
    volumes: &'a Volumes<'a>,
    restarts: &'a str,
}

fn common(container: &Value, pod: &PodContext<'_>, path: &Path, errors: &mut Vec<Error>) {
    required(container, path, "image", "", errors);
    check::required_one_of(
        container,
        path,
        "terminationMessagePolicy",
        &["File", "FallbackToLogsOnError"],
        errors,
    );
    ports(container, &path.child("ports"), errors);
    env::variables(container, &path.child("env"), errors);
    env::sources(container, &path.child("envFrom"), errors);
    volumes::mounts(container, pod.volumes, path, errors);
    check::required_one_of(container, path, "imagePullPolicy", &PULL_POLICIES, errors);
    if let Some(resources) = container.get("resources") {
        resources::validate(resources, &path.child("resources"), errors);
    }
    resize_policy(container, pod.restarts, &path.child("resizePolicy"), errors);
    security::container(container, path, errors);
}

fn ports(container: &Value, path: &Path, errors: &mut Vec<Error>) {
    let mut names = BTreeSet::new();
    for (index, port) in list(container, &["ports"]).iter().enumerate() {
        let path = path.index(index);
        let name = text(port, &["name"]);
        if !name.is_empty() {
            let found = port_name(name);
            if found.is_empty() && !names.insert(name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
            text_messages(found, &path.child("name"), name, errors);
        }
        if let Some(number) = required(port, &path, "containerPort", "", errors) {
            messages(
                port_number(number.as_i64().unwrap_or(-1)),
                &path.child("containerPort"),
                number,
                errors,
            );
        }
        if let Some(number) = port.get("hostPort").filter(|number| !is_zero(number)) {
            messages(
                port_number(number.as_i64().unwrap_or(-1)),
                &path.child("hostPort"),
                number,
                errors,
            );
        }
        check::required_one_of(port, &path, "protocol", &PROTOCOLS, errors);
    }
}

/// A port of the host is there once.
fn host_ports(containers: &[Value], path: &Path, errors: &mut Vec<Error>) {
    let mut taken = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in list(container, &["ports"]).iter().enumerate() {
            let number = int(port, &["hostPort"]).unwrap_or(0);
            if number == 0 {
                continue;
            }
            let key = format!("{}/{}/{number}", text(port, &["protocol"]), text(port, &["hostIP"]));
            if taken.contains(&key) {
                let path = path.index(index).child("ports").index(port_index).child("hostPort");
                errors.push(Error::duplicate(&path, key));
            } else {
                taken.insert(key);
            }
        }
    }
}

fn restart_policy(container: &Value, path: &Path, errors: &mut Vec<Error>) {
    let rules = list(container, &["restartPolicyRules"]);
    if !has(container, &["restartPolicy"]) {
        if !rules.is_empty() {
            let detail = "must specify restartPolicy when restart rules are used";
            errors.push(Error::required(&path.child("restartPolicy"), detail));
        }
        return;
    }
    check::one_of(
        container,
        path,
        "restartPolicy",
        &["Always", "Never", "OnFailure"],
        errors,
    );
    let path = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.push(Error::too_many(&path, rules.len(), 20));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        check::required_one_of(rule, &path, "action", &["Restart", "RestartAllContainers"], errors);
        match rule.get("exitCodes").filter(|codes| !codes.is_null()) {
            Some(codes) => {
                let path = path.child("exitCodes");
                check::required_one_of(codes, &path, "operator", &["In", "NotIn"], errors);
                let values = list(codes, &["values"]).len();
                if values > 255 {
                    errors.push(Error::too_many(&path.child("values"), values, 255));
                }
            }
            None => errors.push(Error::required(&path.child("exitCodes"), "must be specified")),
        }
    }
}

fn resize_policy(container: &Value, restarts: &str, path: &Path, errors: &mut Vec<Error>) {
    let mut seen = BTreeSet::new();
    for (index, policy) in list(container, &["resizePolicy"]).iter().enumerate() {
        let name = text(policy, &["resourceName"]);
        if !seen.insert(name) {
            errors.push(Error::duplicate(&path.index(index), name));
        }
        let restart = text(policy, &["restartPolicy"]);
        for (value, supported) in [
            (name, ["cpu", "memory"]),
            (restart, ["NotRequired", "RestartContainer"]),
        ] {
            match value {
                "" => errors.push(Error::required(path, "")),
                value if !supported.contains(&value) => errors.push(Error::not_supported(path, value, &supported)),
                _ => {}
            }
        }
        if restarts == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(Error::invalid(path, restart, detail));
        }
    }
}

/// Fields of a container that one for debugging may have too.
const EPHEMERAL_FIELDS: [&str; 20] = [
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
    // Filled in by defaults, empty.
    "resources",
    "restartPolicy",
    "restartPolicyRules",
];

fn ephemeral<'a>(
    spec: &'a Value,
    pod: &PodContext<'_>,
    mut names: BTreeSet<&'a str>,
    path: &Path,
    errors: &mut Vec<Error>,
) {
    let others = names.clone();
    for (index, container) in list(spec, &["ephemeralContainers"]).iter().enumerate() {
        let path = path.index(index);
        unique_name(container, &path, &mut names, errors);
        common(container, pod, &path, errors);
        let target = text(container, &["targetContainerName"]);
        if !target.is_empty() && !others.contains(target) {
            errors.push(Error::not_found(&path.child("targetContainerName"), target));
        }
        let fields = container.as_object().into_iter().flatten();
        for (key, _) in fields.filter(|(key, value)| !EPHEMERAL_FIELDS.contains(&key.as_str()) && !is_zero(value)) {
            errors.push(Error::forbidden(
                &path.child(key),
                "cannot be set for an Ephemeral Container",
            ));
        }
        for key in ["limits", "requests"] {
            if has(container, &["resources", key]) {
                let detail = "cannot be set for an Ephemeral Container";
                errors.push(Error::forbidden(&path.child("resources"), detail));
            }
        }
        for (index, mount) in list(container, &["volumeMounts"]).iter().enumerate() {
            for key in ["subPath", "subPathExpr"].into_iter().filter(|key| has(mount, &[key])) {
                let path = path.child("volumeMounts").index(index).child(key);
                errors.push(Error::forbidden(&path, "cannot be set for an Ephemeral Container"));
            }
        }
    }
}

/// A key of a ConfigMap or Secret by name.
pub(super) fn key_reference(reference: &Value, path: &Path, errors: &mut Vec<Error>) {
    let name = text(reference, &["name"]);
    text_messages(dns1123_subdomain(name), &path.child("name"), name, errors);
    if let Some(key) = required(reference, path, "key", "", errors).and_then(Value::as_str) {
        text_messages(config_map_key(key), &path.child("key"), key, errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::validation::tests::{problems, with};

    #[test]
    fn names_of_containers_differ() {
        let spec =
            json!({"containers": [{"name": "a", "image": "x"}], "initContainers": [{"name": "a", "image": "x"}]});
        assert_eq!(problems(spec), ["spec.initContainers[0].name: Duplicate value: \"a\""]);
    }

    #[test]
    fn ports_are_numbers_with_names() {
        assert_eq!(
            problems(with(
                json!({"ports": [{"containerPort": 70000, "name": "80"}, {"protocol": "tcp"}]})
            )),
            [
                "spec.containers[0].ports[0].name: Invalid value: \"80\": must contain at least one letter (a-z)",
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.containers[0].ports[1].containerPort: Required value",
                "spec.containers[0].ports[1].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ]
        );
        let port = json!({"containerPort": 80, "hostPort": 80});
        assert_eq!(
            problems(with(json!({"ports": [port, port]}))),
            ["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\""]
        );
    }

    #[test]
    fn an_init_container_that_ends_has_no_probes() {
        let spec = json!({"containers": [{"name": "a", "image": "x"}], "initContainers": [
            {"name": "i", "image": "x", "readinessProbe": {"exec": {"command": ["true"]}}}]});
        assert_eq!(
            problems(spec),
            [
                "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            ]
        );
    }

    #[test]
    fn a_pull_policy_is_one_of_three() {
        assert_eq!(
            problems(with(json!({"imagePullPolicy": "never"}))),
            [
                "spec.containers[0].imagePullPolicy: Unsupported value: \"never\": supported values: \"Always\", \
             \"IfNotPresent\", \"Never\"",
            ]
        );
    }
}
