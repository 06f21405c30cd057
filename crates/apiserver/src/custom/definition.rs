//! `Definition`: a CustomResourceDefinition, compiled; `Version`: what of it a row of the resource table carries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apimachinery::field;
use apimachinery::gvk::{GroupResource, GroupVersionKind};
use apimachinery::schema::Schemas;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::columns::PrinterColumn;
use super::json_path::JsonPath;
use super::naming::condition;
use super::schema::Node;
use crate::resources::{Resource, Subresource, Verb, Verbs, api_version, stored_head};
use crate::store::Object;
use crate::strategy::walk::{at, flag, list, text};
use crate::verbs::metadata;

/// A definition that is served.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) group: String,
    /// Versions that are served, the preferred one first.
    pub(super) versions: Vec<Resource>,
    shared: Arc<Shared>,
}

/// What all versions of a definition have in common.
#[derive(Debug)]
struct Shared {
    list_kind: String,
    /// `apiVersion` under which objects are stored.
    stored_version: String,
    terminating: AtomicBool,
    /// Cancelled when the definition is gone or another: ends watches.
    ended: CancellationToken,
}

/// What is special about the objects of one version of a definition.
#[derive(Debug)]
pub(crate) struct Version {
    shared: Arc<Shared>,
    pub(crate) kind: GroupVersionKind,
    pub(crate) schemas: Arc<Schemas>,
    node: Node,
    pub(crate) columns: Arc<[PrinterColumn]>,
    selectable: Box<[(String, JsonPath)]>,
    pub(crate) scale: Option<ScalePaths>,
    /// `{"kind":…,"apiVersion":…,` of an object that needs no conversion.
    head: String,
    /// Objects that are older may have been written under another schema.
    since: u64,
}

/// Where a custom resource has what a `Scale` shows.
#[derive(Debug)]
pub(crate) struct ScalePaths {
    pub(crate) spec_replicas: JsonPath,
    /// As the definition writes it.
    pub(crate) spec_replicas_text: String,
    pub(crate) status_replicas: JsonPath,
    pub(crate) selector: Option<JsonPath>,
}

impl Definition {
    /// Compiles a definition as it is stored; `None` unless its names are accepted. `revision` is the store's now.
    pub(super) fn compile(definition: &Value, revision: u64) -> Option<Self> {
        if condition(definition, "Established") != Some("True") {
            return None;
        }
        let spec = &definition["spec"];
        let names = &definition["status"]["acceptedNames"];
        let group = text(spec, &["group"]).to_owned();
        let kind = text(names, &["kind"]).to_owned();
        let plural = text(names, &["plural"]).to_owned();
        let versions = list(spec, &["versions"]);
        let stored = versions.iter().find(|version| flag(version, &["storage"]))?;
        let shared = Arc::new(Shared {
            list_kind: text(names, &["listKind"]).to_owned(),
            stored_version: api_version(&group, text(stored, &["name"])),
            terminating: AtomicBool::new(metadata::is_deleting(definition)),
            ended: CancellationToken::new(),
        });
        let texts = |field: &str| -> Vec<String> {
            let texts = list(names, &[field]).iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        };
        let mut rows: Vec<Resource> = Vec::new();
        for version in versions.iter().filter(|version| flag(version, &["served"])) {
            let name = text(version, &["name"]);
            let gvk = GroupVersionKind::new(&group, name, &kind);
            let custom = Version::compile(version, &gvk, &shared, revision);
            rows.push(Resource {
                group: group.clone(),
                version: name.to_owned(),
                plural: plural.clone(),
                singular: text(names, &["singular"]).to_owned(),
                kind: kind.clone(),
                namespaced: text(spec, &["scope"]) == "Namespaced",
                verbs: Verb::ALL.into_iter().collect(),
                short_names: texts("shortNames"),
                categories: texts("categories"),
                subresources: subresources(version, &kind),
                storage_version_hash: storage_version_hash(&group, text(stored, &["name"]), &kind),
                conversion: None,
                stored_as: GroupResource::new(&group, &plural),
                stored_head: custom.head.clone(),
                custom: Some(Arc::new(custom)),
            });
        }
        rows.sort_by(|a, b| priority(&b.version).cmp(&priority(&a.version)));
        Some(Self {
            group,
            versions: rows,
            shared,
        })
    }

    /// Notes that the definition is being deleted.
    pub(super) fn set_terminating(&self, terminating: bool) {
        self.shared.terminating.store(terminating, Ordering::Relaxed);
    }
}

impl Drop for Definition {
    fn drop(&mut self) {
        self.shared.ended.cancel();
    }
}

impl Version {
    fn compile(version: &Value, kind: &GroupVersionKind, shared: &Arc<Shared>, since: u64) -> Self {
        let schema = &version["schema"]["openAPIV3Schema"];
        let schemas = Schemas::from_structural(kind, schema).unwrap_or_else(|error| {
            // Validation refuses such a definition; one that an older server let through keeps everything.
            tracing::warn!(%kind, %error, "the schema of a custom resource cannot be read");
            Schemas::default()
        });
        let path = |keys: &[&str]| JsonPath::parse(text(version, keys)).ok();
        let scale = at(version, &["subresources", "scale"]).and_then(|scale| {
            Some(ScalePaths {
                spec_replicas: path(&["subresources", "scale", "specReplicasPath"])?,
                spec_replicas_text: text(scale, &["specReplicasPath"]).to_owned(),
                status_replicas: path(&["subresources", "scale", "statusReplicasPath"])?,
                selector: path(&["subresources", "scale", "labelSelectorPath"])
                    .filter(|_| !text(scale, &["labelSelectorPath"]).is_empty()),
            })
        });
        let selectable = list(version, &["selectableFields"]).iter().filter_map(|field| {
            let path = text(field, &["jsonPath"]);
            Some((path.trim_start_matches('.').to_owned(), JsonPath::parse(path).ok()?))
        });
        Self {
            shared: shared.clone(),
            kind: kind.clone(),
            schemas: Arc::new(schemas),
            node: Node::compile(schema),
            columns: PrinterColumn::of_version(version).into(),
            selectable: selectable.collect(),
            scale,
            head: stored_head(&kind.group, &kind.version, &kind.kind),
            since,
        }
    }

    /// Kind of a list.
    pub(crate) fn list_kind(&self) -> &str {
        &self.shared.list_kind
    }

    /// `apiVersion` under which objects are stored.
    pub(crate) fn stored_version(&self) -> &str {
        &self.shared.stored_version
    }

    /// Whether the definition is being deleted.
    pub(crate) fn is_terminating(&self) -> bool {
        self.shared.terminating.load(Ordering::Relaxed)
    }

    /// Cancelled when this row is no longer what is served.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.shared.ended
    }

    /// Whether the object is shown as it is stored: written in this version and under this schema.
    pub(crate) fn is_current(&self, object: &Object) -> bool {
        object.revision > self.since && object.bytes.starts_with(self.head.as_bytes())
    }

    /// Turns a stored object into what this version shows.
    pub(crate) fn serve(&self, object: &mut Value) {
        object["apiVersion"] = self.kind.api_version().into();
        if let Some(schema) = self.schemas.kind(&self.kind) {
            apimachinery::schema::prune(object, schema);
        }
        self.default(object);
    }

    /// Fills in what the schema has defaults for.
    pub(crate) fn default(&self, object: &mut Value) {
        self.node.default(object);
    }

    /// What the schema does not allow in an object; `old` is what it replaces.
    pub(crate) fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<field::Error> {
        self.node.validate(object, old)
    }

    /// What an object has in a selectable field: `None` if it is none.
    pub(crate) fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        let (_, path) = self.selectable.iter().find(|(label, _)| label == field)?;
        Some(match path.first(object) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        })
    }
}

fn subresources(version: &Value, kind: &str) -> Vec<Subresource> {
    let verbs: Verbs = [Verb::Get, Verb::Patch, Verb::Update].into_iter().collect();
    let mut subresources = Vec::new();
    if at(version, &["subresources", "status"]).is_some() {
        subresources.push(Subresource {
            name: "status".to_owned(),
            group: String::new(),
            version: String::new(),
            kind: kind.to_owned(),
            verbs,
        });
    }
    if at(version, &["subresources", "scale"]).is_some() {
        subresources.push(Subresource {
            name: "scale".to_owned(),
            group: "autoscaling".to_owned(),
            version: "v1".to_owned(),
            kind: "Scale".to_owned(),
            verbs,
        });
    }
    subresources
}

/// k/k `apiserver/pkg/endpoints/discovery/storageversionhash.go`.
fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    STANDARD.encode(&Sha256::digest(format!("{group}/{version}/{kind}"))[..8])
}

/// Larger is preferred (k/k `apimachinery/pkg/version/helpers.go`): `v2` before `v1` before `v1beta1` before the rest.
pub(super) fn priority(version: &str) -> (u8, u64, u64, std::cmp::Reverse<&str>) {
    let parsed = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u64 = rest[..digits].parse().ok()?;
        let (class, minor) = match &rest[digits..] {
            "" => (3, "0"),
            rest if rest.starts_with("beta") => (2, &rest["beta".len()..]),
            rest if rest.starts_with("alpha") => (1, &rest["alpha".len()..]),
            _ => return None,
        };
        let minor: u64 = if minor.is_empty() { 0 } else { minor.parse().ok()? };
        Some((class, major, minor))
    };
    match parsed() {
        Some((class, major, minor)) => (class, major, minor, std::cmp::Reverse("")),
        None => (0, 0, 0, std::cmp::Reverse(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_kubernetes_prefers_them() {
        let mut versions = [
            "foo", "v1alpha1", "v1", "v10", "v2beta1", "bar", "v2", "v1beta2", "v1beta1",
        ];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(
            versions,
            [
                "v10", "v2", "v1", "v2beta1", "v1beta2", "v1beta1", "v1alpha1", "bar", "foo"
            ]
        );
    }
}
