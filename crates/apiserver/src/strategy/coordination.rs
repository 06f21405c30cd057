//! Lease. After k/k `pkg/apis/coordination` at 1.36.

use super::Strategy;

/// Rules of Leases.
pub(super) static LEASE: Strategy = Strategy {
    unconditional_update: false,
    create_on_update: true,
    ..Strategy::PLAIN
};
