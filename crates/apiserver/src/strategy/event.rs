//! Event in its stored form, core/v1. After k/k `pkg/apis/core/validation/events.go` at 1.36.

use super::Strategy;

/// Rules of Events.
pub(super) static EVENT: Strategy = Strategy {
    create_on_update: true,
    ..Strategy::PLAIN
};
