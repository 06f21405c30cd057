//! Webhook configurations, admission policies and their bindings.

use serde_json::Value;

use super::cell::{UNSET, age, name, selector, size};
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::{at, text};

const PARAM_KIND: Column = Column::text("ParamKind", "Kind of the objects that parameterise it.");

pub(super) static WEBHOOKS: Printer = Printer {
    columns: &[NAME, Column::integer("Webhooks", "How many webhooks it has."), AGE],
    cells: |configuration, now| {
        vec![
            name(configuration),
            size(configuration, &["webhooks"]).into(),
            age(configuration, now),
        ]
    },
};

pub(super) static VALIDATING_POLICY: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Validations", "How many conditions it has."),
        PARAM_KIND,
        AGE,
    ],
    cells: |policy, now| {
        vec![
            name(policy),
            size(policy, &["spec", "validations"]).into(),
            param_kind(policy),
            age(policy, now),
        ]
    },
};

pub(super) static MUTATING_POLICY: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Mutations", "How many changes it makes."),
        PARAM_KIND,
        AGE,
    ],
    cells: |policy, now| {
        vec![
            name(policy),
            size(policy, &["spec", "mutations"]).into(),
            param_kind(policy),
            age(policy, now),
        ]
    },
};

pub(super) static POLICY_BINDING: Printer = Printer {
    columns: &[
        NAME,
        Column::text("PolicyName", "Which policy it puts in force."),
        Column::text("ParamRef", "With which parameters."),
        AGE,
    ],
    cells: |binding, now| {
        vec![
            name(binding),
            text(binding, &["spec", "policyName"]).into(),
            parameters(binding).into(),
            age(binding, now),
        ]
    },
};

fn param_kind(policy: &Value) -> Value {
    at(policy, &["spec", "paramKind"])
        .map_or_else(
            || UNSET.to_owned(),
            |kind| format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"])),
        )
        .into()
}

fn parameters(binding: &Value) -> String {
    let Some(reference) = at(binding, &["spec", "paramRef"]) else {
        return UNSET.to_owned();
    };
    match (text(reference, &["name"]), text(reference, &["namespace"])) {
        ("", _) if at(reference, &["selector"]).is_some() => selector(reference, &["selector"]),
        ("", _) => UNSET.to_owned(),
        // A parameter without a namespace may be in any, or in none.
        (name, "") => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    }
}
