//! Lease. After k/k `pkg/apis/coordination` at 1.36.

use apimachinery::field::{Error, Path};
use serde_json::Value;

use super::Strategy;
use super::walk::{has, int};

/// Rules of Leases.
pub(super) static LEASE: Strategy = Strategy {
    validate,
    unconditional_update: false,
    create_on_update: true,
    ..Strategy::PLAIN
};

fn validate(lease: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    let spec = lease.get("spec").unwrap_or(&Value::Null);
    if let Some(seconds) = int(spec, &["leaseDurationSeconds"]).filter(|seconds| *seconds <= 0) {
        errors.push(Error::invalid(
            &path.child("leaseDurationSeconds"),
            seconds,
            "must be greater than 0",
        ));
    }
    if let Some(times) = int(spec, &["leaseTransitions"]).filter(|times| *times < 0) {
        errors.push(Error::invalid(
            &path.child("leaseTransitions"),
            times,
            "must be greater than or equal to 0",
        ));
    }
    if has(spec, &["preferredHolder"]) && !has(spec, &["strategy"]) {
        let detail = "may only be specified if `strategy` is defined";
        errors.push(Error::forbidden(&path.child("preferredHolder"), detail));
    }
}
