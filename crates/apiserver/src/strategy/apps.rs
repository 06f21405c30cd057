//! Deployment, ReplicaSet, StatefulSet, DaemonSet, ControllerRevision, and the old ReplicationController.
//!
//! After k/k `pkg/apis/apps/{v1/defaults.go,validation}` and `pkg/apis/core` at 1.36.

use apimachinery::field::{Error, Path};
use serde_json::{Value, json};

use super::check::{self, immutable, int_or_percent, int_or_percent_number, non_negative};
use super::pod::defaults::template;
use super::pod::validation::validate_template;
use super::walk::{
    at, drop_key, each, ensure, ensure_at, field, fill, fill_zero, inner, int, list, object, object_mut, same, text,
};
use super::{Generation, Status, Strategy, empty_status};

/// Rules of Deployments.
pub(super) static DEPLOYMENT: Strategy = Strategy {
    default: default_deployment,
    validate: validate_deployment,
    validate_update: |new, old, errors| immutable(new, old, &SELECTOR, errors),
    status: Status::Fresh(empty_status),
    generation: Generation::SpecAndAnnotations,
    ..Strategy::PLAIN
};

/// Rules of ReplicaSets.
pub(super) static REPLICA_SET: Strategy = Strategy {
    default: default_replica_set,
    validate: validate_replica_set,
    validate_update: |new, old, errors| immutable(new, old, &SELECTOR, errors),
    status: Status::Fresh(|| json!({"replicas": 0})),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// Rules of StatefulSets.
pub(super) static STATEFUL_SET: Strategy = Strategy {
    default: default_stateful_set,
    validate: validate_stateful_set,
    validate_new: validate_new_stateful_set,
    validate_update: validate_stateful_set_update,
    status: Status::Fresh(|| json!({"replicas": 0, "availableReplicas": 0})),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// Rules of DaemonSets.
pub(super) static DAEMON_SET: Strategy = Strategy {
    default: default_daemon_set,
    prepare_create: |set| set_template_generation(set, 1),
    prepare_update: move_template_generation,
    validate: validate_daemon_set,
    validate_update: |new, old, errors| immutable(new, old, &SELECTOR, errors),
    status: Status::Fresh(
        || json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}),
    ),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// Rules of ControllerRevisions.
pub(super) static CONTROLLER_REVISION: Strategy = Strategy {
    validate: |revision, errors| non_negative(revision, &Path::root(), "revision", errors),
    validate_new: |revision, errors| {
        let path = Path::new("data");
        match revision.get("data") {
            Some(Value::Object(_)) => {}
            None | Some(Value::Null) => errors.push(Error::required(&path, "data is mandatory")),
            Some(_) => errors.push(Error::required(&path, "data must be a valid JSON object")),
        }
    },
    validate_update: |new, old, errors| immutable(new, old, &["data"], errors),
    ..Strategy::PLAIN
};

/// Rules of ReplicationControllers.
pub(super) static REPLICATION_CONTROLLER: Strategy = Strategy {
    default: default_replication_controller,
    validate: validate_replication_controller,
    status: Status::Fresh(|| json!({"replicas": 0})),
    generation: Generation::Spec,
    orphans_dependents: true,
    ..Strategy::PLAIN
};

fn default_deployment(deployment: &mut Value) {
    let Some(spec) = ensure_at(deployment, &["spec"]) else {
        return;
    };
    fill(spec, "replicas", 1);
    template(spec);
    if let Some(strategy) = ensure(spec, "strategy") {
        fill_zero(strategy, "type", "RollingUpdate");
        if field(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = ensure(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
    }
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
}

fn default_replica_set(set: &mut Value) {
    let Some(spec) = ensure_at(set, &["spec"]) else { return };
    fill(spec, "replicas", 1);
    template(spec);
}

fn default_stateful_set(set: &mut Value) {
    let Some(spec) = ensure_at(set, &["spec"]) else { return };
    fill(spec, "replicas", 1);
    template(spec);
    for claim in each(spec, "volumeClaimTemplates") {
        // Go writes the claim's type because the controller makes objects of the templates.
        fill_zero(claim, "apiVersion", "v1");
        fill_zero(claim, "kind", "PersistentVolumeClaim");
        super::storage::default_claim(claim);
    }
    fill(spec, "serviceName", "");
    fill_zero(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = ensure(spec, "updateStrategy") {
        if field(strategy, "type").is_empty() {
            strategy.insert("type".to_owned(), "RollingUpdate".into());
            ensure(strategy, "rollingUpdate");
        }
        if field(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = inner(strategy, "rollingUpdate")
        {
            fill(rolling, "partition", 0);
        }
    }
    fill(spec, "revisionHistoryLimit", 10);
    if let Some(policy) = ensure(spec, "persistentVolumeClaimRetentionPolicy") {
        fill_zero(policy, "whenDeleted", "Retain");
        fill_zero(policy, "whenScaled", "Retain");
    }
}

fn default_daemon_set(set: &mut Value) {
    let Some(spec) = ensure_at(set, &["spec"]) else { return };
    template(spec);
    if let Some(strategy) = ensure(spec, "updateStrategy") {
        fill_zero(strategy, "type", "RollingUpdate");
        if field(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = ensure(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
    }
    fill(spec, "revisionHistoryLimit", 10);
}

fn default_replication_controller(controller: &mut Value) {
    if let Some(spec) = ensure_at(controller, &["spec"]) {
        fill(spec, "replicas", 1);
        template(spec);
    }
    let Some(labels) = object(controller, &["spec", "template", "metadata", "labels"]).cloned() else {
        return;
    };
    if labels.is_empty() {
        return;
    }
    for path in [["spec"].as_slice(), &["metadata"]] {
        let key = if path == ["spec"] { "selector" } else { "labels" };
        if let Some(owner) = ensure_at(controller, path) {
            fill_zero(owner, key, Value::Object(labels.clone()));
        }
    }
}

/// `spec.templateGeneration` is no field of apps/v1: upstream keeps it in this annotation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn set_template_generation(set: &mut Value, generation: i64) {
    if let Some(annotations) = ensure_at(set, &["metadata", "annotations"]) {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string().into());
    }
}

fn move_template_generation(new: &mut Value, old: &Value) {
    let stored = at(old, &["metadata", "annotations", TEMPLATE_GENERATION]).and_then(Value::as_str);
    let stored: i64 = stored.and_then(|text| text.parse().ok()).unwrap_or(1);
    let changed = !same(at(new, &["spec", "template"]), at(old, &["spec", "template"]));
    set_template_generation(new, stored + i64::from(changed));
}

const SELECTOR: [&str; 2] = ["spec", "selector"];
const ONLY_ALWAYS: [&str; 1] = ["Always"];

/// What Deployment, ReplicaSet and StatefulSet ask of their selector; whether it can be used.
fn selector(spec: &Value, kind: &str, path: &Path, errors: &mut Vec<Error>) -> bool {
    let path = path.child("selector");
    let Some(selector) = at(spec, &["selector"]) else {
        errors.push(Error::required(&path, ""));
        return true;
    };
    check::label_selector(selector, &path, errors);
    if check::selects_everything(selector) {
        let detail = format!("empty selector is invalid for {kind}");
        errors.push(Error::invalid(&path, selector.clone(), detail));
    }
    if check::selector_matches(selector, None).is_none() {
        errors.push(Error::invalid(&path, selector.clone(), "invalid label selector"));
        return false;
    }
    true
}

/// The Pods that a template makes must be those that the selector finds.
fn template_matches(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let labels = at(spec, &["template", "metadata", "labels"]);
    let Some(selector) = at(spec, &["selector"]) else {
        return;
    };
    if !check::selects_everything(selector) && check::selector_matches(selector, labels) == Some(false) {
        let value = labels.cloned().unwrap_or(Value::Null);
        let detail = "`selector` does not match template `labels`";
        errors.push(Error::invalid(&path.child("template.metadata.labels"), value, detail));
    }
}

/// Pods of a controller that replaces them run for ever.
fn runs_for_ever(spec: &Value, kind: &str, path: &Path, errors: &mut Vec<Error>) {
    let path = path.child("template.spec");
    let policy = at(spec, &["template", "spec", "restartPolicy"])
        .and_then(Value::as_str)
        .unwrap_or_default();
    if policy != ONLY_ALWAYS[0] {
        errors.push(Error::not_supported(&path.child("restartPolicy"), policy, &ONLY_ALWAYS));
    }
    if at(spec, &["template", "spec", "activeDeadlineSeconds"]).is_some() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(Error::forbidden(&path.child("activeDeadlineSeconds"), detail));
    }
}

/// The template as ReplicaSets use it.
fn replicated_template(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    template_matches(spec, path, errors);
    validate_template(
        spec.get("template").unwrap_or(&Value::Null),
        &path.child("template"),
        errors,
    );
    runs_for_ever(spec, "ReplicaSet", path, errors);
}

fn validate_deployment(deployment: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = deployment.get("spec").unwrap_or(&Value::Null);
    non_negative(spec, &path, "replicas", errors);
    if selector(spec, "deployment", &path, errors) {
        replicated_template(spec, &path, errors);
    }
    deployment_strategy(spec, &path.child("strategy"), errors);
    for key in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        non_negative(spec, &path, key, errors);
    }
    let ready = int(spec, &["minReadySeconds"]).unwrap_or(0);
    if let Some(deadline) = int(spec, &["progressDeadlineSeconds"]).filter(|deadline| *deadline <= ready) {
        let path = path.child("progressDeadlineSeconds");
        errors.push(Error::invalid(&path, deadline, "must be greater than minReadySeconds"));
    }
}

fn deployment_strategy(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let strategy = spec.get("strategy").unwrap_or(&Value::Null);
    let rolling = at(strategy, &["rollingUpdate"]);
    match text(strategy, &["type"]) {
        "Recreate" if rolling.is_some() => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(Error::forbidden(&path.child("rollingUpdate"), detail));
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let Some(rolling) = rolling else { return };
            let path = path.child("rollingUpdate");
            let (unavailable, surge) = bounds(rolling, &path, errors);
            if unavailable == 0 && surge == 0 {
                let value = rolling.get("maxUnavailable").cloned().unwrap_or(Value::Null);
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.push(Error::invalid(&path.child("maxUnavailable"), value, detail));
            }
            if let Some(value) = rolling.get("maxUnavailable") {
                check::at_most_100_percent(value, &path.child("maxUnavailable"), errors);
            }
        }
        _ => errors.push(Error::not_supported(
            path,
            strategy.clone(),
            &["Recreate", "RollingUpdate"],
        )),
    }
}

/// Checks `maxUnavailable` and `maxSurge`, and answers with their numbers.
fn bounds(rolling: &Value, path: &Path, errors: &mut Vec<Error>) -> (i64, i64) {
    let mut number = |key: &str| {
        let Some(value) = at(rolling, &[key]) else { return 0 };
        int_or_percent(value, &path.child(key), errors);
        int_or_percent_number(value)
    };
    (number("maxUnavailable"), number("maxSurge"))
}

fn validate_replica_set(set: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = set.get("spec").unwrap_or(&Value::Null);
    non_negative(spec, &path, "replicas", errors);
    non_negative(spec, &path, "minReadySeconds", errors);
    // Upstream says "deployment" here too.
    if selector(spec, "deployment", &path, errors) {
        replicated_template(spec, &path, errors);
    }
}

fn validate_stateful_set(set: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = set.get("spec").unwrap_or(&Value::Null);
    let policy = text(spec, &["podManagementPolicy"]);
    if !matches!(policy, "OrderedReady" | "Parallel") {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        errors.push(Error::invalid(&path.child("podManagementPolicy"), policy, detail));
    }
    stateful_strategy(spec, &path.child("updateStrategy"), errors);
    let retention = spec.get("persistentVolumeClaimRetentionPolicy").unwrap_or(&Value::Null);
    for key in ["whenDeleted", "whenScaled"] {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        check::one_of(retention, &path, key, &["Retain", "Delete"], errors);
    }
    non_negative(spec, &path, "replicas", errors);
    non_negative(spec, &path, "minReadySeconds", errors);
    non_negative(
        spec.get("ordinals").unwrap_or(&Value::Null),
        &path.child("ordinals"),
        "start",
        errors,
    );
    if selector(spec, "statefulset", &path, errors) {
        template_matches(spec, &path, errors);
        validate_template(&with_claims(spec), &path.child("template"), errors);
    }
    runs_for_ever(spec, "StatefulSet", &path, errors);
}

/// The template as it will be: with the volumes of the claims, and without the names that the controller gives.
fn with_claims(spec: &Value) -> Value {
    let mut template = spec.get("template").cloned().unwrap_or(Value::Null);
    let claims = list(spec, &["volumeClaimTemplates"]);
    let Some(pod) = object_mut(&mut template, &["spec"]) else {
        return template;
    };
    drop_key(pod, "hostname");
    drop_key(pod, "subdomain");
    if claims.is_empty() {
        return template;
    }
    let mut volumes: Vec<Value> = claims
        .iter()
        .map(|claim| {
            let name = text(claim, &["metadata", "name"]);
            json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
        })
        .collect();
    let own = pod
        .get("volumes")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let is_claim = |volume: &Value| {
        claims
            .iter()
            .any(|claim| text(claim, &["metadata", "name"]) == text(volume, &["name"]))
    };
    volumes.extend(own.into_iter().filter(|volume| !is_claim(volume)));
    pod.insert("volumes".to_owned(), volumes.into());
    template
}

fn stateful_strategy(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let strategy = spec.get("updateStrategy").unwrap_or(&Value::Null);
    let rolling = at(strategy, &["rollingUpdate"]);
    match (text(strategy, &["type"]), rolling) {
        ("", _) => errors.push(Error::required(path, "")),
        ("OnDelete", Some(rolling)) => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(Error::invalid(&path.child("rollingUpdate"), rolling.clone(), detail));
        }
        ("RollingUpdate", Some(rolling)) => {
            let path = path.child("rollingUpdate");
            non_negative(rolling, &path, "partition", errors);
            if let Some(value) = at(rolling, &["maxUnavailable"]) {
                let path = path.child("maxUnavailable");
                int_or_percent(value, &path, errors);
                if int_or_percent_number(value) == 0 {
                    errors.push(Error::invalid(&path, value.clone(), "cannot be 0"));
                }
                check::at_most_100_percent(value, &path, errors);
            }
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(Error::invalid(path, strategy.clone(), detail));
        }
    }
}

/// Names that could not be names of Pods and claims; what has them already keeps them.
fn validate_new_stateful_set(set: &Value, errors: &mut Vec<Error>) {
    let name = text(set, &["metadata", "name"]);
    check::text_messages(
        apimachinery::names::dns1123_label(name),
        &Path::new("metadata.name"),
        name,
        errors,
    );
    let path = Path::new("spec");
    let spec = set.get("spec").unwrap_or(&Value::Null);
    check::dns_label(spec, &path, "serviceName", errors);
    for (index, claim) in list(spec, &["volumeClaimTemplates"]).iter().enumerate() {
        let path = path.child("volumeClaimTemplates").index(index).child("spec");
        super::storage::validate_claim_spec(claim.get("spec").unwrap_or(&Value::Null), &path, errors);
    }
}

/// Fields of a StatefulSet that may change.
const STATEFUL_UPDATABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn validate_stateful_set_update(new: &Value, old: &Value, errors: &mut Vec<Error>) {
    let rest = |set: &Value| {
        let mut spec = set.get("spec").cloned().unwrap_or(Value::Null);
        if let Some(map) = spec.as_object_mut() {
            STATEFUL_UPDATABLE.iter().for_each(|key| drop_key(map, key));
        }
        spec
    };
    if !same(Some(&rest(new)), Some(&rest(old))) {
        errors.push(Error::forbidden(
            &Path::new("spec"),
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
}

fn validate_daemon_set(set: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = set.get("spec").unwrap_or(&Value::Null);
    match at(spec, &["selector"]) {
        Some(selector) => {
            check::label_selector(selector, &path.child("selector"), errors);
            template_matches(spec, &path, errors);
            if check::selects_everything(selector) {
                let detail = "empty selector is invalid for daemonset";
                errors.push(Error::invalid(&path.child("selector"), selector.clone(), detail));
            }
        }
        None => errors.push(Error::required(&path.child("selector"), "")),
    }
    validate_template(
        spec.get("template").unwrap_or(&Value::Null),
        &path.child("template"),
        errors,
    );
    runs_for_ever(spec, "DaemonSet", &path, errors);
    non_negative(spec, &path, "minReadySeconds", errors);
    daemon_strategy(spec, &path.child("updateStrategy"), errors);
    non_negative(spec, &path, "revisionHistoryLimit", errors);
}

fn daemon_strategy(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    let strategy = spec.get("updateStrategy").unwrap_or(&Value::Null);
    match text(strategy, &["type"]) {
        "OnDelete" => {}
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            let Some(rolling) = at(strategy, &["rollingUpdate"]) else {
                errors.push(Error::required(&path, ""));
                return;
            };
            let (unavailable, surge) = bounds(rolling, &path, errors);
            for key in ["maxUnavailable", "maxSurge"] {
                if let Some(value) = rolling.get(key) {
                    check::at_most_100_percent(value, &path.child(key), errors);
                }
            }
            if unavailable != 0 && surge != 0 {
                let value = rolling.get("maxSurge").cloned().unwrap_or(Value::Null);
                let detail = "may not be set when maxUnavailable is non-zero";
                errors.push(Error::invalid(&path.child("maxSurge"), value, detail));
            } else if unavailable == 0 && surge == 0 {
                errors.push(Error::required(
                    &path.child("maxUnavailable"),
                    "cannot be 0 when maxSurge is 0",
                ));
            }
        }
        _ => errors.push(Error::not_supported(
            path,
            strategy.clone(),
            &["RollingUpdate", "OnDelete"],
        )),
    }
}

fn validate_replication_controller(controller: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = controller.get("spec").unwrap_or(&Value::Null);
    non_negative(spec, &path, "minReadySeconds", errors);
    if object(spec, &["selector"]).is_none_or(|selector| selector.is_empty()) {
        errors.push(Error::required(&path.child("selector"), ""));
    }
    non_negative(spec, &path, "replicas", errors);
    let Some(template) = at(spec, &["template"]) else {
        errors.push(Error::required(&path.child("template"), ""));
        return;
    };
    let labels = object(template, &["metadata", "labels"]);
    let matches = object(spec, &["selector"])
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value)));
    if !matches {
        let value = labels.cloned().map_or(Value::Null, Value::Object);
        let detail = "`selector` does not match template `labels`";
        errors.push(Error::invalid(&path.child("template.metadata.labels"), value, detail));
    }
    validate_template(template, &path.child("template"), errors);
    runs_for_ever(spec, "ReplicationController", &path, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a workload of this spec, its defaults filled in.
    fn problems(rules: &Strategy, spec: Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        (rules.default)(&mut object);
        rules
            .validate_create(true, &object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn spec() -> Value {
        json!({"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}}})
    }

    #[test]
    fn the_smallest_workloads_are_fine() {
        for rules in [&DEPLOYMENT, &REPLICA_SET, &STATEFUL_SET, &DAEMON_SET] {
            assert_eq!(problems(rules, spec()), Vec::<String>::new());
        }
    }

    #[test]
    fn a_selector_matches_its_template() {
        let mut other = spec();
        other["template"]["metadata"]["labels"] = json!({"app": "other"});
        for rules in [&DEPLOYMENT, &REPLICA_SET, &STATEFUL_SET, &DAEMON_SET] {
            assert_eq!(
                problems(rules, other.clone()),
                [
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template \
                 `labels`",
                ]
            );
        }
        let mut none = spec();
        none["selector"] = Value::Null;
        assert_eq!(problems(&DEPLOYMENT, none), ["spec.selector: Required value"]);
        let mut empty = spec();
        empty["selector"] = json!({});
        assert_eq!(
            problems(&DEPLOYMENT, empty),
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment",]
        );
    }

    #[test]
    fn a_selector_does_not_change() {
        let old = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec()});
        let mut new = old.clone();
        new["spec"]["selector"]["matchLabels"] = json!({"app": "web", "tier": "x"});
        let mut errors = Vec::new();
        (DEPLOYMENT.validate_update)(&new, &old, &mut errors);
        assert_eq!(
            errors[0].to_string(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"web\",\"tier\":\"x\"}}: field is immutable"
        );
    }

    #[test]
    fn a_rolling_update_moves_something() {
        let mut stuck = spec();
        stuck["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}});
        stuck["replicas"] = json!(-1);
        assert_eq!(
            problems(&DEPLOYMENT, stuck),
            [
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ]
        );
        let mut both = spec();
        both["updateStrategy"] = json!({"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}});
        assert_eq!(
            problems(&DAEMON_SET, both),
            [
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
            ]
        );
    }

    #[test]
    fn pods_of_a_workload_run_for_ever() {
        let mut once = spec();
        once["template"]["spec"]["restartPolicy"] = json!("Never");
        assert_eq!(
            problems(&DEPLOYMENT, once),
            ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",]
        );
    }

    #[test]
    fn a_claim_of_a_stateful_set_can_be_mounted() {
        let mut set = spec();
        set["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        assert_eq!(
            problems(&STATEFUL_SET, set.clone()),
            ["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\"",]
        );
        set["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
        assert_eq!(problems(&STATEFUL_SET, set), Vec::<String>::new());
    }

    #[test]
    fn the_claims_of_a_stateful_set_do_not_change() {
        let old = json!({"spec": {"replicas": 1, "serviceName": "a"}});
        let mut errors = Vec::new();
        validate_stateful_set_update(&json!({"spec": {"replicas": 2, "serviceName": "a"}}), &old, &mut errors);
        assert!(errors.is_empty());
        validate_stateful_set_update(&json!({"spec": {"replicas": 2, "serviceName": "b"}}), &old, &mut errors);
        assert!(
            errors[0]
                .to_string()
                .starts_with("spec: Forbidden: updates to statefulset spec for fields other than")
        );
    }

    #[test]
    fn the_smallest_deployment_gets_every_default() {
        let mut value = json!({"spec": {"selector": {}, "template": {"spec": {"containers": []}}}});
        default_deployment(&mut value);
        let spec = &value["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        assert_eq!(
            (&spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
            (&json!(10), &json!(600))
        );
        assert_eq!(spec["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    }

    #[test]
    fn annotations_move_the_generation_of_a_deployment_only() {
        let old = json!({"metadata": {"generation": 3}, "spec": {"replicas": 1}});
        let mut new = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"replicas": 1}});
        DEPLOYMENT.ready_change("", &mut new, &old);
        assert_eq!(new["metadata"]["generation"], 4);
        REPLICA_SET.ready_change("", &mut new, &old);
        assert_eq!(new["metadata"]["generation"], 3);
    }

    #[test]
    fn a_daemon_set_counts_its_templates() {
        let mut set = json!({"metadata": {}, "spec": {"template": {"a": 1}}});
        DAEMON_SET.ready_create(&mut set);
        assert_eq!(set["metadata"]["annotations"][TEMPLATE_GENERATION], "1");
        let old = set.clone();
        set["spec"]["template"]["a"] = json!(2);
        DAEMON_SET.ready_change("", &mut set, &old);
        assert_eq!(set["metadata"]["annotations"][TEMPLATE_GENERATION], "2");
    }
}
