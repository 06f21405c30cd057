//! The CustomResourceDefinitions of the lab as YAML, from the types that the operators work with.
//!
//! `k8slab workload crd messaggio > manifests/messaggio/crd.yaml`; a test keeps both equal.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

use crate::messaggio::Messaggio;
use crate::replicatore::Replicatore;
use crate::supercrud::Supercrud;

/// Scenario and definition.
fn all() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("messaggio", Messaggio::crd()),
        ("replicatore", Replicatore::crd()),
        ("supercrud", Supercrud::crd()),
    ]
}

/// The manifest of a definition.
fn yaml(scenario: &str, definition: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    let body = serde_yaml::to_string(definition)?;
    Ok(format!(
        "# Made from the type that the operator works with, by `k8slab workload crd {scenario}`.\n{body}"
    ))
}

/// Prints the definition that the argument names; its exit code.
pub(crate) fn main(args: &[String]) -> i32 {
    let all = all();
    let wanted = args.first().map_or("", String::as_str);
    let Some((scenario, definition)) = all.iter().find(|(scenario, _)| *scenario == wanted) else {
        let names: Vec<&str> = all.iter().map(|(scenario, _)| *scenario).collect();
        crate::complain(&format!("expected one of {}, got `{wanted}`", names.join(", ")));
        return 2;
    };
    match yaml(scenario, definition) {
        Ok(text) => {
            crate::say(text.trim_end());
            0
        }
        Err(error) => {
            crate::complain(&format!("writing `{scenario}`: {error}"));
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifests_are_what_the_types_say() {
        for (scenario, definition) in all() {
            let path = format!("{}/../../manifests/{scenario}/crd.yaml", env!("CARGO_MANIFEST_DIR"));
            let shipped = std::fs::read_to_string(&path).unwrap_or_default();
            let made = yaml(scenario, &definition).unwrap();
            assert!(
                shipped == made,
                "`{path}` is not what the type says; write it with `k8slab workload crd {scenario}`:\n{made}"
            );
        }
    }
}
