//! Job and CronJob. After k/k `pkg/apis/batch/{v1/defaults.go,validation}` and `pkg/registry/batch/job/strategy.go` at
//! 1.36.

use apimachinery::cron::Schedule;
use apimachinery::field::{Error, Path};
use apimachinery::names::dns1123_label;
use serde_json::Value;

use super::check::{self, immutable, non_negative};
use super::pod::defaults::template;
use super::pod::validation::validate_template;
use super::walk::{
    Object, at, drop_key, each, ensure, ensure_at, fill, fill_zero, flag, inner, int, keep_old, list, object,
    object_mut, same, text,
};
use super::{Generation, Status, Strategy, empty_status};

/// Rules of Jobs.
pub(super) static JOB: Strategy = Strategy {
    default: default_job,
    prepare_create: prepare_job,
    validate: validate_job,
    validate_update: validate_job_update,
    status: Status::Fresh(empty_status),
    generation: Generation::Spec,
    orphans_dependents: true,
    ..Strategy::PLAIN
};

/// Rules of CronJobs.
pub(super) static CRON_JOB: Strategy = Strategy {
    default: default_cron_job,
    validate: validate_cron_job,
    validate_new: |job, errors| {
        // The controller adds eleven characters to the names of its Jobs.
        let name = text(job, &["metadata", "name"]);
        if name.len() > 52 {
            errors.push(Error::invalid(
                &Path::new("metadata.name"),
                name,
                "must be no more than 52 characters",
            ));
        }
    },
    status: Status::Fresh(empty_status),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

fn default_job(job: &mut Value) {
    if let Some(spec) = ensure_at(job, &["spec"]) {
        default_job_spec(spec);
        if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
            spec.insert("completions".to_owned(), 1.into());
        }
        fill(spec, "parallelism", 1);
        let per_index = spec.contains_key("backoffLimitPerIndex");
        fill(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
        fill(spec, "completionMode", "NonIndexed");
        fill(spec, "suspend", false);
        let policy = if spec.contains_key("podFailurePolicy") {
            "Failed"
        } else {
            "TerminatingOrFailed"
        };
        fill(spec, "podReplacementPolicy", policy);
        fill(spec, "manualSelector", false);
    }
    let Some(labels) = object(job, &["spec", "template", "metadata", "labels"]).cloned() else {
        return;
    };
    if let Some(metadata) = ensure_at(job, &["metadata"]) {
        fill_zero(metadata, "labels", Value::Object(labels));
    }
}

/// What a Job and the template of a CronJob have in common.
fn default_job_spec(spec: &mut Object) {
    template(spec);
    if let Some(policy) = inner(spec, "podFailurePolicy") {
        for rule in each(policy, "rules") {
            for pattern in each(rule, "onPodConditions") {
                fill_zero(pattern, "status", "True");
            }
        }
    }
}

fn default_cron_job(job: &mut Value) {
    let Some(spec) = ensure_at(job, &["spec"]) else { return };
    fill_zero(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    if let Some(spec) = inner(spec, "jobTemplate").and_then(|template| ensure(template, "spec")) {
        default_job_spec(spec);
    }
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
}

/// Old and new names of the labels by which a Job knows its Pods.
const JOB_NAME: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const CONTROLLER_UID: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

/// Unless the client does it by hand, a Job selects Pods by its own uid.
fn prepare_job(job: &mut Value) {
    if flag(job, &["spec", "manualSelector"]) {
        return;
    }
    let name = text(job, &["metadata", "name"]).to_owned();
    let uid = text(job, &["metadata", "uid"]).to_owned();
    if let Some(labels) = ensure_at(job, &["spec", "template", "metadata", "labels"]) {
        for key in JOB_NAME {
            fill(labels, key, name.as_str());
        }
        for key in CONTROLLER_UID {
            fill(labels, key, uid.as_str());
        }
    }
    if let Some(labels) = ensure_at(job, &["spec", "selector", "matchLabels"]) {
        fill(labels, CONTROLLER_UID[1], uid);
    }
}

fn validate_job(job: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = job.get("spec").unwrap_or(&Value::Null);
    generated_selector(job, &path, errors);
    validate_job_spec(spec, &path, errors);
    match at(spec, &["selector"]) {
        None => errors.push(Error::required(&path.child("selector"), "")),
        Some(selector) => check::label_selector(selector, &path.child("selector"), errors),
    }
    let labels = at(spec, &["template", "metadata", "labels"]);
    let selector = at(spec, &["selector"]).unwrap_or(&Value::Null);
    if check::selector_matches(selector, labels) == Some(false) {
        let value = labels.cloned().unwrap_or(Value::Null);
        let path = path.child("template.metadata.labels");
        errors.push(Error::invalid(
            &path,
            value,
            "`selector` does not match template `labels`",
        ));
    }
    if text(spec, &["completionMode"]) == "Indexed"
        && let Some(completions) = int(spec, &["completions"]).filter(|completions| *completions > 0)
    {
        let name = text(job, &["metadata", "name"]);
        let host = format!("{name}-{}", completions - 1);
        if !dns1123_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            errors.push(Error::invalid(&Path::new("metadata.name"), name, detail));
        }
    }
}

/// A selector that the server makes is not to be made by somebody else.
fn generated_selector(job: &Value, path: &Path, errors: &mut Vec<Error>) {
    if flag(job, &["spec", "manualSelector"]) {
        return;
    }
    let (name, uid) = (text(job, &["metadata", "name"]), text(job, &["metadata", "uid"]));
    let labels = at(job, &["spec", "template", "metadata", "labels"]).unwrap_or(&Value::Null);
    let place = path.child("template.metadata.labels");
    let expected = CONTROLLER_UID
        .map(|key| (key, uid))
        .into_iter()
        .chain(JOB_NAME.map(|key| (key, name)));
    for (key, value) in expected {
        let given = text(labels, &[key]);
        if given.is_empty() {
            errors.push(Error::required(&place.key(key), format!("must be '{value}'")));
        } else if given != value {
            errors.push(Error::invalid(&place.key(key), given, format!("must be '{value}'")));
        }
    }
    let selected = text(job, &["spec", "selector", "matchLabels", CONTROLLER_UID[1]]);
    if at(job, &["spec", "selector"]).is_some() && selected != uid && !uid.is_empty() {
        let selector = at(job, &["spec", "selector"]).cloned().unwrap_or(Value::Null);
        errors.push(Error::invalid(
            &path.child("selector"),
            selector,
            "`selector` not auto-generated",
        ));
    }
}

/// Most Pods of an indexed Job at a time.
const INDEXED_PARALLELISM_MAX: i64 = 100_000;

/// What a Job and the template of a CronJob have in common.
fn validate_job_spec(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        non_negative(spec, path, key, errors);
    }
    let number = |key: &str| int(spec, &[key]);
    if number("maxFailedIndexes").is_some() && number("backoffLimitPerIndex").is_none() {
        let detail = "when maxFailedIndexes is specified";
        errors.push(Error::required(&path.child("backoffLimitPerIndex"), detail));
    }
    check::one_of(spec, path, "completionMode", &["NonIndexed", "Indexed"], errors);
    if text(spec, &["completionMode"]) == "Indexed" {
        if number("completions").is_none() {
            errors.push(Error::required(
                &path.child("completions"),
                "when completion mode is Indexed",
            ));
        }
        if let Some(parallelism) = number("parallelism").filter(|number| *number > INDEXED_PARALLELISM_MAX) {
            let detail =
                format!("must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed");
            errors.push(Error::invalid(&path.child("parallelism"), parallelism, detail));
        }
        if let (Some(failed), Some(completions)) = (number("maxFailedIndexes"), number("completions"))
            && failed > completions
        {
            let detail = "must be less than or equal to completions";
            errors.push(Error::invalid(&path.child("maxFailedIndexes"), failed, detail));
        }
    } else {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(value) = number(key) {
                errors.push(Error::invalid(
                    &path.child(key),
                    value,
                    "requires indexed completion mode",
                ));
            }
        }
        if let Some(policy) = at(spec, &["successPolicy"]) {
            errors.push(Error::invalid(
                &path.child("successPolicy"),
                policy.clone(),
                "requires indexed completion mode",
            ));
        }
    }
    failure_policy(spec, &path.child("podFailurePolicy"), errors);
    replacement_policy(spec, path, errors);
    validate_template(
        spec.get("template").unwrap_or(&Value::Null),
        &path.child("template"),
        errors,
    );
    restart_policy(spec, &path.child("template.spec.restartPolicy"), errors);
}

fn failure_policy(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    for (index, rule) in list(spec, &["podFailurePolicy", "rules"]).iter().enumerate() {
        let path = path.child("rules").index(index);
        let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
        check::required_one_of(rule, &path, "action", &actions, errors);
        let (codes, conditions) = (at(rule, &["onExitCodes"]), list(rule, &["onPodConditions"]));
        match (codes, conditions.is_empty()) {
            (Some(_), false) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.push(Error::invalid(&path, "", detail));
            }
            (None, true) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.push(Error::invalid(&path, "", detail));
            }
            (Some(codes), true) => {
                let path = path.child("onExitCodes");
                check::required_one_of(codes, &path, "operator", &["In", "NotIn"], errors);
                if list(codes, &["values"]).is_empty() {
                    errors.push(Error::invalid(
                        &path.child("values"),
                        Value::Null,
                        "at least one value is required",
                    ));
                }
            }
            (None, false) => {}
        }
    }
}

fn replacement_policy(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    if at(spec, &["podFailurePolicy"]).is_some() {
        check::one_of(spec, path, "podReplacementPolicy", &["Failed"], errors);
    } else {
        check::one_of(
            spec,
            path,
            "podReplacementPolicy",
            &["Failed", "TerminatingOrFailed"],
            errors,
        );
    }
}

/// A Pod of a Job ends.
fn restart_policy(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    match text(spec, &["template", "spec", "restartPolicy"]) {
        "" | "Always" => errors.push(Error::required(path, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if at(spec, &["podFailurePolicy"]).is_some() => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(Error::invalid(path, "OnFailure", detail));
        }
        "OnFailure" | "Never" => {}
        other => errors.push(Error::not_supported(path, other, &["OnFailure", "Never"])),
    }
}

fn validate_job_update(new: &Value, old: &Value, errors: &mut Vec<Error>) {
    // An elastic Job changes its size as a whole.
    let completions = |job: &Value| int(job, &["spec", "completions"]);
    if completions(new) != completions(old) {
        let indexed = text(new, &["spec", "completionMode"]) == "Indexed";
        let elastic = indexed && completions(new) == int(new, &["spec", "parallelism"]);
        if !elastic {
            immutable(new, old, &["spec", "completions"], errors);
        }
    }
    immutable(new, old, &["spec", "selector"], errors);
    template_update(new, old, errors);
    for key in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        immutable(new, old, &["spec", key], errors);
    }
}

/// The template is fixed, but for where its Pods may run and what they may use while the Job is held.
fn template_update(new: &Value, old: &Value, errors: &mut Vec<Error>) {
    let mut template = at(new, &["spec", "template"]).cloned().unwrap_or(Value::Null);
    let stored = at(old, &["spec", "template"]).unwrap_or(&Value::Null);
    let held = flag(old, &["spec", "suspend"]) && int(old, &["status", "active"]).unwrap_or(0) == 0;
    if held {
        for key in ["annotations", "labels"] {
            if let (Some(metadata), Some(stored)) = (template.get_mut("metadata"), stored.get("metadata")) {
                keep_old(metadata, stored, key);
            }
        }
        let none = Value::Null;
        let stored_spec = stored.get("spec").unwrap_or(&none);
        if let Some(spec) = template.get_mut("spec") {
            for key in ["nodeSelector", "tolerations", "schedulingGates"] {
                keep_old(spec, stored_spec, key);
            }
            let node_affinity = at(stored_spec, &["affinity", "nodeAffinity"]).cloned();
            if let Some(affinity) = object_mut(spec, &["affinity"]) {
                match node_affinity {
                    Some(stored) => {
                        affinity.insert("nodeAffinity".to_owned(), stored);
                    }
                    None => drop_key(affinity, "nodeAffinity"),
                }
            }
            for key in ["containers", "initContainers"] {
                let known = list(stored_spec, &[key]);
                let Some(containers) = spec.get_mut(key).and_then(Value::as_array_mut) else {
                    continue;
                };
                containers
                    .iter_mut()
                    .zip(known)
                    .for_each(|(container, stored)| keep_old(container, stored, "resources"));
            }
        }
    }
    if !same(Some(&template), Some(stored)) {
        let value = at(new, &["spec", "template"]).cloned().unwrap_or(Value::Null);
        errors.push(Error::invalid(&Path::new("spec.template"), value, check::IMMUTABLE));
    }
}

fn validate_cron_job(job: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = job.get("spec").unwrap_or(&Value::Null);
    match text(spec, &["schedule"]) {
        "" => errors.push(Error::required(&path.child("schedule"), "")),
        schedule => {
            if let Err(problem) = Schedule::parse(schedule) {
                errors.push(Error::invalid(&path.child("schedule"), schedule, problem));
            }
            if schedule.contains("TZ") {
                let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
                errors.push(Error::invalid(&path.child("schedule"), schedule, detail));
            }
        }
    }
    non_negative(spec, &path, "startingDeadlineSeconds", errors);
    if let Some(zone) = at(spec, &["timeZone"]).and_then(Value::as_str) {
        time_zone(zone, &path.child("timeZone"), errors);
    }
    check::required_one_of(
        spec,
        &path,
        "concurrencyPolicy",
        &["Allow", "Forbid", "Replace"],
        errors,
    );
    let path_of_job = path.child("jobTemplate.spec");
    let job = at(spec, &["jobTemplate", "spec"]).unwrap_or(&Value::Null);
    validate_job_spec(job, &path_of_job, errors);
    if let Some(selector) = at(job, &["selector"]) {
        let detail = "`selector` will be auto-generated";
        errors.push(Error::invalid(&path_of_job.child("selector"), selector.clone(), detail));
    }
    if flag(job, &["manualSelector"]) {
        errors.push(Error::not_supported(
            &path_of_job.child("manualSelector"),
            true,
            &["nil", "false"],
        ));
    }
    non_negative(spec, &path, "successfulJobsHistoryLimit", errors);
    non_negative(spec, &path, "failedJobsHistoryLimit", errors);
}

/// Whether it could be a time zone; which there are, the machine that runs the Jobs knows.
fn time_zone(zone: &str, path: &Path, errors: &mut Vec<Error>) {
    if zone.is_empty() {
        errors.push(Error::invalid(path, zone, "timeZone must be nil or non-empty string"));
        return;
    }
    let fine = |part: &str| {
        !part.is_empty()
            && part.len() <= 14
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+'))
    };
    if !zone.split('/').all(fine) {
        errors.push(Error::invalid(path, zone, format!("unknown time zone {zone}")));
    } else if zone.eq_ignore_ascii_case("Local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(Error::invalid(path, zone, detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(rules: &Strategy, spec: Value) -> Vec<String> {
        let mut job = json!({"metadata": {"name": "pi", "namespace": "default", "uid": "u1"}, "spec": spec});
        (rules.default)(&mut job);
        rules.ready_create(&mut job);
        rules
            .validate_create(true, &job)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn template(restart: &str) -> Value {
        json!({"spec": {"restartPolicy": restart, "containers": [{"name": "a", "image": "x"}]}})
    }

    #[test]
    fn a_job_ends() {
        assert_eq!(
            problems(&JOB, json!({"template": template("Never")})),
            Vec::<String>::new()
        );
        assert_eq!(
            problems(&JOB, json!({"template": template("Always")})),
            ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",]
        );
        assert_eq!(
            problems(
                &JOB,
                json!({"completionMode": "Indexed", "parallelism": -1, "template": template("Never")})
            ),
            [
                "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
                "spec.completions: Required value: when completion mode is Indexed",
            ]
        );
    }

    #[test]
    fn the_template_of_a_job_does_not_change() {
        let mut old = json!({"metadata": {"name": "pi", "uid": "u1"}, "spec": {"template": template("Never")}});
        default_job(&mut old);
        JOB.ready_create(&mut old);
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("y");
        let mut errors = Vec::new();
        validate_job_update(&new, &old, &mut errors);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().ends_with("field is immutable"));
        let mut held = old.clone();
        held["spec"]["suspend"] = json!(true);
        let mut new = held.clone();
        new["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
        new["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
        let mut errors = Vec::new();
        validate_job_update(&new, &held, &mut errors);
        assert_eq!(errors, []);
    }

    #[test]
    fn a_cron_job_has_a_schedule() {
        let job = json!({"spec": {"template": template("OnFailure")}});
        assert_eq!(
            problems(&CRON_JOB, json!({"schedule": "*/5 * * * *", "jobTemplate": job})),
            Vec::<String>::new()
        );
        assert_eq!(
            problems(
                &CRON_JOB,
                json!({"schedule": "* * *", "timeZone": "a b", "jobTemplate": job})
            ),
            [
                "spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]",
                "spec.timeZone: Invalid value: \"a b\": unknown time zone a b",
            ]
        );
    }

    #[test]
    fn a_job_runs_once_and_selects_by_its_uid() {
        let mut job =
            json!({"metadata": {"name": "pi", "uid": "u1"}, "spec": {"template": {"spec": {"containers": []}}}});
        default_job(&mut job);
        JOB.ready_create(&mut job);
        assert_eq!(
            (&job["spec"]["completions"], &job["spec"]["parallelism"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(
            job["spec"]["selector"],
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}})
        );
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "pi");
        // The labels a template had before are copied, generated ones are not.
        assert_eq!(job["metadata"].get("labels"), None);
    }

    #[test]
    fn parallelism_alone_leaves_completions_open() {
        let mut job = json!({"spec": {"parallelism": 3, "template": {}}});
        default_job(&mut job);
        assert_eq!(job["spec"].get("completions"), None);
        assert_eq!(job["spec"]["parallelism"], 3);
    }
}
