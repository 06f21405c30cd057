//! How far a rolling update may go at this moment.
//!
//! Pure. (k/k `pkg/controller/deployment/rolling.go`, `util/deployment_util.go`: `ResolveFenceposts`,
//! `NewRSNewReplicas`; v1.36.)

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::desired;

/// False for `Recreate`.
pub(super) fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref()?.type_.as_deref());
    strategy != Some("Recreate")
}

/// How many pods may be too many, and how many may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) surge: i32,
    pub(super) unavailable: i32,
}

impl Bounds {
    /// Both are zero for `Recreate`; never more may be missing than there should be.
    pub(super) fn of(deployment: &Deployment) -> Self {
        if !is_rolling(deployment) {
            return Self {
                surge: 0,
                unavailable: 0,
            };
        }
        let replicas = desired(deployment);
        let rolling = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.strategy.as_ref()?.rolling_update.as_ref());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        Self::resolve(replicas, surge, unavailable)
    }

    /// A percentage of `replicas` is rounded up for the surge and down for what may be missing. Both zero would never
    /// move: then one may be missing.
    fn resolve(replicas: i32, surge: Option<&IntOrString>, unavailable: Option<&IntOrString>) -> Self {
        let surge = surge.map_or(0, |value| scaled(value, replicas, true));
        let unavailable = unavailable.map_or(0, |value| scaled(value, replicas, false));
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self {
            surge,
            unavailable: unavailable.min(replicas),
        }
    }
}

pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(count) => *count,
        IntOrString::String(percent) => {
            let percent: i64 = percent
                .strip_suffix('%')
                .and_then(|digits| digits.parse().ok())
                .unwrap_or_default();
            let hundredths = percent.saturating_mul(total.into());
            let rounded = if round_up {
                hundredths.saturating_add(99).div_euclid(100)
            } else {
                hundredths.div_euclid(100)
            };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

/// A ReplicaSet in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// `spec.replicas`
    pub(super) replicas: i32,
    /// `status.availableReplicas`
    pub(super) available: i32,
}

/// The size the new ReplicaSet may have now. `total` is the sum of all sets' replicas, the new one's included.
pub(super) fn new_size(is_rolling: bool, desired: i32, bounds: Bounds, new: i32, total: i32) -> i32 {
    if !is_rolling {
        return desired;
    }
    let most = desired + bounds.surge;
    if total >= most {
        return new;
    }
    new + (most - total).min(desired - new)
}

/// Old ReplicaSet number `set` goes `from` so many replicas `to` so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) set: usize,
    pub(super) from: i32,
    pub(super) to: i32,
}

/// How the old ReplicaSets, oldest first, may shrink now: replicas that are not available go first, since nobody
/// misses them, then as many available ones as the new set makes up for.
pub(super) fn shrink_old(desired: i32, bounds: Bounds, new: Size, old: &[Size]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut sizes: Vec<i32> = old.iter().map(|set| set.replicas).collect();
    let old_replicas: i32 = sizes.iter().sum();
    let least_available = desired - bounds.unavailable;
    // New replicas that are not available yet must not be counted on.
    let spare = old_replicas + new.replicas - least_available - (new.replicas - new.available);
    if old_replicas == 0 || spare <= 0 {
        return steps;
    }
    let mut shrink = |sizes: &mut [i32], set: usize, by: i32| {
        let from = sizes[set];
        sizes[set] = from - by;
        steps.push(Step {
            set,
            from,
            to: from - by,
        });
    };
    let mut cleaned = 0;
    for (set, size) in old.iter().enumerate() {
        if cleaned >= spare {
            break;
        }
        let by = (spare - cleaned).min(size.replicas - size.available);
        if size.replicas > 0 && by > 0 {
            shrink(&mut sizes, set, by);
            cleaned += by;
        }
    }
    let available = new.available + old.iter().map(|set| set.available).sum::<i32>();
    let mut left = available - least_available;
    for set in 0..old.len() {
        if left <= 0 {
            break;
        }
        let by = left.min(sizes[set]);
        if by > 0 {
            shrink(&mut sizes, set, by);
            left -= by;
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percent(value: i32) -> IntOrString {
        IntOrString::String(format!("{value}%"))
    }

    #[test]
    fn surge_rounds_up_and_unavailable_rounds_down() {
        let resolve = |replicas, surge: IntOrString, unavailable: IntOrString| {
            let bounds = Bounds::resolve(replicas, Some(&surge), Some(&unavailable));
            (bounds.surge, bounds.unavailable)
        };
        assert_eq!(resolve(10, percent(25), percent(25)), (3, 2));
        assert_eq!(resolve(3, percent(25), percent(25)), (1, 0));
        assert_eq!(resolve(1, percent(25), percent(25)), (1, 0));
        assert_eq!(resolve(10, IntOrString::Int(0), percent(5)), (0, 1));
        assert_eq!(resolve(10, IntOrString::Int(0), IntOrString::Int(0)), (0, 1));
        assert_eq!(resolve(2, IntOrString::Int(1), IntOrString::Int(5)), (1, 2));
        assert_eq!(resolve(0, IntOrString::Int(1), percent(25)), (1, 0));
    }

    /// `(desired, surge, new, total) → new size`, k/k `TestNewRSNewReplicas` and neighbours.
    #[test]
    fn the_new_set_grows_up_to_the_surge() {
        for ((desired, surge, new, total), expected) in [
            ((1, 5, 0, 0), 1),
            ((10, 0, 5, 10), 5),
            ((10, 2, 0, 10), 2),
            ((10, 2, 8, 10), 10),
            ((10, 2, 9, 10), 10),
            ((10, 2, 5, 13), 5),
            ((3, 1, 0, 3), 1),
        ] {
            let bounds = Bounds { surge, unavailable: 0 };
            assert_eq!(
                new_size(true, desired, bounds, new, total),
                expected,
                "{desired} {surge} {new} {total}"
            );
        }
        assert_eq!(
            new_size(
                false,
                7,
                Bounds {
                    surge: 0,
                    unavailable: 0
                },
                0,
                3
            ),
            7
        );
    }

    fn size(replicas: i32, available: i32) -> Size {
        Size { replicas, available }
    }

    fn sizes(desired: i32, unavailable: i32, new: Size, old: &[Size]) -> Vec<i32> {
        let mut sizes: Vec<i32> = old.iter().map(|set| set.replicas).collect();
        for step in shrink_old(desired, Bounds { surge: 0, unavailable }, new, old) {
            assert_eq!(step.from, sizes[step.set]);
            sizes[step.set] = step.to;
        }
        sizes
    }

    /// k/k `TestDeploymentController_reconcileOldReplicaSets` and `…_cleanupUnhealthyReplicas`.
    #[test]
    fn old_sets_shrink_by_what_is_not_needed() {
        assert_eq!(sizes(10, 0, size(0, 0), &[size(10, 10)]), [10]);
        assert_eq!(sizes(10, 2, size(0, 0), &[size(10, 10)]), [8]);
        // Not available: cleaned up first.
        assert_eq!(sizes(10, 2, size(0, 0), &[size(10, 8)]), [8]);
        assert_eq!(sizes(10, 2, size(0, 0), &[size(8, 8)]), [8]);
        assert_eq!(sizes(10, 2, size(2, 0), &[size(10, 9)]), [8]);
        // New ones that are available make up for old ones, oldest first.
        assert_eq!(sizes(10, 0, size(5, 5), &[size(3, 3), size(4, 4)]), [1, 4]);
        assert_eq!(sizes(3, 0, size(1, 0), &[size(3, 3)]), [3]);
        assert_eq!(sizes(3, 0, size(1, 1), &[size(3, 3)]), [2]);
    }

    proptest! {
        /// Whatever is running: one action a pass keeps both promises, and a rollout that is not blocked ends.
        #[test]
        fn the_bounds_hold_at_every_step_of_a_rollout(
            desired in 1..20i32, surge in 0..5i32, unavailable in 0..5i32, order in prop::collection::vec(any::<bool>(), 400)
        ) {
            let bounds = Bounds { surge, unavailable: if surge == 0 { unavailable.max(1) } else { unavailable }.min(desired) };
            let (mut new, mut old) = (size(0, 0), size(desired, desired));
            for pod_gets_ready in order {
                if pod_gets_ready && new.available < new.replicas {
                    new.available += 1;
                    continue;
                }
                let grown = new_size(true, desired, bounds, new.replicas, new.replicas + old.replicas);
                if grown != new.replicas {
                    new.replicas = grown;
                } else {
                    for step in shrink_old(desired, bounds, new, &[old]) {
                        old.replicas = step.to;
                    }
                    old.available = old.available.min(old.replicas);
                }
                prop_assert!(new.replicas + old.replicas <= desired + surge);
                prop_assert!(new.available + old.available >= desired - bounds.unavailable);
            }
        }
    }
}
