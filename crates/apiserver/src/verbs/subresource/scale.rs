//! `scale`: the replicas of an object, in the same shape for every kind.

use apimachinery::field::{Error, Path};
use apimachinery::gvk::GroupKind;
use apimachinery::labels::Selector;
use apimachinery::status::Status;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::call::{Answer, Call};
use crate::custom::JsonPath;
use crate::request::{MediaType, WriteOptions, decode_object};
use crate::resources::Verb;
use crate::respond;
use crate::store::Object;
use crate::verbs::patch::Patch;
use crate::verbs::rules::Ownership;
use crate::verbs::update::{Refusal, change, check_name};
use crate::verbs::write::Writing;
use crate::verbs::{Target, metadata};

const KIND: &str = "Scale";
const API_VERSION: &str = "autoscaling/v1";
const ATTEMPTS: usize = 5;

pub(super) async fn handle(call: &Call, target: &Target, verb: Verb) -> Answer {
    match verb {
        Verb::Get => {
            let object = respond::served_value(&target.resource, &target.current(&call.api)?);
            respond::value(call, StatusCode::OK, &scale_of(target, &object)?)
        }
        Verb::Update => {
            let options = WriteOptions::read(&call.query, "UpdateOptions")?;
            let mut body = decode_object(MediaType::read(&call.headers)?, &call.body().await?)?.value;
            metadata::check_type(&mut body, KIND, API_VERSION)?;
            write(call, target, &options, |_| Ok(body.clone())).await
        }
        Verb::Patch => {
            let options = WriteOptions::read(&call.query, "PatchOptions")?;
            let patch = Patch::read(call, &options).await?;
            write(call, target, &options, |scale| {
                let mut patched = patch.applied(scale, None)?;
                metadata::check_type(&mut patched, KIND, API_VERSION)?;
                Ok(patched)
            })
            .await
        }
        other => Err(Status::method_not_supported(&target.group_resource(), other.as_str())),
    }
}

/// Makes the replicas of what `edit` returns the object's.
async fn write(
    call: &Call,
    target: &Target,
    options: &WriteOptions,
    edit: impl Fn(&Value) -> Result<Value, Status>,
) -> Answer {
    let writing = Writing { call, target, options };
    for _ in 0..ATTEMPTS {
        let current = target.current(&call.api)?;
        let mut object = respond::served_value(&target.resource, &current);
        let scale = edit(&scale_of(target, &object)?)?;
        check_name(target, &scale)?;
        let replicas = replicas(&scale, target)?;
        let given = metadata::text(&scale, "resourceVersion").to_owned();
        metadata::set(&mut object, "resourceVersion", Some(given.as_str().into()));
        match target.resource.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
            Some(paths) => paths.spec_replicas.set(&mut object, replicas.into()),
            None => object["spec"]["replicas"] = replicas.into(),
        }
        match change(&writing, &current, object, Ownership::Track).await {
            Ok(object) => return answer(call, target, &object),
            Err(Refusal::Raced) => {}
            Err(refusal) => return Err(refusal.status(target)),
        }
    }
    Err(target.modified())
}

fn answer(call: &Call, target: &Target, object: &Object) -> Answer {
    let object = respond::served_value(&target.resource, object);
    respond::value(call, StatusCode::OK, &scale_of(target, &object)?)
}

fn replicas(scale: &Value, target: &Target) -> Result<i64, Status> {
    let path = Path::new("spec").child("replicas");
    let given = scale.pointer("/spec/replicas").filter(|value| !value.is_null());
    let replicas = match given {
        None => 0,
        Some(value) => value.as_i64().ok_or_else(|| {
            Status::bad_request(format!(
                "Scale in version \"v1\" cannot be handled as a Scale: {path} is {value}, not an int32"
            ))
        })?,
    };
    if replicas < 0 {
        let error = Error::invalid(&path, replicas, "must be greater than or equal to 0");
        return Err(Status::invalid(
            &GroupKind::new("autoscaling", KIND),
            &target.name,
            &[error],
        ));
    }
    Ok(replicas)
}

/// The `Scale` of an object. Selectors are text there.
fn scale_of(target: &Target, object: &Value) -> Result<Value, Status> {
    let mut meta = Map::new();
    for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata::field(object, name) {
            meta.insert(name.to_owned(), value.clone());
        }
    }
    let paths = target.resource.custom.as_ref().and_then(|custom| custom.scale.as_ref());
    let (wanted, actual, selector) = match paths {
        Some(paths) => {
            let number = |path: &JsonPath| path.first(object).and_then(Value::as_i64);
            let wanted = number(&paths.spec_replicas).ok_or_else(|| {
                let path = &paths.spec_replicas_text;
                Status::internal(format!("the spec replicas field \"{path}\" does not exist"))
            })?;
            let selector = paths.selector.as_ref().and_then(|path| path.first(object));
            let selector = selector.and_then(Value::as_str).unwrap_or_default().to_owned();
            (wanted, number(&paths.status_replicas).unwrap_or(0), selector)
        }
        None => {
            let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64);
            (
                number("/spec/replicas").unwrap_or(1),
                number("/status/replicas").unwrap_or(0),
                selector_text(object.pointer("/spec/selector")),
            )
        }
    };
    let mut spec = Map::new();
    if wanted != 0 {
        spec.insert("replicas".to_owned(), wanted.into());
    }
    let mut status = Map::new();
    status.insert("replicas".to_owned(), actual.into());
    if !selector.is_empty() {
        status.insert("selector".to_owned(), selector.into());
    }
    Ok(json!({"kind": KIND, "apiVersion": API_VERSION, "metadata": meta, "spec": spec, "status": status}))
}

/// ReplicationControllers select by a plain map, everything newer by a label selector.
fn selector_text(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return String::new() };
    let structured = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    match structured {
        true => Selector::from_label_selector(selector)
            .map(|selector| selector.to_string())
            .unwrap_or_default(),
        false => Selector::from_map(selector).to_string(),
    }
}
