//! APIService. After kube-aggregator 0.36 `pkg/apis/apiregistration`.

use super::names::Rule;
use super::walk::{ensure_at, fill, inner};
use super::{Status, Strategy, empty_status};

/// Rules of APIServices.
pub(super) static API_SERVICE: Strategy = Strategy {
    default: |service| {
        if let Some(service) = ensure_at(service, &["spec"]).and_then(|spec| inner(spec, "service")) {
            fill(service, "port", 443);
        }
    },
    name: Rule::PathSegment,
    status: Status::Fresh(empty_status),
    unconditional_update: false,
    ..Strategy::PLAIN
};
