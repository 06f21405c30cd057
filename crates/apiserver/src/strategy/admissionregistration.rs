//! Webhook configurations, admission policies and their bindings. After k/k `pkg/apis/admissionregistration/v1/defaults.go`
//! at 1.36.

use serde_json::{Value, json};

use super::walk::{Object, each, ensure_at, fill, inner};
use super::{Generation, Status, Strategy, empty_status};

/// Rules of MutatingWebhookConfigurations.
pub(super) static MUTATING_WEBHOOKS: Strategy = Strategy {
    default: |configuration| {
        default_webhooks(configuration, |webhook| fill(webhook, "reinvocationPolicy", "Never"));
    },
    generation: Generation::Spec,
    unconditional_update: false,
    ..Strategy::PLAIN
};

/// Rules of ValidatingWebhookConfigurations.
pub(super) static VALIDATING_WEBHOOKS: Strategy = Strategy {
    default: |configuration| default_webhooks(configuration, |_| {}),
    generation: Generation::Spec,
    unconditional_update: false,
    ..Strategy::PLAIN
};

/// Rules of ValidatingAdmissionPolicies.
pub(super) static VALIDATING_ADMISSION_POLICY: Strategy = Strategy {
    status: Status::Fresh(empty_status),
    ..MUTATING_ADMISSION_POLICY
};

/// Rules of MutatingAdmissionPolicies: of those nobody checks the types of expressions, so there is no status to write it to.
pub(super) static MUTATING_ADMISSION_POLICY: Strategy = Strategy {
    default: default_policy,
    generation: Generation::Spec,
    unconditional_update: false,
    ..Strategy::PLAIN
};

/// Rules of their bindings.
pub(super) static ADMISSION_POLICY_BINDING: Strategy = Strategy {
    default: |binding| {
        if let Some(resources) = ensure_at(binding, &["spec"]).and_then(|spec| inner(spec, "matchResources")) {
            default_match(resources);
        }
    },
    generation: Generation::Spec,
    unconditional_update: false,
    ..Strategy::PLAIN
};

fn default_webhooks(configuration: &mut Value, further: fn(&mut Object)) {
    let Some(configuration) = configuration.as_object_mut() else {
        return;
    };
    for webhook in each(configuration, "webhooks") {
        fill(webhook, "failurePolicy", "Fail");
        fill(webhook, "matchPolicy", "Equivalent");
        fill(webhook, "namespaceSelector", json!({}));
        fill(webhook, "objectSelector", json!({}));
        fill(webhook, "timeoutSeconds", 10);
        further(webhook);
        for rule in each(webhook, "rules") {
            fill(rule, "scope", "*");
        }
        if let Some(service) = inner(webhook, "clientConfig").and_then(|config| inner(config, "service")) {
            fill(service, "port", 443);
        }
    }
}

fn default_policy(policy: &mut Value) {
    let Some(spec) = ensure_at(policy, &["spec"]) else {
        return;
    };
    fill(spec, "failurePolicy", "Fail");
    if let Some(constraints) = inner(spec, "matchConstraints") {
        default_match(constraints);
    }
}

fn default_match(resources: &mut Object) {
    fill(resources, "matchPolicy", "Equivalent");
    fill(resources, "namespaceSelector", json!({}));
    fill(resources, "objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in each(resources, list) {
            fill(rule, "scope", "*");
        }
    }
}
