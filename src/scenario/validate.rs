//! The wire's scenario and its files → the model, or every problem there is.
//!
//! Owns references: step to step, parameter to field, action to check, manifest to image. The only place for defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use apimachinery::labels::Selector;
use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::decode::{At, Field, Reader};
use super::files::{Class, Files};
use super::manifest::{self, Target};
use super::model::{
    Action, Check, Endpoint, Feature, Origin, Requires, Scenario, Step, StepId, StepKind, TargetKind, WaitTarget,
};
use super::parameter::{Parameter, ParameterKind};
use super::problem::{FieldPath, Problem, ProblemKind, Problems};
use super::v1alpha1 as wire;
use super::{suggestion, yaml};

/// Step ids that belong to k8slab itself.
const RESERVED: [&str; 2] = ["cluster", "namespace"];
/// A scenario's name is also a namespace, a context's tail and part of labels.
const NAME_LIMIT: usize = 40;
const DEFAULT_WITHIN: Duration = Duration::from_secs(120);

/// Checks a scenario file. `file` is how the user knows it.
pub fn validate(file: &str, text: &str, files: &Files) -> Result<Scenario, Problems> {
    let reader = Reader::new(file, text);
    let mut others = Vec::new();
    let scenario = read(&reader, text, files, &mut others);
    let mut list = reader.into_problems();
    list.append(&mut others);
    match scenario {
        Some(scenario) if list.is_empty() => Ok(scenario),
        _ => Err(Problems {
            scenario: file.to_owned(),
            list,
        }),
    }
}

fn read(reader: &Reader<'_>, text: &str, files: &Files, others: &mut Vec<Problem>) -> Option<Scenario> {
    let documents = match yaml::parse(text) {
        Ok(documents) => documents,
        Err(error) => {
            reader.problem(Some(error.at), &FieldPath::root(), ProblemKind::Syntax(error.detail));
            return None;
        }
    };
    let [document] = &documents[..] else {
        reader.problem(None, &FieldPath::root(), ProblemKind::Documents(documents.len()));
        return None;
    };
    let wire = wire::read(reader, &Field::root(document));
    let incomplete = wire.steps.is_empty() || wire.steps.iter().any(|step| step.kind.is_none());
    let (manifests, dockerfiles) = (BTreeMap::new(), BTreeMap::new());
    Checker {
        reader,
        files,
        others,
        manifests,
        dockerfiles,
        incomplete,
    }
    .scenario(wire)
}

struct Checker<'c, 't> {
    reader: &'c Reader<'t>,
    files: &'c Files,
    /// Problems of the files that the scenario names.
    others: &'c mut Vec<Problem>,
    manifests: BTreeMap<String, Vec<Value>>,
    dockerfiles: BTreeMap<String, String>,
    /// Whether a step or a manifest could not be read: references into what is missing are not complained about too.
    incomplete: bool,
}

impl Checker<'_, '_> {
    fn invalid<T: ToString>(&self, about: &At<T>, why: impl Into<String>) {
        self.reader.complain(
            about,
            ProblemKind::Invalid {
                value: about.value.to_string(),
                why: why.into(),
            },
        );
    }

    fn unknown<'a>(&self, about: &At<String>, what: &'static str, names: impl IntoIterator<Item = &'a str>) {
        let nearest = suggestion::nearest(&about.value, names);
        self.reader.complain(
            about,
            ProblemKind::Unknown {
                what,
                got: about.value.clone(),
                nearest,
            },
        );
    }

    /// A DNS label, as Kubernetes wants names.
    fn name(&self, name: &At<String>, limit: usize) {
        let letters = name
            .value
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        let ends = !name.value.is_empty() && !name.value.starts_with('-') && !name.value.ends_with('-');
        if !letters || !ends {
            self.invalid(name, "is not a name of lower-case letters, digits and inner `-`");
        } else if name.value.len() > limit {
            self.invalid(name, format!("is longer than {limit} characters"));
        }
    }

    fn unique(&self, what: &'static str, names: &[&At<String>]) {
        for (index, name) in names.iter().enumerate() {
            if let Some(first) = names[..index].iter().find(|earlier| earlier.value == name.value) {
                let kind = ProblemKind::Twice {
                    what,
                    name: name.value.clone(),
                    first: first.at.line,
                };
                self.reader.complain(name, kind);
            }
        }
    }

    fn scenario(mut self, wire: wire::Scenario) -> Option<Scenario> {
        if let Some(name) = &wire.name {
            self.name(name, NAME_LIMIT);
        }
        let ids: Vec<&At<String>> = wire.steps.iter().map(|step| &step.id).collect();
        ids.iter().for_each(|id| self.name(id, NAME_LIMIT));
        for id in ids.iter().filter(|id| RESERVED.contains(&id.value.as_str())) {
            self.invalid(id, "is a step of k8slab itself");
        }
        self.unique("step", &ids);
        self.unique(
            "parameter",
            &wire
                .parameters
                .iter()
                .map(|parameter| &parameter.name)
                .collect::<Vec<_>>(),
        );
        self.unique(
            "endpoint",
            &wire.endpoints.iter().map(|endpoint| &endpoint.name).collect::<Vec<_>>(),
        );
        self.unique(
            "action",
            &wire.actions.iter().map(|action| &action.name).collect::<Vec<_>>(),
        );
        self.order(&wire.steps);

        let endpoints: Vec<Endpoint> = wire
            .endpoints
            .iter()
            .filter_map(|endpoint| self.endpoint(endpoint))
            .collect();
        let steps: Vec<Step> = wire
            .steps
            .iter()
            .filter_map(|step| self.step(step, &wire.endpoints))
            .collect();
        self.owners(&wire.steps);
        self.images(&wire.steps);
        let parameters: Vec<Parameter> = wire
            .parameters
            .iter()
            .filter_map(|parameter| self.parameter(parameter))
            .collect();
        let mut steps = steps;
        for (step, wire) in wire
            .steps
            .iter()
            .filter(|step| step.when.is_some())
            .filter_map(|wire| {
                let id = StepId::new(&wire.id.value);
                let at = steps.iter().position(|step| step.id == id)?;
                Some((at, wire))
            })
            .collect::<Vec<_>>()
        {
            steps[step].when = wire
                .when
                .as_ref()
                .and_then(|(name, value)| self.when(name, value, &parameters));
        }
        let requires = self.requires(&wire.requires);
        let actions: Vec<Action> = wire.actions.iter().filter_map(|action| self.action(action)).collect();
        let checks = wire.checks.iter().map(|check| self.check(check, &actions)).collect();
        Some(Scenario {
            name: wire.name?.value,
            title: wire.title?.value,
            description: wire.description.map(|text| text.value),
            requires,
            parameters,
            steps,
            endpoints,
            actions,
            checks,
            manifests: std::mem::take(&mut self.manifests),
            dockerfiles: std::mem::take(&mut self.dockerfiles),
            origin: match self.files {
                Files::Shipped => Origin::Shipped,
                Files::Folder(root) => Origin::Folder(root.clone()),
            },
        })
    }

    /// `needs` name steps, and nobody waits for itself.
    fn order(&self, steps: &[wire::Step]) {
        let ids: Vec<&str> = steps.iter().map(|step| step.id.value.as_str()).collect();
        for step in steps {
            for need in step.needs.iter().filter(|need| !ids.contains(&need.value.as_str())) {
                self.unknown(need, "step", ids.iter().copied());
            }
        }
        if let Some(ring) = ring(steps) {
            let start = steps.iter().find(|step| step.id.value == ring[0]);
            if let Some(place) = start.and_then(|step| step.needs.iter().find(|need| ring.contains(&need.value))) {
                self.reader.complain(place, ProblemKind::Cycle { ring });
            }
        }
    }

    fn step(&mut self, step: &wire::Step, endpoints: &[wire::Endpoint]) -> Option<Step> {
        let kind = match step.kind.as_ref()? {
            wire::StepKind::Feature(name) => StepKind::Feature(self.feature(name)?),
            wire::StepKind::Image { name, dockerfile } => {
                self.name(name, 63);
                self.dockerfile(dockerfile);
                StepKind::Image {
                    name: name.value.clone(),
                    dockerfile: dockerfile.value.clone(),
                }
            }
            wire::StepKind::Apply(path) => {
                self.manifest(path);
                StepKind::Apply {
                    path: path.value.clone(),
                }
            }
            wire::StepKind::Wait { kind, name, condition } => {
                let (api_version, kind) = wait_kind(kind)?;
                let target = WaitTarget {
                    api_version,
                    kind,
                    name: name.value.clone(),
                };
                StepKind::Wait {
                    target,
                    condition: condition.as_ref().map(|text| text.value.clone()),
                }
            }
            wire::StepKind::Http { endpoint, path, status } => {
                let names: Vec<&str> = endpoints.iter().map(|known| known.name.value.as_str()).collect();
                if !names.contains(&endpoint.value.as_str()) {
                    self.unknown(endpoint, "endpoint", names);
                }
                self.url_path(path);
                let status = status
                    .as_ref()
                    .and_then(|status| u16::try_from(status.value).ok())
                    .unwrap_or(200);
                StepKind::Http {
                    endpoint: endpoint.value.clone(),
                    path: path.value.clone(),
                    status,
                }
            }
            wire::StepKind::Exec { run, undo } => StepKind::Exec {
                run: values(run),
                undo: values(undo),
            },
        };
        Some(Step {
            id: StepId::new(&step.id.value),
            kind,
            needs: step.needs.iter().map(|need| StepId::new(&need.value)).collect(),
            when: None,
            timeout: step.timeout.as_ref().map(|timeout| timeout.value),
        })
    }

    /// A step's `when` names a parameter and a value that it can have.
    fn when(&self, name: &At<String>, value: &At<String>, parameters: &[Parameter]) -> Option<(String, Value)> {
        let Some(parameter) = parameters.iter().find(|parameter| parameter.name == name.value) else {
            let known = parameters.iter().map(|parameter| parameter.name.as_str());
            self.unknown(name, "parameter", known);
            return None;
        };
        match parameter.kind.parse(&value.value) {
            Ok(read) => Some((name.value.clone(), read)),
            Err(why) => {
                self.invalid(value, why);
                None
            }
        }
    }

    fn feature(&self, name: &At<String>) -> Option<Feature> {
        let feature = Feature::named(&name.value);
        if feature.is_none() {
            self.unknown(name, "feature", Feature::ALL.map(Feature::name));
        }
        feature
    }

    fn url_path(&self, path: &At<String>) {
        if !path.value.starts_with('/') || path.value.contains(char::is_whitespace) {
            self.invalid(path, "is not the path of a URL: it starts with `/` and has no spaces");
        }
    }

    fn dockerfile(&mut self, path: &At<String>) {
        match self.files.read(Class::Dockerfile, &path.value) {
            Ok(text) => drop(self.dockerfiles.insert(path.value.clone(), text)),
            Err(kind) => self.reader.complain(path, kind),
        }
    }

    fn manifest(&mut self, path: &At<String>) {
        if self.manifests.contains_key(&path.value) {
            return;
        }
        let text = match self.files.read(Class::Manifest, &path.value) {
            Ok(text) => text,
            Err(kind) => {
                self.incomplete = true;
                return self.reader.complain(path, kind);
            }
        };
        let inner = Reader::new(self.files.shown(Class::Manifest, &path.value), &text);
        let documents = match yaml::parse(&text) {
            Ok(documents) => documents,
            Err(error) => {
                inner.problem(Some(error.at), &FieldPath::root(), ProblemKind::Syntax(error.detail));
                Vec::new()
            }
        };
        for document in &documents {
            duplicates(&inner, &Field::root(document));
            if let Some(defect) = manifest::defect(&document.to_json()) {
                let kind = ProblemKind::Other {
                    message: defect,
                    hint: None,
                };
                inner.problem(Some(document.at), &FieldPath::root(), kind);
            }
        }
        let problems = inner.into_problems();
        self.incomplete |= documents.is_empty() || !problems.is_empty();
        if documents.is_empty() && problems.is_empty() {
            self.invalid(path, "has no documents");
        }
        self.others.extend(problems);
        self.manifests
            .insert(path.value.clone(), documents.iter().map(yaml::Node::to_json).collect());
    }

    /// No two steps may own the same object: `down` of one would take it from the other.
    fn owners(&self, steps: &[wire::Step]) {
        let mut owners: BTreeMap<String, &At<String>> = BTreeMap::new();
        for step in steps {
            let Some(wire::StepKind::Apply(path)) = &step.kind else {
                continue;
            };
            for document in self.manifests.get(&path.value).into_iter().flatten() {
                let key = format!(
                    "{} {}",
                    manifest::label(document),
                    manifest::text(document, "/metadata/namespace")
                );
                if let Some(first) = owners.get(&key) {
                    let message = format!(
                        "`{}` is also applied by the step in line {}",
                        manifest::label(document),
                        first.at.line
                    );
                    let hint = Some("an object belongs to one step".to_owned());
                    self.reader.complain(path, ProblemKind::Other { message, hint });
                } else {
                    owners.insert(key, path);
                }
            }
        }
    }

    /// A manifest with `NAME:lab` needs the step that builds NAME.
    fn images(&self, steps: &[wire::Step]) {
        let builders: BTreeMap<&str, &str> = steps
            .iter()
            .filter_map(|step| match &step.kind {
                Some(wire::StepKind::Image { name, .. }) => Some((name.value.as_str(), step.id.value.as_str())),
                _ => None,
            })
            .collect();
        for step in steps {
            let Some(wire::StepKind::Apply(path)) = &step.kind else {
                continue;
            };
            let documents = self.manifests.get(&path.value).into_iter().flatten();
            let used: BTreeSet<String> = documents.flat_map(manifest::lab_images).collect();
            let before = ancestors(steps, &step.id.value);
            for image in used {
                let (message, hint) = match builders.get(image.as_str()) {
                    Some(builder) if before.contains(builder) => continue,
                    Some(builder) => {
                        let message = format!("`{}` uses the image `{image}:lab` before it is there", path.value);
                        (message, format!("add `needs: [{builder}]`"))
                    }
                    None => {
                        let message = format!("`{}` uses the image `{image}:lab`, which no step builds", path.value);
                        (
                            message,
                            format!("add a step `image: {{ name: {image}, dockerfile: … }}`"),
                        )
                    }
                };
                self.reader.complain(
                    path,
                    ProblemKind::Other {
                        message,
                        hint: Some(hint),
                    },
                );
            }
        }
    }

    fn quantity(&self, text: Option<&At<String>>) -> Option<Quantity> {
        let text = text?;
        let read = text.value.parse();
        if read.is_err() {
            self.invalid(text, "is not a quantity such as `500m` or `64Mi`");
        }
        read.ok()
    }

    fn requires(&self, wire: &wire::Requires) -> Requires {
        self.quantity(wire.cpu.as_ref());
        self.quantity(wire.memory.as_ref());
        Requires {
            cpu: wire.cpu.as_ref().map(|text| text.value.clone()),
            memory: wire.memory.as_ref().map(|text| text.value.clone()),
            nodes: wire.nodes.as_ref().and_then(|nodes| u32::try_from(nodes.value).ok()),
            features: wire.features.iter().filter_map(|name| self.feature(name)).collect(),
        }
    }

    fn bound<T: std::str::FromStr>(&self, text: Option<&At<String>>, expected: &str) -> Option<T> {
        let text = text?;
        let read = text.value.parse().ok();
        if read.is_none() {
            self.invalid(text, format!("is not {expected}"));
        }
        read
    }

    fn parameter(&self, wire: &wire::Parameter) -> Option<Parameter> {
        let (min, max) = (wire.min.as_ref(), wire.max.as_ref());
        let kind = match wire.kind.value {
            "integer" => ParameterKind::Integer {
                min: self.bound(min, "a whole number").unwrap_or(i64::MIN),
                max: self.bound(max, "a whole number").unwrap_or(i64::MAX),
            },
            "number" => ParameterKind::Number {
                min: self.bound(min, "a number").unwrap_or(f64::NEG_INFINITY),
                max: self.bound(max, "a number").unwrap_or(f64::INFINITY),
            },
            "quantity" => ParameterKind::Quantity {
                min: self.quantity(min),
                max: self.quantity(max),
            },
            "boolean" => ParameterKind::Boolean,
            "secret" => ParameterKind::Secret,
            _ => ParameterKind::String(values(&wire.one_of)),
        };
        if !matches!(kind, ParameterKind::String(_)) {
            for value in &wire.one_of {
                self.invalid(
                    value,
                    format!(
                        "cannot be a choice: `oneOf` is for strings, not for type `{}`",
                        kind.name()
                    ),
                );
            }
        }
        if !matches!(wire.kind.value, "integer" | "number" | "quantity") {
            for bound in [min, max].into_iter().flatten() {
                self.invalid(bound, format!("cannot be a bound of type `{}`", kind.name()));
            }
        }
        let value = |text: Option<&At<String>>| {
            let text = text?;
            let read = kind.parse(&text.value);
            if let Err(why) = &read {
                self.invalid(text, why);
            }
            read.ok()
        };
        let (default, offline) = (value(wire.default.as_ref()), value(wire.offline.as_ref()));
        let sets = wire.sets.iter().filter_map(|text| self.target(text, &kind)).collect();
        Some(Parameter {
            name: wire.name.value.clone(),
            description: wire.description.as_ref().map(|text| text.value.clone()),
            kind,
            default,
            offline,
            sets,
        })
    }

    fn target(&self, text: &At<String>, kind: &ParameterKind) -> Option<Target> {
        let Some(target) = Target::parse(&text.value) else {
            self.invalid(
                text,
                "is not of the form `file.yaml#/json/pointer` or `file.yaml#Kind/name#/json/pointer`",
            );
            return None;
        };
        let Some(documents) = self.manifests.get(&target.file) else {
            if self.incomplete {
                return None;
            }
            let file = text.clone().map(|_| target.file.clone());
            self.unknown(&file, "manifest", self.manifests.keys().map(String::as_str));
            return None;
        };
        match target.find(documents) {
            Ok(present) if kind.fits(present) => Some(target),
            Ok(present) => {
                let message = format!(
                    "a parameter of type `{}` cannot set a field that holds `{present}`",
                    kind.name()
                );
                self.reader.complain(text, ProblemKind::Other { message, hint: None });
                None
            }
            Err(_) if self.incomplete => None,
            Err(message) => {
                self.reader.complain(text, ProblemKind::Other { message, hint: None });
                None
            }
        }
    }

    fn endpoint(&self, wire: &wire::Endpoint) -> Option<Endpoint> {
        self.name(&wire.name, NAME_LIMIT);
        let parts = wire
            .target
            .value
            .split_once('/')
            .and_then(|(kind, name)| Some((TargetKind::named(kind)?, name)));
        let Some((target, name)) = parts.filter(|(_, name)| !name.is_empty()) else {
            self.invalid(&wire.target, "is not `deployment/NAME`, `service/NAME` or `pod/NAME`");
            return None;
        };
        let port = u16::try_from(wire.port.value).ok()?;
        Some(Endpoint {
            name: wire.name.value.clone(),
            target,
            target_name: name.to_owned(),
            port,
        })
    }

    fn action(&self, wire: &wire::Action) -> Option<Action> {
        self.name(&wire.name, NAME_LIMIT);
        self.url_path(&wire.get);
        if wire.pods.value.trim().is_empty() {
            self.invalid(&wire.pods, "selects every pod: name a label");
        } else if let Err(error) = Selector::parse(&wire.pods.value) {
            self.invalid(&wire.pods, format!("is not a label selector: {error}"));
        }
        Some(Action {
            name: wire.name.value.clone(),
            description: wire.description.as_ref().map(|text| text.value.clone()),
            pods: wire.pods.value.clone(),
            port: wire.port.as_ref().and_then(|port| u16::try_from(port.value).ok()),
            get: wire.get.value.clone(),
        })
    }

    fn check(&self, wire: &wire::Check, actions: &[Action]) -> Check {
        if let Some(name) = wire
            .action
            .as_ref()
            .filter(|name| !actions.iter().any(|action| action.name == name.value))
        {
            self.unknown(name, "action", actions.iter().map(|action| action.name.as_str()));
        }
        Check {
            action: wire.action.as_ref().map(|name| name.value.clone()),
            deployment: wire.deployment.value.clone(),
            replicas: u32::try_from(wire.replicas.value).unwrap_or_default(),
            within: wire.within.as_ref().map_or(DEFAULT_WITHIN, |within| within.value),
        }
    }
}

fn values(texts: &[At<String>]) -> Vec<String> {
    texts.iter().map(|text| text.value.clone()).collect()
}

fn wait_kind(field: &str) -> Option<(&'static str, &'static str)> {
    Some(match field {
        "deployment" => ("apps/v1", "Deployment"),
        "statefulset" => ("apps/v1", "StatefulSet"),
        "daemonset" => ("apps/v1", "DaemonSet"),
        "job" => ("batch/v1", "Job"),
        "pod" => ("v1", "Pod"),
        "hpa" => ("autoscaling/v2", "HorizontalPodAutoscaler"),
        _ => return None,
    })
}

/// Duplicate keys anywhere in a manifest.
fn duplicates(reader: &Reader<'_>, field: &Field<'_>) {
    match &field.node.data {
        yaml::Data::Map(entries) => {
            let names: Vec<&str> = entries.iter().map(|(key, _)| key.name.as_str()).collect();
            reader.mapping(field, &names);
            for (key, node) in entries {
                duplicates(
                    reader,
                    &Field {
                        node,
                        path: field.path.field(&key.name),
                    },
                );
            }
        }
        yaml::Data::List(items) => {
            for (index, node) in items.iter().enumerate() {
                duplicates(
                    reader,
                    &Field {
                        node,
                        path: field.path.index(index),
                    },
                );
            }
        }
        _ => {}
    }
}

fn needs_of<'s>(steps: &'s [wire::Step], id: &str) -> impl Iterator<Item = &'s str> {
    let step = steps.iter().find(|step| step.id.value == id);
    step.into_iter()
        .flat_map(|step| step.needs.iter().map(|need| need.value.as_str()))
}

/// Every step that is done before `id`.
fn ancestors<'s>(steps: &'s [wire::Step], id: &str) -> BTreeSet<&'s str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = needs_of(steps, id).collect();
    while let Some(next) = open.pop() {
        if found.insert(next) {
            open.extend(needs_of(steps, next));
        }
    }
    found
}

/// The first ring of steps that wait for each other, closed: first and last are the same.
fn ring(steps: &[wire::Step]) -> Option<Vec<String>> {
    fn walk<'s>(
        steps: &'s [wire::Step],
        at: &'s str,
        way: &mut Vec<&'s str>,
        done: &mut BTreeSet<&'s str>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|seen| *seen == at) {
            let closed = way[start..].iter().chain([&way[start]]);
            return Some(closed.map(|id| (*id).to_owned()).collect());
        }
        if !done.insert(at) {
            return None;
        }
        way.push(at);
        let found = needs_of(steps, at).find_map(|need| walk(steps, need, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    steps
        .iter()
        .find_map(|step| walk(steps, &step.id.value, &mut Vec::new(), &mut done))
}
