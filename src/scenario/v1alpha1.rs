//! `k8slab.dev/v1alpha1`: a scenario exactly as users write it.
//!
//! Owns the wire names. The meaning of a field never changes within a version; whatever needs another file or another
//! field to be judged is `validate`'s business.

use std::time::Duration;

use super::decode::{At, Field, Mapping, Reader};
use super::problem::ProblemKind;

/// The `apiVersion` of the files.
pub const API_VERSION: &str = "k8slab.dev/v1alpha1";
/// The kinds of step, as their fields are called.
pub const STEP_KINDS: [&str; 6] = ["feature", "image", "apply", "wait", "http", "exec"];
/// What a `wait` can look at, as its fields are called.
pub const WAIT_KINDS: [&str; 6] = ["deployment", "statefulset", "daemonset", "job", "pod", "hpa"];
/// The types a parameter can have.
pub const PARAMETER_TYPES: [&str; 6] = ["integer", "number", "boolean", "string", "quantity", "secret"];

/// A whole file.
#[derive(Debug, Default)]
pub struct Scenario {
    /// `metadata.name`.
    pub name: Option<At<String>>,
    /// `spec.title`.
    pub title: Option<At<String>>,
    /// `spec.description`.
    pub description: Option<At<String>>,
    /// `spec.requires`.
    pub requires: Requires,
    /// `spec.parameters`.
    pub parameters: Vec<Parameter>,
    /// `spec.steps`.
    pub steps: Vec<Step>,
    /// `spec.endpoints`.
    pub endpoints: Vec<Endpoint>,
    /// `spec.actions`.
    pub actions: Vec<Action>,
    /// `spec.checks`.
    pub checks: Vec<Check>,
}

/// `spec.requires`.
#[derive(Debug, Default)]
pub struct Requires {
    /// CPU that must be allocatable, a quantity.
    pub cpu: Option<At<String>>,
    /// Memory that must be allocatable, a quantity.
    pub memory: Option<At<String>>,
    /// Exactly as many nodes.
    pub nodes: Option<At<i64>>,
    /// Cluster features by name.
    pub features: Vec<At<String>>,
}

/// An entry of `spec.parameters`.
#[derive(Debug)]
pub struct Parameter {
    /// The name after `--set`.
    pub name: At<String>,
    /// What it is for.
    pub description: Option<At<String>>,
    /// One of `PARAMETER_TYPES`.
    pub kind: At<&'static str>,
    /// The smallest value.
    pub min: Option<At<String>>,
    /// The largest value.
    pub max: Option<At<String>>,
    /// The only values, if given.
    pub one_of: Vec<At<String>>,
    /// The value without `--set`.
    pub default: Option<At<String>>,
    /// The value without `--set`, with `--offline`.
    pub offline: Option<At<String>>,
    /// The fields it sets: `file#/pointer` or `file#Kind/name#/pointer`.
    pub sets: Vec<At<String>>,
}

/// An entry of `spec.steps`.
#[derive(Debug)]
pub struct Step {
    /// Its id.
    pub id: At<String>,
    /// What it does; `None` when that could not be read (a problem says why).
    pub kind: Option<StepKind>,
    /// The steps it waits for.
    pub needs: Vec<At<String>>,
    /// The parameter and the value with which it is done at all.
    pub when: Option<(At<String>, At<String>)>,
    /// Its limit.
    pub timeout: Option<At<Duration>>,
}

/// What a step does.
#[derive(Debug)]
pub enum StepKind {
    /// `feature: NAME`.
    Feature(At<String>),
    /// `image: { name, dockerfile }`.
    Image {
        /// The image's name, without a tag.
        name: At<String>,
        /// The file below `Dockerfiles/`.
        dockerfile: At<String>,
    },
    /// `apply: PATH`.
    Apply(At<String>),
    /// `wait: { KIND: NAME, condition }`.
    Wait {
        /// One of `WAIT_KINDS`.
        kind: &'static str,
        /// The object's name.
        name: At<String>,
        /// The condition's type, if not the kind's own.
        condition: Option<At<String>>,
    },
    /// `http: { endpoint, path, status }`.
    Http {
        /// One of the scenario's endpoints.
        endpoint: At<String>,
        /// The path asked for.
        path: At<String>,
        /// The status that is wanted.
        status: Option<At<i64>>,
    },
    /// `exec: { run, undo }`.
    Exec {
        /// The command of `up`.
        run: Vec<At<String>>,
        /// The command of `down`.
        undo: Vec<At<String>>,
    },
}

/// An entry of `spec.endpoints`.
#[derive(Debug)]
pub struct Endpoint {
    /// Its name.
    pub name: At<String>,
    /// `deployment/NAME`, `service/NAME` or `pod/NAME`.
    pub target: At<String>,
    /// The port in the pod (or of the Service).
    pub port: At<i64>,
}

/// An entry of `spec.actions`.
#[derive(Debug)]
pub struct Action {
    /// Its name, after `k8slab load S`.
    pub name: At<String>,
    /// What it is for.
    pub description: Option<At<String>>,
    /// The pods' label selector.
    pub pods: At<String>,
    /// The container port, if not the first one of the pod.
    pub port: Option<At<i64>>,
    /// The path of the GET.
    pub get: At<String>,
}

/// An entry of `spec.checks`.
#[derive(Debug)]
pub struct Check {
    /// An action first.
    pub action: Option<At<String>>,
    /// The Deployment looked at.
    pub deployment: At<String>,
    /// Its ready replicas.
    pub replicas: At<i64>,
    /// The limit, in lab time.
    pub within: Option<At<Duration>>,
}

/// Reads a document, noting what is wrong with it.
pub fn read(reader: &Reader<'_>, root: &Field<'_>) -> Scenario {
    let mut scenario = Scenario::default();
    let Some(top) = reader.mapping(root, &["apiVersion", "kind", "metadata", "spec"]) else {
        return scenario;
    };
    for (name, expected) in [("apiVersion", API_VERSION), ("kind", "Scenario")] {
        let text = reader.required(&top, name).and_then(|field| reader.text(&field));
        if let Some(got) = text.filter(|text| text.value != expected) {
            reader.complain(
                &got,
                ProblemKind::NotThis {
                    expected,
                    got: got.value.clone(),
                },
            );
        }
    }
    if let Some(metadata) = reader
        .required(&top, "metadata")
        .and_then(|field| reader.mapping(&field, &["name"]))
    {
        scenario.name = reader.required(&metadata, "name").and_then(|field| reader.text(&field));
    }
    let known = [
        "title",
        "description",
        "requires",
        "parameters",
        "steps",
        "endpoints",
        "actions",
        "checks",
    ];
    let Some(spec) = reader
        .required(&top, "spec")
        .and_then(|field| reader.mapping(&field, &known))
    else {
        return scenario;
    };
    scenario.title = reader.required(&spec, "title").and_then(|field| reader.text(&field));
    scenario.description = optional(&spec, "description", |field| reader.text(field));
    scenario.requires = spec
        .field("requires")
        .map(|field| requires(reader, &field))
        .unwrap_or_default();
    scenario.parameters = entries(reader, spec.field("parameters"), parameter);
    scenario.steps = entries(reader, reader.required(&spec, "steps"), step);
    scenario.endpoints = entries(reader, spec.field("endpoints"), endpoint);
    scenario.actions = entries(reader, spec.field("actions"), action);
    scenario.checks = entries(reader, spec.field("checks"), check);
    scenario
}

fn optional<'n, T>(mapping: &Mapping<'n>, name: &str, read: impl Fn(&Field<'n>) -> Option<T>) -> Option<T> {
    mapping.field(name).and_then(|field| read(&field))
}

fn entries<T>(
    reader: &Reader<'_>,
    list: Option<Field<'_>>,
    read: impl Fn(&Reader<'_>, &Field<'_>) -> Option<T>,
) -> Vec<T> {
    let items = list.map(|field| reader.list(&field)).unwrap_or_default();
    items.iter().filter_map(|item| read(reader, item)).collect()
}

fn requires(reader: &Reader<'_>, field: &Field<'_>) -> Requires {
    let Some(requires) = reader.mapping(field, &["cpu", "memory", "nodes", "features"]) else {
        return Requires::default();
    };
    Requires {
        cpu: optional(&requires, "cpu", |field| scalar(reader, field)),
        memory: optional(&requires, "memory", |field| scalar(reader, field)),
        nodes: optional(&requires, "nodes", |field| reader.integer(field, 1, 1000)),
        features: requires
            .field("features")
            .map(|field| reader.texts(&field))
            .unwrap_or_default(),
    }
}

/// A plain value kept as written: its type is judged with the parameter's type at hand.
fn scalar(reader: &Reader<'_>, field: &Field<'_>) -> Option<At<String>> {
    use super::yaml::Data;
    match field.node.data {
        Data::Bool(_) | Data::Integer(_) | Data::Float(_) | Data::Text(_) => Some(At {
            value: field.node.shown(),
            at: field.node.at,
            path: field.path.clone(),
        }),
        _ => reader.text(field),
    }
}

fn parameter(reader: &Reader<'_>, field: &Field<'_>) -> Option<Parameter> {
    let known = [
        "name",
        "description",
        "type",
        "min",
        "max",
        "oneOf",
        "default",
        "offline",
        "sets",
    ];
    let map = reader.mapping(field, &known)?;
    let value = |name| optional(&map, name, |field| scalar(reader, field));
    let name = reader.required(&map, "name").and_then(|field| reader.text(&field));
    let kind = reader
        .required(&map, "type")
        .and_then(|field| reader.one_of(&field, "type", &PARAMETER_TYPES));
    let one_of = map.field("oneOf").map(|field| reader.list(&field)).unwrap_or_default();
    let sets = reader
        .required(&map, "sets")
        .map(|field| reader.texts(&field))
        .unwrap_or_default();
    Some(Parameter {
        description: optional(&map, "description", |field| reader.text(field)),
        min: value("min"),
        max: value("max"),
        one_of: one_of.iter().filter_map(|item| scalar(reader, item)).collect(),
        default: value("default"),
        offline: value("offline"),
        sets,
        name: name?,
        kind: kind?,
    })
}

fn step(reader: &Reader<'_>, field: &Field<'_>) -> Option<Step> {
    let known = [&["id", "needs", "when", "timeout"], &STEP_KINDS[..]].concat();
    let map = reader.mapping(field, &known)?;
    let id = reader.required(&map, "id").and_then(|field| reader.text(&field));
    let kind = match map.present(&STEP_KINDS)[..] {
        [kind] => map.field(kind).and_then(|field| step_kind(reader, kind, &field)),
        [] => {
            let message = "a step needs something to do".to_owned();
            let hint = Some(format!("one of: {}", STEP_KINDS.join(", ")));
            reader.complain(&map.place(), ProblemKind::Other { message, hint });
            None
        }
        ref several => {
            let message = format!("a step does one thing, this one has `{}`", several.join("` and `"));
            let hint = Some("make a step of each and join them with `needs`".to_owned());
            reader.complain(&map.place(), ProblemKind::Other { message, hint });
            None
        }
    };
    Some(Step {
        id: id?,
        kind,
        needs: map.field("needs").map(|field| reader.texts(&field)).unwrap_or_default(),
        when: optional(&map, "when", |field| when(reader, field)),
        timeout: optional(&map, "timeout", |field| reader.duration(field)),
    })
}

/// `when: { parameter: NAME, is: VALUE }`.
fn when(reader: &Reader<'_>, field: &Field<'_>) -> Option<(At<String>, At<String>)> {
    let map = reader.mapping(field, &["parameter", "is"])?;
    let parameter = reader.required(&map, "parameter").and_then(|field| reader.text(&field));
    let value = reader.required(&map, "is").and_then(|field| scalar(reader, &field));
    Some((parameter?, value?))
}

fn step_kind(reader: &Reader<'_>, kind: &str, field: &Field<'_>) -> Option<StepKind> {
    match kind {
        "feature" => reader.text(field).map(StepKind::Feature),
        "apply" => reader.text(field).map(StepKind::Apply),
        "image" => {
            let map = reader.mapping(field, &["name", "dockerfile"])?;
            let name = reader.required(&map, "name").and_then(|field| reader.text(&field));
            let dockerfile = reader
                .required(&map, "dockerfile")
                .and_then(|field| reader.text(&field));
            Some(StepKind::Image {
                name: name?,
                dockerfile: dockerfile?,
            })
        }
        "wait" => wait(reader, field),
        "http" => {
            let map = reader.mapping(field, &["endpoint", "path", "status"])?;
            let endpoint = reader.required(&map, "endpoint").and_then(|field| reader.text(&field));
            let path = reader.required(&map, "path").and_then(|field| reader.text(&field));
            let status = optional(&map, "status", |field| reader.integer(field, 100, 599));
            Some(StepKind::Http {
                endpoint: endpoint?,
                path: path?,
                status,
            })
        }
        _ => {
            let map = reader.mapping(field, &["run", "undo"])?;
            let field = reader.required(&map, "run")?;
            let run = reader.texts(&field);
            let undo = map.field("undo").map(|field| reader.texts(&field)).unwrap_or_default();
            if run.is_empty() {
                if field.node.kind() != "a list" {
                    return None;
                }
                let message = "the command has no words".to_owned();
                let hint = Some("write it as a list: [program, argument, …]".to_owned());
                reader.complain(&map.place(), ProblemKind::Other { message, hint });
                return None;
            }
            Some(StepKind::Exec { run, undo })
        }
    }
}

fn wait(reader: &Reader<'_>, field: &Field<'_>) -> Option<StepKind> {
    let known = [&["condition"], &WAIT_KINDS[..]].concat();
    let map = reader.mapping(field, &known)?;
    let condition = optional(&map, "condition", |field| reader.text(field));
    let [kind] = map.present(&WAIT_KINDS)[..] else {
        let message = "a wait looks at exactly one object".to_owned();
        let hint = Some(format!("one of: {}", WAIT_KINDS.join(", ")));
        reader.complain(&map.place(), ProblemKind::Other { message, hint });
        return None;
    };
    let name = map.field(kind).and_then(|field| reader.text(&field))?;
    Some(StepKind::Wait { kind, name, condition })
}

fn endpoint(reader: &Reader<'_>, field: &Field<'_>) -> Option<Endpoint> {
    let map = reader.mapping(field, &["name", "target", "port"])?;
    let name = reader.required(&map, "name").and_then(|field| reader.text(&field));
    let target = reader.required(&map, "target").and_then(|field| reader.text(&field));
    let port = reader
        .required(&map, "port")
        .and_then(|field| reader.integer(&field, 1, 65535));
    Some(Endpoint {
        name: name?,
        target: target?,
        port: port?,
    })
}

fn action(reader: &Reader<'_>, field: &Field<'_>) -> Option<Action> {
    let map = reader.mapping(field, &["name", "description", "each", "get"])?;
    let name = reader.required(&map, "name").and_then(|field| reader.text(&field));
    let get = reader.required(&map, "get").and_then(|field| reader.text(&field));
    let each = reader
        .required(&map, "each")
        .and_then(|field| reader.mapping(&field, &["pods", "port"]))?;
    let pods = reader.required(&each, "pods").and_then(|field| reader.text(&field));
    Some(Action {
        description: optional(&map, "description", |field| reader.text(field)),
        port: optional(&each, "port", |field| reader.integer(field, 1, 65535)),
        name: name?,
        pods: pods?,
        get: get?,
    })
}

fn check(reader: &Reader<'_>, field: &Field<'_>) -> Option<Check> {
    let map = reader.mapping(field, &["do", "expect", "within"])?;
    let expect = reader.required(&map, "expect");
    let expect = expect.and_then(|field| reader.mapping(&field, &["deployment", "replicas"]))?;
    let deployment = reader
        .required(&expect, "deployment")
        .and_then(|field| reader.text(&field));
    let replicas = reader
        .required(&expect, "replicas")
        .and_then(|field| reader.integer(&field, 0, 10_000));
    Some(Check {
        action: optional(&map, "do", |field| reader.text(field)),
        within: optional(&map, "within", |field| reader.duration(field)),
        deployment: deployment?,
        replicas: replicas?,
    })
}
