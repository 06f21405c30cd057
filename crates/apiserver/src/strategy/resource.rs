//! resource.k8s.io: claims of devices. Stored and served; no driver acts on them here. After k/k
//! `pkg/registry/resource/*/strategy.go` at 1.36.

use super::check::immutable;
use super::{Generation, Status, Strategy, empty_status};

/// Rules of ResourceClaims.
pub(super) static RESOURCE_CLAIM: Strategy = Strategy {
    validate_update: |new, old, errors| immutable(new, old, &["spec"], errors),
    status: Status::Fresh(empty_status),
    ..Strategy::PLAIN
};

/// Rules of ResourceClaimTemplates.
pub(super) static RESOURCE_CLAIM_TEMPLATE: Strategy = Strategy {
    validate_update: |new, old, errors| immutable(new, old, &["spec"], errors),
    ..Strategy::PLAIN
};

/// Rules of DeviceClasses and ResourceSlices.
pub(super) static DESCRIPTION: Strategy = Strategy {
    generation: Generation::Spec,
    ..Strategy::PLAIN
};
