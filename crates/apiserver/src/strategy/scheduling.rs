//! PriorityClass. After k/k `pkg/apis/scheduling` at 1.36.

use super::walk::fill;
use super::{Generation, Strategy};

/// Rules of PriorityClasses.
pub(super) static PRIORITY_CLASS: Strategy = Strategy {
    default: |class| {
        if let Some(map) = class.as_object_mut() {
            fill(map, "preemptionPolicy", "PreemptLowerPriority");
            fill(map, "value", 0);
        }
    },
    generation: Generation::Spec,
    ..Strategy::PLAIN
};
