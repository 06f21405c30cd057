//! Which names a definition gets, and its conditions NamesAccepted and Established.
//!
//! After k/k `apiextensions-apiserver/pkg/controller/status/naming_controller.go` and `…/establish`: here both happen at
//! once.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::strategy::walk::{list, text};

/// The names that other definitions of the group have been given.
#[derive(Debug, Default)]
pub(super) struct Taken {
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

impl Taken {
    /// Adds the accepted names of a definition.
    pub(super) fn add(&mut self, names: &Value) {
        let short = list(names, &["shortNames"]).iter().filter_map(Value::as_str);
        let resources = ["plural", "singular"].map(|name| text(names, &[name]));
        self.resources
            .extend(resources.into_iter().chain(short).map(str::to_owned));
        self.kinds
            .extend(["kind", "listKind"].map(|name| text(names, &[name]).to_owned()));
    }
}

/// Brings `status.acceptedNames` and the two conditions of a definition up to date.
pub(super) fn settle(definition: &mut Value, taken: &Taken, now: &str) {
    let wanted = definition["spec"]["names"].clone();
    let mut accepted = definition["status"]["acceptedNames"].clone();
    if !accepted.is_object() {
        accepted = json!({});
    }
    let mut conflict: Option<(&str, String)> = None;
    for (field, used, reason) in [
        ("plural", &taken.resources, "PluralConflict"),
        ("singular", &taken.resources, "SingularConflict"),
        ("kind", &taken.kinds, "KindConflict"),
        ("listKind", &taken.kinds, "ListKindConflict"),
    ] {
        let name = text(&wanted, &[field]);
        if name == text(&accepted, &[field]) || !used.contains(name) {
            set(&mut accepted, field, wanted.get(field).cloned());
        } else {
            conflict = Some((reason, format!("{name:?} is already in use")));
        }
        if field == "singular" {
            let had: Vec<&str> = list(&accepted, &["shortNames"])
                .iter()
                .filter_map(Value::as_str)
                .collect();
            let refused: Vec<String> = list(&wanted, &["shortNames"])
                .iter()
                .filter_map(Value::as_str)
                .filter(|name| !had.contains(name) && taken.resources.contains(*name))
                .map(|name| format!("{name:?} is already in use"))
                .collect();
            match &refused[..] {
                [] => set(&mut accepted, "shortNames", wanted.get("shortNames").cloned()),
                [one] => conflict = Some(("ShortNamesConflict", one.clone())),
                more => conflict = Some(("ShortNamesConflict", format!("[{}]", more.join(", ")))),
            }
        }
    }
    set(&mut accepted, "categories", wanted.get("categories").cloned());
    definition["status"]["acceptedNames"] = accepted;
    match &conflict {
        Some((reason, message)) => set_condition(definition, "NamesAccepted", "False", reason, message, now),
        None => set_condition(
            definition,
            "NamesAccepted",
            "True",
            "NoConflicts",
            "no conflicts found",
            now,
        ),
    }
    if condition(definition, "Established") == Some("True") {
        return;
    }
    match conflict {
        None => {
            let message = "the initial names have been accepted";
            set_condition(definition, "Established", "True", "InitialNamesAccepted", message, now);
        }
        Some(_) if condition(definition, "Established").is_none() => {
            let message = "not all names are accepted";
            set_condition(definition, "Established", "False", "NotAccepted", message, now);
        }
        Some(_) => {}
    }
}

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(map) = object.as_object_mut() else { return };
    match value {
        Some(value) => {
            map.insert(field.to_owned(), value);
        }
        None => {
            map.shift_remove(field);
        }
    }
}

/// The status of a definition's condition.
pub(super) fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a str> {
    list(definition, &["status", "conditions"])
        .iter()
        .find(|condition| text(condition, &["type"]) == kind)
        .map(|condition| text(condition, &["status"]))
}

/// Sets a condition; its time moves with its status only.
pub(super) fn set_condition(definition: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) {
    let conditions = &mut definition["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let mut condition = json!({
        "type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
    });
    match conditions.iter_mut().find(|known| text(known, &["type"]) == kind) {
        Some(known) => {
            if text(known, &["status"]) == status {
                condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            if let Some(generation) = known.get("observedGeneration") {
                condition["observedGeneration"] = generation.clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(short: &[&str]) -> Value {
        json!({"spec": {"names": {
            "plural": "reps", "singular": "rep", "kind": "Rep", "listKind": "RepList", "shortNames": short,
        }}})
    }

    #[test]
    fn free_names_are_accepted_and_the_definition_is_established() {
        let mut rep = definition(&["r"]);
        settle(&mut rep, &Taken::default(), "t");
        assert_eq!(rep["status"]["acceptedNames"], rep["spec"]["names"]);
        assert_eq!(condition(&rep, "NamesAccepted"), Some("True"));
        assert_eq!(condition(&rep, "Established"), Some("True"));
        let before = rep.clone();
        settle(&mut rep, &Taken::default(), "later");
        assert_eq!(rep, before);
    }

    #[test]
    fn a_taken_short_name_is_said_and_the_definition_not_established() {
        let mut taken = Taken::default();
        taken.add(&json!({"plural": "others", "shortNames": ["r"]}));
        let mut rep = definition(&["r"]);
        settle(&mut rep, &taken, "t");
        assert_eq!(
            rep["status"]["conditions"][0],
            json!({
                "type": "NamesAccepted", "status": "False", "lastTransitionTime": "t",
                "reason": "ShortNamesConflict", "message": "\"r\" is already in use",
            })
        );
        assert_eq!(condition(&rep, "Established"), Some("False"));
    }
}
