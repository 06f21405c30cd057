//! CustomResourceDefinition. After k/k `apiextensions-apiserver/pkg/registry/customresourcedefinition/strategy.go` at 1.36.

mod definition;
mod structural;

use serde_json::{Value, json};

use super::walk::{each, ensure_at, fill, fill_zero, flag, inner, list, text};
use super::{Generation, Status, Strategy};

/// Rules of CustomResourceDefinitions.
pub(super) static CUSTOM_RESOURCE_DEFINITION: Strategy = Strategy {
    default: default_definition,
    prepare_create: |definition| {
        let versions: Vec<Value> = list(definition, &["spec", "versions"])
            .iter()
            .filter(|version| flag(version, &["storage"]))
            .map(|version| text(version, &["name"]).into())
            .collect();
        definition["status"]["storedVersions"] = versions.into();
    },
    prepare_update: |definition, _| {
        let versions = list(definition, &["spec", "versions"]);
        let stored = versions.iter().find(|version| flag(version, &["storage"]));
        let Some(name) = stored.map(|version| text(version, &["name"]).to_owned()) else {
            return;
        };
        let known = definition["status"]["storedVersions"].as_array_mut();
        if let Some(known) = known
            && !known.iter().any(|known| *known == *name)
        {
            known.push(name.into());
        }
    },
    status: Status::Fresh(|| json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}})),
    generation: Generation::Spec,
    validate: definition::validate,
    validate_update: definition::validate_update,
    unconditional_update: false,
    ..Strategy::PLAIN
};

fn default_definition(definition: &mut Value) {
    let Some(spec) = ensure_at(definition, &["spec"]) else {
        return;
    };
    if let Some(names) = inner(spec, "names") {
        let kind = super::walk::field(names, "kind").to_owned();
        if !kind.is_empty() {
            fill_zero(names, "singular", kind.to_ascii_lowercase());
            fill_zero(names, "listKind", format!("{kind}List"));
        }
    }
    fill(spec, "conversion", json!({"strategy": "None"}));
    for version in each(spec, "versions") {
        fill(version, "served", false);
        fill(version, "storage", false);
    }
}
